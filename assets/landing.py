"""Files that exporters drop below `landing/{source}/{day}/` of a tenant, as an asset: read once, by digest."""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
from typing import Final

import dagster as dg

from assets.external import OBJECT_STORE
from assets.partitions import GROUP
from assets.plan import LANDING, DayPlan, chosen_tenants
from assets.report import Made
from assets.step import Result, daily_asset, run_of, run_step
from context_plane.landing import land_day
from context_plane.model import canonical_json, sha256_hex
from context_plane.plane import Plane
from resources.plane import OpenPlane
from resources.scope import BuildScope
from resources.workers import Workers


async def land(plane: Plane, tenant: str, day: str) -> Made:
    """Land one tenant's files. A file that cannot be read is raised once the others are durable."""
    landing = await land_day(plane, tenant, day)
    if landing.failed:
        raise landing.failed[0][1]
    files = sorted(item.digest for item in (*landing.landed, *landing.known))
    return Made(
        digest=sha256_hex(canonical_json(files))[:32] if files else "",
        rows=sum(item.rows for item in landing.landed),
        events=sum(item.events for item in landing.landed),
        bytes=sum(item.bytes for item in landing.landed),
        objects=sum(len(item.batches) for item in landing.landed),
        extra=sum(item.rejected for item in landing.landed),
    )


def _landing(
    context: dg.AssetExecutionContext,
    plane: dg.ResourceParam[OpenPlane],
    workers: dg.ResourceParam[Workers],
    scope: BuildScope,
) -> Result:
    tenants = plane.run(chosen_tenants(plane.plane, scope))
    plan = DayPlan(run=run_of(context), day=context.partition_key, tenants=tuple(tenants))
    yield from run_step(context, plane, workers, scope, land, plan=plan, extra="rows_rejected")


LANDED: Final = daily_asset(
    _landing,
    name=LANDING,
    deps=[OBJECT_STORE],
    group_name=GROUP,
    kinds={"csv", "parquet", "jsonl"},
    tags={"layer": "source"},
    description=(
        "Exports under `tenants/{tenant}/landing/{source}/{yyyy}/{mm}/{dd}/`, mapped to events and appended to the "
        "log, each file once. Mapping: `tenants/{tenant}/control/mappings/{source}.yaml`, else the shipped one. "
        "Refused rows: `tenants/{tenant}/control/landing/{source}/{file digest}.rejects.jsonl`."
    ),
)
