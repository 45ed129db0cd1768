"""Approving: bundles that wait because they change much of what readers have are let through, or dropped.

An approval names a spec, days and an end. What waits is committed as it is while its sources are the same, else built
again. A run's configuration names no entity.
"""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from assets.operations.operate import AS_TOLD, Tenants, Told, operate
from context_plane.catalog.head import load_head
from context_plane.plane import Plane
from context_plane.settle import approve, reject
from resources.plane import OpenPlane

COUNTS = ("waiting", "committed", "rebuilt", "rejected")
ADVICE = "What was let through or dropped stays so. Mend the cause, then run the job again."
HOUR_US = 3600 * 1_000_000


class ApproveConfig(Tenants):
    """Without a spec the run only counts what waits."""

    spec: str = Field(default="", description="name of the spec; empty: only count what waits")
    since: str = Field(default="", description="first day, YYYY-MM-DD")
    until: str = Field(default="", description="last day, included")
    expires_hours: int = Field(default=24, ge=1, le=744, description="how long builds of these days need no other")
    reject: bool = Field(default=False, description="drop what waits for these days instead")


async def settle(plane: Plane, tenant: str, config: ApproveConfig) -> Told:
    """Approve or reject what waits for one tenant; `waiting`: what is left then."""
    counts: dict[str, int] = {}
    if config.spec and config.reject:
        gone = await reject(plane.engine, tenant, config.spec, since=config.since, until=config.until)
        counts["rejected"] = len(gone)
    elif config.spec:
        spec = await plane.bundles.compiled(config.spec)
        expires_us = plane.engine.now_us() + config.expires_hours * HOUR_US
        done = await approve(
            plane.engine, plane.reader, tenant, spec, since=config.since, until=config.until, expires_us=expires_us
        )
        counts |= {"committed": len(done.committed), "rebuilt": len(done.rebuilt)}
    head = await load_head(plane.engine.store, tenant)
    left = {spec: sorted(days) for spec, days in head.pending.items() if days}
    named = "; ".join(f"{spec}: {days[0]} to {days[-1]}" for spec, days in left.items())
    return Told({**counts, "waiting": sum(map(len, left.values()))}, note=named)


@dg.op(name="approve", out=dg.Out(dg.Nothing), description="Files an approval and commits what waits, or drops it.")
def _approve(
    context: dg.OpExecutionContext, config: ApproveConfig, plane: dg.ResourceParam[OpenPlane]
) -> Iterator[dg.Output[None]]:
    if config.spec and not (config.since and config.until):
        raise dg.Failure("name the days too: `since` and `until`", allow_retries=False)

    async def work(opened: Plane, tenant: str) -> Told:
        return await settle(opened, tenant, config)

    yield from operate(context, plane, config.tenants, work, counts=COUNTS, advice=ADVICE)


@dg.job(
    name="approve_bundles",
    config=dg.RunConfig(ops={"approve": ApproveConfig()}),
    tags=AS_TOLD,
    description=(
        "Lets bundles through that wait for an approval, of one spec and some days, or drops them. By default it only "
        "counts what waits."
    ),
)
def approve_bundles() -> None:
    _approve()
