"""The composition root of the deployment: reads the settings once and puts everything together as `defs`.

Steps of a run share one process: they are a chain, and a process each would spend seconds on imports per step.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg

from assets.automation import bundles_job, daily_schedule, day_job, dirt_sensor, rollups_job
from assets.bundles import bundle_assets
from assets.days import ENTITY_SHARDS, FULLTEXT_SHARDS, SEGMENTS, VECTOR_SHARDS
from assets.external import external_assets
from assets.freshness import FRESH, FRESHNESS_JOB, FRESHNESS_SCHEDULE
from assets.landing import LANDED
from assets.operations import OPERATIONS
from assets.published import PUBLISHED_DAYS, no_tenant_failed
from assets.rollups import ROLLUPS
from context_plane.bundle.spec import load_specs
from context_plane.plane import shipped_specs
from context_plane.settings import Settings
from resources.plane import PlaneResource
from resources.scope import BuildScope
from resources.workers import WorkersResource


def build_definitions(settings: Settings, resources: Mapping[str, object] | None = None) -> dg.Definitions:
    """The deployment over the specs that `settings` name. `resources`: an open plane, workers and a scope, in place of
    those that the run configuration describes."""
    specs = load_specs(settings.specs_dir or shipped_specs())
    bundles = bundle_assets(specs)
    daily = [LANDED, SEGMENTS, VECTOR_SHARDS, ENTITY_SHARDS, FULLTEXT_SHARDS, PUBLISHED_DAYS, *bundles]
    keys = frozenset(asset.key for asset in daily)
    of_day, of_bundles, of_month = day_job(daily), bundles_job(bundles), rollups_job(ROLLUPS)
    outside = external_assets(settings, [PUBLISHED_DAYS.key, ROLLUPS.key, *(asset.key for asset in bundles)])
    return dg.Definitions(
        assets=[*outside, *_with_code([*daily, ROLLUPS])],
        asset_checks=[FRESH, no_tenant_failed],
        jobs=[of_day, of_bundles, of_month, FRESHNESS_JOB, *OPERATIONS],
        schedules=[daily_schedule(of_day, keys), FRESHNESS_SCHEDULE],
        sensors=[dirt_sensor([of_day, of_bundles, of_month], keys, specs)],
        resources=resources or {"plane": PlaneResource(), "workers": WorkersResource(), "scope": BuildScope()},
        executor=dg.in_process_executor,
    )


def _with_code(assets: Sequence[dg.AssetsDefinition]) -> Sequence[Any]:
    """The same assets with the file and line of what makes each: the UI opens them where it runs beside the sources."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # the version is pinned
        return dg.with_source_code_references(assets)


defs: Final = build_definitions(Settings())
