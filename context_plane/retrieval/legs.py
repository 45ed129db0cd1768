"""Legs: what text and vector say of every event of a scope, over all parts at once.

An event of several rows counts as its best row, the first among equals. Events are numbered through the parts
(`Pool`), so that legs of thirty parts are compared like those of one. The text leg is exact and sparse. The
vector leg is a SIMD first pass over every event with a bound on its error, and exact scores of those asked for:
integer dot products, exact in float64 below 2^53, hence the same bits in any part and any summation order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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


Dots: TypeAlias = Callable[[Rows, Index], F64]
"""Scores of the rows named."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The events of all parts under one numbering: part p's event e is `first[p] + e`."""

    parts: Sequence[Part]
    first: Index
    """[P + 1]"""

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Pool:
        counts = [part.rows.event_count for part in parts]
        if len(counts) == 1:
            return cls(parts, np.array([0, counts[0]]))
        return cls(parts, np.concatenate(([0], np.cumsum(counts, dtype=np.int64))))

    @property
    def size(self) -> int:
        return int(self.first[-1])

    def places(self, events: Index) -> tuple[Index, Index]:
        """(part, event within it)."""
        if len(self.parts) == 1:
            return np.zeros(len(events), np.int64), events
        part = np.searchsorted(self.first, events, side="right") - 1
        return part, events - self.first[part]


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
        if len(self._pool.parts) == 1:
            return self._of_part(0, events, dots)
        score, row = np.zeros(len(events), np.float64), np.zeros(len(events), np.int64)
        part, event = self._pool.places(events)
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
        first, stop = columns.first_row[event], columns.first_row[event + 1]
        counts = stop - first
        owner = np.repeat(np.arange(len(event)), counts)
        rows = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts) + first[owner]
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


def postings(rows: Rows, term: str) -> tuple[I32, U16] | None:
    """(rows, counts) of a term, rows ascending; None where it does not occur."""
    place = bisect_left(rows.terms, term)
    if place == len(rows.terms) or rows.terms[place] != term:
        return None
    start, stop = rows.post_indptr[place], rows.post_indptr[place + 1]
    return rows.post_rows[start:stop], rows.post_counts[start:stop]


def text_leg(
    pool: Pool,
    allowed: Sequence[Mask | None],
    terms: Sequence[tuple[str, int]],
    settings: Bm25Settings,
    statistics: ScopeStatistics,
) -> TextLeg:
    """`allowed`: rows of each part that may be scored, None for all."""
    events, rows, scores = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float64)]
    for number, (part, mask) in enumerate(zip(pool.parts, allowed, strict=True)):
        held = part.rows
        k1, b = _bm25_params(held, settings)
        chosen, saturation = both(mask, part.text_candidates), None
        if chosen is None and isinstance(k1, float) and isinstance(b, float):
            saturation = part.columns.saturation(k1, b, statistics.length_mean)
        row, score = bm25_rows(
            terms,
            partial(postings, held),
            held.row_terms,
            k1,
            b,
            statistics,
            chosen,
            saturation,
        )
        if len(row):
            event, row, best = _best_rows(part.columns, row, score.astype(np.float64))
            events.append(event + pool.first[number])
            rows.append(row)
            scores.append(best)
    return TextLeg(np.concatenate(events), np.concatenate(rows), np.concatenate(scores))


def vector_leg(pool: Pool, allowed: Sequence[Mask | None], query: F32) -> VectorLeg:
    """`query`: float32 [D], unit length. `allowed`: rows of each part that may be scored, None for all."""
    asked = PlaneQuery(*quantize_one(query))
    found: list[F32] = []
    chosen: list[Mask | None] = []
    error, whole = 0.0, True
    for part, mask in zip(pool.parts, allowed, strict=True):
        held = part.rows
        mask = both(mask, part.vector_candidates)
        if not held.dim:
            whole = False
            chosen.append(mask)
            found.append(np.full(held.event_count, -np.inf, np.float32))
            continue
        assert held.dim == len(query), "parts and query come from one model"
        if not part.columns.every_vector:
            mask = both(mask, held.scales > 0)
        scores, own = _first_pass(part.columns, mask, asked)
        if not part.columns.one_row_each:
            scores = np.maximum.reduceat(scores, part.columns.first_row[:-1])
        error, whole = max(error, own), whole and mask is None
        chosen.append(mask)
        found.append(scores)
    approximate = found[0] if len(found) == 1 else np.concatenate([np.zeros(0, np.float32), *found])
    return VectorLeg(pool, asked, approximate, error, chosen, whole=whole)


def _first_pass(columns: Columns, mask: Mask | None, query: PlaneQuery) -> tuple[F32, float]:
    """([N] approximate scores, -inf where masked, greatest error)."""
    rows = columns.rows
    wanted = None if mask is None else np.flatnonzero(mask)
    if wanted is not None and len(wanted) * GATHER_SHARE >= rows.row_count:
        wanted = None
    count = rows.row_count if wanted is None else len(wanted)
    plane = columns.plane() if count > FEW_ROWS_MAX else None
    scores, error = (_direct(rows, wanted, query), ROUNDING) if plane is None else plane.scores(query, wanted)
    if wanted is not None:
        out = np.full(rows.row_count, -np.inf, np.float32)
        out[wanted] = scores
        return out, error
    if mask is not None:
        scores[~mask] = -np.inf
    return scores, error


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
