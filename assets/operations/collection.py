"""Collecting garbage: what no live manifest names and no build can still name is deleted."""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from assets.operations.operate import AS_TOLD, Tenants, Told, operate
from context_plane.collect import HOUR_US, collect
from context_plane.plane import Plane
from resources.plane import OpenPlane

KINDS = ("segment", "shard", "bundle", "list", "log", "manifest", "staging", "claim")
COUNTS = ("objects", "bytes", "spared", *(f"{kind}_objects" for kind in KINDS))
ADVICE = "Nothing live was touched. Mend the cause, then run the job again: a collection starts anew every time."


class CollectConfig(Tenants):
    """A dry run by default: counts what would be deleted."""

    dry_run: bool = Field(default=True, description="only count; false: delete")
    snapshot_hours: int = Field(
        default=24, ge=24, le=720, description="hours a snapshot lives after a newer one exists"
    )


async def collect_tenant(plane: Plane, tenant: str, config: CollectConfig) -> Told:
    report = await collect(
        plane.engine, tenant, dry_run=config.dry_run, snapshot_ttl_us=config.snapshot_hours * HOUR_US
    )
    counts = {f"{kind}_objects": tally.objects for kind, tally in report.by_kind.items()}
    counts["objects"] = sum(tally.objects for tally in report.by_kind.values())
    counts["bytes"] = sum(tally.bytes for tally in report.by_kind.values())
    counts["spared"] = report.spared
    return Told(counts)


@dg.op(name="collect", out=dg.Out(dg.Nothing), description="Mark, list, fence, mark again, delete.")
def _collect(
    context: dg.OpExecutionContext, config: CollectConfig, plane: dg.ResourceParam[OpenPlane]
) -> Iterator[dg.Output[None]]:
    async def work(opened: Plane, tenant: str) -> Told:
        return await collect_tenant(opened, tenant, config)

    told = {"dry_run": config.dry_run}
    yield from operate(context, plane, config.tenants, work, counts=COUNTS, advice=ADVICE, more=told)


@dg.job(
    name="collect_garbage",
    config=dg.RunConfig(ops={"collect": CollectConfig()}),
    tags=AS_TOLD,
    description=(
        "Deletes objects that no manifest of the last day names and that are older than a day. A dry run by default: "
        "it counts them by kind."
    ),
)
def collect_garbage() -> None:
    _collect()
