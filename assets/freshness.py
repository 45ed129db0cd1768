"""The freshness check: how long writes have been waiting to be built, asked of the store, not of Dagster's memory.

A day is as fresh as the oldest log batch that its build does not cover: a late event makes an old day stale, and a
quiet tenant is fresh however long ago its days were built. Bundles count from the commit that made them stale
(`assets/staleness.py`). One look at the store judges every partition: the verdict has a row for each that waits, and
one that has none is fresh. It is a check of the store, which no run materializes: of an asset of days each run of a
backfill would look at all of it.
"""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import dagster as dg

from assets.automation import look
from assets.dirt import BUNDLES_JOB, DAY_JOB, Dirt
from assets.external import OBJECT_STORE
from assets.meter import metered
from assets.partitions import START_VARIABLE
from assets.report import NAMED_MAX
from assets.staleness import with_ages
from context_plane.plane import Plane
from resources.plane import OpenPlane

FRESHNESS: Final = "fresh"
MINUTE_US: Final = 60 * 1_000_000
LATE_US: Final = 15 * MINUTE_US
"""Dirt rests five minutes and a run takes some: three times that says the sensor or the queue is behind."""
FAILED_US: Final = 26 * 60 * MINUTE_US
"""Each day the schedule asks for dirty days anew, and the sensor for bundles: what waits longer fails every time."""
PARTITIONS_MAX: Final = 100
"""Partitions that are named, those that wait the longest: as many as a person looks at."""
RECOVERY: Final = (
    "The events are found by searches meanwhile. Look at the runs of the days below: a failed one says what to mend; "
    "where there is none, see that the daemon runs and the sensor `dirt` is on. Then materialize these days. "
    f"Days before the first partition are built by no run until {START_VARIABLE} names an earlier one."
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A day with something to build. `oldest_us`: age of the oldest of it, which is that of the tenant `longest`."""

    day: str
    what: str
    tenants: int
    oldest_us: int
    longest: str


def waiting(dirt: Iterable[Dirt], now_us: int) -> list[Waiting]:
    """Days by the age of what waits in them, the oldest first. Pure."""
    groups: dict[tuple[str, str], list[Dirt]] = {}
    for item in dirt:
        if item.job in (DAY_JOB, BUNDLES_JOB):
            groups.setdefault((item.job, item.day), []).append(item)
    found = []
    for (job, day), items in groups.items():
        oldest = min(items, key=lambda item: (item.oldest_us, item.tenant))
        what = "events" if job == DAY_JOB else "bundles"
        age_us = max(0, now_us - oldest.oldest_us)
        found.append(Waiting(day, what, len({item.tenant for item in items}), age_us, oldest.tenant))
    return sorted(found, key=lambda item: (-item.oldest_us, item.day, item.what))


def verdict(found: Sequence[Waiting], unreadable: int) -> dg.AssetCheckResult:
    """Passed while nothing waited for long and every tenant could be read. A tenant that cannot be read is an error at
    once: nobody knows since when its writes wait, and no run builds it. Pure."""
    oldest_us = found[0].oldest_us if found else 0
    late = [item for item in found if item.oldest_us > LATE_US]
    rows = [
        dg.TableRecord(
            {
                "partition": x.day,
                "what": x.what,
                "state": state_of(x),
                "tenants": x.tenants,
                "oldest_minutes": round(x.oldest_us / MINUTE_US, 1),
                "longest": x.longest,
            }
        )
        for x in found[:PARTITIONS_MAX]
    ]
    metadata: dict[str, Any] = {
        "days_waiting": len(found),
        "days_late": len(late),
        "partitions_late": dg.MetadataValue.json(sorted({x.day for x in late[:PARTITIONS_MAX]})),
        "oldest_minutes": round(oldest_us / MINUTE_US, 1),
        "tenants_unreadable": unreadable,
        "waiting": dg.MetadataValue.table(rows, schema=_SCHEMA),
    }
    if not late and not unreadable:
        return dg.AssetCheckResult(
            passed=True, check_name=FRESHNESS, metadata=metadata, description="no partition is late"
        )
    failed = bool(unreadable) or oldest_us > FAILED_US
    severity = dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN
    named = ", ".join(f"{x.day} ({x.what}, {x.oldest_us // MINUTE_US} min)" for x in late[:NAMED_MAX])
    told = f"{len(late)} days are late: {named}." if late else ""
    if unreadable:
        told += f" {unreadable} tenants cannot be read; `context-plane doctor` says why."
    return dg.AssetCheckResult(
        passed=False,
        check_name=FRESHNESS,
        severity=severity,
        metadata={**metadata, "recovery": RECOVERY},
        description=f"{told.strip()} {RECOVERY}",
    )


def state_of(item: Waiting) -> Literal["rests", "late", "failed"]:
    """The verdict of one partition. Pure."""
    return "failed" if item.oldest_us > FAILED_US else "late" if item.oldest_us > LATE_US else "rests"


_SCHEMA: Final = dg.TableSchema(
    columns=[
        dg.TableColumn("partition", "string", description="of `published`, or of the bundles of that day"),
        dg.TableColumn("what", "string", description="events that wait for a build, or bundles that are stale"),
        dg.TableColumn("state", "string", description="rests; late after 15 minutes; failed after 26 hours"),
        dg.TableColumn("tenants", "int"),
        dg.TableColumn("oldest_minutes", "float"),
        dg.TableColumn("longest", "string", description="the tenant that waits the longest"),
    ]
)


async def look_with_ages(plane: Plane) -> tuple[list[Dirt], int]:
    """Everything that waits, and how many tenants cannot be read."""
    found = await look(plane)
    return await with_ages(plane, found.dirt), len(found.failed)


def _made() -> dg.AssetChecksDefinition:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (dg.BetaWarning, dg.PreviewWarning))

        @dg.asset_check(
            asset=OBJECT_STORE,
            name=FRESHNESS,
            description=(
                "Warns when a day has had unbuilt writes or stale bundles for more than 15 minutes; an error after 26 "
                "hours, when the daily schedule did not build it either, and at once where a tenant cannot be read. "
                "Evaluated every quarter of an hour."
            ),
        )
        def fresh(context: dg.AssetCheckExecutionContext, plane: dg.ResourceParam[OpenPlane]) -> dg.AssetCheckResult:
            with metered() as meter:
                dirt, unreadable = plane.run(look_with_ages(plane.plane))
            context.log.info(f"looked at the store in {meter}")
            return verdict(waiting(dirt, plane.plane.engine.now_us()), unreadable)

        return fresh


FRESH: Final = _made()
FRESHNESS_JOB: Final = dg.define_asset_job(
    "check_freshness",
    selection=dg.AssetSelection.checks(FRESH),
    description="Looks at the store for days whose writes or bundles wait for too long. Builds nothing.",
)
FRESHNESS_SCHEDULE: Final = dg.ScheduleDefinition(
    name="freshness",
    job=FRESHNESS_JOB,
    cron_schedule="*/15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every quarter of an hour: is any partition late?",
)
