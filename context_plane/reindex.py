"""Reindex: a day's segments become its three shards, each an artefact of its own.

    segments -> vector shard (embeds) -> entity shard (vectors in fixed point, postings) -> full-text shard

Every datum is computed once: the vector shard holds the embeddings that the entity shard quantizes, and the
full-text shard is made from the entity shard's postings. Vectors of unchanged texts are reused from the
day's previous shard of the same model, and a shard whose content stays the same is not written again
(`context_plane/reuse.py`).

Each artefact can be made on its own, from what the ones before it stored. A build of the whole day in one
process hands over in memory what it would read back, and analyzes texts while vectors are written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import orjson

from context_plane.catalog.days import load_day
from context_plane.catalog.head import load_head
from context_plane.catalog.lists import SegmentEntry, decode_segments
from context_plane.catalog.manifest import (
    DayEntry,
    SegmentListRef,
)
from context_plane.engine import Engine
from context_plane.errors import Conflict, PlaneError
from context_plane.fold import PARALLEL_SEGMENTS, fold_day, read_segments
from context_plane.index import blocks, entity_shard, vector_shard
from context_plane.index.rows import F32, U8, Rows, quantize
from context_plane.layout.pack import EncodedPack
from context_plane.layout.segment import decode_lines
from context_plane.model import Event, event_from_record
from context_plane.publish import publish_day
from context_plane.shards import UNREAD, from_store, put_entities, put_fulltext, put_vectors, read_columns, read_vectors
from context_plane.staging import (
    EntityStage,
    FulltextStage,
    SegmentsStage,
    VectorStage,
    load_entity_stage,
    load_segments_stage,
    load_vector_stage,
    save,
)
from context_plane.store.pieces import Pieces

EMBED_ROWS: Final = 4096
"""Texts handed to the embedder at once: keeps its working memory small."""
QUANTIZE_ROWS: Final = 2048
"""Rows quantized at once: a fixed cost is shared, and the float64 copy stays within some megabytes."""
REBUILDS_MAX: Final = 5
"""How often a build starts over because another one published first."""


@dataclass(frozen=True, slots=True)
class DayEvents:
    """A day's events by entity, ascending, with their digests (16 bytes each)."""

    entries: Sequence[SegmentEntry]
    groups: Sequence[Sequence[Event]]
    digests: Sequence[Sequence[bytes]]


async def build_day(engine: Engine, tenant: str, day: str) -> DayEntry | None:
    """Fold, index and publish one day, starting over when its sources moved. Returns the published entry."""
    for attempt in range(REBUILDS_MAX):
        try:
            lines: dict[str, list[bytes]] = {}
            segments = await fold_day(engine, tenant, day, lines=lines)
            published = await publish_day(engine, segments, *await _index_day(engine, segments, lines))
        except Conflict as error:
            if error.code != "build_stale" or attempt == REBUILDS_MAX - 1:
                raise
            continue
        return published.entry
    raise AssertionError("the last attempt returns or raises")


async def _index_day(
    engine: Engine, segments: SegmentsStage, lines: dict[str, list[bytes]]
) -> tuple[VectorStage, EntityStage, FulltextStage]:
    """The three shards as the three functions below make them, nothing read back. Empties `lines`."""
    held = await load_events(engine, segments.tenant, segments.day, segments.segments, lines)
    made, (vector, vectors) = await asyncio.gather(
        asyncio.to_thread(analyzed_blocks, segments.day, held), _make_vectors(engine, segments, held)
    )
    entity, columns = await _make_entities(engine, segments, held, made, vectors)
    return vector, entity, await _make_fulltext(engine, segments, entity, columns)


# --- vector shard -------------------------------------------------------------------------------


async def index_vectors(
    engine: Engine,
    segments: SegmentsStage | None = None,
    *,
    tenant: str = "",
    day: str = "",
    ahead: Mapping[bytes, F32] | None = None,
) -> VectorStage:
    """Embed the day's rows and write them as a Lance dataset. Without `segments` its staging record is read. `ahead`:
    vectors by text digest that were made of its ranges (`context_plane/ranges.py`)."""
    segments = segments or await load_segments_stage(engine.store, tenant, day)
    held = await load_events(engine, segments.tenant, segments.day, segments.segments)
    return (await _make_vectors(engine, segments, held, ahead))[0]


async def _make_vectors(
    engine: Engine, segments: SegmentsStage, held: DayEvents, ahead: Mapping[bytes, F32] | None = None
) -> tuple[VectorStage, F32]:
    """The stage, and float32 [N, D] of the day's rows."""
    if not held.groups:
        stage, vectors = VectorStage(source=segments.source, shard=None, rows=0, embedded=0, bytes=0), _no_vectors()
    else:
        stage, vectors = await _build_vectors(engine, segments, held.groups, ahead or {})
    await save(engine.store, segments.tenant, segments.day, "vector", stage)
    return stage, vectors


async def _build_vectors(
    engine: Engine, segments: SegmentsStage, groups: Sequence[Sequence[Event]], ahead: Mapping[bytes, F32]
) -> tuple[VectorStage, F32]:
    events = [event for group in groups for event in group]
    digests = await asyncio.to_thread(blocks.row_text_digests, events)
    known, seen = await known_vectors(engine, segments) if digests.any() else ({}, frozenset())
    rows, embedded = await make_vectors(engine, events, digests, {**ahead, **known})
    embedded += sum(digest in ahead and digest not in known for digest in map(bytes, digests)) if ahead else 0
    columns = await asyncio.to_thread(blocks.place_columns, segments.day, groups)
    before = segments.shards_before.vector if segments.shards_before else None
    shard = await put_vectors(engine, segments.tenant, segments.day, columns, rows, digests, before=before, seen=seen)
    stage = VectorStage(
        source=segments.source,
        shard=shard,
        rows=len(rows),
        embedded=embedded,
        bytes=sum(file.bytes for file in shard.files),
        reused=shard == before,
    )
    return stage, rows


async def make_vectors(
    engine: Engine, events: Sequence[Event], digests: U8, known: Mapping[bytes, F32]
) -> tuple[F32, int]:
    """float32 [N, D] of the events' rows, and how many were embedded. `digests`: uint8 [N, 16] of the rows' texts,
    zero where none is embedded. `known`: vectors by text digest. Raises `Invalid(vector_invalid)`."""
    texts = await asyncio.to_thread(blocks.rows_to_embed, events)
    wanted = [digest.tobytes() for digest in digests[digests.any(axis=1)]]
    vectors = np.zeros((len(texts), engine.embedder.dim), np.float32)
    missing = [n for n, digest in enumerate(wanted) if digest not in known]
    for n, digest in enumerate(wanted):
        if digest in known:
            vectors[n] = known[digest]
    for start in range(0, len(missing), EMBED_ROWS):
        chosen = missing[start : start + EMBED_ROWS]
        vectors[chosen] = await engine.embedder.embed_documents([texts[n] for n in chosen])
    return await asyncio.to_thread(blocks.row_vectors, events, vectors, engine.embedder.dim), len(missing)


async def known_vectors(engine: Engine, segments: SegmentsStage) -> tuple[dict[bytes, F32], frozenset[str]]:
    """Vectors of the day's published shard by text digest, when it is of the same model, and the paths of its files
    that were read whole for them."""
    shards = segments.shards_before
    if shards is None:
        manifest = await load_head(engine.store, segments.tenant)
        entry = await load_day(engine.store, manifest, segments.day)
        shards = None if entry is None else entry.shards
    if shards is None or shards.vector.model != engine.embedder.model:
        return {}, frozenset()
    try:
        known = vector_shard.reusable_vectors(await read_vectors(shards.vector, from_store(engine)))
    except (PlaneError, OSError, ValueError):
        return {}, frozenset()  # derived state is disposable: what cannot be read is computed again
    return known, frozenset(file.path for file in shards.vector.files if not file.path.startswith(UNREAD))


# --- entity shard -------------------------------------------------------------------------------


async def index_entities(
    engine: Engine,
    segments: SegmentsStage | None = None,
    vector: VectorStage | None = None,
    *,
    tenant: str = "",
    day: str = "",
) -> EntityStage:
    """Write one pack with a block per entity. Stages not given are read from their staging records."""
    segments = segments or await load_segments_stage(engine.store, tenant, day)
    vector = vector or await load_vector_stage(engine.store, segments.tenant, segments.day)
    _same_source(segments, vector.source, "vector")
    held = await load_events(engine, segments.tenant, segments.day, segments.segments)
    made = await asyncio.to_thread(analyzed_blocks, segments.day, held)
    vectors = _no_vectors()
    if vector.shard is not None:
        vectors = (await read_vectors(vector.shard, from_store(engine))).vectors
    return (await _make_entities(engine, segments, held, made, vectors))[0]


async def _make_entities(
    engine: Engine, segments: SegmentsStage, held: DayEvents, made: Sequence[Rows], vectors: F32
) -> tuple[EntityStage, Rows | None]:
    """The stage, and the shard's columns. `made`: the entities' blocks, `vectors` those of their rows."""
    if not made:
        stage = EntityStage(
            source=segments.source, shard=None, entities=0, events=0, rows=0, first_ts_us=0, last_ts_us=0
        )
        columns = None
    else:
        stage, columns = await _put_entities(engine, segments, held.entries, made, vectors)
    await save(engine.store, segments.tenant, segments.day, "entity", stage)
    return stage, columns


async def _put_entities(
    engine: Engine, segments: SegmentsStage, entries: Sequence[SegmentEntry], made: Sequence[Rows], vectors: F32
) -> tuple[EntityStage, Rows]:
    encoded, columns = await asyncio.to_thread(pack_entities, segments.day, entries, made, vectors)
    before = segments.shards_before.entity if segments.shards_before else None
    shard = await put_entities(engine, segments.tenant, segments.day, encoded, before=before)
    stage = EntityStage(
        source=segments.source,
        shard=shard,
        reused=shard == before,
        entities=len(made),
        events=columns.event_count,
        rows=columns.row_count,
        first_ts_us=int(columns.event_ts_us.min()),
        last_ts_us=int(columns.event_ts_us.max()),
    )
    return stage, columns


def pack_entities(
    day: str, entries: Sequence[SegmentEntry], made: Sequence[Rows], vectors: F32
) -> tuple[EncodedPack, Rows]:
    """A day's entity shard and its columns. `made`: the entities' blocks, `vectors` those of their rows. Pure."""
    placed = zip(entries, _with_vectors(made, vectors), strict=True)
    packed = (entity_shard.ShardBlock(rows, entry.id, entry.digest) for entry, rows in placed)
    encoded = entity_shard.encode_shard(day, packed)
    section = entity_shard.columns_range(encoded.sections)
    return encoded, entity_shard.decode_columns(Pieces([encoded.stored[section.offset : section.stop]]))


def analyzed_blocks(day: str, held: DayEvents) -> list[Rows]:
    """Each entity's block without vectors."""
    none = np.zeros((0, 0), np.float32)
    return [
        blocks.build_block(entry.entity, day, events, none, digests=digests)
        for entry, events, digests in zip(held.entries, held.groups, held.digests, strict=True)
    ]


def _with_vectors(made: Sequence[Rows], vectors: F32) -> Iterator[Rows]:
    """The blocks with their rows' vectors, float32 [N, D] of all of them in turn."""
    first = 0
    for group in _groups(made):
        rows = sum(block.row_count for block in group)
        fixed, scales = quantize(vectors[first : first + rows])
        first += rows
        at = 0
        for block in group:
            stop = at + block.row_count
            yield replace(block, dim=vectors.shape[1], vectors=fixed[at:stop], scales=scales[at:stop])
            at = stop
    assert first == len(vectors), "one vector a row"


def _groups(made: Sequence[Rows]) -> Iterator[list[Rows]]:
    """Consecutive blocks of about `QUANTIZE_ROWS` rows."""
    group: list[Rows] = []
    rows = 0
    for block in made:
        group.append(block)
        rows += block.row_count
        if rows >= QUANTIZE_ROWS:
            yield group
            group, rows = [], 0
    if group:
        yield group


# --- full-text shard ----------------------------------------------------------------------------


async def index_fulltext(
    engine: Engine,
    segments: SegmentsStage | None = None,
    entity: EntityStage | None = None,
    *,
    tenant: str = "",
    day: str = "",
) -> FulltextStage:
    """Write the day's tantivy index from the entity shard's postings."""
    segments = segments or await load_segments_stage(engine.store, tenant, day)
    entity = entity or await load_entity_stage(engine.store, segments.tenant, segments.day)
    _same_source(segments, entity.source, "entity")
    columns = None if entity.shard is None else await read_columns(engine.store, entity.shard)
    return await _make_fulltext(engine, segments, entity, columns)


async def _make_fulltext(
    engine: Engine, segments: SegmentsStage, entity: EntityStage, columns: Rows | None
) -> FulltextStage:
    if entity.shard is None or columns is None:
        stage = FulltextStage(source=segments.source, shard=None, rows=0)
    else:
        before = segments.shards_before.fulltext if segments.shards_before else None
        shard = await put_fulltext(engine, segments.tenant, segments.day, columns, before=before)
        stage = FulltextStage(source=segments.source, shard=shard, rows=columns.row_count, reused=shard == before)
    await save(engine.store, segments.tenant, segments.day, "fulltext", stage)
    return stage


# --- leaves -------------------------------------------------------------------------------------


async def load_events(
    engine: Engine,
    tenant: str,
    day: str,
    segments: SegmentListRef | None,
    lines: dict[str, list[bytes]] | None = None,
) -> DayEvents:
    """The day's events; those of entities in `lines` (emptied on the way) from there, the others from the store."""
    if segments is None:
        return DayEvents((), (), ())
    lines = {} if lines is None else lines
    entries = decode_segments(await engine.store.get(segments.key))
    groups: list[list[Event]] = []
    digests: list[list[bytes]] = []

    def decode(part: Sequence[SegmentEntry], stored: Mapping[str, bytes]) -> None:
        for entry in part:
            held = lines.pop(entry.entity, None)
            if held is None:
                held = decode_lines(stored[entry.entity], digest=entry.digest)
            groups.append([event_from_record(orjson.loads(line)) for line in held])
            digests.append([blocks.line_digest(line) for line in held])

    for start in range(0, len(entries), PARALLEL_SEGMENTS):
        part = entries[start : start + PARALLEL_SEGMENTS]
        wanted = [entry for entry in part if entry.entity not in lines]
        stored = await read_segments(engine.store, tenant, day, wanted)
        names = [entry.entity for entry in wanted]
        await asyncio.to_thread(decode, part, dict(zip(names, stored, strict=True)))
    return DayEvents(entries, groups, digests)


def _no_vectors() -> F32:
    return np.zeros((0, 0), np.float32)


def _same_source(segments: SegmentsStage, source: str, artifact: str) -> None:
    if source != segments.source:
        detail = f"the {artifact} artefact was built from other segments; materialize it again"
        raise Conflict("build_incomplete", detail, tenant=segments.tenant, day=segments.day)
