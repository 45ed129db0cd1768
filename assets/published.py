"""The data commit: per tenant one manifest that names the day's new segments and shards, after the gate.

What the gate withholds is named and stays unpublished; every other tenant-day becomes visible, and gets its bundles.
The step does not fail for a tenant: what depends on it would be skipped for all. The check `no_tenant_failed`, which
nothing waits for, fails the run in the name of every tenant that failed in any step of it.
"""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import dagster as dg

from assets.columns import fields_of
from assets.days import ENTITY_SHARDS, FULLTEXT_SHARDS, SEGMENTS, VECTOR_SHARDS
from assets.gate import CHECK, Withheld, check_result, judge
from assets.meter import metered
from assets.partitions import DAILY, GROUP
from assets.plan import Failed, end_plan, held_of, load_plan, save_plan, saved_plan
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

NO_TENANT_FAILED: Final = "no_tenant_failed"
ALONE: Final = "this run published nothing of the day: materialize `published`, and this check is made with it"


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
        gated = [Failed(tenant=item.tenant, step="published", code="check_failed") for item in withheld]
        plan = plan.with_failed([*outcome.failed, *gated])
        plane.run(save_plan(plane.plane.engine.store, plan))
    log_errors(context, outcome)
    shown = replace(outcome.only(committed.made), units=judged.units)  # the commits are this step's own
    checks = [check_result(day, len(judged.made), withheld)]
    before = published_before(plan, "published")
    yield result_of(context, shown, meter, failed=plan.failed, held=before, checks=checks)


def _check_spec(name: str, description: str) -> dg.AssetCheckSpec:
    """Of a check that holds nothing back: what depends on `published` is made of what is published."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(name, asset=PUBLISHED, partitions_def=DAILY, description=description)


GATE_SPEC: Final = _check_spec(
    CHECK,
    "Every new object is what was written, read back and hashed before the commit; rows of the three shards and events "
    "of the segments agree, the events are those that the log and the day as published say, and a graph over its "
    "vectors finds the nearest rows. A tenant-day that fails is withheld; the others are published; then this check "
    "fails.",
)
FAILED_SPEC: Final = _check_spec(
    NO_TENANT_FAILED,
    "No tenant failed in any step of the day's run, from its landed files to the commit. The others are published, and "
    "get their bundles; then this check fails, and the run with it, so that it is tried again.",
)


@dg.multi_asset_check(specs=[FAILED_SPEC], name=NO_TENANT_FAILED)
def no_tenant_failed(
    context: dg.AssetCheckExecutionContext, plane: dg.ResourceParam[OpenPlane]
) -> Iterator[dg.AssetCheckResult]:
    """Fails the run that failed a tenant. One that did not publish is not judged: its verdict would replace that of the
    run that did."""
    day, store = context.partition_key, plane.plane.engine.store
    with metered() as meter:
        plan = plane.run(saved_plan(store, run_of(context), day))
        if plan is None:
            raise dg.Failure(ALONE, allow_retries=False)
        plane.run(end_plan(store, plan))
    spent = {name: getattr(meter.spent, name) for name in ("gets", "puts", "lists", "bytes_read", "bytes_written")}
    told = failure(day, plan.failed) if plan.failed else None
    yield dg.AssetCheckResult(
        passed=told is None,
        asset_key=PUBLISHED,
        check_name=NO_TENANT_FAILED,
        severity=dg.AssetCheckSeverity.ERROR,
        description="none failed" if told is None else told.description,
        metadata={"failed": len({item.tenant for item in plan.failed}), **spent},
    )
    if told is not None:
        raise told


PUBLISHED_DAYS: Final = daily_asset(
    _published,
    key=PUBLISHED,
    deps=[SEGMENTS, VECTOR_SHARDS, ENTITY_SHARDS, FULLTEXT_SHARDS],
    group_name=GROUP,
    kinds={"manifest"},
    tags={"layer": "commit"},
    check_specs=[GATE_SPEC],
    description=(
        "The data commit. Until here everything is an unreferenced object; with the next manifest of a tenant the "
        "day's segments and shards become visible together, and the log up to the covered number is done with. Columns "
        "are those of the day's entry in a manifest."
    ),
    metadata=fields_of(DayEntry),
)
