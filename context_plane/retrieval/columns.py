"""Columns: rows as the filter and the ranking read them, with what is derived from them kept.

`Rows` is immutable and slotted; what queries derive again and again (one attribute over all events, the
events' first rows) is computed at first use and kept here. A reader keeps one `Columns` per decoded block
or shard. Two threads may compute the same column twice; both get equal values.

An attribute column is dictionary encoded: a filter is answered once per distinct string, then gathered.
A null attribute counts as missing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from context_plane.index.bm25 import F64, saturation_of
from context_plane.index.planes import Int8Plane
from context_plane.index.rows import I64, Rows

Mask: TypeAlias = NDArray[np.bool_]

FEW_ROWS_MAX: Final = 512
"""So few rows are multiplied as they are: splitting them into planes costs more than it saves."""
EVENT_BYTES: Final = 400
"""What an event takes beside its vector and postings: id, attributes, times."""
MISSING: Final = 0
BOOLEAN: Final = 1
NUMBER: Final = 2
STRING: Final = 3
LIST: Final = 4


@dataclass(frozen=True, slots=True)
class AttrColumn:
    """One attribute over E events. Which arrays hold an event's value is told by `type`."""

    type: NDArray[np.uint8]
    """[E] MISSING, BOOLEAN, NUMBER, STRING or LIST"""
    number: NDArray[np.float64]
    """[E] the number, or 0/1 for a boolean. Exact: integers of events stay below 2^53."""
    code: NDArray[np.int32]
    """[E] index into `strings` or `lists`."""
    strings: tuple[str, ...]
    """Distinct, ascending by code point."""
    lists: tuple[tuple[str, ...], ...]
    """Distinct."""


class Columns:
    """Rows with cached derived columns. `rows` must not change."""

    __slots__ = (
        "_attr_names", "_attrs", "_entity_order", "_entity_places", "_every_vector", "_first_row", "_ids", "_lengths",
        "_missing", "_order", "_plane", "_saturation", "_scanned", "_segments", "rows",
    )  # fmt: skip

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._attr_names: frozenset[str] | None = None
        self._attrs: dict[str, AttrColumn] = {}
        self._missing: AttrColumn | None = None
        self._order: TimeOrder | None = None
        self._entity_order: NDArray[np.int32] | None = None
        self._entity_places: tuple[dict[str, int], dict[str, list[int]]] | None = None
        self._every_vector: bool | None = None
        self._first_row: NDArray[np.intp] | None = None
        self._ids: StringColumn | None = None
        self._lengths: tuple[int, int] | None = None
        self._plane: Int8Plane | None = None
        self._scanned = False
        self._saturation: tuple[tuple[float, float, float], F64] | None = None
        self._segments: dict[str, str] | None = None

    @property
    def first_row(self) -> NDArray[np.intp]:
        """[E + 1] each event's first row, then N: every event has at least one, and rows ascend by event."""
        if self._first_row is None:
            self._first_row = np.searchsorted(self.rows.row_event, np.arange(self.rows.event_count + 1))
        return self._first_row

    @property
    def one_row_each(self) -> bool:
        """Whether every event has exactly one row: then row n is event n."""
        return self.rows.row_count == self.rows.event_count

    def entity_places(self, names: Collection[str]) -> list[int]:
        """Places in `rows.entities` of those named: joined blocks may name an entity more than once."""
        if self._entity_places is None:
            last = {name: n for n, name in enumerate(self.rows.entities)}
            before: dict[str, list[int]] = {}
            for n, name in enumerate(self.rows.entities if len(last) < len(self.rows.entities) else ()):
                if last[name] != n:
                    before.setdefault(name, []).append(n)
            self._entity_places = last, before
        last, before = self._entity_places
        places = [place for place in map(last.get, names) if place is not None]
        return places + [n for name in names for n in before.get(name, ())] if before else places

    @property
    def entity_order(self) -> NDArray[np.int32]:
        """Of each place in `rows.entities`, its name's place in ascending order; equal for equal names."""
        if self._entity_order is None:
            place = {name: n for n, name in enumerate(sorted(set(self.rows.entities)))}
            self._entity_order = np.fromiter((place[name] for name in self.rows.entities), np.int32)
        return self._entity_order

    @property
    def lengths(self) -> tuple[int, int]:
        """(rows with at least one term, terms of all rows)."""
        if self._lengths is None:
            terms = self.rows.row_terms
            self._lengths = int(np.count_nonzero(terms)), int(terms.sum(dtype=np.int64))
        return self._lengths

    @property
    def every_vector(self) -> bool:
        """Whether no row lacks a vector."""
        if self._every_vector is None:
            self._every_vector = bool((self.rows.scales > 0).all())
        return self._every_vector

    def plane(self) -> Int8Plane | None:
        """The first pass over the rows' vectors, `rows.dim` > 0, from the second time on that it is asked for: making
        it costs ten products with the rows as they are, and much is read once. Then `made_plane` is it."""
        if self._plane is None and not self._scanned:
            self._scanned = True
            return None
        return self.made_plane()

    @property
    def scans_quickly(self) -> bool:
        """Whether a pass over all vectors is as short as it will be: few, or their plane is made."""
        return self._plane is not None or self.rows.row_count <= FEW_ROWS_MAX

    def made_plane(self) -> Int8Plane:
        if self._plane is None:
            self._plane = Int8Plane(self.rows.vectors, self.rows.scales)
        return self._plane

    def saturation(self, k1: float, b: float, length_mean: float) -> F64:
        """[N] of BM25 under these parameters; those asked for last are kept, as a tenant's questions share them."""
        asked = (k1, b, length_mean)
        held = self._saturation
        if held is None or held[0] != asked:
            held = self._saturation = asked, saturation_of(self.rows.row_terms, k1, b, length_mean)
        return held[1]

    @property
    def nbytes(self) -> int:
        """About what the rows take in memory without texts, the plane of their first pass included."""
        rows = self.rows
        return rows.vectors.nbytes * 3 // 2 + rows.post_rows.nbytes * 2 + rows.event_count * EVENT_BYTES

    def segment_of(self, day: str) -> str | None:
        """The key of the segment of an event of that day, in an entity's block: a month's names one for each day."""
        if self._segments is None:
            self._segments = {_day_of_segment(key): key for key in self.rows.segments}
        return self._segments.get(day)

    @property
    def ids(self) -> StringColumn:
        """Event ids, dictionary encoded."""
        if self._ids is None:
            values = tuple(sorted(set(self.rows.ids)))
            place = {value: n for n, value in enumerate(values)}
            self._ids = StringColumn(values, np.fromiter((place[i] for i in self.rows.ids), np.int32))
        return self._ids

    def attr(self, name: str) -> AttrColumn:
        """The column of attribute `name`; all MISSING where no event has it (one for all such names: callers make
        them up)."""
        column = self._attrs.get(name)
        if column is not None:
            return column
        if self._attr_names is None:
            self._attr_names = frozenset(key for attrs in self.rows.attrs if attrs for key in attrs)
        if name in self._attr_names:
            column = self._attrs[name] = _attr_column(self.rows, name)
            return column
        if self._missing is None:
            self._missing = _attr_column(self.rows, name)
        return self._missing

    @property
    def order(self) -> TimeOrder:
        if self._order is None:
            self._order = TimeOrder.of(self.rows)
        return self._order

    def window(self, since_us: int | None, until_us: int | None) -> Mask:
        """[E] since <= ts < until."""
        ts: I64 = self.rows.event_ts_us
        mask = np.ones(len(ts), np.bool_)
        if since_us is not None:
            mask &= ts >= since_us
        if until_us is not None:
            mask &= ts < until_us
        return mask


@dataclass(frozen=True, slots=True)
class TimeOrder:
    """Events lie by entity, and of an entity by time: one number for both, so that the events of an entity and a
    window are found by two binary searches instead of a look at every event."""

    key: I64 | None
    """[E] ascending: `place of the entity * span + ts - first`. None where the events lie otherwise."""
    first_us: int
    span_us: int

    @classmethod
    def of(cls, rows: Rows) -> TimeOrder:
        ts = rows.event_ts_us
        if not len(ts):
            return cls(None, 0, 1)
        first, span = int(ts.min()), int(ts.max() - ts.min()) + 1
        if len(rows.entities) * span >= 1 << 62:
            return cls(None, first, span)
        key: I64 = rows.event_entity.astype(np.int64) * span + (ts - first)
        return cls(key if bool((key[1:] >= key[:-1]).all()) else None, first, span)

    def find(self, places: Sequence[int], since_us: int | None, until_us: int | None) -> I64 | None:
        """Ascending events of entities (by place), since <= ts < until. None where order does not tell."""
        if self.key is None:
            return None
        low = 0 if since_us is None else min(max(since_us - self.first_us, 0), self.span_us)
        high = self.span_us if until_us is None else min(max(until_us - self.first_us, low), self.span_us)
        own = np.sort(np.array(places, np.int64)) * self.span_us
        starts, stops = self.key.searchsorted(own + low), self.key.searchsorted(own + high)
        counts = stops - starts
        before = np.cumsum(counts) - counts
        found: I64 = np.arange(int(counts.sum())) + np.repeat(starts - before, counts)
        return found


def _day_of_segment(key: str) -> str:
    return "-".join(key.split("/")[-4:-1])


@dataclass(frozen=True, slots=True)
class StringColumn:
    """A string per event: `values[code[e]]`."""

    values: Sequence[str]
    code: NDArray[np.integer]


def _attr_column(rows: Rows, name: str) -> AttrColumn:
    count = rows.event_count
    kind, number, code = np.zeros(count, np.uint8), np.zeros(count, np.float64), np.zeros(count, np.int32)
    strings: dict[str, list[int]] = {}
    lists: dict[tuple[str, ...], list[int]] = {}
    for n, attrs in enumerate(rows.attrs):
        value = attrs.get(name) if attrs else None
        match value:
            case None:
                continue
            case bool():
                kind[n], number[n] = BOOLEAN, float(value)
            case int() | float():
                kind[n], number[n] = NUMBER, float(value)
            case str():
                kind[n] = STRING
                strings.setdefault(value, []).append(n)
            case _:
                kind[n] = LIST
                lists.setdefault(tuple(value), []).append(n)
    ordered = tuple(sorted(strings))
    for place, text in enumerate(ordered):
        code[strings[text]] = place
    for place, events in enumerate(lists.values()):
        code[events] = place
    return AttrColumn(kind, number, code, ordered, tuple(lists))
