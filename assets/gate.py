"""The gate before the commit: what a day's artefacts hold, counted from their stored bytes, must agree, and be what the
log and the day as published say (`context_plane/conserve.py`). A graph over its vectors must find the nearest rows
(`context_plane/ann_recall.py`).

Judged per tenant-day. Every new object is read back and hashed (`context_plane/reread.py`), and counts are taken from
the objects, not from the records that their makers left: a shard that was altered or cut short, or is not there, is
found before anybody reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import dagster as dg

from assets.report import NAMED_MAX
from context_plane.ann_recall import RECALL_MIN, unpacked_recall
from context_plane.catalog.manifest import FileRef, ObjectRef, PackRef, VectorRef
from context_plane.conserve import Conservation, conservation
from context_plane.errors import Corrupt, NotFound
from context_plane.index import fulltext_shard, vector_shard
from context_plane.index.entity_shard import BlockEntry
from context_plane.index.rows import Rows
from context_plane.index.scratch import scratch_folder
from context_plane.layout.pack import decode_page
from context_plane.plane import Plane
from context_plane.reread import ReadBack, naming, read_checked, read_whole, reread
from context_plane.shards import dataset_name, unpacked
from context_plane.staging import Staged
from context_plane.store.base import ByteRange, Store

CHECK: Final = "row_counts_agree"
RECOVERY: Final = (
    "Nothing of them was published; their events are still read from the log and from what was built before. "
    "Materialize the day again, all assets from segments on: shards are rebuilt from the log and the segments. "
    "When it fails again, the store loses or alters objects: run `context-plane doctor`. "
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
    vector_rows_misplaced: int = 0
    """Vectors of another event than the entity shard has in their row."""
    fulltext_rows: int = 0
    fulltext_terms_miscounted: int = 0
    """Of a thousand terms of the entity shard: those that the full-text shard has in another number of rows."""
    graph_recall: float | None = None
    """Of the vector shard's graph; None where it carries none."""

    @property
    def agree(self) -> bool:
        """Rows of the three shards, what is in them, and events and entities of segments and entity shard."""
        return (
            self.entity_rows == self.vector_rows == self.fulltext_rows
            and not self.vector_rows_misplaced
            and not self.fulltext_terms_miscounted
            and self.segment_events == self.entity_events
            and self.segment_entities == self.entity_entities
        )


@dataclass(frozen=True, slots=True)
class Withheld:
    """A tenant-day that was not published, and why. `counts`: None where it is damaged, so that nothing was counted."""

    tenant: str
    counts: Counts | None
    reason: str


async def judge(plane: Plane, staged: Staged) -> Withheld | None:
    """None when the staged artefacts of a day agree, and hold what the log says. Raises `PlaneError`."""
    tenant = staged.segments.tenant
    try:
        found = await reread(plane.engine.store, staged)
        counts = await count(plane.engine.store, staged, found)
        if not counts.agree:
            return Withheld(tenant, counts, "counts disagree")
        if counts.graph_recall is not None and counts.graph_recall < RECALL_MIN:
            return Withheld(tenant, counts, f"its graph finds {counts.graph_recall:.4f} of the nearest rows. {GRAPH}")
        events = await conservation(plane.engine, staged, found.columns)
    except (Corrupt, NotFound) as error:
        return Withheld(tenant, None, f"{error.code}: {damage_of(error)}")
    return None if events is None or events.holds else Withheld(tenant, counts, reason_of(events))


def damage_of(error: Corrupt | NotFound) -> str:
    """What an error of stored bytes says of where they are: its own message may quote an entity. Pure."""
    if "artefact" not in error.fields:
        return "the log, or the day as published, cannot be read"
    what = "is not there" if isinstance(error, NotFound) else "is not what was written"
    return f"the {error.fields['artefact']} {error.fields['key']} {what}"


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


async def count(store: Store, staged: Staged, found: ReadBack) -> Counts:
    """Open the staged shards and count. Raises `Corrupt`, with `artefact` and `key`, for one that is not what was
    written, `NotFound` for one that is not there; `PlaneError`."""
    vector, entity, fulltext = staged.vector.shard, staged.entity.shard, staged.fulltext.shard
    blocks = [] if entity is None else await _block_entries(store, entity)
    counts = Counts(
        segment_entities=len(found.entries),
        segment_events=sum(entry.events for entry in found.entries),
        entity_entities=len(blocks),
        entity_events=sum(block.events for block in blocks),
        entity_rows=sum(block.rows for block in blocks),
    )
    if vector is not None:
        counts = await _with_vectors(counts, store, vector, found.columns)
    return counts if fulltext is None else await _with_documents(counts, store, fulltext, found.columns)


def check_result(day: str, judged: int, withheld: Sequence[Withheld]) -> dg.AssetCheckResult:
    """The check's verdict on a day. Pure."""
    if not withheld:
        return dg.AssetCheckResult(
            passed=True, check_name=CHECK, metadata={"judged": judged, "withheld": 0}, description="all agree"
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
            "judged": judged,
            "withheld": len(withheld),
            "recovery": RECOVERY,
            "counts": dg.MetadataValue.table(rows),
        },
    )


def _in_words(counts: Counts | None) -> str:
    """One cell of the table: a column for each count is wider than the page of a check."""
    if counts is None:
        return "not counted"
    told = {name: value for name, value in asdict(counts).items() if value is not None}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items())


# --- counting -----------------------------------------------------------------------------------


async def _block_entries(store: Store, ref: PackRef) -> list[BlockEntry]:
    with naming("entity shard", ref.key):
        pages = await store.get_ranges(ref.key, [ByteRange(page.offset, page.length) for page in ref.pages])
        return [BlockEntry.of(entry) for page in pages for entry in decode_page(page)]


async def _with_vectors(counts: Counts, store: Store, ref: VectorRef, columns: Rows | None) -> Counts:
    async def read(key: str, file: FileRef) -> bytes:
        return await read_checked(store, key, file.sha256)

    with naming("vector shard", ref.key):
        async with unpacked(ref, read) as folder:
            rows, recall = await unpacked_recall(ref, folder)
            if columns is None:
                return replace(counts, vector_rows=rows)
            strange = await asyncio.to_thread(vector_shard.misplaced, folder, dataset_name(ref.key), columns)
    graph_recall = round(recall, 4) if ref.ann else None
    return replace(counts, vector_rows=rows, vector_rows_misplaced=strange, graph_recall=graph_recall)


async def _with_documents(counts: Counts, store: Store, ref: ObjectRef, columns: Rows | None) -> Counts:
    def opened(stored: bytes) -> Counts:
        with scratch_folder() as scratch:
            fulltext_shard.unpack(stored, scratch)
            shard = fulltext_shard.open_searcher(scratch)
            strange = 0 if columns is None else fulltext_shard.miscounted(shard, columns)
            return replace(counts, fulltext_rows=shard.rows, fulltext_terms_miscounted=strange)

    with naming("full-text shard", ref.key):
        return await asyncio.to_thread(opened, await read_whole(store, ref))
