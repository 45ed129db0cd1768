"""The monthly asset over a real store, and when the sensor asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg

from assets.build import LOGGERS
from assets.definitions import build_definitions
from assets.dirt import ROLLUP_REST_US, ROLLUPS_JOB, Dirt, rollup_dirt
from context_plane.catalog.head import load_head
from context_plane.catalog.manifest import Manifest
from resources.scope import BuildScope
from resources.workers import Processes
from tests.assets.world import SPEC, World, answers, events

DAYS = ["2025-03-03", "2025-03-04"]
MONTH = "2025-03-01"


def run(world: World) -> tuple[bool, dict[str, Any]]:
    """One run of the month: success and metadata."""
    with world.open() as opened, dg.DagsterInstance.ephemeral() as instance:
        defs = build_definitions(world.settings, {"plane": opened, "workers": Processes(1), "scope": BuildScope()})
        done = defs.resolve_job_def(ROLLUPS_JOB).execute_in_process(
            run_config=LOGGERS, instance=instance, partition_key=MONTH, raise_on_error=False
        )
        (event,) = done.get_asset_materialization_events()
        told = event.step_materialization_data.materialization.metadata
        return done.success, {name: value.value for name, value in told.items()}


def head(world: World, tenant: str) -> Manifest:
    with world.open() as opened:
        return opened.run(load_head(opened.plane.engine.store, tenant))


def test_a_month_is_merged_for_every_tenant_and_left_alone_where_it_is_not_due(tmp_path: Path) -> None:
    """Seen to fail with a month rolled up although a day waits to be built, with sums of what was merged alone, and
    with the same days counted for each tenant."""
    world = World.local(tmp_path)
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant, DAYS))
    world.build(DAYS)
    world.write("beta", events("late", DAYS)[:1])
    with world.open() as opened:
        before = answers(opened, "acme", DAYS[-1])
    success, told = run(world)
    assert success
    assert (told["tenants"], told["left_alone"], told["left_alone_states"]) == (1, 1, {"dirty": 1})
    assert (told["events"], told["days"], told["failed"]) == (80, 2, 0)
    assert list(head(world, "acme").days) == []
    assert set(head(world, "acme").months) == {"2025-03"}
    assert set(head(world, "beta").days) == set(DAYS)
    with world.open() as opened:
        assert answers(opened, "acme", DAYS[-1]) == before
    world.build(DAYS[:1], tenants=["beta"])
    _, again = run(world)
    assert (again["tenants"], again["left_alone_states"]) == (2, {"rolled_up": 1})
    assert (again["events"], again["days"]) == (161, 2), "the month as it is rolled up, of both"
    assert again["rows"] - again["rows_rebuilt"] == told["rows"] == told["rows_rebuilt"]


def test_the_sensor_asks_for_months_that_rest(tmp_path: Path) -> None:
    """Not while days wait to be built, not before a day without a publish, and not once it is done."""
    world = World.local(tmp_path)
    world.write("acme", events("acme", DAYS))
    world.build(DAYS)
    manifest = head(world, "acme")
    rested_us = max(entry.built_us for entry in manifest.days.values()) + ROLLUP_REST_US
    (asked,) = rollup_dirt("acme", manifest, (), rested_us)
    assert (asked.job, asked.day) == (ROLLUPS_JOB, MONTH)
    assert rollup_dirt("acme", manifest, (), rested_us - 1) == []
    assert rollup_dirt("acme", manifest, (DAYS[0],), rested_us) == []
    again = rollup_dirt("acme", manifest, (), rested_us + ROLLUP_REST_US)
    assert [type(item) for item in again] == [Dirt]
    assert again[0].digest != asked.digest, "asked for again the next day"
    assert run(world)[0]
    assert rollup_dirt("acme", head(world, "acme"), (), rested_us) == []
    assert SPEC in head(world, "acme").bundles
