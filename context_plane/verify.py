"""Verify: a sample of what a manifest names is made again from the system of record and compared. Commits nothing.

Of a day: every segment is read, decoded and encoded again; the entity shard and the full-text content are made from
its events and the stored vectors, and all digests compared with the manifest's; the stored bytes are read and
compared too. Texts are embedded again up to a number of rows, and may differ from the stored vectors in the last bits
(another processor). Of a month: its shards are merged from its days again. Of a day's bundles: every pack is made
again, and every stored bundle read, unless the bundles are stale: then their sources are gone.

What is found names day and artefact, never an entity.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np

from context_plane.bundle.compiled import CompiledSpec
from context_plane.catalog.days import load_days
from context_plane.catalog.head import load_head
from context_plane.catalog.lists import SegmentEntry, decode_days, decode_segments, encode_segments
from context_plane.catalog.manifest import BundleDay, DayEntry, Manifest, MonthEntry, ObjectRef, Shards, VectorRef
from context_plane.catalog.named import load_buckets
from context_plane.engine import Engine
from context_plane.errors import PlaneError, Unavailable
from context_plane.fold import PARALLEL_SEGMENTS, read_segments
from context_plane.index import blocks, fulltext_shard, vector_shard
from context_plane.index.rows import F32, U8, Rows
from context_plane.layout import segment
from context_plane.layout.pack import decode_block
from context_plane.materialize import rebuilt_digests, sources_of
from context_plane.merge import merge_days
from context_plane.model import Event, sha256_hex
from context_plane.reindex import DayEvents, analyzed_blocks, pack_entities
from context_plane.retrieval.reader import Reader
from context_plane.shards import dataset_name, from_store, unpacked
from context_plane.store.base import ByteRange, Store

T = TypeVar("T", bound=str)

VECTOR_TOLERANCE: Final = 1e-3
"""Of a component of a unit vector: far above what processors differ by, far below what two texts do."""
DAMAGE: Final = (PlaneError, OSError, ValueError, KeyError)
"""What reading stored bytes that are not what was written ends with."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be. `period`: a day or month; `artefact`: such as `segments`."""

    period: str
    artefact: str
    detail: str

    def __str__(self) -> str:
        return f"{self.period} {self.artefact}: {self.detail}"


@dataclass(slots=True)
class Checked:
    """What was looked at. `stale`: bundle days that cannot be compared any more."""

    days: int = 0
    months: int = 0
    bundle_days: int = 0
    stale: int = 0
    events: int = 0
    rows: int = 0
    embedded: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    def find(self, period: str, artefact: str, detail: str) -> None:
        self.findings.append(Finding(period, artefact, detail))

    def counts(self) -> dict[str, int]:
        """Under the names that reports use; they never change."""
        return {
            "mismatches": len(self.findings),
            "days": self.days,
            "months": self.months,
            "bundle_days": self.bundle_days,
            "stale_bundle_days": self.stale,
            "events": self.events,
            "rows": self.rows,
            "embedded": self.embedded,
            "bytes": self.bytes,
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """How much of a tenant is checked; the same seed chooses the same, as long as the same days are built.

    `bundle_days`: of each spec. `embed_rows`: rows of each day whose texts are embedded again.
    """

    days: int = 3
    months: int = 1
    bundle_days: int = 1
    embed_rows: int = 256
    seed: int = 0


def sample(items: Iterable[T], count: int, seed: int, salt: str) -> list[T]:
    """`count` of the items, ascending: the same for the same seed and salt. Pure."""
    ordered = sorted(items)
    return sorted(random.Random(f"{seed}:{salt}").sample(ordered, min(count, len(ordered))))


async def verify_tenant(
    engine: Engine,
    reader: Reader,
    tenant: str,
    wanted: Sample,
    compiled: Callable[[str], Awaitable[CompiledSpec]],
    specs: Iterable[str],
) -> Checked:
    """Check a sample of all that the tenant's newest manifest names. `compiled`: gives a spec of `specs`; only those
    with bundles are asked for. Raises `Unavailable`."""
    manifest = await load_head(engine.store, tenant)
    checked = Checked()
    await verify_days(engine, manifest, checked, count=wanted.days, seed=wanted.seed, embed_rows=wanted.embed_rows)
    await verify_months(engine, manifest, checked, count=wanted.months, seed=wanted.seed)
    if wanted.bundle_days:
        chosen = [await compiled(name) for name in specs if name in manifest.bundles]
        count, seed = wanted.bundle_days, wanted.seed
        await verify_bundles(engine, reader, manifest, chosen, checked, count=count, seed=seed)
    return checked


async def verify_days(
    engine: Engine, manifest: Manifest, checked: Checked, *, count: int, seed: int, embed_rows: int = 0
) -> None:
    """Check `count` of the built days, those of rolled months included; the seed chooses them.

    `embed_rows`: rows of each day that are embedded again, if the tenant's model is the engine's.
    """
    days = await load_days(engine.store, manifest)
    for day in sample(days, count, seed, manifest.tenant):
        await _verify_day(engine, manifest.tenant, day, days[day], checked, embed_rows)


async def verify_months(engine: Engine, manifest: Manifest, checked: Checked, *, count: int, seed: int) -> None:
    """Check `count` of the rolled months against their days' shards."""
    for month in sample(manifest.months, count, seed, manifest.tenant):
        await _verify_month(engine, month, manifest.months[month], checked)


async def verify_bundles(
    engine: Engine,
    reader: Reader,
    manifest: Manifest,
    specs: Sequence[CompiledSpec],
    checked: Checked,
    *,
    count: int,
    seed: int,
) -> None:
    """Check `count` bundle days of each spec."""
    for spec in specs:
        name = spec.spec.name
        built = manifest.bundles.get(name, {})
        for day in sample(built, count, seed, f"{manifest.tenant}:{name}"):
            await _verify_bundle_day(engine, reader, manifest, spec, day, built[day], checked)


# --- a day --------------------------------------------------------------------------------------


async def _verify_day(
    engine: Engine, tenant: str, day: str, entry: DayEntry, checked: Checked, embed_rows: int
) -> None:
    checked.days += 1
    if entry.segments is None:
        return
    stored = await _intact(engine.store, entry.segments, day, "segments", checked)
    if stored is None:
        return
    try:
        entries = decode_segments(stored)
    except DAMAGE:
        checked.find(day, "segments", "the list of segments does not decode")
        return
    if encode_segments(entries)[1] != entry.segments.digest:
        checked.find(day, "segments", "the list names other contents than the manifest")
        return
    held = await _day_events(engine, tenant, day, entries, checked)
    if held is None:
        return
    events = [event for group in held.groups for event in group]
    checked.events += len(events)
    if len(events) != entry.segments.events:
        checked.find(day, "segments", f"{len(events)} events instead of {entry.segments.events}")
    if entry.shards is None:
        if events:
            checked.find(day, "published", "the day has events and no shards")
        return
    await _verify_shards(engine, day, held, events, entry.shards, checked, embed_rows)


async def _day_events(
    engine: Engine, tenant: str, day: str, entries: Sequence[SegmentEntry], checked: Checked
) -> DayEvents | None:
    """The day's events; None where a segment is not what the list says."""
    groups: list[list[Event]] = []
    digests: list[list[bytes]] = []
    wrong = 0

    def decode(part: Sequence[SegmentEntry], stored: Sequence[bytes | None]) -> int:
        bad = 0
        for entry, data in zip(part, stored, strict=True):
            events = None if data is None else _decoded(entry, day, data)
            if events is None:
                bad += 1
                continue
            groups.append(events)
            digests.append([blocks.line_digest(segment.event_line(event)) for event in events])
        return bad

    for start in range(0, len(entries), PARALLEL_SEGMENTS):
        part = entries[start : start + PARALLEL_SEGMENTS]
        stored = await asyncio.gather(*(_segment(engine.store, tenant, day, entry) for entry in part))
        checked.bytes += sum(len(data) for data in stored if data is not None)
        wrong += await asyncio.to_thread(decode, part, stored)
    if wrong:
        checked.find(day, "segments", f"{wrong} of {len(entries)} do not hold what they were written with")
        return None
    return DayEvents(entries, groups, digests)


async def _segment(store: Store, tenant: str, day: str, entry: SegmentEntry) -> bytes | None:
    try:
        [stored] = await read_segments(store, tenant, day, [entry])
    except Unavailable:
        raise
    except PlaneError:
        return None
    return stored


def _decoded(entry: SegmentEntry, day: str, stored: bytes) -> list[Event] | None:
    """The events, where encoding them again gives the recorded digest."""
    try:
        events = segment.decode(stored)
        again = segment.encode(entry.entity, day, events)
    except (*DAMAGE, AssertionError):
        return None
    return events if (again.digest, again.events) == (entry.digest, entry.events) else None


async def _verify_shards(
    engine: Engine,
    day: str,
    held: DayEvents,
    events: Sequence[Event],
    shards: Shards,
    checked: Checked,
    embed_rows: int,
) -> None:
    checked.rows += shards.rows
    await _intact(engine.store, shards.entity, day, "entity_shards", checked)
    await _intact(engine.store, shards.fulltext, day, "fulltext_shards", checked)
    digests = await asyncio.to_thread(blocks.row_text_digests, events)
    placed = await asyncio.to_thread(blocks.place_columns, day, held.groups)
    vectors = await _stored_vectors(engine, shards.vector, day, placed, digests, checked)
    if vectors is None:
        return
    if (shards.vector.model, shards.vector.dim) == (engine.embedder.model, engine.embedder.dim):
        await _embed_again(engine, day, events, digests, vectors, checked, embed_rows)
    made = await asyncio.to_thread(analyzed_blocks, day, held)
    encoded, columns = await asyncio.to_thread(pack_entities, day, held.entries, made, vectors)
    if encoded.digest != shards.entity.digest:
        checked.find(day, "entity_shards", "the segments give another content")
    await _same_fulltext(day, columns, shards, checked)
    counts = (len(columns.entities), columns.event_count, columns.row_count)
    if counts != (shards.entities, shards.events, shards.rows):
        checked.find(day, "published", "the manifest counts other entities, events or rows")


async def _stored_vectors(
    engine: Engine, ref: VectorRef, period: str, columns: Rows, digests: U8, checked: Checked
) -> F32 | None:
    """float32 [N, D] of the rows with these columns and text digests; None where they are not those."""
    name = dataset_name(ref.key)
    try:
        async with unpacked(ref, from_store(engine)) as folder:
            stored = await asyncio.to_thread(vector_shard.read_vectors, folder, name)
            strange = await asyncio.to_thread(vector_shard.misplaced, folder, name, columns)
    except Unavailable:
        raise
    except DAMAGE as error:
        code = error.code if isinstance(error, PlaneError) else "corrupt_object"
        checked.find(period, "vector_shards", f"the stored dataset cannot be read: {code}")
        return None
    checked.bytes += sum(file.bytes for file in ref.files)
    if not np.array_equal(stored.text_digests, digests):
        checked.find(period, "vector_shards", "the stored rows are of other texts than the segments'")
        return None
    if strange:
        checked.find(period, "vector_shards", f"{strange} of {len(digests)} stored records say other than their events")
    again = await asyncio.to_thread(vector_shard.content_digest, stored.vectors, digests, model=ref.model)
    if again != ref.digest:
        checked.find(period, "vector_shards", "the stored vectors are not those that were published")
        return None
    return stored.vectors


async def _embed_again(
    engine: Engine, day: str, events: Sequence[Event], digests: U8, vectors: F32, checked: Checked, rows_max: int
) -> None:
    rows = np.flatnonzero(digests.any(axis=1))[:rows_max]
    if not len(rows):
        return
    texts = (await asyncio.to_thread(blocks.rows_to_embed, events))[: len(rows)]
    again = await engine.embedder.embed_documents(texts)
    checked.embedded += len(rows)
    wrong = int((np.abs(again - vectors[rows]).max(axis=1) > VECTOR_TOLERANCE).sum())
    if wrong:
        checked.find(day, "vector_shards", f"{wrong} of {len(rows)} texts give another vector")


async def _same_fulltext(period: str, columns: Rows, shards: Shards, checked: Checked) -> None:
    if await asyncio.to_thread(fulltext_shard.content_digest, columns) != shards.fulltext.digest:
        checked.find(period, "fulltext_shards", "the segments give another content")


# --- a month ------------------------------------------------------------------------------------


async def _verify_month(engine: Engine, month: str, rolled: MonthEntry, checked: Checked) -> None:
    checked.months += 1
    shards = rolled.shards
    stored = await _intact(engine.store, rolled.days, month, "rollups", checked)
    await _intact(engine.store, shards.entity, month, "rollups", checked)
    await _intact(engine.store, shards.fulltext, month, "rollups", checked)
    if stored is None:
        return
    try:
        days = {day: entry.shards for day, entry in decode_days(stored).items() if entry.shards is not None}
        merged = await merge_days(engine, month, days)
    except Unavailable:
        raise
    except DAMAGE:
        checked.find(month, "rollups", "the shards of its days cannot be merged again")
        return
    if merged.entity.digest != shards.entity.digest:
        checked.find(month, "rollups", "its days give another content")
    await _same_fulltext(month, merged.columns, shards, checked)
    await _stored_vectors(engine, shards.vector, month, merged.columns, merged.text_digests, checked)


# --- bundles ------------------------------------------------------------------------------------


async def _verify_bundle_day(
    engine: Engine,
    reader: Reader,
    manifest: Manifest,
    spec: CompiledSpec,
    day: str,
    entry: BundleDay,
    checked: Checked,
) -> None:
    name = f"bundles/{spec.spec.name}"
    checked.bundle_days += 1
    try:
        buckets = await load_buckets(engine.store, entry)
        wrong = 0
        for bucket in buckets:
            ranges = [ByteRange(each.offset, each.length) for each in bucket.entries]
            frames = await engine.store.get_ranges(bucket.key, ranges) if ranges else []
            checked.bytes += sum(len(frame) for frame in frames)
            digests = await asyncio.to_thread(lambda some: [sha256_hex(decode_block(each)) for each in some], frames)
            wrong += sum(found != each.digest for found, each in zip(digests, bucket.entries, strict=True))
    except Unavailable:
        raise
    except DAMAGE:
        checked.find(day, name, "the stored bundles cannot be read")
        return
    if wrong:
        checked.find(day, name, f"{wrong} stored bundles are not those that were published")
    current = (sources_of(manifest, spec.spec, day), spec.fingerprint)
    if manifest.tombstones or current != (entry.sources, entry.spec_fingerprint):
        checked.stale += 1
        return
    try:
        again = await rebuilt_digests(reader, manifest, spec, day)
    except Unavailable:
        raise
    except DAMAGE:
        checked.find(day, name, "the shards it looks back at cannot be read")
        return
    if again != [bucket.digest for bucket in buckets]:
        checked.find(day, name, "the events give other bundles")


async def _intact(store: Store, ref: ObjectRef, period: str, artefact: str, checked: Checked) -> bytes | None:
    """The stored bytes, where they are those that were written."""
    try:
        stored = await store.get(ref.key)
    except Unavailable:
        raise
    except PlaneError as error:
        checked.find(period, artefact, f"a stored object cannot be read: {error.code}")
        return None
    checked.bytes += len(stored)
    if await asyncio.to_thread(sha256_hex, stored) != ref.sha256:
        checked.find(period, artefact, "a stored object holds other bytes than were written")
        return None
    return stored
