"""Scope: which events of which parts a query is about, before anything is ranked.

A *part* is some rows (an entity block, a shard's columns, the tail) with what hides some of them.
Order of filters, the same on every path: masked events never existed; entities and the time window make
the scope, which statistics are taken over; `where` narrows what may be ranked and changes no statistic.
A mask that would be all true is None: most parts are wholly in scope, and then nothing is gathered.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from context_plane.index.rows import Rows
from context_plane.model import day_end_us, day_start_us
from context_plane.retrieval.columns import Columns, Mask
from context_plane.retrieval.where import Where, evaluate

DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """Rows to search. Everything beside `columns` belongs to one query or snapshot; `columns` is kept across."""

    columns: Columns
    live: Mask | None = None
    """bool[E], False = masked out (erased, superseded by the tail); None = all live."""
    text_candidates: Mask | None = None
    """bool[N], rows the text leg may score; None = all. Statistics ignore it."""
    vector_candidates: Mask | None = None
    """bool[N], rows the vector leg may score; None = all."""

    @classmethod
    def of(cls, rows: Rows, live: Mask | None = None) -> Part:
        return cls(Columns(rows), live)

    @property
    def rows(self) -> Rows:
        return self.columns.rows

    def limited(self, *, text: Mask | None = None, vector: Mask | None = None) -> Part:
        """The same part with candidates proposed by an index."""
        return replace(self, text_candidates=text, vector_candidates=vector)


def scope_mask(part: Part, entities: frozenset[str] | None, since_us: int | None, until_us: int | None) -> Mask | None:
    """bool[E]: live, of these entities, since <= ts < until. None when all events are."""
    rows = part.rows
    if entities is None:
        return both(part.live, _window(part, since_us, until_us))
    places = part.columns.entity_places(entities)
    found = part.columns.order.find(places, since_us, until_us)
    if found is None:
        wanted = np.zeros(len(rows.entities), np.bool_)
        wanted[places] = True
        own = None if wanted.all() else wanted[rows.event_entity]
        return both(part.live, both(own, _window(part, since_us, until_us)))
    if len(found) == rows.event_count:
        return part.live
    mask = np.zeros(rows.event_count, np.bool_)
    mask[found] = True
    return both(part.live, mask)


def _window(part: Part, since_us: int | None, until_us: int | None) -> Mask | None:
    if since_us is None and until_us is None:
        return None
    window = part.columns.window(since_us, until_us)
    return None if window.all() else window


def filter_mask(part: Part, scope: Mask | None, where: Where | None) -> Mask | None:
    """bool[E]: in scope and passing the filter. None when all events are."""
    if where is None:
        return scope
    return both(scope, evaluate(where, part.columns))


def both(left: Mask | None, right: Mask | None) -> Mask | None:
    """Conjunction where None is all true."""
    if left is None or right is None:
        return right if left is None else left
    return left & right


def rows_of(part: Part, events: Mask | None) -> Mask | None:
    """bool[E] -> bool[N]."""
    return events if events is None or part.columns.one_row_each else events[part.rows.row_event]


def live_mask(
    columns: Columns,
    *,
    identities: Mapping[str, Collection[tuple[str, str]]] | None = None,
    entities: Collection[str] = (),
    days: Collection[str] = (),
) -> Mask | None:
    """bool[E] of the events that stay, or None when all do.

    Hidden are: events whose (day, id) is listed under their entity in `identities` (what the tail puts or
    deletes), every event of `entities` (erased), every event of `days` (a rollup's days that a day shard
    answers for).
    """
    rows = columns.rows
    live = np.ones(rows.event_count, np.bool_)
    for day in days:
        live &= ~columns.window(day_start_us(day), day_end_us(day))
    for entity in entities:
        live[_events_of(rows, entity)] = False
    held = identities or {}
    # A full tail names thousands of entities, a block holds one: walk through the shorter side.
    touched = [name for name in rows.entities if name in held] if len(rows.entities) < len(held) else list(held)
    for entity in touched:
        chosen = _events_of(rows, entity)
        if chosen.stop > chosen.start:
            live[_named(rows, range(chosen.start, chosen.stop), held[entity])] = False
    return None if live.all() else live


def _events_of(rows: Rows, entity: str) -> slice:
    """The entity's events: rows are sorted by entity, so they lie together."""
    first = bisect.bisect_left(rows.entities, entity)
    last = bisect.bisect_right(rows.entities, entity)
    start, stop = np.searchsorted(rows.event_entity, [first, last])
    return slice(int(start), int(stop))


def _named(rows: Rows, events: range, named: Collection[tuple[str, str]]) -> list[int]:
    starts: dict[str, set[int]] = {}
    for day, event_id in named:
        starts.setdefault(event_id, set()).add(day_start_us(day) // DAY_US)
    return [n for n in events if int(rows.event_ts_us[n]) // DAY_US in starts.get(rows.ids[n], ())]
