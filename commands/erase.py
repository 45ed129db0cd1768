"""`context-plane erase`: one entity leaves a tenant, and a receipt says what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from commands import show
from commands.options import AsJson, Store, Tenant, is_typed, opened, run, tenant_of
from commands.outcome import DEFECTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from context_plane.errors import PlaneError
    from context_plane.fulfil import Fulfilled


def erase(
    context: typer.Context,
    entity: Annotated[
        str | None,
        typer.Argument(metavar="ENTITY", help="whom to erase; without one, every open request is worked off"),
    ] = None,
    later: Annotated[
        bool, typer.Option("--later", help="only file the request; the job erase_entities does it")
    ] = False,
    whole_tenant: Annotated[
        bool, typer.Option("--whole-tenant", help="erase the tenant named by --tenant, and revoke its keys")
    ] = False,
    tenant: Tenant = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Erase an entity for good, check that it is gone, and print the receipt. Interrupted, it is run again."""
    if entity is None and later:
        raise typer.BadParameter("--later files a request: name the entity")
    if whole_tenant:
        if entity is not None or tenant is None or not is_typed(context, "tenant"):
            raise typer.BadParameter("--whole-tenant takes --tenant NAME on the command line, and no entity")
        run(_erase_tenant(tenant, store, as_json=as_json))
        return

    async def work() -> int:
        from context_plane.audit import COMMAND
        from context_plane.erasure_requests import open_requests, request_erasure
        from context_plane.errors import PlaneError
        from context_plane.fulfil import fulfil, start
        from context_plane.reindex import build_day

        async with opened(store, probe=True) as plane:
            name = await tenant_of(plane, tenant)
            if entity is None:
                requests = await open_requests(plane.engine.store, name)
            elif later:
                _print_filed(await request_erasure(plane.engine, name, entity, actor=COMMAND), as_json=as_json)
                return 0
            else:
                requests = [await start(plane.engine, name, entity, actor=COMMAND)]
            done: list[Fulfilled] = []
            failed: dict[str, PlaneError] = {}
            for request in requests:
                try:
                    done.append(await fulfil(plane.engine, name, request, build_day=build_day, actor=COMMAND))
                except PlaneError as error:  # of one request: the others are done all the same
                    failed[request] = error
            if failed and not done:
                raise next(iter(failed.values()))
            _print_done(done, failed, as_json=as_json)
            return len(failed) + sum(len(each.problems) for each in done)

    if run(work()):
        raise SystemExit(DEFECTS)


async def _erase_tenant(tenant: str, store: str | None, *, as_json: bool) -> None:
    from context_plane.audit import COMMAND
    from context_plane.erase_tenant import erase_tenant
    from context_plane.tenants import load_tenant_erasure

    async with opened(store, probe=True) as plane:
        if await load_tenant_erasure(plane.engine.store, tenant) is None:
            await tenant_of(plane, tenant)
        receipt = await erase_tenant(plane.engine, tenant, actor=COMMAND)
    if as_json:
        show.json(receipt.model_dump())
    else:
        print(
            f"erasure {receipt.erasure}: {show.count(receipt.objects_deleted, 'object')} deleted, "
            f"{show.count(receipt.keys_revoked, 'key')} revoked; the name is never given again"
        )


def _print_filed(request: str, *, as_json: bool) -> None:
    if as_json:
        show.json({"request": request})
    else:
        print(f"request {request} is filed; nothing is hidden before `context-plane erase` or the job takes it")


def _print_done(done: list[Fulfilled], failed: Mapping[str, PlaneError], *, as_json: bool) -> None:
    if as_json:
        erasures = [{"receipt": each.receipt.model_dump(), "problems": list(each.problems)} for each in done]
        told = [{"request": name, "code": error.code, "detail": error.detail} for name, error in failed.items()]
        show.json({"erasures": erasures, "failed": told})
        return
    out = show.console()
    for each in done:
        receipt = each.receipt
        out.print(
            f"erasure {receipt.erasure}: {show.count(receipt.days_rebuilt, 'day')} rebuilt, "
            f"{show.count(receipt.months_opened, 'month')} opened, "
            f"{show.count(receipt.bundle_days_dropped, 'bundle day')} dropped, "
            f"{show.count(receipt.objects_deleted, 'object')} deleted, "
            f"{show.count(receipt.batches_redacted, 'batch', 'batches')} of the log emptied"
        )
        for problem in each.problems:
            out.print(problem, soft_wrap=True)
        if each.problems:
            out.print("the request stays open: mend the above, then run `context-plane erase` without an entity")
    for request, error in failed.items():
        out.print(f"request {request}: {error.code}: {error.detail}", soft_wrap=True)
    if not done:
        out.print("no request is open")
