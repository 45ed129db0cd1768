"""Jobs, and what starts them: one sensor that turns dirt into runs, and a daily schedule as its safety net.

There is no other automation. Runs that are started here leave tenant-days alone that did not change; a
person's materialization or backfill builds them anew.
"""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
import datetime as dt
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from assets.bundles import PREFIX
from assets.dirt import (
    BUNDLES_JOB,
    DAY_JOB,
    ROLLUPS_JOB,
    Dirt,
    Request,
    Survey,
    decode_cursor,
    encode_cursor,
    plan_tick,
    survey,
    take_turns,
)
from assets.meter import metered
from assets.partitions import DAILY, MONTHLY
from assets.report import NAMED_MAX
from assets.runs import held_back, under_way
from context_plane.model import add_days, sha256_hex
from context_plane.plane import Plane
from context_plane.tenants import list_tenants
from resources.plane import OpenPlane

SENSOR_INTERVAL_S: Final = 30
SCHEDULE_DAYS_MAX: Final = 31
"""Days a daily tick asks for: a month of failed runs is looked at again every night; of more, as many are drawn."""
LANDING_DAYS: Final = 3
"""Newest days that are looked at every night: files that exporters land are no dirt before a run reads them. A day that
is over has two such nights, for a run that is under way at one of them may have looked before its last file came."""
RETRY_ALL_STEPS: Final = {"dagster/retry_strategy": "ALL_STEPS"}
"""A tenant that failed in one step is left out of the later ones: only the first step takes it in again, and a retry
from the failed step would retry nothing."""
ONLY_DIRTY: Final = {"resources": {"scope": {"config": {"only_dirty": True}}}}


def day_job(assets: Sequence[dg.AssetsDefinition]) -> UnresolvedAssetJobDefinition:
    """Everything of a day."""
    return dg.define_asset_job(
        DAY_JOB,
        selection=dg.AssetSelection.assets(*assets),
        tags=RETRY_ALL_STEPS,
        description="Builds a day: lands files, folds the log, indexes, publishes, and makes the bundles.",
    )


def bundles_job(assets: Sequence[dg.AssetsDefinition]) -> UnresolvedAssetJobDefinition:
    """The bundles of a day that is published: a new spec, or a day of the look-back that changed."""
    return dg.define_asset_job(
        BUNDLES_JOB,
        selection=dg.AssetSelection.assets(*assets),
        tags=RETRY_ALL_STEPS,
        description="Makes the bundles of a day whose segments and shards are published.",
    )


def rollups_job(asset: dg.AssetsDefinition) -> UnresolvedAssetJobDefinition:
    """The rollups of a month that is over."""
    return dg.define_asset_job(
        ROLLUPS_JOB,
        selection=dg.AssetSelection.assets(asset),
        tags=RETRY_ALL_STEPS,
        description="Merges the shards of a closed month into one, tenant by tenant.",
    )


async def look(plane: Plane, held_back: Collection[str] = ()) -> Survey:
    return await survey(plane, await list_tenants(plane.engine.store), held_back=held_back)


def dirt_sensor(
    jobs: Sequence[UnresolvedAssetJobDefinition], daily: frozenset[dg.AssetKey], specs: Collection[str]
) -> dg.SensorDefinition:
    """The sensor over every job. `daily`: the assets of days. `specs`: those that have an asset; a file that is newer
    has none before a reload."""

    @dg.sensor(
        name="dirt",
        jobs=list(jobs),
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Asks for a run of every day with unbuilt log batches, of newest days with stale bundles, of closed months "
            "with days that are not rolled up, and, in the room that is left, of days whose bundles come from a spec "
            "as it was before it changed, or were held back since a run failed. New writes rest for five minutes, so "
            "that a day is built once for many of them; reads find them meanwhile."
        ),
    )
    def dirt(context: dg.SensorEvaluationContext, plane: dg.ResourceParam[OpenPlane]) -> dg.SensorResult:
        with metered() as meter:
            failed = held_back(context.instance, daily, plane.plane.engine.now_us())
            found = plane.run(look(plane.plane, failed))
        inside, outside = split_by_partition(found.dirt)
        runs = under_way(context.instance, daily)
        tick = plan_tick(
            [item for item in inside if not item.spec or item.spec in specs],
            now_us=plane.plane.engine.now_us(),
            asked=decode_cursor(context.cursor),
            running=runs.places,
            ahead=runs.ahead,
        )
        for line in [*remarks(found, outside), *without_asset(inside, specs)]:
            context.log.warning(line)
        cost = f"tenants looked at: {found.tenants}, in {meter}"
        rest = f"runs whose writes still rest: {tick.resting}"
        context.log.info(f"{cost}; runs asked for: {len(tick.requests)}, left for a later tick: {tick.left}, {rest}")
        return dg.SensorResult(
            run_requests=[run_request(request) for request in tick.requests],
            cursor=encode_cursor(tick.asked),
            skip_reason=None if tick.requests else f"nothing is due; {rest}; {cost}",
        )

    return dirt


def daily_schedule(job: UnresolvedAssetJobDefinition, assets: frozenset[dg.AssetKey]) -> dg.ScheduleDefinition:
    """The safety net: once a day every dirty day, also those whose last run failed, and the days whose exports land;
    those aside of which a run is under way. `assets`: those of days."""

    @dg.schedule(
        name="daily",
        job=job,
        cron_schedule="15 0 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "Asks for today, the two days before and every older day that still has unbuilt log batches, but for days "
            "of which a run is under way."
        ),
    )
    def daily(
        context: dg.ScheduleEvaluationContext, plane: dg.ResourceParam[OpenPlane]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with metered() as meter:
            found = plane.run(look(plane.plane))
        inside, outside = split_by_partition(found.dirt)
        for line in remarks(found, outside):
            context.log.warning(line)
        today = context.scheduled_execution_time.astimezone(dt.UTC).date().isoformat()
        asked = schedule_requests(inside, today, under_way(context.instance, assets).places)
        requests = [run_request(request) for request in asked if DAILY.has_partition_key(request.day)]
        context.log.info(f"tenants looked at: {found.tenants}, in {meter}; runs asked for: {len(requests)}")
        return requests or dg.SkipReason("no day has a partition, or a run of each is under way")

    return daily


def schedule_requests(dirt: Iterable[Dirt], today: str, running: Collection[str] = ()) -> list[Request]:
    """One request per dirty day that is not `running`, asked anew every day. Pure.

    The newest days are asked for in any case, first, the oldest of them before the others, as their exports came:
    files that exporters land are no dirt before a run reads them.
    Others take turns over tenants, and which of a tenant's is drawn by lot, another every night: no day that keeps
    failing holds a place that one which failed once waits for.
    """
    landing = [add_days(today, -ago) for ago in reversed(range(LANDING_DAYS))]
    tenants: dict[str, set[str]] = {day: set() for day in landing}
    waiting: dict[tuple[str, str], list[Dirt]] = {}
    for item in dirt:
        if item.job == DAY_JOB:
            tenants.setdefault(item.day, set()).add(item.tenant)
            if item.day not in landing and item.day not in running:
                drawn = replace(item, urgent=False, oldest_us=_lot(today, item))
                waiting.setdefault((item.job, item.day), []).append(drawn)
    first = [day for day in landing if day not in running]
    others = sorted((day for _, day in take_turns(waiting, SCHEDULE_DAYS_MAX - len(first))), reverse=True)
    return [Request(DAY_JOB, day, f"daily:{today}:{day}", tuple(sorted(tenants[day]))) for day in [*first, *others]]


def _lot(today: str, item: Dirt) -> int:
    return int(sha256_hex(f"{today} {item.tenant} {item.day}".encode())[:12], 16)


def run_request(request: Request) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=request.run_key,
        job_name=request.job,
        partition_key=request.day,
        asset_selection=[dg.AssetKey([PREFIX, spec]) for spec in request.specs] or None,
        run_config=ONLY_DIRTY,
        tags={"context-plane/tenants": str(len(request.tenants))},
    )


def split_by_partition(dirt: Iterable[Dirt]) -> tuple[list[Dirt], list[Dirt]]:
    """Dirt that has a partition, and dirt that has none: older than the first day."""
    inside: list[Dirt] = []
    outside: list[Dirt] = []
    for item in dirt:
        partitions = MONTHLY if item.job == ROLLUPS_JOB else DAILY
        (inside if partitions.has_partition_key(item.day) else outside).append(item)
    return inside, outside


def remarks(found: Survey, outside: Sequence[Dirt]) -> list[str]:
    """What a person should know of a tick. Pure."""
    lines = [f"tenant {tenant} cannot be read: {code}" for tenant, code in found.failed[:NAMED_MAX]]
    if outside:
        first = min(item.day for item in outside)
        lines.append(f"{len(outside)} tenant-days lie before the first partition; set CONTEXT_PLANE_FIRST_DAY={first}")
    return lines


def without_asset(dirt: Iterable[Dirt], specs: Collection[str]) -> list[str]:
    """Specs with work whose file this code location has not seen yet. Pure."""
    unseen = sorted({item.spec for item in dirt if item.spec} - {*specs})
    return [f"spec {name} has no asset yet; reload the code location" for name in unseen]
