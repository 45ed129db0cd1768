"""A day's segments and its three shards, as assets. Nothing here is visible to readers before `published`.

    landing -> segments -> vector_shards -> entity_shards -> fulltext_shards -> published -> bundles/{spec}

A shard is made from the one before it (vectors are quantized into entity blocks, whose postings become the
full-text index), so that every datum is computed once.
"""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import dagster as dg

from assets.columns import EVENT, columns, fields_of
from assets.partitions import GROUP
from assets.plan import VERSION_CHARS, plan_day
from assets.ranges import RANGE_BYTES, count_of, do_with_ranges
from assets.report import Made
from assets.step import Result, daily_asset, run_of, run_step
from assets.units import Outcome
from context_plane.errors import PlaneError
from context_plane.fold import fold_day, load_pending
from context_plane.index.rows import Rows
from context_plane.plane import Plane
from context_plane.ranges import RangeDone, embed_range, unembedded, vectors_ahead
from context_plane.reindex import index_entities, index_fulltext, index_vectors
from context_plane.staging import load_segments_stage
from resources.plane import OpenPlane
from resources.scope import BuildScope
from resources.workers import Workers


async def fold(plane: Plane, tenant: str, day: str) -> Made:
    pending = await load_pending(plane.engine, tenant)
    oldest_us = min((batch.header.created_us for batch in pending.dirty.get(day, ())), default=None)
    waited_us = 0 if oldest_us is None else max(0, plane.engine.now_us() - oldest_us)
    stage = await fold_day(plane.engine, tenant, day, pending=pending)
    held = stage.segments
    return Made(
        digest=held.digest[:VERSION_CHARS] if held else "",
        rows=held.events if held else 0,
        events=held.events if held else 0,
        entities=held.entities if held else 0,
        bytes=stage.bytes,
        objects=stage.objects,
        reused=held.entities + 1 - stage.objects if held else 0,
        extra=stage.changed,
        waited_us=waited_us,
    )


async def vectors(plane: Plane, tenant: str, day: str, *, ranges: Mapping[str, int] | None = None) -> Made:
    """`ranges`: into how many the embedding of each large tenant was cut."""
    count = (ranges or {}).get(tenant, 0)
    ahead = await vectors_ahead(plane.engine, tenant, day, count) if count else None
    stage = await index_vectors(plane.engine, tenant=tenant, day=day, ahead=ahead)
    if stage.shard is None:
        return Made("")
    return Made(
        stage.shard.digest[:VERSION_CHARS],
        rows=stage.rows,
        bytes=stage.bytes,
        **_written(len(stage.shard.files), reused=stage.reused),
        extra=stage.embedded,
    )


async def embed(plane: Plane, tenant: str, day: str, number: int, count: int) -> RangeDone:
    return await embed_range(plane.engine, tenant, day, number, count)


async def embedding_ranges(plane: Plane, tenants: Mapping[str, int], day: str) -> dict[str, int]:
    """Into how many ranges the embedding of each large tenant is cut. `tenants`: bytes of each one's input."""
    found: dict[str, int] = {}
    for tenant in (name for name, size in tenants.items() if size > RANGE_BYTES):
        with suppress(PlaneError):  # the work meets the error too, and is where it is told
            stage = await load_segments_stage(plane.engine.store, tenant, day)
            size = sum(entry.bytes for entry in await unembedded(plane.engine, stage))
            found[tenant] = count_of(size, RANGE_BYTES)
    return {tenant: count for tenant, count in found.items() if count > 1}


async def entities(plane: Plane, tenant: str, day: str) -> Made:
    stage = await index_entities(plane.engine, tenant=tenant, day=day)
    if stage.shard is None:
        return Made("", events=0, entities=0)
    return Made(
        digest=stage.shard.digest[:VERSION_CHARS],
        rows=stage.rows,
        events=stage.events,
        entities=stage.entities,
        bytes=stage.shard.bytes,
        **_written(1, reused=stage.reused),
        newest_us=stage.last_ts_us,
    )


async def fulltext(plane: Plane, tenant: str, day: str) -> Made:
    stage = await index_fulltext(plane.engine, tenant=tenant, day=day)
    if stage.shard is None:
        return Made("")
    written = _written(1, reused=stage.reused)
    return Made(stage.shard.digest[:VERSION_CHARS], rows=stage.rows, bytes=stage.shard.bytes, **written)


def _written(objects: int, *, reused: bool) -> dict[str, int]:
    return {"reused" if reused else "objects": objects}


# --- assets -------------------------------------------------------------------------------------


def _segments(
    context: dg.AssetExecutionContext,
    plane: dg.ResourceParam[OpenPlane],
    workers: dg.ResourceParam[Workers],
    scope: BuildScope,
) -> Result:
    planning = partial(plan_day, plane.plane, scope, run_of(context), context.partition_key)
    yield from run_step(context, plane, workers, scope, fold, planning=planning, extra="entities_changed")


def _vectors(
    context: dg.AssetExecutionContext,
    plane: dg.ResourceParam[OpenPlane],
    workers: dg.ResourceParam[Workers],
    scope: BuildScope,
) -> Result:
    day, step = context.partition_key, context.asset_key.to_user_string()

    def doing(tenants: Mapping[str, int]) -> Outcome:
        counts = plane.run(embedding_ranges(plane.plane, tenants, day))
        return do_with_ranges(plane, workers, tenants, counts, day, step, range_work=embed, work=vectors)

    yield from run_step(context, plane, workers, scope, vectors, extra="texts_embedded", doing=doing)


def _entities(
    context: dg.AssetExecutionContext,
    plane: dg.ResourceParam[OpenPlane],
    workers: dg.ResourceParam[Workers],
    scope: BuildScope,
) -> Result:
    yield from run_step(context, plane, workers, scope, entities)


def _fulltext(
    context: dg.AssetExecutionContext,
    plane: dg.ResourceParam[OpenPlane],
    workers: dg.ResourceParam[Workers],
    scope: BuildScope,
) -> Result:
    yield from run_step(context, plane, workers, scope, fulltext)


SEGMENTS: Final = daily_asset(
    _segments,
    name="segments",
    deps=["landing"],
    group_name=GROUP,
    kinds={"jsonl", "zstd"},
    tags={"layer": "record"},
    description=(
        "The system of record: one immutable JSONL object per entity and day. Folds the day's uncovered log "
        "batches into the segments built before; the last write of an event wins, a delete removes. Only "
        "entities that changed get a new object."
    ),
    metadata=columns(*EVENT),
)

EMBEDDING_POOL: Final = "embedding"
"""Bounds how many days embed at once, where the deployment sets a limit (deploy/dagster/production.yaml)."""

VECTOR_SHARDS: Final = daily_asset(
    _vectors,
    name="vector_shards",
    pool=EMBEDDING_POOL,
    deps=[SEGMENTS],
    group_name=GROUP,
    kinds={"lance", "lancedb"},
    tags={"layer": "index"},
    description=(
        "Float32 vectors of the day's rows, a Lance dataset per tenant that plain lancedb opens. Embeds each "
        "text once: vectors of unchanged texts come from the day's previous shard of the same model."
    ),
    metadata=columns(
        ("row", "int64", "row number, shared by all shards of the day"),
        ("entity", "string", "whom the event is about"),
        ("id", "string", "event id"),
        ("ts", "timestamp[us, UTC]", "when the fact came to be"),
        ("source", "string", "system it came from"),
        ("kind", "string", "what kind of fact"),
        ("chunk_start", "int32", "first character of the chunk in the event's text"),
        ("chunk_stop", "int32", "character after the chunk"),
        ("text_digest", "fixed_size_binary[16]", "key under which a vector is reused"),
        ("attrs", "string", "canonical JSON"),
        ("vector", "fixed_size_list<float>", "unit length; null where the row has none"),
    ),
)

ENTITY_SHARDS: Final = daily_asset(
    _entities,
    name="entity_shards",
    deps=[SEGMENTS, VECTOR_SHARDS],
    group_name=GROUP,
    kinds={"numpy", "zstd"},
    tags={"layer": "index"},
    description=(
        "The primary read path: one pack per tenant with a block per entity (texts, attributes, vectors in "
        "fixed point, term counts), so that a read for one entity touches that entity's bytes and little else."
    ),
    metadata=fields_of(Rows, without={"segments"}),
)

FULLTEXT_SHARDS: Final = daily_asset(
    _fulltext,
    name="fulltext_shards",
    deps=[ENTITY_SHARDS],
    group_name=GROUP,
    kinds={"tantivy"},
    tags={"layer": "index"},
    description="A tantivy index per tenant over the analyzer's terms: proposes candidates of tenant-wide search.",
    metadata=columns(
        ("terms", "text", "the row's terms after analysis, each as often as it occurs; indexed, not stored"),
        ("row", "u64", "row number, shared by all shards of the day"),
    ),
)
