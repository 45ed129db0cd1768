"""Files that exporters drop below `landing/{source}/{day}/` of a tenant, as an asset: read once, by day and digest."""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import dagster as dg

from assets.columns import EVENT, columns
from assets.external import OBJECT_STORE
from assets.partitions import GROUP
from assets.plan import LANDING, DayPlan, Failed, chosen_tenants
from assets.report import Made
from assets.step import Result, daily_asset, run_of, run_step
from assets.units import Outcome, do, told
from context_plane.landing import land_day
from context_plane.model import canonical_json, sha256_hex
from context_plane.plane import Plane
from resources.plane import OpenPlane
from resources.scope import BuildScope
from resources.workers import Workers


async def land(plane: Plane, tenant: str, day: str) -> Made:
    """Land one tenant's files that are new, and tell of all of the day. `aside`: why the first that could not be read
    could not, as a code and for the log; the others are durable."""
    landing = await land_day(plane, tenant, day)
    read = (*landing.known, *landing.landed)
    whole = {(item.source, item.digest): item for item in read}.values()  # each once, under any name
    digests = sorted(item.digest for item in whole)
    error = landing.failed[0][1] if landing.failed else None
    return Made(
        digest=sha256_hex(canonical_json(digests))[:32] if digests else "",
        rows=sum(item.rows for item in whole),
        events=sum(item.events for item in whole),
        bytes=sum(item.bytes for item in whole),
        objects=sum(len(item.batches) for item in landing.landed),
        extra=sum(item.rejected for item in whole),
        aside=None if error is None else (error.code, told(f"{tenant} {day} {LANDING}", error)),
    )


def with_files_that_failed(outcome: Outcome) -> Outcome:
    """The same, with tenants among the failed one of whose files did not land. What landed of them counts. Pure."""
    found = {tenant: made.aside for tenant, made in outcome.made.items() if made.aside is not None}
    failed = [Failed(tenant=tenant, step=LANDING, code=code) for tenant, (code, _) in found.items()]
    errors = [text for _, text in found.values()]
    return replace(outcome, failed=(*outcome.failed, *failed), errors=(*outcome.errors, *errors))


async def plan_landing(plane: Plane, scope: BuildScope, run: str, day: str) -> DayPlan:
    return DayPlan(run=run, day=day, tenants=tuple(await chosen_tenants(plane, scope)))


def _landing(
    context: dg.AssetExecutionContext,
    plane: dg.ResourceParam[OpenPlane],
    workers: dg.ResourceParam[Workers],
    scope: BuildScope,
) -> Result:
    day = context.partition_key
    planning = partial(plan_landing, plane.plane, scope, run_of(context), day)

    def doing(tenants: Mapping[str, int]) -> Outcome:
        return with_files_that_failed(do(plane, workers, tenants, day, LANDING, land))

    yield from run_step(context, plane, workers, scope, land, planning=planning, extra="rows_rejected", doing=doing)


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
        "Refused rows: `tenants/{tenant}/control/landing/{source}/{day}/{file digest}.rejects.jsonl`. Columns are "
        "those of the events that rows are mapped to."
    ),
    metadata=columns(*EVENT),
)
