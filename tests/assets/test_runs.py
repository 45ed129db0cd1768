"""Runs of others and of other things: what is under way of this store's days, and what is not."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin

from assets import dirt
from assets.definitions import build_definitions
from assets.dirt import DAY_JOB, ROLLUPS_JOB
from assets.runs import ASSETS_JOB, UnderWay, under_way
from context_plane.model import add_days
from tests.assets.ticks import night, tick
from tests.assets.world import DAYS, World, events

STARTED = dg.DagsterRunStatus.STARTED
FIRST = "2026-03-01"
"""A day, and the key of the month that it begins."""
SEGMENTS = frozenset({dg.AssetKey("segments")})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(dirt, "DIRT_AGE_US", 0)  # dirt is due at once
    return World.local(tmp_path)


def of_day(key: str) -> dict[str, str]:
    return {"dagster/partition": key}


def of_range(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


@pytest.mark.parametrize(
    "run",
    [
        dg.DagsterRun("theirs", status=STARTED, tags=of_day(FIRST)),
        dg.DagsterRun("theirs", status=STARTED, tags=of_range(f"{FIRST}-05:00", f"{FIRST}-06:00")),
        dg.DagsterRun(
            ASSETS_JOB, status=STARTED, tags=of_day(FIRST), asset_selection=frozenset({dg.AssetKey("theirs")})
        ),
        dg.DagsterRun(ASSETS_JOB, status=STARTED, tags=of_range(FIRST, "no day"), asset_selection=SEGMENTS),
        dg.DagsterRun(ROLLUPS_JOB, status=STARTED, tags=of_day(FIRST)),
        dg.DagsterRun(
            ASSETS_JOB,
            status=STARTED,
            tags=of_range(FIRST, FIRST),
            asset_selection=frozenset({dg.AssetKey("rollups")}),
        ),
    ],
    ids=["job", "hours", "asset", "no day", "rollup", "backfill of a rollup"],
)
def test_runs_of_others_and_of_months_hold_up_no_day(
    world: World, stored_instance: dg.DagsterInstance, run: dg.DagsterRun
) -> None:
    """Seen to fail with every run counted: the day was left alone, or the tick ended with a ValueError."""
    world.write("acme", events("acme", [FIRST, *DAYS]))
    stored_instance.add_run(run)
    assert [request.partition_key for request in tick(world, stored_instance, None)[0]] == [FIRST, *DAYS]
    assert FIRST in {request.partition_key for request in night(world, stored_instance, add_days(DAYS[1], 9))}


def in_queue(day: str, *, backfill: bool, older: bool = False) -> dg.DagsterRun:
    """`older`: as a deployment before this one launched its backfills."""
    where = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("context_plane"), "__repository__")
    named = of_range(day, day) if older else of_day(day)
    tags = {**named, **({"dagster/backfill": "abcdefgh"} if backfill else {})}
    return dg.DagsterRun(
        ASSETS_JOB,
        status=dg.DagsterRunStatus.QUEUED,
        tags=tags,
        asset_selection=SEGMENTS,
        remote_job_origin=where.get_job_origin(ASSETS_JOB),
    )


def test_a_day_that_waits_for_the_others_of_its_backfill_is_built_meanwhile(
    world: World, stored_instance: dg.DagsterInstance
) -> None:
    """By the sensor and by the schedule; one that a person materializes by itself is about to run. Seen to fail with
    every run of the queue counted."""
    world.write("acme", events("acme"))
    stored_instance.add_run(in_queue(DAYS[0], backfill=True))
    stored_instance.add_run(in_queue(DAYS[1], backfill=False))
    assert [request.partition_key for request in tick(world, stored_instance, None)[0]] == [DAYS[0]]
    tonight = {request.partition_key for request in night(world, stored_instance, add_days(DAYS[1], 9))}
    assert DAYS[0] in tonight
    assert DAYS[1] not in tonight


def test_what_is_under_way_is_told_by_jobs_and_assets(world: World, stored_instance: dg.DagsterInstance) -> None:
    repository = build_definitions(world.settings).get_repository_def()
    assert repository.get_implicit_global_asset_job_def().name == ASSETS_JOB
    for run in (
        dg.DagsterRun(DAY_JOB, status=STARTED, tags=of_day(FIRST)),
        dg.DagsterRun(ASSETS_JOB, status=STARTED, tags=of_range(*DAYS), asset_selection=SEGMENTS),
        dg.DagsterRun(ROLLUPS_JOB, status=STARTED, tags=of_day("2026-02-01")),
        dg.DagsterRun(DAY_JOB, status=dg.DagsterRunStatus.SUCCESS, tags=of_day("2026-03-09")),
    ):
        stored_instance.add_run(run)
    stored_instance.add_run(in_queue("2026-03-10", backfill=True))
    stored_instance.add_run(in_queue("2026-03-11", backfill=True, older=True))
    assert under_way(stored_instance, SEGMENTS) == UnderWay(
        places=frozenset({FIRST, *DAYS, "2026-02"}), ahead=frozenset({"2026-03-10", "2026-03-11"})
    )
