"""Months merged: the shards of a closed month's days become one, so that a long read opens few objects.

It depends on the commits of the month's days. Answers are the same before and after. A tenant whose month is not
due (a day waits to be built, an erasure is under way, nothing changed since) is left alone and named.
"""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

import dagster as dg

from assets.columns import fields_of
from assets.meter import metered
from assets.partitions import GROUP, MONTHLY
from assets.plan import VERSION_CHARS, chosen_tenants, weigh
from assets.published import PUBLISHED_DAYS
from assets.report import NAMED_MAX, Made
from assets.step import Result, failure, held_by, log_errors, partitioned_asset, result_of
from assets.units import do
from context_plane.catalog.head import load_head
from context_plane.catalog.manifest import MonthEntry, shard_keys
from context_plane.model import canonical_json, sha256_hex
from context_plane.plane import Plane
from context_plane.rollup import MEANINGS, MonthState
from resources.plane import OpenPlane
from resources.scope import BuildScope
from resources.workers import Workers


def version_of(entry: MonthEntry) -> str:
    """Digest of what the month's shards hold. Pure."""
    shards = entry.shards
    digests = [shards.entity.digest, shards.fulltext.digest, shards.vector.digest]
    return sha256_hex(canonical_json(digests))[:VERSION_CHARS]


async def roll_up(plane: Plane, tenant: str, month: str) -> Made:
    """Roll one tenant's month up."""
    before = (await load_head(plane.engine.store, tenant)).months.get(month)
    state, entry = await plane.roll_up(tenant, month)
    if state != "due" or entry is None:
        return _made(entry, left=state)
    named, known = set(shard_keys(entry.shards)), set() if before is None else set(shard_keys(before.shards))
    return replace(_made(entry), objects=len(named - known), reused=len(named & known))


async def rolled_up(plane: Plane, tenant: str, month: str) -> Made:
    """What a tenant has of the month, nothing of it written."""
    return _made((await load_head(plane.engine.store, tenant)).months.get(month))


@dataclass(frozen=True, slots=True)
class Rolled:
    """`days`: those that are rolled up. `left`: why a month that is not due was left alone."""

    days: frozenset[str] = frozenset()
    left: MonthState | None = None


def _made(entry: MonthEntry | None, left: MonthState | None = None) -> Made:
    """`aside`: a `Rolled`."""
    if entry is None:
        return Made("", aside=Rolled(left=left))
    shards = entry.shards
    return Made(
        digest=version_of(entry),
        rows=shards.rows,
        events=shards.events,
        entities=shards.entities,
        bytes=shards.bytes,
        newest_us=shards.last_ts_us,
        aside=Rolled(frozenset(entry.covered), left),
    )


def _rollups(
    context: dg.AssetExecutionContext,
    plane: dg.ResourceParam[OpenPlane],
    workers: dg.ResourceParam[Workers],
    scope: BuildScope,
) -> Result:
    month = context.partition_key[:7]
    with metered() as meter:
        tenants = plane.run(chosen_tenants(plane.plane, scope))
        weights = plane.run(weigh(plane.plane, tenants, f"{month}-01", f"{month}-31"))
        outcome = do(plane, workers, weights, month, "rollups", roll_up)
        held = held_by(plane, outcome.failed, month, "rollups", rolled_up)
    left = {name: made.aside.left for name, made in outcome.made.items() if made.aside.left is not None}
    for tenant in sorted(left)[:NAMED_MAX]:
        context.log.info(f"{tenant} {month}: left alone; {MEANINGS[left[tenant]]}")
    log_errors(context, outcome)
    made = {tenant: item for tenant, item in outcome.made.items() if tenant not in left}
    held |= {tenant: item for tenant, item in outcome.made.items() if tenant in left}
    held = {tenant: item for tenant, item in held.items() if item.digest}
    states = dg.MetadataValue.json(dict(sorted(Counter(left.values()).items())))
    days = frozenset[str]().union(*(item.aside.days for item in [*made.values(), *held.values()]))
    told = {"days": len(days), "left_alone": len(left), "left_alone_states": states}
    yield result_of(context, outcome.only(made), meter, failed=outcome.failed, held=held, more=told)
    if outcome.failed:
        raise failure(month, outcome.failed)


ROLLUPS: Final = partitioned_asset(
    _rollups,
    MONTHLY,
    name="rollups",
    deps=[PUBLISHED_DAYS],
    group_name=GROUP,
    kinds={"lance", "tantivy", "zstd"},
    tags={"layer": "index"},
    description=(
        "The shards of a closed month merged into one entity shard, one full-text shard and one vector shard per "
        "tenant, a day after the month's end. Nothing is analyzed or embedded again, and answers stay the same. A "
        "late day is read beside the month until the month is rolled up again. Columns are those of the month's entry "
        "in a manifest."
    ),
    metadata=fields_of(MonthEntry),
)
