"""Fold: a day's built segments and its uncovered log writes become the day's new segments.

Read the manifest, read bytes, compute purely, put new bytes; the commit is `publish`. Per identity the
last write in (log number, line) order wins; a delete removes. Only segments of entities that the log
touches are read and written; a segment whose content did not change keeps its object. An event's line in
the log is its line in the segment, so events are moved as lines: none is decoded and encoded again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from context_plane.catalog.days import load_day, load_segments
from context_plane.catalog.erasures import Erasures
from context_plane.catalog.head import load_head
from context_plane.catalog.lists import SegmentEntry, encode_segments
from context_plane.catalog.log import list_log
from context_plane.catalog.manifest import Manifest, SegmentListRef
from context_plane.catalog.tail import Batch, check_whole, dirty_days, read_body, read_headers, without_gap
from context_plane.engine import Engine
from context_plane.layout import batch as batches
from context_plane.layout import segment as segments
from context_plane.layout.batch import WriteLine
from context_plane.layout.keys import ListKey, SegmentKey, built_id, entity_part
from context_plane.model import Event, Put, Write, parse_time, sha256_hex
from context_plane.reuse import are_there
from context_plane.staging import LogDays, SegmentsStage, save
from context_plane.store.base import Store

PARALLEL_SEGMENTS: Final = 128
"""Segments read or written at once: enough to hide object latency, few enough for a small heap whatever the
number of entities. While one such range of entities is written, the next is read and encoded."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The unbuilt log under one manifest: batches above the floor, up to a gap in the listing, and what is dirty."""

    manifest: Manifest
    batches: tuple[Batch, ...]

    @property
    def dirty(self) -> dict[str, list[Batch]]:
        return dirty_days(self.manifest, self.batches)

    @property
    def log_number(self) -> int:
        return self.batches[-1].number if self.batches else self.manifest.log_floor


async def load_pending(engine: Engine, tenant: str, *, manifest: Manifest | None = None) -> Pending:
    manifest = manifest or await load_head(engine.store, tenant)
    objects = await list_log(engine.store, tenant, after=manifest.log_floor)
    headers = await read_headers(engine.store, tenant, without_gap(objects, manifest.log_floor))
    check_whole(headers)
    return Pending(manifest, tuple(headers))


def apply_writes(events: Iterable[Event], writes: Iterable[Write]) -> list[Event]:
    """The events of one entity and day after `writes`, in their order; ascending by (ts, id). Pure."""
    by_id = {event.id: event for event in events}
    for write in writes:
        if isinstance(write, Put):
            by_id[write.event.id] = write.event
        else:
            by_id.pop(write.id, None)
    return sorted(by_id.values(), key=lambda event: event.order)


async def fold_day(
    engine: Engine,
    tenant: str,
    day: str,
    *,
    pending: Pending | None = None,
    lines: dict[str, list[bytes]] | None = None,
) -> SegmentsStage:
    """Write the day's new segments and its segment list, and leave a staging record. Commits nothing.

    `lines` is given the events' lines of every entity that the log touches: a build in one process need not
    read back what it wrote.
    """
    started_us = engine.now_us()
    pending = pending or await load_pending(engine, tenant)
    manifest = pending.manifest
    entry = await load_day(engine.store, manifest, day)
    erasures = Erasures.of(manifest)
    built = await load_segments(engine.store, entry)
    applied = entry.erasures if entry else 0
    kept = {e.entity: e for e in built if not erasures.hides_built(e.entity, applied)}
    writes = await writes_of(engine.store, tenant, day, pending, erasures)
    folded = await _fold_entities(engine, tenant, day, kept, writes, lines)
    entries = sorted(folded.entries.values(), key=lambda e: e.entity)
    same = entry if entries == built else None
    segment_list, list_bytes = await _put_list(engine, tenant, day, entries, same.segments if same else None)
    stage = SegmentsStage(
        tenant=tenant,
        day=day,
        base=manifest.sources(day),
        erasures=manifest.erasures,
        started_us=started_us,
        covered=max(pending.log_number, manifest.covered(day)),
        observed=tuple(LogDays(number=b.number, days=tuple(b.header.days)) for b in pending.batches),
        segments=segment_list,
        changed=folded.changed + len(built) - len(kept),
        objects=folded.objects + (list_bytes > 0),
        bytes=sum(entry.bytes for entry in entries) + (segment_list.bytes if segment_list else 0),
        before=same if same is not None and await _is_readable(engine.store, manifest, day) else None,
    )
    await save(engine.store, tenant, day, "segments", stage)
    return stage


async def _is_readable(store: Store, manifest: Manifest, day: str) -> bool:
    """Whether the shards that readers of a built day open are there: of a day of a rolled month those of its month,
    which no build of a day restores. Where they are gone, the day is published anew and leaves the month."""
    return day in manifest.days or await are_there(store, manifest.months[day[:7]].shards)


async def read_events(store: Store, tenant: str, day: str, entries: Sequence[SegmentEntry]) -> list[list[Event]]:
    """The events of each segment, in order, digests checked."""
    stored = await read_segments(store, tenant, day, entries)

    def decode() -> list[list[Event]]:
        return [segments.decode(each, digest=entry.digest) for entry, each in zip(entries, stored, strict=True)]

    return await asyncio.to_thread(decode)


async def read_segments(store: Store, tenant: str, day: str, entries: Sequence[SegmentEntry]) -> list[bytes]:
    """The stored bytes of each segment, in order."""
    gate = asyncio.Semaphore(PARALLEL_SEGMENTS)

    async def one(entry: SegmentEntry) -> bytes:
        async with gate:
            return await store.get(entry.key(tenant, day))

    return list(await asyncio.gather(*(one(entry) for entry in entries)))


async def writes_of(
    store: Store, tenant: str, day: str, pending: Pending, erasures: Erasures
) -> dict[str, list[WriteLine]]:
    """Uncovered writes of the day by entity, in write order, without erased lives."""
    grouped: dict[str, list[WriteLine]] = {}

    def add(batch: Batch, body: bytes) -> None:
        for write in batches.decode_lines(batch.header, body, day=day):
            if not erasures.hides_log(write.entity, batch.number):
                grouped.setdefault(write.entity, []).append(write)

    for batch in pending.dirty.get(day, ()):
        await asyncio.to_thread(add, batch, await read_body(store, tenant, batch))
    return grouped


@dataclass(slots=True)
class _Folded:
    entries: dict[str, SegmentEntry]
    changed: int = 0
    objects: int = 0


async def _fold_entities(
    engine: Engine,
    tenant: str,
    day: str,
    kept: Mapping[str, SegmentEntry],
    writes: dict[str, list[WriteLine]],
    lines: dict[str, list[bytes]] | None,
) -> _Folded:
    """`writes` is emptied on the way: what is written need not be held."""
    folded = _Folded(dict(kept))

    async def encode(entities: Sequence[str]) -> list[tuple[str, segments.EncodedSegment | None]]:
        before = [kept[entity] for entity in entities if entity in kept]
        stored = await read_segments(engine.store, tenant, day, before)
        held = {entry.entity: (entry, each) for entry, each in zip(before, stored, strict=True)}
        mine = [(entity, held.get(entity), writes.pop(entity)) for entity in entities]
        return await asyncio.to_thread(_changed, day, mine, lines)

    async def put(entity: str, encoded: segments.EncodedSegment) -> None:
        new_id = built_id(encoded.digest, engine.nonce())
        await engine.store.put_new(str(SegmentKey(tenant, entity_part(entity), day, new_id)), encoded.stored)
        folded.entries[entity] = SegmentEntry(entity, new_id, encoded.digest, encoded.events, len(encoded.stored))
        folded.changed += 1
        folded.objects += 1

    async def put_all(made: Sequence[tuple[str, segments.EncodedSegment | None]]) -> None:
        for entity in (entity for entity, encoded in made if encoded is None):
            folded.changed += folded.entries.pop(entity, None) is not None
        await asyncio.gather(*(put(entity, encoded) for entity, encoded in made if encoded is not None))

    names = sorted(writes)
    made: list[tuple[str, segments.EncodedSegment | None]] = []
    for start in range(0, len(names), PARALLEL_SEGMENTS):
        made, _ = await asyncio.gather(encode(names[start : start + PARALLEL_SEGMENTS]), put_all(made))
    await put_all(made)
    return folded


def _changed(
    day: str,
    entities: Iterable[tuple[str, tuple[SegmentEntry, bytes] | None, Sequence[WriteLine]]],
    kept_lines: dict[str, list[bytes]] | None,
) -> list[tuple[str, segments.EncodedSegment | None]]:
    """The new segments of entities whose content changed; None where nothing is left.

    Takes each entity's segment, where it has one, and its writes in order; leaves the lines in `kept_lines`.
    """
    found: list[tuple[str, segments.EncodedSegment | None]] = []
    for entity, before, writes in entities:
        held = [] if before is None else _lines(before[1], before[0].digest)
        lines = _apply_lines(held, writes)
        encoded = segments.encode_lines(entity, day, lines) if lines else None
        if before is None or encoded is None or encoded.digest != before[0].digest:
            found.append((entity, encoded))
        if kept_lines is not None and lines:
            kept_lines[entity] = lines
    return found


def _lines(stored: bytes, digest: str) -> list[WriteLine]:
    found = []
    for line in segments.decode_lines(stored, digest=digest):
        record = orjson.loads(line)
        found.append(WriteLine(record["entity"], parse_time(record["ts"]), record["id"], line))
    return found


def _apply_lines(held: Sequence[WriteLine], writes: Sequence[WriteLine]) -> list[bytes]:
    """`apply_writes` on lines."""
    by_id = {write.id: write for write in itertools.chain(held, writes)}  # the last one of an id stands
    ordered = sorted((write.ts_us, write.id, write.line) for write in by_id.values() if write.line is not None)
    return [line for _, _, line in ordered]


async def _put_list(
    engine: Engine, tenant: str, day: str, entries: Sequence[SegmentEntry], reusable: SegmentListRef | None
) -> tuple[SegmentListRef | None, int]:
    """`reusable`: the committed list when it names these very objects. An equal digest is not enough: an
    entity erased and written again the same has equal content in another object, and the old one goes."""
    if not entries or reusable is not None:
        return reusable, 0
    stored, digest = encode_segments(entries)
    key = str(ListKey(tenant, day, built_id(digest, engine.nonce())))
    await engine.store.put_new(key, stored)
    ref = SegmentListRef(
        key=key,
        bytes=len(stored),
        sha256=sha256_hex(stored),
        digest=digest,
        entities=len(entries),
        events=sum(entry.events for entry in entries),
    )
    return ref, len(stored)
