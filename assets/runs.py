"""What Dagster's books say of runs: what is under way, and of which days a failed one may not have come to the bundles.

Only runs of this deployment count, told by their jobs and assets: other code locations of the same Dagster have days,
months and keys of their own, which say nothing of this store.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from assets.bundles import PREFIX
from assets.dirt import BUNDLES_JOB, DAY_JOB, ROLLUPS_JOB, place
from assets.partitions import DAILY, MONTHLY
from assets.rollups import ROLLUPS
from context_plane.model import days_between

ASSETS_JOB: Final = "__ASSET_JOB"
"""Dagster's own job over chosen assets, of every code location: what a person materializes, and backfills of assets."""
DAY_TAG: Final = "dagster/partition"
FIRST_DAY_TAG: Final = "dagster/asset_partition_range_start"
LAST_DAY_TAG: Final = "dagster/asset_partition_range_end"
FAILED_KEPT: Final = dt.timedelta(days=7)
"""A failed run is looked at for as long: bundles that it did not come to are made, or fail, long before."""
FAILED_RUNS_MAX: Final = 300
"""Of those, the newest of each job: a quarter's backfill with its retries. Each tick reads them all."""
BACKFILL_TAG: Final = "dagster/backfill"
BEGUN: Final = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
WAITING: Final = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED]


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Days and months (`place`) of runs that have begun or were asked for by themselves; and those that lie `ahead` of
    a backfill: their runs wait for the others of it, for hours where these are many."""

    places: frozenset[str]
    ahead: frozenset[str]


def under_way(instance: dg.DagsterInstance, daily: frozenset[dg.AssetKey]) -> UnderWay:
    """What runs are at work on, or will be. `daily`: the assets of days."""
    jobs = (DAY_JOB, BUNDLES_JOB, ROLLUPS_JOB, ASSETS_JOB)
    waiting = _runs(instance, jobs, statuses=WAITING)
    begun = _runs(instance, jobs, statuses=BEGUN)  # after those that wait: what begins in between is in both
    ahead = [run for run in waiting if BACKFILL_TAG in run.tags]
    alone = [run for run in waiting if BACKFILL_TAG not in run.tags]
    return UnderWay(_places([*begun, *alone], daily), _places(ahead, daily))


def held_back(instance: dg.DagsterInstance, daily: frozenset[dg.AssetKey], now_us: int) -> frozenset[str]:
    """Days of runs that failed and were to make bundles. Where to look is all that Dagster is asked: what is missing
    there, the store says."""
    since = dt.datetime.fromtimestamp(now_us / 1e6, dt.UTC) - FAILED_KEPT
    failed = [dg.DagsterRunStatus.FAILURE]
    jobs = (DAY_JOB, BUNDLES_JOB, ASSETS_JOB)
    runs = _runs(instance, jobs, limit=FAILED_RUNS_MAX, statuses=failed, updated_after=since)
    return _places((run for run in runs if _makes_bundles(run)), daily)


def _runs(
    instance: dg.DagsterInstance, jobs: Sequence[str], *, limit: int | None = None, **filters: Any
) -> list[dg.DagsterRun]:
    return [run for job in jobs for run in instance.get_runs(dg.RunsFilter(job_name=job, **filters), limit=limit)]


def _places(runs: Iterable[dg.DagsterRun], daily: frozenset[dg.AssetKey]) -> frozenset[str]:
    found: set[str] = set()
    for run in runs:
        chosen = run.asset_selection
        if bool(chosen & daily) if chosen else run.job_name in (DAY_JOB, BUNDLES_JOB):
            found.update(place(DAY_JOB, key) for key in _keys_of(run, DAILY))
        elif ROLLUPS.key in chosen if chosen else run.job_name == ROLLUPS_JOB:
            found.update(place(ROLLUPS_JOB, key) for key in _keys_of(run, MONTHLY))
    return frozenset(found)


def _keys_of(run: dg.DagsterRun, partitions: dg.PartitionsDefinition) -> list[str]:
    """Of a run of one partition, as backfills launch them too, and of one that names a range: several in one run, and
    what backfills of older deployments launched. A tag that names no partition says nothing."""
    first, last = (run.tags.get(DAY_TAG, run.tags.get(tag, "")) for tag in (FIRST_DAY_TAG, LAST_DAY_TAG))
    known = partitions.has_partition_key(first) and partitions.has_partition_key(last)
    return days_between(first, last) if known else []


def _makes_bundles(run: dg.DagsterRun) -> bool:
    chosen = run.asset_selection
    return any(key.path[0] == PREFIX for key in chosen) if chosen else run.job_name in (DAY_JOB, BUNDLES_JOB)
