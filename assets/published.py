"""The data commit: per tenant one manifest that names the day's new segments and shards, after the gate.

What the gate withholds is named and stays unpublished; every other tenant-day becomes visible; then the check
fails. Tenants that failed in an earlier step of the run are named here too, and fail this step last.
"""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import dagster as dg

from assets.columns import fields_of
from assets.days import ENTITY_SHARDS, FULLTEXT_SHARDS, SEGMENTS, VECTOR_SHARDS
from assets.gate import CHECK, Withheld, check_result, judge
from assets.meter import metered
from assets.partitions import DAILY, GROUP
from assets.plan import end_plan, held_of, load_plan
from assets.report import Made
from assets.step import PUBLISHED, Result, daily_asset, failure, log_errors, published_before, result_of, run_of
from assets.units import do, each_tenant, joined
from context_plane.catalog.manifest import DayEntry
from context_plane.plane import Plane
from context_plane.publish import publish_staged
from context_plane.staging import Staged, load_staged
from resources.plane import OpenPlane
from resources.scope import BuildScope
from resources.workers import Workers


async def verdict(plane: Plane, tenant: str, day: str) -> Made:
    """Judge one tenant-day; `aside`: why it is withheld, or the `Staged` that passed."""
    staged = await load_staged(plane.engine.store, tenant, day)
    return Made("", aside=await judge(plane, staged) or staged)


async def publish(plane: Plane, tenant: str, day: str, *, passed: Mapping[str, Staged]) -> Made:
    """Commit one tenant-day as it was judged, whatever another run staged since; nothing where it came out as it is
    published. Of two runs from the same sources the later is refused (`build_stale`)."""
    published = await publish_staged(plane.engine, passed[tenant])
    return Made(**held_of(published.entry)["published"].model_dump(), objects=0 if published.unchanged else 1)


def _published(
    context: dg.AssetExecutionContext,
    plane: dg.ResourceParam[OpenPlane],
    workers: dg.ResourceParam[Workers],
    scope: BuildScope,
) -> Result:
    day = context.partition_key
    with metered() as meter:
        plan = plane.run(load_plan(plane.plane, scope, run_of(context), day))
        asked = plan.weights()
        judged = do(plane, workers, asked, day, "published", verdict)
        withheld = [made.aside for made in judged.made.values() if isinstance(made.aside, Withheld)]
        passed = {tenant: made.aside for tenant, made in judged.made.items() if isinstance(made.aside, Staged)}
        committing = partial(publish, passed=passed)
        committed = plane.run(each_tenant(plane.plane, list(passed), day, "published", committing))
        outcome = joined([judged, committed])
        plan = plan.with_failed(outcome.failed)
        plane.run(end_plan(plane.plane.engine.store, plan))
    log_errors(context, outcome)
    shown = replace(outcome.only(committed.made), units=judged.units)  # the commits are this step's own
    checks = [check_result(day, len(judged.made), withheld)]
    before = published_before(plan, "published")
    yield result_of(context, shown, meter, failed=plan.failed, held=before, checks=checks)
    if plan.failed:
        raise failure(day, plan.failed)


def _check_spec() -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            CHECK,
            asset=PUBLISHED,
            blocking=True,
            partitions_def=DAILY,
            description=(
                "Every new object is what was written, read back and hashed before the commit; rows of the three "
                "shards and events of the segments agree, the events are those that the log and the day as published "
                "say, and a graph over its vectors finds the nearest rows. A tenant-day that fails is withheld; the "
                "others are published; then this check fails."
            ),
        )


PUBLISHED_DAYS: Final = daily_asset(
    _published,
    key=PUBLISHED,
    deps=[SEGMENTS, VECTOR_SHARDS, ENTITY_SHARDS, FULLTEXT_SHARDS],
    group_name=GROUP,
    kinds={"manifest"},
    tags={"layer": "commit"},
    check_specs=[_check_spec()],
    description=(
        "The data commit. Until here everything is an unreferenced object; with the next manifest of a tenant the "
        "day's segments and shards become visible together, and the log up to the covered number is done with. Columns "
        "are those of the day's entry in a manifest."
    ),
    metadata=fields_of(DayEntry),
)
