"""`context-plane approve` and `reject`: bundles that wait because they would change much of what readers have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands import show
from commands.options import AsJson, Since, Store, Tenant, Until, opened, run, tenant_of

if TYPE_CHECKING:
    from context_plane.catalog.manifest import PendingBundles
    from context_plane.store import Store as PlaneStore

SpecName = Annotated[
    str | None, typer.Argument(metavar="SPEC", help="the bundle spec; without one, what waits is listed")
]


def approve(
    spec: SpecName = None,
    since: Since = None,
    until: Until = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="WHEN", help="a day, at whose end it ends, or an RFC 3339 time"),
    ] = None,
    tenant: Tenant = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Let waiting bundles of these days through, and builds of them until the approval ends. Without SPEC: list them,
    with --json by entity."""
    if spec is None:
        run(_list(store, tenant, since or "", until or "9999", as_json=as_json))
        return
    if since is None or expires is None:
        raise typer.BadParameter("an approval names its days and its end: --since (and --until), --expires")

    async def work(name: str, first: str, last: str, ends: str) -> None:
        from context_plane.settle import approve as file_and_settle

        async with opened(store, probe=True) as plane:
            who = await tenant_of(plane, tenant)
            compiled = await plane.bundles.compiled(name)
            done = await file_and_settle(
                plane.engine, plane.reader, who, compiled, since=first, until=last, expires_us=_end_us(ends)
            )
        if as_json:
            show.json({"committed": done.committed, "rebuilt": done.rebuilt})
        else:
            print(f"{name}: {_days(done.committed)} committed as they waited, {_days(done.rebuilt)} built again")

    run(work(spec, since, until or since, expires))


def reject(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="the bundle spec")],
    since: Since = None,
    until: Until = None,
    tenant: Tenant = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Drop waiting bundles of these days: readers keep what they have until a build compares anew."""
    if since is None:
        raise typer.BadParameter("name the days to drop: --since, and --until where they are more than one")

    async def work(first: str, last: str) -> None:
        from context_plane.settle import reject as drop

        async with opened(store, probe=True) as plane:
            who = await tenant_of(plane, tenant)
            gone = await drop(plane.engine, who, spec, since=first, until=last)
        if as_json:
            show.json({"rejected": gone})
        else:
            print(f"{spec}: {_days(gone)} dropped")

    run(work(since, until or since))


async def _list(store: str | None, tenant: str | None, since: str, until: str, *, as_json: bool) -> None:
    from context_plane.catalog.head import load_head

    async with opened(store) as plane:
        head = await load_head(plane.engine.store, await tenant_of(plane, tenant))
        waiting = [
            (spec, day, pending)
            for spec, by_day in sorted(head.pending.items())
            for day, pending in sorted(by_day.items())
            if since <= day <= until
        ]
        if as_json:
            show.json({"waiting": [await _told(plane.engine.store, *each) for each in waiting]})
            return
    out = show.console()
    if not waiting:
        out.print("nothing waits")
        return
    columns = ["spec", "day", ">share", ">added", ">removed", ">changed", ">unchanged", "fields"]
    out.print(show.table(columns, [_row(*each) for each in waiting]))


def _row(spec: str, day: str, pending: PendingBundles) -> list[str]:
    changes = pending.changes
    counts = (changes.added, changes.removed, changes.changed, changes.unchanged)
    fields = ", ".join(f"{name} {count}" for name, count in changes.fields.items())
    return [spec, day, f"{changes.share:.1%}", *(f"{count:,}" for count in counts), fields]


async def _told(store: PlaneStore, spec: str, day: str, pending: PendingBundles) -> dict[str, Any]:
    from context_plane.bundle.diff import decode_table

    changes = pending.changes
    entities = decode_table(await store.get(pending.table))["entities"]
    counts = {"share": changes.share, "changes": changes.model_dump()}
    return {"spec": spec, "day": day, **counts, "table": pending.table, "entities": entities}


def _end_us(text: str) -> int:
    """A day ends at its end. Raises `Invalid`."""
    from context_plane.model import day_end_us, parse_time

    return day_end_us(text) if len(text) == len("2026-03-04") else parse_time(text)


def _days(days: tuple[str, ...]) -> str:
    return show.count(len(days), "day")
