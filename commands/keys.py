"""`context-plane keys`: make, list, rotate and revoke API keys, straight in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from commands import show
from commands.options import AsJson, Store, opened, run

if TYPE_CHECKING:
    from context_plane.access import AccessKey, NewKey

app: Final = typer.Typer(help="Make, list, rotate and revoke API keys.", no_args_is_help=True)

DAY_US: Final = 86_400_000_000
HOUR_US: Final = 3_600_000_000


@app.command()
def create(
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="the tenant it opens")] = None,
    operator: Annotated[bool, typer.Option("--operator", help="a key that opens every tenant")] = False,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write or admin; repeat it", show_default="read")
    ] = None,
    days: Annotated[int | None, typer.Option("--days", min=1, max=36_500, help="until it expires")] = None,
    note: Annotated[str, typer.Option(help="what it is for")] = "",
    requests_per_s: Annotated[
        float | None, typer.Option("--requests-per-s", help="of each process; default: the tenant's")
    ] = None,
    bytes_per_s: Annotated[
        float | None, typer.Option("--bytes-per-s", help="gone through and answered; default: the tenant's")
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it: this once, for the store keeps only its digest."""
    if operator == (tenant is not None):
        raise typer.BadParameter("name one tenant, or make it an --operator key")

    async def work() -> None:
        from context_plane.access import create_key
        from context_plane.audit import COMMAND

        async with opened(store, probe=True) as plane:
            expires_us = None if days is None else plane.engine.now_us() + days * DAY_US
            made = await create_key(
                plane.engine,
                tenant=tenant,
                scopes=scope or ["read"],
                expires_us=expires_us,
                note=note,
                requests_per_s=requests_per_s,
                bytes_per_s=bytes_per_s,
                actor=COMMAND,
            )
            _print_new(made, as_json=as_json)

    run(work())


@app.command("list")
def list_(store: Store = None, as_json: AsJson = False) -> None:
    """Every key, oldest first."""

    async def work() -> None:
        from context_plane.access import list_keys

        async with opened(store) as plane:
            records = [_record(key) for key in await list_keys(plane.engine.store)]
            if as_json:
                show.json({"keys": records})
                return
            rows = [[str(record[name] or "-") for name in record] for record in records]
            show.console().print(
                show.table([name.replace("_per_s", "/s") for name in records[0]], rows)
                if rows
                else "no key: the service serves this store on loopback only"
            )

    run(work())


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")], store: Store = None, as_json: AsJson = False) -> None:
    """End a key for good; running services obey within seconds."""

    async def work() -> None:
        from context_plane.access import revoke_key
        from context_plane.audit import COMMAND

        async with opened(store, probe=True) as plane:
            key = await revoke_key(plane.engine, key_id, actor=COMMAND)
            if as_json:
                show.json(_record(key))
            else:
                print(f"{key.id} is revoked")

    run(work())


@app.command()
def rotate(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    grace_hours: Annotated[
        int, typer.Option("--grace-hours", min=0, max=24 * 90, help="how long the old one still works")
    ] = 24,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Make a key with the tenant, scopes, rates and lifetime of another, which then ends. Prints the new one."""

    async def work() -> None:
        from context_plane.access import rotate_key
        from context_plane.audit import COMMAND

        async with opened(store, probe=True) as plane:
            made = await rotate_key(plane.engine, key_id, grace_us=grace_hours * HOUR_US, actor=COMMAND)
            _print_new(made, as_json=as_json)

    run(work())


def _print_new(made: NewKey, *, as_json: bool) -> None:
    if as_json:
        show.json({**_record(made.key), "token": made.token})
    else:
        print(made.token)


def _record(key: AccessKey) -> dict[str, Any]:
    from context_plane.model import format_time

    def moment(ts_us: int | None) -> str | None:
        return None if ts_us is None else format_time(ts_us - ts_us % 1_000_000)

    return {
        "id": key.id,
        "tenant": key.tenant or "(every)",
        "scopes": " ".join(sorted(key.scopes)),
        "created": moment(key.created_us),
        "expires": moment(key.ends_us),
        "revoked": moment(key.revoked_us),
        "requests_per_s": key.requests_per_s,
        "bytes_per_s": key.bytes_per_s,
        "note": key.note,
    }
