"""From ranked positions to answers: texts, attributes, snippets and citations of found events.

A part without texts (a shard's columns) sends each hit to its entity's block: one more round of reads,
for the hits alone, and only where something is shown that the columns lack. A hit from the tail cites its log
object and line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from context_plane.errors import Corrupt
from context_plane.index.rows import Rows
from context_plane.model import Vector, day_of
from context_plane.recall.assemble import Assembled, Origin
from context_plane.recall.periods import Period
from context_plane.recall.tail_view import TailView
from context_plane.recall.values import Citation, FoundEvent, Include
from context_plane.retrieval.columns import Columns
from context_plane.retrieval.fuse import Hit
from context_plane.retrieval.reader import Reader
from context_plane.retrieval.snippet import snippet


class Place(NamedTuple):
    """An event of an assembled part, and the row that represents it (None: the event as a whole)."""

    part: int
    event: int
    row: int | None = None
    hit: Hit | None = None
    """Whose scores and ranks are shown."""


@dataclass(frozen=True, slots=True)
class Show:
    """What of an event an answer holds. `terms`: those of the query, for snippets."""

    include: frozenset[Include]
    terms: Sequence[str] = ()


OF_BLOCKS: Final[frozenset[Include]] = frozenset({"text", "snippet", "vector"})
"""What is shown of an event that only its entity's block holds."""
WHOLE_EVENT: Final = Show(frozenset({"text", "attrs"}))


class Presenter:
    """Turns places into `FoundEvent`s, reading blocks where texts are missing."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def events(
        self, view: TailView, found: Assembled, places: Sequence[Place], show: Show = WHOLE_EVENT
    ) -> list[FoundEvent]:
        """One per place, in order."""
        return list(await asyncio.gather(*(self.one(view, found, place, show) for place in places)))

    def held(self, view: TailView, found: Assembled, place: Place, show: Show) -> FoundEvent | None:
        """What `one` gives, where nothing is to be waited for."""
        origin = found.origin(place.part, place.event)
        columns, period, segment = origin.columns, origin.period, None
        if columns.rows.texts is not None:
            return _event(view, origin, columns, origin.event, place, show)
        assert period is not None
        entity = _entity(columns.rows, origin.event)
        if _is_bare(period, show):
            segment = self._reader.held_segment(view.snapshot.tenant, period.name, period.shards, entity)
            return None if segment is None else _event(view, origin, columns, origin.event, place, show, segment)
        block = self._reader.held_block(period.shards, entity)
        return _event(view, origin, block, _in_block(origin), place, show) if isinstance(block, Columns) else None

    async def one(self, view: TailView, found: Assembled, place: Place, show: Show) -> FoundEvent:
        origin = found.origin(place.part, place.event)
        columns, period = origin.columns, origin.period
        if columns.rows.texts is not None:
            return _event(view, origin, columns, origin.event, place, show)
        assert period is not None
        entity, tenant = _entity(columns.rows, origin.event), view.snapshot.tenant
        if _is_bare(period, show):
            segment = await self._reader.segment(tenant, period.name, period.shards, entity)
            return _event(view, origin, columns, origin.event, place, show, segment)
        block = await self._reader.block(tenant, period.name, period.shards, entity)
        if block is None:
            raise Corrupt("corrupt_object", "a shard's columns name an entity its directory lacks", day=period.name)
        return _event(view, origin, block, _in_block(origin), place, show)


def _is_bare(period: Period, show: Show) -> bool:
    """Whether a shard's columns and directory hold all that is shown: a month's segments are named in its blocks."""
    return not period.is_month and not show.include & OF_BLOCKS


def _entity(rows: Rows, event: int) -> str:
    return rows.entities[int(rows.event_entity[event])]


def _in_block(origin: Origin) -> int:
    """The number within its entity's block of an event of a shard's columns, whose rows are its blocks in turn."""
    entity = origin.columns.rows.event_entity
    read_before = entity[origin.first : origin.event + 1]
    return origin.event - origin.first - int(read_before.searchsorted(entity[origin.event]))


def _event(
    view: TailView,
    origin: Origin,
    columns: Columns,
    event: int,
    place: Place,
    show: Show,
    segment: str | None = None,
) -> FoundEvent:
    """`event` of `columns`, which hold what is shown; `origin`: where it was ranked. `segment`: its key, where the
    columns do not name it."""
    rows, chars = columns.rows, None
    if place.row is not None:
        held = origin.columns.rows
        chars = (int(held.row_start[place.row]), int(held.row_stop[place.row]))
    entity = rows.entities[rows.event_entity[event]]
    ts_us = int(rows.event_ts_us[event])
    if origin.period is None:
        segment, line = view.place(entity, ts_us, rows.ids[event])
    else:
        segment, line = segment or segment_of(origin.period, columns, ts_us), int(rows.event_line[event])
    hit, include, text = place.hit, show.include, None if rows.texts is None else rows.texts[event]
    marked = None
    if "snippet" in include and text:
        start, stop = chars or (0, len(text))
        marked = snippet(text[start:stop], show.terms)
    return FoundEvent(
        entity,
        rows.ids[event],
        ts_us,
        rows.sources[rows.event_source[event]],
        rows.kinds[rows.event_kind[event]],
        rows.threads[event],
        text if "text" in include else None,
        rows.attrs[event] if "attrs" in include else None,
        Citation(segment, line, chars, rows.event_digest[event].tobytes().hex()),
        score=0.0 if hit is None else hit.score,
        text_rank=None if hit is None else hit.text_rank,
        vector_rank=None if hit is None else hit.vector_rank,
        text_score=None if hit is None else hit.text_score,
        vector_score=None if hit is None else hit.vector_score,
        snippet=marked,
        vector=_vector(rows, event, chars) if "vector" in include else None,
    )


def segment_of(period: Period, block: Columns, ts_us: int) -> str:
    """The key of an event's segment: a day's block has one, a month's one for each of its days."""
    if not period.is_month:
        return block.rows.segments[0]
    day = day_of(ts_us)
    segment = block.segment_of(day)
    if segment is None:
        raise Corrupt("corrupt_object", "a block of a rolled month lacks the segment of a day it holds", day=day)
    return segment


def _vector(rows: Rows, event: int, chars: tuple[int, int] | None) -> Vector | None:
    """float32 [D] of the representing row, from fixed point; None where it has none."""
    if not rows.dim:
        return None
    for row in np.flatnonzero(rows.row_event == event):
        if chars is None or int(rows.row_start[row]) == chars[0]:
            if rows.scales[row] == 0:
                return None
            vector: Vector = rows.vectors[row].astype(np.float32) * rows.scales[row]
            return vector
    return None
