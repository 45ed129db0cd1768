"""The gate before the commit: what a day's artefacts hold, counted from their stored bytes, must agree, and be what the
log and the day as published say (`context_plane/conserve.py`). A graph over its vectors must find the nearest rows
(`context_plane/ann_recall.py`).

Judged per tenant-day. Counts are read again from the objects, not taken from the records that their makers
left: a shard that was cut short, or is not there, is found before anybody reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import dagster as dg

from assets.report import NAMED_MAX
from context_plane.ann_recall import RECALL_MIN, stored_recall
from context_plane.catalog.lists import SegmentEntry, decode_segments
from context_plane.catalog.manifest import FileRef, ObjectRef, PackRef, VectorRef
from context_plane.conserve import Conservation, conservation
from context_plane.errors import Corrupt
from context_plane.index import fulltext_shard
from context_plane.index.entity_shard import BlockEntry
from context_plane.index.scratch import scratch_folder
from context_plane.layout.pack import decode_page
from context_plane.model import sha256_hex
from context_plane.plane import Plane
from context_plane.staging import Staged, load_staged
from context_plane.store.base import ByteRange, Store

CHECK: Final = "row_counts_agree"
RECOVERY: Final = (
    "Nothing of them was published; their events are still read from the log and from what was built before. "
    "Materialize the day again, all assets from segments on: shards are rebuilt from the log and the segments. "
    "When the counts disagree again, the store loses or alters objects: run `context-plane doctor`."
)
GRAPH: Final = (
    f"{RECALL_MIN} is the bar: building the day again makes another graph, and a day of fewer vectors than "
    "`ANN_ROWS_MIN` (context_plane/index/vector_shard.py) carries none and is scored exactly"
)
"""Recovery of a graph that fails."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What each artefact of one tenant-day holds. An absent artefact holds nothing."""

    segment_entities: int = 0
    segment_events: int = 0
    entity_entities: int = 0
    entity_events: int = 0
    entity_rows: int = 0
    vector_rows: int = 0
    fulltext_rows: int = 0
    graph_recall: float = 1.0
    """Of the vector shard's graph; 1.0 where it carries none."""

    @property
    def agree(self) -> bool:
        """Rows of the three shards, and events and entities of segments and entity shard."""
        return (
            self.entity_rows == self.vector_rows == self.fulltext_rows
            and self.segment_events == self.entity_events
            and self.segment_entities == self.entity_entities
        )


@dataclass(frozen=True, slots=True)
class Withheld:
    """A tenant-day that was not published, and why."""

    tenant: str
    counts: Counts
    reason: str


async def judge(plane: Plane, tenant: str, day: str) -> Withheld | None:
    """None when the day's artefacts agree, and hold what the log says. Raises `PlaneError` when one is not staged."""
    try:
        staged = await load_staged(plane.engine.store, tenant, day)
        counts = await count(plane.engine.store, staged)
        if not counts.agree:
            return Withheld(tenant, counts, "counts disagree")
        if counts.graph_recall < RECALL_MIN:
            return Withheld(tenant, counts, f"its graph finds {counts.graph_recall:.4f} of the nearest rows. {GRAPH}")
        events = await conservation(plane.engine, staged)
    except Corrupt as error:
        return Withheld(tenant, Counts(), error.code)
    return None if events is None or events.holds else Withheld(tenant, counts, reason_of(events))


def reason_of(events: Conservation) -> str:
    """What is wrong with a day's events, in words. Pure."""
    told = [
        (events.missing, "events missing"),
        (events.surplus, "events that nobody wrote"),
        (events.changed, "events with another content"),
        (events.foreign, "objects outside of the tenant"),
    ]
    named = ", ".join(f"{number} {what}" for number, what in told if number)
    if events.emptied:
        named = f"the day would be empty, and no delete, erasure or retention explains it: {named}"
    return f"{named}; the log and the day before say {events.expected} events"


async def count(store: Store, staged: Staged) -> Counts:
    """Read the staged artefacts and count. Raises `Corrupt` for one that does not decode, `PlaneError`."""
    segments, vector, entity, fulltext = staged.segments, staged.vector, staged.entity, staged.fulltext
    entries = [] if segments.segments is None else await _segment_entries(store, segments.segments)
    blocks = [] if entity.shard is None else await _block_entries(store, entity.shard)
    rows, recall = (0, 1.0) if vector.shard is None else await _vectors(store, vector.shard)
    return Counts(
        segment_entities=len(entries),
        segment_events=sum(entry.events for entry in entries),
        entity_entities=len(blocks),
        entity_events=sum(block.events for block in blocks),
        entity_rows=sum(block.rows for block in blocks),
        vector_rows=rows,
        fulltext_rows=0 if fulltext.shard is None else await _documents(store, fulltext.shard),
        graph_recall=round(recall, 4),
    )


def check_result(day: str, judged: int, withheld: Sequence[Withheld]) -> dg.AssetCheckResult:
    """The check's verdict on a day. Pure."""
    if not withheld:
        return dg.AssetCheckResult(
            passed=True, check_name=CHECK, metadata={"tenant_days": judged, "withheld": 0}, description="all agree"
        )
    named = "; ".join(f"{item.tenant} {day}: {item.reason}" for item in withheld[:NAMED_MAX])
    rows = [
        dg.TableRecord({"tenant": item.tenant, "day": day, "reason": item.reason, "counts": _in_words(item.counts)})
        for item in withheld[:NAMED_MAX]
    ]
    return dg.AssetCheckResult(
        passed=False,
        check_name=CHECK,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(withheld)} of {judged} tenant-days withheld, the others published. {named}. {RECOVERY}",
        metadata={
            "tenant_days": judged,
            "withheld": len(withheld),
            "recovery": RECOVERY,
            "counts": dg.MetadataValue.table(rows),
        },
    )


def _in_words(counts: Counts) -> str:
    """One cell of the table: a column for each count is wider than the page of a check."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asdict(counts).items())


# --- counting -----------------------------------------------------------------------------------


async def _whole(store: Store, ref: ObjectRef) -> bytes:
    return await _checked(store, ref.key, ref.sha256)


async def _checked(store: Store, key: str, sha256: str) -> bytes:
    stored = await store.get(key)
    if await asyncio.to_thread(sha256_hex, stored) != sha256:
        raise Corrupt("corrupt_object", "a staged object is not what was written; rebuild the day", bytes=len(stored))
    return stored


async def _segment_entries(store: Store, ref: ObjectRef) -> list[SegmentEntry]:
    return decode_segments(await _whole(store, ref))


async def _block_entries(store: Store, ref: PackRef) -> list[BlockEntry]:
    pages = await store.get_ranges(ref.key, [ByteRange(page.offset, page.length) for page in ref.pages])
    return [BlockEntry.of(entry) for page in pages for entry in decode_page(page)]


async def _vectors(store: Store, ref: VectorRef) -> tuple[int, float]:
    async def read(key: str, file: FileRef) -> bytes:
        return await _checked(store, key, file.sha256)

    return await stored_recall(ref, read)


async def _documents(store: Store, ref: ObjectRef) -> int:
    stored = await _whole(store, ref)

    def opened() -> int:
        with scratch_folder() as scratch:
            fulltext_shard.unpack(stored, scratch)
            return fulltext_shard.open_searcher(scratch).rows

    return await asyncio.to_thread(opened)
