"""Verifying: a sample of every tenant is made again from the system of record and compared with its manifest."""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from assets.operations.operate import AS_TOLD, Tenants, Told, operate
from context_plane.plane import Plane
from context_plane.verify import Sample, verify_tenant
from resources.plane import OpenPlane

COUNTS = ("mismatches", "days", "months", "bundle_days", "stale_bundle_days", "events", "rows", "embedded", "bytes")
ADVICE = (
    "Segments are the truth: where they are damaged, restore them from a backup of the store. Where an index or "
    "bundles are, materialize the named days again (bundles alone: the job build_bundles); for `rollups` build a "
    "day of the month and then roll it up. Then verify with the same seed."
)


class VerifyConfig(Tenants):
    """The same seed chooses the same sample, as long as the same days are built."""

    days: int = Field(default=3, ge=0, le=10_000, description="days of each tenant")
    months: int = Field(default=1, ge=0, le=1_000, description="rolled months of each tenant")
    bundle_days: int = Field(default=1, ge=0, le=10_000, description="bundle days of each tenant and spec")
    embed_rows: int = Field(default=256, ge=0, description="rows of each day whose texts are embedded again")
    seed: int = Field(default=0, description="chooses the sample")


async def verify(plane: Plane, tenant: str, config: VerifyConfig) -> Told:
    wanted = Sample(config.days, config.months, config.bundle_days, config.embed_rows, config.seed)
    checked = await verify_tenant(plane.engine, plane.reader, tenant, wanted, plane.bundles.compiled, plane.specs)
    return Told(checked.counts(), remarks=tuple(str(finding) for finding in checked.findings))


@dg.op(name="verify", out=dg.Out(dg.Nothing), description="Reads, rebuilds in memory and compares. Commits nothing.")
def _verify(
    context: dg.OpExecutionContext, config: VerifyConfig, plane: dg.ResourceParam[OpenPlane]
) -> Iterator[dg.Output[None]]:
    async def work(opened: Plane, tenant: str) -> Told:
        return await verify(opened, tenant, config)

    told = {"seed": config.seed}
    yield from operate(context, plane, config.tenants, work, counts=COUNTS, advice=ADVICE, more=told)


@dg.job(
    name="verify_sample",
    config=dg.RunConfig(ops={"verify": VerifyConfig()}),
    tags=AS_TOLD,
    description=(
        "Rebuilds a sample of days, months and bundles from the system of record, in memory, and compares contents and "
        "stored bytes with the manifests. Mismatches are named, and fail the run."
    ),
)
def verify_sample() -> None:
    _verify()
