"""Build days from this process: the same assets that the deployment runs, for the command line and the demo.

One plane serves all days, so a day's shards are warm when the next days' bundles look back at them. With
DAGSTER_HOME set the runs are recorded there and the Dagster UI shows them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg

from assets.bundles import PREFIX
from assets.definitions import build_definitions
from assets.dirt import BUNDLES_JOB, DAY_JOB
from assets.interrupts import raising_interrupts
from assets.partitions import DAILY, START_VARIABLE
from context_plane.errors import Invalid
from context_plane.model import check_tenant, day_start_us
from context_plane.settings import Settings
from resources.plane import open_plane
from resources.scope import BuildScope
from resources.workers import open_workers

LOGGERS = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Progress and the summary speak to the terminal; the event log keeps everything."""


@dataclass(frozen=True, slots=True)
class DayBuild:
    """One day. `events`, `rows`, `bundles`: of the day as it is now, of all tenants in scope. `objects`,
    `objects_reused`: written, and named again. `problems`: what failed, named."""

    day: str
    run_ids: tuple[str, ...]
    seconds: float
    events: int
    rows: int
    bundles: int
    objects: int
    objects_reused: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def unchanged(self) -> bool:
        """It came out as it was published: nothing was written."""
        return self.ok and not self.objects


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """Days in the order they were built."""

    days: tuple[DayBuild, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        return all(day.ok for day in self.days)

    @property
    def problems(self) -> list[str]:
        return [problem for day in self.days for problem in day.problems]


def build_days(
    settings: Settings,
    days: Sequence[str],
    *,
    progress: Callable[[str, int, int], None] | None = None,
    tenants: Sequence[str] | None = None,
    only_dirty: bool = False,
    bundle_days: int | None = None,
    instance: dg.DagsterInstance | None = None,
) -> BuildSummary:
    """Materialize every daily asset of `days`, ascending: bundles look back at days built before them.

    `progress(day, done, total)` is called after each day. `tenants` None: all. `only_dirty`: leave
    tenant-days alone that are built and unchanged. `bundle_days`: bundles of that many newest days of `days`
    only (None: all); every day keeps its segments and indexes. A day's failure is in the summary; later days go on.
    Blocking; not from within a running event loop. Raises `Invalid` for a day without a partition, and
    `KeyboardInterrupt` when interrupted, also by Dagster's own reckoning: no further run is begun.
    """
    ordered = sorted(set(days))
    for day in ordered:
        _check_day(day)
    scope = BuildScope(tenants=[check_tenant(tenant) for tenant in tenants or ()], only_dirty=only_dirty)
    started = time.perf_counter()
    built: list[DayBuild] = []
    with open_plane(settings) as opened, open_workers() as workers, _instance(instance) as recorder:
        defs = build_definitions(settings, {"plane": opened, "workers": workers, "scope": scope})
        bundled = set(ordered if bundle_days is None else ordered[max(0, len(ordered) - bundle_days) :])
        for day in ordered:
            built.append(_build_day(defs, recorder, day, bundles=day in bundled))
            if progress is not None:
                progress(day, len(built), len(ordered))
    return BuildSummary(tuple(built), time.perf_counter() - started)


def _build_day(defs: dg.Definitions, instance: dg.DagsterInstance, day: str, *, bundles: bool) -> DayBuild:
    started = time.perf_counter()
    results = [_run(defs, DAY_JOB, instance, day, bundles=bundles)]
    if bundles and not results[0].success and not _has_bundles(results[0]):
        results.append(_run(defs, BUNDLES_JOB, instance, day, bundles=True))  # of the tenants that were published
    return DayBuild(
        day=day,
        run_ids=tuple(result.run_id for result in results),
        seconds=time.perf_counter() - started,
        events=sum(_count(result, "published", "events") for result in results),
        rows=sum(_count(result, "published", "rows") for result in results),
        bundles=sum(_count(result, PREFIX, "rows") for result in results),
        objects=sum(_count(result, None, "objects") for result in results),
        objects_reused=sum(_count(result, None, "objects_reused") for result in results),
        problems=tuple(problem for result in results for problem in _problems(result)),
    )


def _run(
    defs: dg.Definitions, job: str, instance: dg.DagsterInstance, day: str, *, bundles: bool
) -> dg.ExecuteInProcessResult:
    definition = defs.resolve_job_def(job)
    if not bundles:
        keys = definition.asset_layer.selected_asset_keys
        definition = part_of(definition, [key for key in keys if key.path[0] != PREFIX])
    with raising_interrupts():
        return definition.execute_in_process(
            run_config=LOGGERS, instance=instance, partition_key=day, raise_on_error=False
        )


def part_of(job: dg.JobDefinition, keys: Iterable[dg.AssetKey]) -> dg.JobDefinition:
    """The job of these of its assets, with its own checks of them: a selection alone would run every check."""
    chosen = set(keys)
    checks = {check for check in job.asset_layer.asset_graph.asset_check_keys if check.asset_key in chosen}
    return job.get_subset(asset_selection=chosen, asset_check_selection=checks)


@contextmanager
def _instance(given: dg.DagsterInstance | None) -> Iterator[dg.DagsterInstance]:
    """The instance given, the one of DAGSTER_HOME, or one that forgets."""
    if given is not None:
        yield given
        return
    with dg.DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else dg.DagsterInstance.ephemeral() as instance:
        yield instance


def _check_day(day: str) -> None:
    day_start_us(day)
    if not DAILY.has_partition_key(day):
        detail = f"the day has no partition: it lies ahead of the horizon, or before {START_VARIABLE}; move that"
        raise Invalid("query_invalid", detail, day=day, first=DAILY.get_first_partition_key())


# --- reading results ----------------------------------------------------------------------------


def _has_bundles(result: dg.ExecuteInProcessResult) -> bool:
    return any(m.asset_key.path[0] == PREFIX for m in _materializations(result))


def _materializations(result: dg.ExecuteInProcessResult) -> list[dg.AssetMaterialization]:
    return [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]


def _count(result: dg.ExecuteInProcessResult, asset: str | None, name: str) -> int:
    """`asset` None: of all."""
    made = (m.metadata for m in _materializations(result) if asset in (None, m.asset_key.path[0]))
    found = [told[name].value for told in made if name in told]  # a step leaves out what it does not know
    return sum(value for value in found if isinstance(value, int))


def _problems(result: dg.ExecuteInProcessResult) -> list[str]:
    """What each failed step says, and each failed check."""
    checks = [e.description or e.check_name for e in result.get_asset_check_evaluations() if not e.passed]
    steps = [
        event.step_failure_data.user_failure_data.description or ""
        if event.step_failure_data.user_failure_data is not None
        else event.step_failure_data.error_display_string
        for event in result.all_events
        if event.is_step_failure
    ]
    told = [*checks, *(text for text in steps if text and "blocking asset check" not in text)]
    return list(dict.fromkeys(told))  # a check that fails its step says the same in both
