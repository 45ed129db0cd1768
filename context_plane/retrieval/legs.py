"""Legs: what text and vector say of every event of a scope, over all parts at once.

An event of several rows counts as its best row, the first among equals. Events are numbered through the parts
(`Pool`), so that legs of thirty parts are compared like those of one. The text leg is exact and sparse. The
vector leg is a SIMD first pass over every event with a bound on its error, and exact scores of those asked for:
integer dot products, exact in float64 below 2^53, hence the same bits in any part and any summation order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from context_plane.index.bm25 import F64, Bm25Settings, ScopeStatistics, bm25_rows
from context_plane.index.planes import ROUNDING, PlaneQuery
from context_plane.index.rows import F32, I32, U16, Rows, quantize_one
from context_plane.retrieval.columns import FEW_ROWS_MAX, Columns, Mask
from context_plane.retrieval.order import Index
from context_plane.retrieval.scope import Part, both

GATHER_SHARE: Final = 4
"""Fewer than one row in so many allowed: they are gathered before they are multiplied."""
DOT_ROWS: Final = 4_096
"""Rows widened at a time: 8 MiB as float64 of 256 dimensions."""


Posting: TypeAlias = tuple[I32, U16]
"""(rows, counts) of a term, rows ascending."""
Dots: TypeAlias = Callable[[Rows, Index], F64]
"""Scores of the rows named."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The events of all parts under one numbering: part p's n-th event is `first[p] + n`.

    Of a part that a query leaves little of, only what is left is numbered: everything after the filter then costs
    what was asked for, not what is stored.
    """

    parts: Sequence[Part]
    first: Index
    """[P + 1]"""
    kept: Sequence[Index | None]
    """Of each part, its events that have a number, ascending; None: all."""

    @classmethod
    def of(cls, parts: Sequence[Part], events: Sequence[Mask | None]) -> Pool:
        """`events`: those of each part that may be scored, None for all."""
        kept = [_kept(mask) for mask in events]
        counts = [part.rows.event_count if own is None else len(own) for part, own in zip(parts, kept, strict=True)]
        if len(counts) == 1:
            return cls(parts, np.array([0, counts[0]]), kept)
        return cls(parts, np.concatenate(([0], np.cumsum(counts, dtype=np.int64))), kept)

    def places(self, events: Index) -> tuple[Index, Index]:
        """(part, event within it)."""
        if len(self.parts) == 1:
            own = self.kept[0]
            return np.zeros(len(events), np.int64), events if own is None else own[events]
        part = np.searchsorted(self.first, events, side="right") - 1
        event = events - self.first[part]
        for number, own in enumerate(self.kept):
            if own is not None:
                chosen = part == number
                event[chosen] = own[event[chosen]]
        return part, event

    def numbers(self, part: int, event: Index) -> Index:
        """Numbers of events of a part, all of which have one."""
        own = self.kept[part]
        numbered: Index = (event if own is None else own.searchsorted(event)) + self.first[part]
        return numbered

    def rows(self, part: int) -> tuple[Index | None, Index]:
        """(rows of the part's numbered events, ascending, None for all; where each event's begin among them)."""
        own, columns = self.kept[part], self.parts[part].columns
        if own is None or columns.one_row_each:
            return own, columns.first_row[:-1]
        return rows_of_events(columns, own)


def _kept(mask: Mask | None) -> Index | None:
    if mask is None or int(np.count_nonzero(mask)) * GATHER_SHARE >= len(mask):
        return None
    return np.flatnonzero(mask)


def rows_of_events(columns: Columns, events: Index) -> tuple[Index, Index]:
    """(rows of the events, ascending with them; where each event's begin among them)."""
    first = columns.first_row[events]
    counts = columns.first_row[events + 1] - first
    starts = np.cumsum(counts) - counts
    rows: Index = np.arange(int(counts.sum())) + np.repeat(first - starts, counts)
    return rows, starts


@dataclass(frozen=True, slots=True)
class TextLeg:
    """Events with a query term, ascending. All arrays have one length."""

    event: Index
    row: Index
    """Of the event's part."""
    score: F64

    def of(self, events: Index) -> tuple[F64, Index]:
        """(scores, rows) of these events; score 0 and row -1 where the leg has not got one."""
        score, row = np.zeros(len(events), np.float64), np.full(len(events), -1, np.int64)
        if len(self.event):
            place = np.minimum(np.searchsorted(self.event, events), len(self.event) - 1)
            found = self.event[place] == events
            score[found], row[found] = self.score[place[found]], self.row[place[found]]
        return score, row


class VectorLeg:
    """`approximate`: float32 over the pool, -inf where an event has no vector or may not be scored;
    each within `error` of the exact score. Dearer and narrower: `refined`, then `exact`."""

    def __init__(
        self,
        pool: Pool,
        query: PlaneQuery,
        approximate: F32,
        error: float,
        allowed: Sequence[Mask | None],
        *,
        whole: bool,
    ) -> None:
        self.approximate = approximate
        self.whole = whole
        """Whether no event is -inf."""
        self.error = error
        self._pool = pool
        self._query = query
        self._fixed, self._scale = query.fixed.astype(np.float64), query.scale
        self._allowed = allowed

    def of(self, events: Index) -> tuple[F64, Index]:
        """(exact scores, rows) of these events; score 0 and row -1 where the leg has not got one."""
        if self.whole:
            return self.exact(events)
        score, row = np.zeros(len(events), np.float64), np.full(len(events), -1, np.int64)
        has = self.approximate[events] > -np.inf
        score[has], row[has] = self.exact(events[has])
        return score, row

    def exact(self, events: Index) -> tuple[F64, Index]:
        """(scores, rows) of these events, every one of them scored by the first pass."""
        return self._scored(events, self._exact)

    def refined(self, events: Index) -> F64:
        """Scores of these events within ROUNDING: what few would need exactly, many need no further."""
        return self._scored(events, self._nearly)[0]

    def _scored(self, events: Index, dots: Dots) -> tuple[F64, Index]:
        part, event = self._pool.places(events)
        if len(self._pool.parts) == 1:
            return self._of_part(0, event, dots)
        score, row = np.zeros(len(events), np.float64), np.zeros(len(events), np.int64)
        for number in np.unique(part).tolist():
            chosen = np.flatnonzero(part == number)
            score[chosen], row[chosen] = self._of_part(number, event[chosen], dots)
        return score, row

    def _of_part(self, number: int, event: Index, dots: Dots) -> tuple[F64, Index]:
        columns, allowed = self._pool.parts[number].columns, self._allowed[number]
        if columns.one_row_each:
            return dots(columns.rows, event), event
        if not len(event):
            return np.zeros(0, np.float64), event
        rows, starts = rows_of_events(columns, event)
        owner = np.repeat(np.arange(len(event)), np.diff(starts, append=len(rows)))
        if allowed is not None:
            kept = allowed[rows]
            owner, rows = owner[kept], rows[kept]
        scores = dots(columns.rows, rows)
        starts = np.searchsorted(owner, np.arange(len(event)))
        best = np.maximum.reduceat(scores, starts)
        at = np.flatnonzero(scores == best[owner])
        _, earliest = np.unique(owner[at], return_index=True)
        return best, rows[at[earliest]]

    def _exact(self, rows: Rows, chosen: Index) -> F64:
        result = np.empty(len(chosen), np.float64)
        for start in range(0, len(chosen), DOT_ROWS):
            part = chosen[start : start + DOT_ROWS]
            result[start : start + DOT_ROWS] = rows.vectors.take(part, axis=0).astype(np.float64) @ self._fixed
        return result * rows.scales[chosen].astype(np.float64) * self._scale

    def _nearly(self, rows: Rows, chosen: Index) -> F64:
        return _direct(rows, chosen, self._query).astype(np.float64)


def postings(rows: Rows, term: str) -> Posting | None:
    """None where the term does not occur."""
    place = bisect_left(rows.terms, term)
    if place == len(rows.terms) or rows.terms[place] != term:
        return None
    start, stop = rows.post_indptr[place], rows.post_indptr[place + 1]
    return rows.post_rows[start:stop], rows.post_counts[start:stop]


def text_leg(
    pool: Pool,
    found: Sequence[Mapping[str, Posting]],
    allowed: Sequence[Mask | None],
    terms: Sequence[tuple[str, int]],
    settings: Bm25Settings,
    statistics: ScopeStatistics,
    *,
    filtered: bool,
) -> TextLeg:
    """`found`: what each part holds of the terms in scope. `allowed`: rows of it that may be scored, None for all;
    `filtered`: whether these are less than the scope."""
    events, rows, scores = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float64)]
    for number, (part, mask) in enumerate(zip(pool.parts, allowed, strict=True)):
        held = part.rows
        k1, b = _bm25_params(held, settings)
        chosen, saturation = both(mask, part.text_candidates), None
        if chosen is None and isinstance(k1, float) and isinstance(b, float):
            saturation = part.columns.saturation(k1, b, statistics.length_mean)
        row, score = bm25_rows(
            terms,
            found[number].get,
            held.row_terms,
            k1,
            b,
            statistics,
            chosen if filtered or part.text_candidates is not None else None,
            saturation,
        )
        if len(row):
            event, row, best = _best_rows(part.columns, row, score.astype(np.float64))
            events.append(pool.numbers(number, event))
            rows.append(row)
            scores.append(best)
    return TextLeg(np.concatenate(events), np.concatenate(rows), np.concatenate(scores))


def vector_leg(pool: Pool, allowed: Sequence[Mask | None], query: F32) -> VectorLeg:
    """`query`: float32 [D], unit length. `allowed`: rows of each part that may be scored, None for all."""
    asked = PlaneQuery(*quantize_one(query))
    found: list[F32] = []
    chosen: list[Mask | None] = []
    error, whole = 0.0, True
    for number, (part, mask) in enumerate(zip(pool.parts, allowed, strict=True)):
        held = part.rows
        mask = both(mask, part.vector_candidates)
        if held.dim and not part.columns.every_vector:
            mask = both(mask, held.scales > 0)
        chosen.append(mask)
        if not held.dim:
            whole = False
            found.append(np.full(int(pool.first[number + 1] - pool.first[number]), -np.inf, np.float32))
            continue
        assert held.dim == len(query), "parts and query come from one model"
        wanted, starts = pool.rows(number)
        scores, own, every = _first_pass(part.columns, mask, wanted, asked)
        if not part.columns.one_row_each and len(scores):
            scores = np.maximum.reduceat(scores, starts)
        error, whole = max(error, own), whole and every
        found.append(scores)
    approximate = found[0] if len(found) == 1 else np.concatenate([np.zeros(0, np.float32), *found])
    return VectorLeg(pool, asked, approximate, error, chosen, whole=whole)


def _first_pass(
    columns: Columns, mask: Mask | None, wanted: Index | None, query: PlaneQuery
) -> tuple[F32, float, bool]:
    """(approximate scores of all rows or of those wanted, -inf where masked, greatest error, whether none is)."""
    of_wanted = mask if mask is None or wanted is None else mask[wanted]
    if of_wanted is None or of_wanted.all():
        return *_approximate(columns, wanted, query), True
    admitted = np.flatnonzero(of_wanted)
    if len(admitted) * GATHER_SHARE >= len(of_wanted):
        scores, error = _approximate(columns, wanted, query)
        scores[~of_wanted] = -np.inf
        return scores, error, False
    scores = np.full(len(of_wanted), -np.inf, np.float32)
    scores[admitted], error = _approximate(columns, admitted if wanted is None else wanted[admitted], query)
    return scores, error, False


def _approximate(columns: Columns, wanted: Index | None, query: PlaneQuery) -> tuple[F32, float]:
    count = columns.rows.row_count if wanted is None else len(wanted)
    plane = columns.plane() if count > FEW_ROWS_MAX else None
    return (_direct(columns.rows, wanted, query), ROUNDING) if plane is None else plane.scores(query, wanted)


def _direct(rows: Rows, chosen: NDArray[np.intp] | None, query: PlaneQuery) -> F32:
    """Scores of all rows, or of those chosen, within ROUNDING."""
    asked = query.fixed.astype(np.float32) * np.float32(query.scale)
    scores = (rows.scales if chosen is None else rows.scales[chosen]).astype(np.float32)
    for start in range(0, len(scores), DOT_ROWS):
        part = slice(start, start + DOT_ROWS)
        vectors = rows.vectors[part] if chosen is None else rows.vectors.take(chosen[part], axis=0)
        scores[part] *= vectors.astype(np.float32) @ asked
    return scores


def _bm25_params(rows: Rows, settings: Bm25Settings) -> tuple[F64 | float, F64 | float]:
    """(k1, b): scalars where all kinds agree, else float64 [N]."""
    if not settings.by_kind:
        return settings.default.k1, settings.default.b
    k1, b = settings.arrays(rows.kinds)
    kind = rows.event_kind[rows.row_event]
    return k1[kind], b[kind]


def _best_rows(columns: Columns, row: NDArray[np.intp], scores: F64) -> tuple[Index, Index, F64]:
    """Rows (ascending) and their scores -> (events ascending, their best rows, scores)."""
    if columns.one_row_each:
        return row.astype(np.int64), row.astype(np.int64), scores
    event = columns.rows.row_event[row].astype(np.int64)
    starts = np.flatnonzero(np.concatenate(([True], event[1:] != event[:-1])))
    best = np.maximum.reduceat(scores, starts)
    if len(starts) < len(row):
        group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(row))))
        at = np.flatnonzero(scores == best[group])
        first = np.concatenate(([True], group[at][1:] != group[at][:-1]))
        row = row[at[first]]
    return event[starts], row.astype(np.int64), best
