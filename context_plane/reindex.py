"""Reindex: a day's segments become its three shards, each an artefact of its own.

    segments -> vector shard (embeds) -> entity shard (vectors in fixed point, postings) -> full-text shard

Every datum is computed once: the vector shard holds the embeddings that the entity shard quantizes, and the
full-text shard is made from the entity shard's postings. Vectors of unchanged texts are reused from the
day's previous shard of the same model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from context_plane.catalog.days import load_day
from context_plane.catalog.head import load_version, newest_version
from context_plane.catalog.lists import SegmentEntry, decode_segments
from context_plane.catalog.manifest import DayEntry, FileRef, ObjectRef, PackRef, VectorRef, object_ref, pack_ref
from context_plane.engine import Engine
from context_plane.errors import Conflict, Corrupt, PlaneError
from context_plane.fold import fold_day, read_events
from context_plane.index import blocks, entity_shard, fulltext_shard, vector_shard
from context_plane.index.rows import F32, U8, Rows, concat
from context_plane.index.scratch import scratch_folder
from context_plane.layout.keys import ShardFileKey, ShardKey, built_id
from context_plane.model import Event, sha256_hex
from context_plane.publish import publish_day
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

EMBED_ROWS: Final = 4096
"""Texts handed to the embedder at once: keeps its working memory small."""
PARALLEL_FILES: Final = 16
ReadFile: TypeAlias = Callable[[str, FileRef], Awaitable[bytes]]
"""(key, file) -> the stored bytes of one file of a dataset."""
UNREAD: Final = ("_transactions/", "_versions/latest_version_hint.json")
"""Files of a dataset that only its writers need: half of the requests for a small one."""
REBUILDS_MAX: Final = 5
"""How often a build starts over because another one published first."""


async def build_day(engine: Engine, tenant: str, day: str) -> DayEntry | None:
    """Fold, index and publish one day, starting over when its sources moved. Returns the published entry."""
    for attempt in range(REBUILDS_MAX):
        try:
            segments = await fold_day(engine, tenant, day)
            vector = await index_vectors(engine, segments)
            entity = await index_entities(engine, segments, vector)
            fulltext = await index_fulltext(engine, segments, entity)
            manifest = await publish_day(engine, segments, vector, entity, fulltext)
        except Conflict as error:
            if error.code != "build_stale" or attempt == REBUILDS_MAX - 1:
                raise
            continue
        return manifest.days.get(day)
    raise AssertionError("the last attempt returns or raises")


# --- vector shard -------------------------------------------------------------------------------


async def index_vectors(
    engine: Engine, segments: SegmentsStage | None = None, *, tenant: str = "", day: str = ""
) -> VectorStage:
    """Embed the day's rows and write them as a Lance dataset. Without `segments` its staging record is read."""
    segments = segments or await load_segments_stage(engine.store, tenant, day)
    groups = await _read_segments(engine, segments)
    if not groups:
        stage = VectorStage(source=segments.source, shard=None, rows=0, embedded=0, bytes=0)
    else:
        stage = await _build_vectors(engine, segments, groups)
    await save(engine.store, segments.tenant, segments.day, "vector", stage)
    return stage


async def _build_vectors(engine: Engine, segments: SegmentsStage, groups: Sequence[Sequence[Event]]) -> VectorStage:
    events = [event for group in groups for event in group]
    known = await _known_vectors(engine, segments.tenant, segments.day)
    texts = await asyncio.to_thread(blocks.rows_to_embed, events)
    digests = await asyncio.to_thread(blocks.row_text_digests, events)
    wanted = [digest.tobytes() for digest in digests if digest.any()]
    vectors = np.zeros((len(texts), engine.embedder.dim), np.float32)
    missing = [n for n, digest in enumerate(wanted) if digest not in known]
    for n, digest in enumerate(wanted):
        if digest in known:
            vectors[n] = known[digest]
    for start in range(0, len(missing), EMBED_ROWS):
        chosen = missing[start : start + EMBED_ROWS]
        vectors[chosen] = await engine.embedder.embed_documents([texts[n] for n in chosen])
    rows = await asyncio.to_thread(blocks.row_vectors, events, vectors, engine.embedder.dim)
    columns = await asyncio.to_thread(_unanalyzed, segments.day, groups)
    shard = await put_vectors(engine, segments.tenant, segments.day, columns, rows, digests)
    stored = sum(file.bytes for file in shard.files)
    return VectorStage(source=segments.source, shard=shard, rows=len(rows), embedded=len(missing), bytes=stored)


def _unanalyzed(day: str, groups: Sequence[Sequence[Event]]) -> Rows:
    """The day's columns without postings, which is all that a vector shard keeps beside its vectors."""
    return concat([_placed(day, events) for events in groups], day=day)


def _placed(day: str, events: Sequence[Event]) -> Rows:
    none = np.zeros((blocks.row_count(events), 0), np.float32)
    return blocks.build_block(events[0].entity, day, events, none, analyzed=False)


async def _known_vectors(engine: Engine, tenant: str, day: str) -> dict[bytes, F32]:
    """Vectors of the day's published shard by text digest, when it is of the same model."""
    manifest = await load_version(engine.store, tenant, await newest_version(engine.store, tenant))
    entry = await load_day(engine.store, manifest, day)
    if entry is None or entry.shards is None or entry.shards.vector.model != engine.embedder.model:
        return {}
    try:
        return vector_shard.reusable_vectors(await read_vectors(entry.shards.vector, from_store(engine)))
    except (PlaneError, OSError, ValueError):
        return {}  # derived state is disposable: what cannot be read is computed again


async def put_vectors(engine: Engine, tenant: str, period: str, columns: Rows, vectors: F32, digests: U8) -> VectorRef:
    """Write the vector shard of a day or month: float32 [N, D] and text digests [N, 16] of the columns' rows."""
    model = engine.embedder.model
    digest = await asyncio.to_thread(vector_shard.content_digest, vectors, digests, model=model)
    key = ShardKey(tenant, "vector", period, built_id(digest, engine.nonce()))
    name = dataset_name(str(key))
    with scratch_folder() as folder:
        paths = await asyncio.to_thread(vector_shard.write_dataset, folder, name, columns, vectors, digests)
        files = await asyncio.gather(*(_put_file(engine, key, folder / f"{name}.lance", path) for path in paths))
        ann = vectors.shape[0] >= vector_shard.ANN_ROWS_MIN and await asyncio.to_thread(
            vector_shard.has_ann_index, folder, name
        )
    return VectorRef(key=str(key), digest=digest, files=tuple(files), dim=engine.embedder.dim, model=model, ann=ann)


async def _put_file(engine: Engine, key: ShardKey, dataset: Path, path: Path) -> FileRef:
    data = await asyncio.to_thread((dataset / path).read_bytes)
    await engine.store.put_new(str(ShardFileKey(key, path.as_posix())), data)
    return FileRef(path=path.as_posix(), bytes=len(data), sha256=sha256_hex(data))


async def read_vectors(ref: VectorRef, read: ReadFile) -> vector_shard.StoredVectors:
    """Vectors and text digests of a stored dataset, fetched whole. Raises `Corrupt` where a file is damaged."""
    gate = asyncio.Semaphore(PARALLEL_FILES)
    name = dataset_name(ref.key)
    with scratch_folder() as scratch:

        async def fetch(file: FileRef) -> None:
            async with gate:
                data = await read(f"{ref.key}/{file.path}", file)
            await asyncio.to_thread(_write, scratch / f"{name}.lance" / file.path, data)

        await asyncio.gather(*(fetch(file) for file in ref.files if not file.path.startswith(UNREAD)))
        return await asyncio.to_thread(vector_shard.read_vectors, scratch, name)


def from_store(engine: Engine) -> ReadFile:
    """Straight from the store: a build reads a file once."""

    async def read(key: str, file: FileRef) -> bytes:
        data = await engine.store.get(key)
        if await asyncio.to_thread(sha256_hex, data) != file.sha256:
            raise Corrupt("corrupt_object", "a file of a vector shard does not match its recorded digest", key=key)
        return data

    return read


def dataset_name(key: str) -> str:
    """The table name under which lancedb opens a dataset in its parent folder."""
    return Path(key).name.removesuffix(".lance")


def _write(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


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
    if segments.segments is None or vector.shard is None:
        stage = EntityStage(
            source=segments.source, shard=None, entities=0, events=0, rows=0, first_ts_us=0, last_ts_us=0
        )
    else:
        entries = decode_segments(await engine.store.get(segments.segments.key))
        groups = await read_events(engine.store, segments.tenant, segments.day, entries)
        stored = await read_vectors(vector.shard, from_store(engine))
        stage = await _put_entities(engine, segments, entries, groups, stored.vectors)
    await save(engine.store, segments.tenant, segments.day, "entity", stage)
    return stage


async def _put_entities(
    engine: Engine,
    segments: SegmentsStage,
    entries: Sequence[SegmentEntry],
    groups: Sequence[Sequence[Event]],
    vectors: F32,
) -> EntityStage:
    def build() -> list[entity_shard.ShardBlock]:
        made, first = [], 0
        for entry, events in zip(entries, groups, strict=True):
            count = blocks.row_count(events)
            rows = blocks.build_block(entry.entity, segments.day, events, vectors[first : first + count])
            made.append(entity_shard.ShardBlock(rows, entry.id, entry.digest))
            first += count
        return made

    made = await asyncio.to_thread(build)
    encoded = await asyncio.to_thread(entity_shard.encode_shard, segments.day, made)
    key = str(ShardKey(segments.tenant, "entity", segments.day, built_id(encoded.digest, engine.nonce())))
    await engine.store.put_new(key, encoded.stored)
    return EntityStage(
        source=segments.source,
        shard=pack_ref(key, encoded),
        entities=len(made),
        events=sum(block.rows.event_count for block in made),
        rows=sum(block.rows.row_count for block in made),
        first_ts_us=min(int(block.rows.event_ts_us.min()) for block in made),
        last_ts_us=max(int(block.rows.event_ts_us.max()) for block in made),
    )


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
    if entity.shard is None:
        stage = FulltextStage(source=segments.source, shard=None, rows=0)
    else:
        columns = await _columns(engine, entity.shard)
        shard = await put_fulltext(engine, segments.tenant, segments.day, columns)
        stage = FulltextStage(source=segments.source, shard=shard, rows=columns.row_count)
    await save(engine.store, segments.tenant, segments.day, "fulltext", stage)
    return stage


async def put_fulltext(engine: Engine, tenant: str, period: str, columns: Rows) -> ObjectRef:
    """Write the full-text shard of a day or month."""
    with scratch_folder() as scratch:
        stored = await asyncio.to_thread(fulltext_shard.build, columns, scratch)
    digest = await asyncio.to_thread(fulltext_shard.content_digest, columns)
    key = str(ShardKey(tenant, "fulltext", period, built_id(digest, engine.nonce())))
    await engine.store.put_new(key, stored)
    return object_ref(key, stored, digest)


async def _columns(engine: Engine, ref: PackRef) -> Rows:
    frame = await engine.store.get_range(ref.key, ref.sections[entity_shard.COLUMNS_SECTION].range)
    return await asyncio.to_thread(entity_shard.decode_columns, frame)


# --- leaves -------------------------------------------------------------------------------------


async def _read_segments(engine: Engine, segments: SegmentsStage) -> list[list[Event]]:
    if segments.segments is None:
        return []
    entries = decode_segments(await engine.store.get(segments.segments.key))
    return await read_events(engine.store, segments.tenant, segments.day, entries)


def _same_source(segments: SegmentsStage, source: str, artifact: str) -> None:
    if source != segments.source:
        detail = f"the {artifact} artefact was built from other segments; materialize it again"
        raise Conflict("build_incomplete", detail, tenant=segments.tenant, day=segments.day)
