"""The sensor as the daemon evaluates it, and the runs that it asks for."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from assets.definitions import build_definitions
from resources.scope import BuildScope
from resources.workers import Processes
from tests.assets.world import World


def tick(
    world: World, instance: dg.DagsterInstance, cursor: str | None, deployment: dg.Definitions | None = None
) -> tuple[Sequence[dg.RunRequest], str | None]:
    """One evaluation of the sensor, as the daemon makes it. `deployment`: one that was loaded earlier."""
    repository = (deployment or build_definitions(world.settings)).get_repository_def()
    with (
        world.open() as opened,
        dg.build_sensor_context(
            instance=instance, cursor=cursor, resources={"plane": opened}, repository_def=repository
        ) as context,
    ):
        found = repository.get_sensor_def("dirt").evaluate_tick(context)
    return found.run_requests or [], found.cursor


def execute(world: World, instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """The run that a request asks for."""
    assert request.run_config["resources"]["scope"]["config"] == {"only_dirty": True}
    with world.open() as opened:
        deployment = build_definitions(
            world.settings, {"plane": opened, "workers": Processes(1), "scope": BuildScope(only_dirty=True)}
        )
        return deployment.resolve_job_def(str(request.job_name)).execute_in_process(
            instance=instance,
            partition_key=request.partition_key,
            asset_selection=request.asset_selection,
            raise_on_error=False,
        )
