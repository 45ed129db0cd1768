"""`context-plane verify` and `collect`: the jobs of the same names, from a shell and without Dagster."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from commands import show
from commands.each import Done, each_tenant, print_failures
from commands.options import AsJson, Store, Tenants, opened, run
from commands.outcome import DEFECTS

if TYPE_CHECKING:
    from context_plane.collect import CollectReport
    from context_plane.verify import Checked

EVERY_MAX: Final = 1_000_000
"""Of days, months and bundle days of a tenant: more than there can be."""
MEND: Final = (
    "segments are the truth: restore damaged ones from a backup. Build the named days again for indexes and bundles; "
    "for rollups build a day of the month, then roll it up. Then verify with the same seed."
)


def verify(
    days: Annotated[int, typer.Option("--days", min=0, metavar="N", help="days of each tenant")] = 3,
    months: Annotated[int, typer.Option("--months", min=0, metavar="N", help="rolled months of each tenant")] = 1,
    bundle_days: Annotated[int, typer.Option("--bundle-days", min=0, metavar="N", help="of each tenant and spec")] = 1,
    embed_rows: Annotated[
        int, typer.Option("--embed-rows", min=0, metavar="N", help="rows of each day to embed again")
    ] = 256,
    everything: Annotated[
        bool, typer.Option("--all", help="every day, month and bundle day, instead of a sample")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="chooses the sample")] = 0,
    tenants: Tenants = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Make a sample again from the system of record, and compare it with what is stored. Writes nothing.

    The same seed checks the same sample, as long as the same days are built."""

    async def work() -> Done[Checked]:
        from context_plane.verify import Sample, verify_tenant

        counts = (EVERY_MAX, EVERY_MAX, EVERY_MAX) if everything else (days, months, bundle_days)
        wanted = Sample(*counts, embed_rows=embed_rows, seed=seed)
        async with opened(store) as plane:
            compiled = plane.bundles.compiled
            return await each_tenant(
                plane,
                tenants,
                "verifying",
                lambda tenant: verify_tenant(plane.engine, plane.reader, tenant, wanted, compiled, plane.specs),
            )

    done = run(work())
    if as_json:
        told = [
            {"tenant": tenant, **checked.counts(), "findings": [asdict(each) for each in checked.findings]}
            for tenant, checked in done.told.items()
        ]
        show.json({"seed": seed, "tenants": told, "failed": done.failures()})
    else:
        _print_verified(done, seed)
    if done.failed or any(checked.findings for checked in done.told.values()):
        raise SystemExit(DEFECTS)


def collect(
    delete: Annotated[bool, typer.Option("--delete", help="delete; without it they are only counted")] = False,
    snapshot_hours: Annotated[
        int,
        typer.Option("--snapshot-hours", min=24, max=720, metavar="N", help="how long snapshots live once replaced"),
    ] = 24,
    tenants: Tenants = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Count the objects that no live manifest names, or delete them. A dry run unless told otherwise.

    What is younger than a day stays, and so does whatever a snapshot may still read."""

    async def work() -> Done[CollectReport]:
        from context_plane.collect import HOUR_US
        from context_plane.collect import collect as collect_one

        life_us = snapshot_hours * HOUR_US
        async with opened(store, probe=delete) as plane:
            return await each_tenant(
                plane,
                tenants,
                "collecting",
                lambda tenant: collect_one(plane.engine, tenant, dry_run=not delete, snapshot_ttl_us=life_us),
            )

    done = run(work())
    if as_json:
        told = [
            {
                "tenant": tenant,
                "objects": sum(tally.objects for tally in report.by_kind.values()),
                "bytes": sum(tally.bytes for tally in report.by_kind.values()),
                "spared": report.spared,
                "kinds": {kind: asdict(tally) for kind, tally in sorted(report.by_kind.items())},
            }
            for tenant, report in done.told.items()
        ]
        show.json({"dry_run": not delete, "tenants": told, "failed": done.failures()})
    else:
        _print_collected(done, delete=delete)
    if done.failed:
        raise SystemExit(DEFECTS)


# --- leaves -------------------------------------------------------------------------------------


def _print_verified(done: Done[Checked], seed: int) -> None:
    out = show.console()
    columns = ["tenant", ">days", ">months", ">bundle days", ">events", ">rows", ">embedded", ">read", "found"]
    rows = []
    for tenant, checked in done.told.items():
        counted = [checked.days, checked.months, checked.bundle_days, checked.events, checked.rows, checked.embedded]
        found = show.count(len(checked.findings), "mismatch", "mismatches") if checked.findings else "as written"
        rows.append([tenant, *(f"{each:,}" for each in counted), show.size(checked.bytes), found])
    if rows:
        out.print(show.table(columns, rows))
    stale = sum(checked.stale for checked in done.told.values())
    if stale:
        told = f"{show.count(stale, 'stale bundle day')}: the sources are gone, so the stored bytes alone were checked"
        out.print(told)
    for tenant, checked in done.told.items():
        for finding in checked.findings:
            out.print(f"{tenant}: {finding}", soft_wrap=True)
    if any(checked.findings for checked in done.told.values()):
        out.print(MEND)
    print_failures(done)
    if not done.told and not done.failed:
        out.print("the store has no tenant: nothing to verify")
    elif rows:
        out.print(f"the sample of seed {seed}; another --seed checks another one", style="dim")


def _print_collected(done: Done[CollectReport], *, delete: bool) -> None:
    out = show.console()
    rows = [
        [tenant, kind, f"{tally.objects:,}", show.size(tally.bytes)]
        for tenant, report in done.told.items()
        for kind, tally in sorted(report.by_kind.items())
    ]
    objects = sum(tally.objects for report in done.told.values() for tally in report.by_kind.values())
    held = sum(tally.bytes for report in done.told.values() for tally in report.by_kind.values())
    if rows:
        out.print(show.table(["tenant", "kind", ">objects", ">bytes"], rows))
    told = f"{show.count(objects, 'object')}, {show.size(held)}"
    if delete:
        out.print(f"deleted {told}")
    elif objects:
        out.print(f"to be deleted: {told}; nothing was: run it again with --delete")
    else:
        out.print(f"nothing to delete in {show.count(len(done.told), 'tenant')}")
    print_failures(done)
