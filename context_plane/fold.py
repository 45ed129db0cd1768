"""Fold: a day's built segments and its uncovered log writes become the day's new segments.

Read the manifest, read bytes, compute purely, put new bytes; the commit is `publish`. Per identity the
last write in (log number, line) order wins; a delete removes. Only segments of entities that the log
touches are read and written; a segment whose content did not change keeps its object.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from context_plane.catalog.days import load_day, load_segments
from context_plane.catalog.erasures import Erasures
from context_plane.catalog.head import load_head
from context_plane.catalog.lists import SegmentEntry, encode_segments
from context_plane.catalog.log import list_log
from context_plane.catalog.manifest import Manifest, SegmentListRef
from context_plane.catalog.tail import Batch, check_whole, dirty_days, read_headers, read_writes, without_gap
from context_plane.engine import Engine
from context_plane.layout import segment as segments
from context_plane.layout.keys import ListKey, SegmentKey, built_id, entity_part
from context_plane.model import Event, Put, Write, identity, sha256_hex
from context_plane.staging import LogDays, SegmentsStage, save
from context_plane.store.base import Store

PARALLEL_SEGMENTS: Final = 64
"""Segments read or written at once: enough to hide object latency, few enough for a small heap."""


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
    batches = await read_headers(engine.store, tenant, without_gap(objects, manifest.log_floor))
    check_whole(batches)
    return Pending(manifest, tuple(batches))


def apply_writes(events: Iterable[Event], writes: Iterable[Write]) -> list[Event]:
    """The events of one entity and day after `writes`, in their order; ascending by (ts, id). Pure."""
    by_id = {event.id: event for event in events}
    for write in writes:
        if isinstance(write, Put):
            by_id[write.event.id] = write.event
        else:
            by_id.pop(write.id, None)
    return sorted(by_id.values(), key=lambda event: event.order)


async def fold_day(engine: Engine, tenant: str, day: str, *, pending: Pending | None = None) -> SegmentsStage:
    """Write the day's new segments and its segment list, and leave a staging record. Commits nothing."""
    started_us = engine.now_us()
    pending = pending or await load_pending(engine, tenant)
    manifest = pending.manifest
    entry = await load_day(engine.store, manifest, day)
    erasures = Erasures.of(manifest)
    built = await load_segments(engine.store, entry)
    applied = entry.erasures if entry else 0
    kept = {e.entity: e for e in built if not erasures.hides_built(e.entity, applied)}
    writes = await _writes_of(engine.store, tenant, day, pending, erasures)
    folded = await _fold_entities(engine, tenant, day, kept, writes)
    entries = sorted(folded.entries.values(), key=lambda e: e.entity)
    reusable = entry.segments if entry is not None and entries == built else None
    segment_list, list_bytes = await _put_list(engine, tenant, day, entries, reusable)
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
        objects=folded.objects,
        bytes=folded.bytes + list_bytes,
    )
    await save(engine.store, tenant, day, "segments", stage)
    return stage


async def read_events(store: Store, tenant: str, day: str, entries: Sequence[SegmentEntry]) -> list[list[Event]]:
    """The events of each segment, in order, digests checked."""
    gate = asyncio.Semaphore(PARALLEL_SEGMENTS)

    async def one(entry: SegmentEntry) -> list[Event]:
        async with gate:
            stored = await store.get(entry.key(tenant, day))
        return segments.decode(stored, digest=entry.digest)

    return list(await asyncio.gather(*(one(entry) for entry in entries)))


async def _writes_of(
    store: Store, tenant: str, day: str, pending: Pending, erasures: Erasures
) -> dict[str, list[Write]]:
    """Uncovered writes of the day by entity, in write order, without erased lives."""
    grouped: dict[str, list[Write]] = {}
    for batch in pending.dirty.get(day, ()):
        for write in await read_writes(store, tenant, batch, day=day):
            entity, _, _ = identity(write)
            if not erasures.hides_log(entity, batch.number):
                grouped.setdefault(entity, []).append(write)
    return grouped


@dataclass(slots=True)
class _Folded:
    entries: dict[str, SegmentEntry]
    changed: int = 0
    objects: int = 0
    bytes: int = 0


async def _fold_entities(
    engine: Engine, tenant: str, day: str, kept: Mapping[str, SegmentEntry], writes: Mapping[str, list[Write]]
) -> _Folded:
    folded = _Folded(dict(kept))
    gate = asyncio.Semaphore(PARALLEL_SEGMENTS)

    async def one(entity: str) -> None:
        before = kept.get(entity)
        async with gate:
            events: list[Event] = []
            if before is not None:
                stored = await engine.store.get(before.key(tenant, day))
                events = segments.decode(stored, digest=before.digest)
            after = apply_writes(events, writes[entity])
            if not after:
                folded.changed += folded.entries.pop(entity, None) is not None
                return
            encoded = segments.encode(entity, day, after)
            if before is not None and before.digest == encoded.digest:
                return
            new_id = built_id(encoded.digest, engine.nonce())
            await engine.store.put_new(str(SegmentKey(tenant, entity_part(entity), day, new_id)), encoded.stored)
        folded.entries[entity] = SegmentEntry(entity, new_id, encoded.digest, encoded.events, len(encoded.stored))
        folded.changed += 1
        folded.objects += 1
        folded.bytes += len(encoded.stored)

    await asyncio.gather(*(one(entity) for entity in sorted(writes)))
    return folded


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
