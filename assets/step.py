"""How every asset runs: its tenants cut into units, failures named and carried, the sums reported.

A step goes on when tenants fail, and so does the run, as long as `published` follows: a check beside it will fail in
their name, and nothing waits for that. A step without such a successor fails itself, after the others were processed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import dagster as dg

from assets.meter import Meter, metered
from assets.partitions import DAILY
from assets.plan import DayPlan, Failed, load_plan, save_plan
from assets.report import SERIES_MAX, Made, data_version, metadata, name_failures, plot
from assets.units import Outcome, Work, do, each_tenant
from context_plane.errors import CODES
from resources.plane import OpenPlane
from resources.scope import BuildScope
from resources.workers import Workers

OWNERS: Final = ["team:context-plane"]
PUBLISHED: Final = dg.AssetKey("published")

Result: TypeAlias = Iterator[dg.MaterializeResult[Any]]


def daily_asset(function: Callable[..., Any], **options: Any) -> dg.AssetsDefinition:
    """An asset of the daily partitions."""
    return partitioned_asset(function, DAILY, **options)


def partitioned_asset(
    function: Callable[..., Any], partitions: dg.PartitionsDefinition, **options: Any
) -> dg.AssetsDefinition:
    """An asset of these partitions, under the one owner and backfill policy: Dagster's own, a run for each partition.
    A day is the unit of work, of retry and of commit, and checks are recorded under the day of such runs alone: of runs
    of a range, which every policy that is named makes, they are under none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # of partitioned checks; the version is pinned
        made = dg.asset(partitions_def=partitions, owners=OWNERS, **options)(function)
    assert isinstance(made, dg.AssetsDefinition)
    return made


def run_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> str:
    """The run, or for a retry the one that it retries: steps that succeeded there are not run again."""
    return context.run.root_run_id or context.run.run_id


def run_step(
    context: dg.AssetExecutionContext,
    opened: OpenPlane,
    workers: Workers,
    scope: BuildScope,
    work: Work,
    *,
    planning: Callable[[], Coroutine[Any, Any, DayPlan]] | None = None,
    extra: str = "",
    doing: Callable[[Mapping[str, int]], Outcome] | None = None,
) -> Result:
    """One of the assets before the commit. `planning` absent: the run's plan is taken. `extra`: metadata name of
    `Made.extra`. `doing`: how the work is shared, given the bytes of each tenant's input; absent: as `do` shares it."""
    step, day = context.asset_key.to_user_string(), context.partition_key
    with metered() as meter:
        plan = opened.run(planning() if planning else load_plan(opened.plane, scope, run_of(context), day))
        outcome = doing(plan.weights()) if doing else do(opened, workers, plan.weights(), day, step, work)
        after = plan.with_failed(outcome.failed)
        opened.run(save_plan(opened.plane.engine.store, after))
    mine = [item for item in after.failed if item.step == step]
    yield result_of(context, outcome, meter, failed=mine, held=published_before(plan, step), extra=extra)
    log_errors(context, outcome)
    if mine and (not after.left() or not _is_published_later(context)):
        raise failure(day, mine)


def result_of(
    context: dg.AssetExecutionContext,
    outcome: Outcome,
    meter: Meter,
    *,
    failed: Sequence[Failed],
    held: Mapping[str, Made],
    extra: str = "",
    more: Mapping[str, Any] | None = None,
    checks: Sequence[dg.AssetCheckResult] = (),
) -> dg.MaterializeResult[Any]:
    """Of the partition as it is now. `held`: what it had of tenants before, which counts where the run made nothing of
    them. `more`: metadata of this step alone."""
    kept = {tenant: item for tenant, item in held.items() if tenant not in outcome.made}
    whole = {**kept, **outcome.made}
    told = {**metadata(outcome.made, failed, meter.spent, meter.seconds, kept=kept), **(more or {})}
    told |= {"units": outcome.units, "workers_lost": outcome.lost}
    told |= plot(whole, _rows_before(context), context.partition_key)
    if extra:
        told[extra] = sum(item.extra for item in whole.values())
    version = data_version({tenant: item.digest for tenant, item in whole.items()})
    return dg.MaterializeResult(metadata=told, data_version=version, check_results=list(checks))


def published_before(plan: DayPlan, step: str) -> dict[str, Made]:
    """What the day had of an asset before the run, by tenant."""
    return {tenant: Made(**found[step].model_dump()) for tenant, found in plan.held.items() if step in found}


def held_by(opened: OpenPlane, failed: Sequence[Failed], partition: str, step: str, work: Work) -> dict[str, Made]:
    """What `work` finds of tenants that failed; nothing of those that cannot be read."""
    names = sorted({item.tenant for item in failed})
    return dict(opened.run(each_tenant(opened.plane, names, partition, step, work)).made)


def _rows_before(context: dg.AssetExecutionContext) -> dict[str, float]:
    """Rows of the asset's latest materializations by partition."""
    filter_ = dg.AssetRecordsFilter(asset_key=context.asset_key)
    found: dict[str, float] = {}
    for record in context.instance.fetch_materializations(filter_, limit=2 * SERIES_MAX).records:
        made = record.asset_materialization
        rows = None if made is None else made.metadata.get("rows")
        if record.partition_key and rows is not None:
            found.setdefault(record.partition_key, float(str(rows.value)))  # the newest comes first
    return found


def failure(day: str, failed: Sequence[Failed]) -> dg.Failure:
    """The error of a step in the name of its tenant-days, with what to do."""
    codes, tenants = sorted({item.code for item in failed}), len({item.tenant for item in failed})
    meaning = "; ".join(f"{code}: {CODES[code]}" for code in codes)
    detail = (
        f"{tenants} tenant-days failed, the others were processed. {name_failures(day, failed)}. {meaning}. "
        "Their events are still read from the log and from what was built before. "
        "Mend the cause (the log of the failing step holds the traceback), then materialize the day again."
    )
    return dg.Failure(detail, metadata={"failed": tenants}, allow_retries=False)


def log_errors(context: dg.AssetExecutionContext, outcome: Outcome) -> None:
    for error in outcome.errors:
        context.log.error(error)


def _is_published_later(context: dg.AssetExecutionContext) -> bool:
    return PUBLISHED in context.job_def.asset_layer.executable_asset_keys
