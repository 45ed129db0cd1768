"""The sensor, the schedule and backfills as the daemon evaluates them, and the runs that they ask for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
from dagster._core.definitions.automation_tick_evaluation_context import build_run_requests_with_backfill_policies
from dagster._core.definitions.events import AssetKeyPartitionKey

from assets.definitions import build_definitions
from assets.dirt import DAY_JOB
from context_plane.store.faults import FaultyStore, Plan
from resources.plane import OpenPlane
from resources.scope import BuildScope
from resources.workers import Processes
from tests.assets.world import World

RUN_KEY = "dagster/run_key"


def tick(
    world: World,
    instance: dg.DagsterInstance,
    cursor: str | None,
    deployment: dg.Definitions | None = None,
    *,
    now_us: int | None = None,
) -> tuple[Sequence[dg.RunRequest], str | None]:
    """One evaluation of the sensor. `deployment`: one that was loaded earlier. `now_us`: another time than now."""
    found = evaluate(world, instance, cursor, deployment, now_us=now_us)
    return found.run_requests or [], found.cursor


def evaluate(
    world: World,
    instance: dg.DagsterInstance,
    cursor: str | None,
    deployment: dg.Definitions | None = None,
    *,
    now_us: int | None = None,
) -> Any:
    """Everything that an evaluation of the sensor tells the daemon."""
    repository = (deployment or build_definitions(world.settings)).get_repository_def()
    with (
        world.open() as opened,
        dg.build_sensor_context(
            instance=instance, cursor=cursor, resources={"plane": at(opened, now_us)}, repository_def=repository
        ) as context,
    ):
        return repository.get_sensor_def("dirt").evaluate_tick(context)


def at(opened: OpenPlane, now_us: int | None) -> OpenPlane:
    """The same plane at another time."""
    if now_us is None:
        return opened
    engine = replace(opened.plane.engine, now_us=lambda: now_us)
    return replace(opened, plane=replace(opened.plane, engine=engine))


def night(world: World, instance: dg.DagsterInstance, day: str) -> Sequence[dg.RunRequest]:
    """One evaluation of the schedule, at the beginning of `day`."""
    with world.open() as opened:
        resources = {"plane": opened, "workers": Processes(1), "scope": BuildScope()}
        repository = build_definitions(world.settings, resources).get_repository_def()
        with dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=dt.datetime.fromisoformat(f"{day}T00:15:00+00:00"),
            resources={"plane": opened},
            repository_def=repository,
        ) as context:
            found: Any = repository.get_schedule_def("daily").evaluate_tick(context)
    return found.run_requests or []


def launched_by_backfill(deployment: dg.Definitions, days: Sequence[str]) -> Sequence[dg.RunRequest]:
    """The runs that Dagster's backfill of the day's assets launches, as it makes them of what is to be materialized."""
    keys = deployment.resolve_job_def(DAY_JOB).asset_layer.selected_asset_keys
    with dg.DagsterInstance.ephemeral() as instance:
        return build_run_requests_with_backfill_policies(
            [AssetKeyPartitionKey(key, day) for key in keys for day in days], deployment.resolve_asset_graph(), instance
        )


def execute(
    world: World, instance: dg.DagsterInstance, request: dg.RunRequest, faults: Plan | None = None
) -> dg.ExecuteInProcessResult:
    """The run that a request asks for, over a store with these faults. Dagster starts none under a key it has seen."""
    assert request.run_config["resources"]["scope"]["config"] == {"only_dirty": True}
    tags = {RUN_KEY: str(request.run_key)}
    assert not instance.get_runs(dg.RunsFilter(tags=tags)), f"{request.run_key} was asked for before"
    with world.open() as opened:
        if faults is not None:
            opened.plane.store.inner = FaultyStore(opened.plane.store.inner, faults)
        deployment = build_definitions(
            world.settings, {"plane": opened, "workers": Processes(1), "scope": BuildScope(only_dirty=True)}
        )
        return deployment.resolve_job_def(str(request.job_name)).execute_in_process(
            instance=instance,
            partition_key=request.partition_key,
            asset_selection=request.asset_selection,
            tags=tags,
            raise_on_error=False,
        )
