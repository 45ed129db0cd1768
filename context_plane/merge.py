"""Merge: the shards of a month's days joined into the month's, without analyzing or embedding anything again.

Blocks are joined entity by entity from the days' packs, columns and full-text index are made of the joined
blocks, and vectors are put into the month's row order. Equal days give equal digests. The days' blocks are held
compressed; what else grows with the month are its own blocks, columns and vectors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from context_plane.ann_recall import check_graph
from context_plane.catalog.manifest import DayEntry, PackRef, Shards
from context_plane.engine import Engine
from context_plane.errors import Conflict, Corrupt
from context_plane.index import blocks, entity_shard
from context_plane.index.entity_shard import BlockEntry, ShardBlock
from context_plane.index.rows import DIGEST_BYTES, F32, I64, U8, Rows, decode_rows
from context_plane.layout.pack import EncodedPack, decode_block, decode_page
from context_plane.model import sha256_hex
from context_plane.rollup import Merge
from context_plane.shards import from_store, put_entities, put_fulltext, put_vectors, read_vectors
from context_plane.store.pieces import Pieces

PARALLEL_DAYS: Final = 4
"""Days read at once: hides object latency, and a day's vectors are held twice only while it is placed."""


@dataclass(frozen=True, slots=True)
class _Day:
    """One day's entity shard: its blocks. `entries` ascend by entity, as its rows do."""

    day: str
    shards: Shards
    stored: bytes
    entries: Mapping[str, BlockEntry]


def merge_month(engine: Engine, tenant: str, month: str, *, before: Shards | None = None) -> Merge:
    """How `roll_up` makes the month's shards; those of `before` that stay the same are named again. Raises
    `Conflict(model_mismatch, graph_recall_low)`, `Corrupt`."""

    async def merge(days: Mapping[str, DayEntry]) -> Shards:
        return await _merge(engine, tenant, month, days, before)

    return merge


@dataclass(frozen=True, slots=True)
class Merged:
    """A month's shards before they are written. `vectors` float32 [N, D], `text_digests` uint8 [N, 16], by row."""

    entity: EncodedPack
    columns: Rows
    vectors: F32
    text_digests: U8


async def _merge(
    engine: Engine, tenant: str, month: str, days: Mapping[str, DayEntry], before: Shards | None
) -> Shards:
    shards = {day: entry.shards for day, entry in days.items() if entry.shards is not None}
    _check_model(engine, shards)
    merged = await merge_days(engine, month, shards)
    columns = merged.columns
    vectors = (columns, merged.vectors, merged.text_digests)
    same = before is not None and before.entity.digest == merged.entity.digest
    held = before.vector if before and same else None  # its own digest covers no column but text digests and vectors
    entity = await _put_entities(engine, tenant, month, merged.entity, before.entity if before else None)
    fulltext = await put_fulltext(engine, tenant, month, columns, before=before.fulltext if before else None)
    vector = await put_vectors(engine, tenant, month, *vectors, before=held)
    if vector != held:
        await check_graph(vector, from_store(engine))
    return Shards(
        entity=entity,
        fulltext=fulltext,
        vector=vector,
        entities=len(columns.entities),
        events=columns.event_count,
        rows=columns.row_count,
        first_ts_us=int(columns.event_ts_us.min()),
        last_ts_us=int(columns.event_ts_us.max()),
    )


async def _put_entities(
    engine: Engine, tenant: str, month: str, encoded: EncodedPack, before: PackRef | None
) -> PackRef:
    """Blocks of a month note the keys of segments, which are no part of its digest: here the bytes must be the same."""
    if before is not None and before.sha256 != await asyncio.to_thread(sha256_hex, encoded.stored):
        before = None
    return await put_entities(engine, tenant, month, encoded, before=before)


async def merge_days(engine: Engine, month: str, days: Mapping[str, Shards]) -> Merged:
    """The days' shards, ascending by day, as one. Writes nothing. Raises `Corrupt` where a day is damaged."""
    gate = asyncio.Semaphore(PARALLEL_DAYS)
    read = await asyncio.gather(*(_read_day(engine, day, held, gate) for day, held in days.items()))
    encoded = await asyncio.to_thread(_join, read)
    section = entity_shard.columns_range(encoded.sections)
    frame = Pieces([encoded.stored[section.offset : section.stop]])
    columns = await asyncio.to_thread(entity_shard.decode_columns, frame)
    held = (sum(each.events for each in days.values()), sum(each.rows for each in days.values()))
    if held != (columns.event_count, columns.row_count):
        raise Corrupt("check_failed", "a month's days do not hold what the manifest counts; rebuild them", month=month)
    vectors, digests = await _vectors(engine, read, columns.row_count, gate)
    return Merged(encoded, columns, vectors, digests)


def _check_model(engine: Engine, days: Mapping[str, Shards]) -> None:
    for day, held in days.items():
        if (held.vector.model, held.vector.dim) != (engine.embedder.model, engine.embedder.dim):
            detail = "a day's vectors come from another model; re-embed the day before its month is rolled up"
            raise Conflict("model_mismatch", detail, day=day, built=held.vector.model, configured=engine.embedder.model)


async def _read_day(engine: Engine, day: str, shards: Shards, gate: asyncio.Semaphore) -> _Day:
    ref = shards.entity
    async with gate:
        stored = await engine.store.get(ref.key)
        if await asyncio.to_thread(sha256_hex, stored) != ref.sha256:
            raise Corrupt("corrupt_object", "an entity shard does not match its recorded digest", key=ref.key)
    pages = (decode_page(stored[page.offset : page.offset + page.length]) for page in ref.layout_pages())
    entries = {entry.key: BlockEntry.of(entry) for page in pages for entry in page}
    return _Day(day, shards, stored[: ref.sections[0].offset], entries)


# --- entity shard -------------------------------------------------------------------------------


def _join(days: Sequence[_Day]) -> EncodedPack:
    """The month's pack. `days` ascend."""
    return entity_shard.encode_shard(None, _blocks(days))


def _blocks(days: Sequence[_Day]) -> Iterator[ShardBlock]:
    for entity in _entities(days):
        held = [(day, day.entries[entity]) for day in days if entity in day.entries]
        parts = [decode_rows(decode_block(day.stored[e.range.offset : e.range.stop])) for day, e in held]
        segments = tuple((day.day, entry.segment_id) for day, entry in held)
        yield ShardBlock(blocks.join_days(entity, parts), segments=segments)


def _entities(days: Sequence[_Day]) -> list[str]:
    return sorted({entity for day in days for entity in day.entries})


# --- vectors ------------------------------------------------------------------------------------


async def _vectors(engine: Engine, days: Sequence[_Day], rows: int, gate: asyncio.Semaphore) -> tuple[F32, U8]:
    """float32 [rows, D] and text digests [rows, 16] in the month's row order."""
    vectors = np.zeros((rows, days[0].shards.vector.dim), np.float32)
    digests = np.zeros((rows, DIGEST_BYTES), np.uint8)
    places = await asyncio.to_thread(_places, days)

    async def one(day: _Day) -> None:
        async with gate:
            stored = await read_vectors(day.shards.vector, from_store(engine))
            place = places[day.day]
            if len(stored.vectors) != len(place):
                detail = "a day's vector shard and entity shard have different numbers of rows; rebuild the day"
                raise Corrupt("corrupt_object", detail, day=day.day, key=day.shards.vector.key)
            vectors[place] = stored.vectors
            digests[place] = stored.text_digests

    await asyncio.gather(*(one(day) for day in days))
    return vectors, digests


def _places(days: Sequence[_Day]) -> dict[str, I64]:
    """Day -> the month's row of each of its rows: rows ascend by entity, then day. Pure."""
    found: dict[str, list[I64]] = {day.day: [] for day in days}
    first = 0
    for entity in _entities(days):
        for day in days:
            entry = day.entries.get(entity)
            if entry is not None:
                found[day.day].append(np.arange(first, first + entry.rows, dtype=np.int64))
                first += entry.rows
    return {day: np.concatenate(rows) for day, rows in found.items()}
