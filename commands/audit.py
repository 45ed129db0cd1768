"""`context-plane audit`: who did what, read from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from commands import show
from commands.options import AsJson, Since, Store, Tenant, Until, is_typed, opened, run, tenant_of

if TYPE_CHECKING:
    from context_plane.plane import Plane

PAGE: Final = 500
"""Entries read at a time."""


def audit(
    context: typer.Context,
    tenant: Tenant = None,
    operator: Annotated[bool, typer.Option("--operator", help="calls that concern the store, not a tenant")] = False,
    writes: Annotated[bool, typer.Option("--writes", help="who wrote, instead of who called")] = False,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="entries at most")] = 1_000,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Print who changed keys, settings and entities, or who wrote; oldest first."""
    if operator and (writes or is_typed(context, "tenant")):
        raise typer.BadParameter("--operator tells the calls that belong to no tenant")

    async def work() -> None:
        from context_plane.model import day_end_us, day_start_us

        since_us = None if since is None else day_start_us(since)
        until_us = None if until is None else day_end_us(until)
        async with opened(store) as plane:
            name = None if operator else await _tenant(plane, tenant)
            if writes:
                assert name is not None
                await _print_writes(plane, name, since_us, until_us, limit, as_json=as_json)
            else:
                await _print_calls(plane, name, since_us, until_us, limit, as_json=as_json)

    run(work())


async def _tenant(plane: Plane, tenant: str | None) -> str:
    """As any command's, or an erased one."""
    from context_plane.tenants import load_tenant_erasure

    if tenant is not None and await load_tenant_erasure(plane.engine.store, tenant) is not None:
        return tenant
    return await tenant_of(plane, tenant)


async def _print_calls(
    plane: Plane, tenant: str | None, since_us: int | None, until_us: int | None, limit: int, *, as_json: bool
) -> None:
    from context_plane.audit import read_calls

    found: list[dict[str, Any]] = []
    after = None
    while len(found) < limit:
        size = min(PAGE, limit - len(found))
        page = await read_calls(
            plane.engine.store, tenant, since_us=since_us, until_us=until_us, after=after, limit=size
        )
        found += [call.describe() for call in page.calls]
        after = page.next_after
        if after is None:
            break
    if as_json:
        show.json({"calls": found})
        return
    rows = [
        [each["at"], each["actor"], each["action"], each["subject"] or "-", each["outcome"], _counts(each["counts"])]
        for each in found
    ]
    show.console().print(
        show.table(["at", "actor", "action", "subject", "outcome", "counts"], rows) if rows else "no call is recorded"
    )


async def _print_writes(
    plane: Plane, tenant: str, since_us: int | None, until_us: int | None, limit: int, *, as_json: bool
) -> None:
    from context_plane.audit import read_batches

    found: list[dict[str, Any]] = []
    after = 0
    while len(found) < limit:
        size = min(PAGE, limit - len(found))
        page = await read_batches(
            plane.engine.store, tenant, since_us=since_us, until_us=until_us, after=after, limit=size
        )
        found += [batch.describe() for batch in page.batches]
        if page.next_after is None:
            break
        after = page.next_after
    if as_json:
        show.json({"batches": found})
        return
    rows = [
        [each["at"], str(each["batch"]), origin["actor"], origin["request"] or "-", str(origin["writes"])]
        for each in found
        for origin in each["requests"]
    ]
    show.console().print(
        show.table(["at", "batch", "actor", "request", "writes"], rows) if rows else "no write is recorded"
    )


def _counts(counts: dict[str, int]) -> str:
    return " ".join(f"{name}={number}" for name, number in counts.items()) or "-"
