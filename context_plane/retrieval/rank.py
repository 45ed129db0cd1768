"""Ranking: parts of rows and a query in, hits out. Pure, exact over what it is given, the same on every path.

Row scores do not depend on the part that holds the row: BM25 takes its statistics from the query's whole
scope, and a cosine is an integer dot product in fixed point (exact in float64 below 2^53, so in any
summation order) times two scales. Hence the same events give the same bits in one part or in thirty.
A hit is an event; in each leg it scores what its best row scores.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from context_plane.index.bm25 import F64, Bm25Settings, ScopeStatistics, bm25_scores
from context_plane.index.rows import F32, I32, U16, Rows, quantize
from context_plane.retrieval.columns import Mask
from context_plane.retrieval.fuse import Fusion, Hit, Leg, empty_leg, fuse, group_by_entity
from context_plane.retrieval.order import best_first
from context_plane.retrieval.scope import Part, both, filter_mask, rows_of, scope_mask
from context_plane.retrieval.where import Where

LEG_DEPTH: Final = 1_000
"""Ranks past this add less than 1/1,000 of a fused score at k = 10; a larger limit deepens the legs."""
DOT_ROWS: Final = 4_096
"""Rows widened to float64 at a time: 8 MiB at 256 dimensions, which stays in the processor's cache."""


@dataclass(frozen=True, slots=True)
class RankQuery:
    """What to find, where, and how to order it. Times in microseconds; the window is since <= ts < until."""

    terms: tuple[tuple[str, int], ...] = ()
    """Distinct analyzed terms with their counts in the query; empty turns the text leg off."""
    vector: F32 | None = None
    """float32 [D], unit length; None turns the vector leg off."""
    entities: frozenset[str] | None = None
    since_us: int | None = None
    until_us: int | None = None
    where: Where | None = None
    limit: int = 10
    fusion: Fusion = field(default_factory=Fusion)
    group_by_entity: bool = False
    """Then `limit` counts groups, and each has at most `per_group` hits."""
    per_group: int = 3
    bm25: Bm25Settings = field(default_factory=Bm25Settings)

    @property
    def wants_text(self) -> bool:
        return bool(self.terms) and (
            self.fusion.mode == "text" or (self.fusion.mode == "hybrid" and self.fusion.weight_text > 0)
        )

    @property
    def wants_vector(self) -> bool:
        return self.vector is not None and (
            self.fusion.mode == "vector" or (self.fusion.mode == "hybrid" and self.fusion.weight_vector > 0)
        )


@dataclass(frozen=True, slots=True)
class Ranking:
    hits: tuple[Hit, ...]
    rows_scored: int
    """Rows that were in scope, passed the filter and were candidates of at least one leg that ran."""
    statistics: ScopeStatistics


def rank(parts: Sequence[Part], query: RankQuery) -> list[Hit]:
    """The hits alone; see `rank_parts`."""
    return list(rank_parts(parts, query).hits)


def rank_parts(parts: Sequence[Part], query: RankQuery, statistics: ScopeStatistics | None = None) -> Ranking:
    """Filter, score, fuse and cut. Parts hold disjoint events; their order changes nothing but `Hit.part`.

    `statistics` of the scope may be given when `parts` are not all of it (or to save computing them twice).
    """
    scopes = [_scope(part, query) for part in parts]
    if statistics is None:
        statistics = _statistics(parts, scopes, query)
    rows = [rows_of(part, filter_mask(part, scope, query.where)) for part, scope in zip(parts, scopes, strict=True)]
    depth = max(LEG_DEPTH, query.limit)
    text = _text_leg(parts, rows, query, statistics, depth) if query.wants_text else empty_leg()
    vector = _vector_leg(parts, rows, query, depth) if query.wants_vector else empty_leg()
    hits = fuse(parts, text, vector, query.fusion, None if query.group_by_entity else query.limit)
    if query.group_by_entity:
        hits = group_by_entity(parts, hits, groups=query.limit, per_group=query.per_group)
    return Ranking(tuple(hits), _rows_scored(parts, rows, query), statistics)


def scope_statistics(parts: Sequence[Part], query: RankQuery) -> ScopeStatistics:
    """BM25 statistics of the query's scope: live events of its entities and window, whatever `where` says.

    They count rows with at least one term, ignore candidates, and add up over parts in any order.
    """
    return _statistics(parts, [_scope(part, query) for part in parts], query)


def candidate_weights(query: RankQuery, statistics: ScopeStatistics) -> list[tuple[str, float]]:
    """Each query term with its weight in the scope: what a full-text shard is asked with."""
    return [(term, count * statistics.idf(term)) for term, count in query.terms if statistics.df.get(term)]


def postings(rows: Rows, term: str) -> tuple[I32, U16] | None:
    """(rows, counts) of a term, rows ascending; None where it does not occur."""
    place = _find(rows.terms, term)
    if place is None:
        return None
    start, stop = rows.post_indptr[place], rows.post_indptr[place + 1]
    return rows.post_rows[start:stop], rows.post_counts[start:stop]


def _find(terms: Sequence[str], term: str) -> int | None:
    place = bisect_left(terms, term)
    return place if place < len(terms) and terms[place] == term else None


# --- statistics ---------------------------------------------------------------------------------


def _scope(part: Part, query: RankQuery) -> Mask | None:
    return scope_mask(part, query.entities, query.since_us, query.until_us)


def _statistics(parts: Sequence[Part], scopes: Sequence[Mask | None], query: RankQuery) -> ScopeStatistics:
    rows = total_length = 0
    df = {term: 0 for term, _ in query.terms}
    for part, scope in zip(parts, scopes, strict=True):
        lengths, chosen = part.rows.row_terms, rows_of(part, scope)
        if chosen is not None:
            lengths = lengths[chosen]
        rows += int(np.count_nonzero(lengths))
        total_length += int(lengths.sum(dtype=np.int64))
        for term in df:
            found = postings(part.rows, term)
            if found is not None:
                df[term] += len(found[0]) if chosen is None else int(np.count_nonzero(chosen[found[0]]))
    return ScopeStatistics(rows, total_length, df)


def _rows_scored(parts: Sequence[Part], rows: Sequence[Mask | None], query: RankQuery) -> int:
    total = 0
    for part, allowed in zip(parts, rows, strict=True):
        legs = [part.text_candidates] if query.wants_text else []
        legs += [part.vector_candidates] if query.wants_vector else []
        if not legs:
            continue
        candidates = None if any(leg is None for leg in legs) else np.logical_or.reduce(legs)  # type: ignore[arg-type]  # no element is None here
        chosen = both(allowed, candidates)
        total += part.rows.row_count if chosen is None else int(np.count_nonzero(chosen))
    return total


# --- legs ---------------------------------------------------------------------------------------


def _text_leg(
    parts: Sequence[Part], rows: Sequence[Mask | None], query: RankQuery, statistics: ScopeStatistics, depth: int
) -> Leg:
    legs = []
    for number, (part, allowed) in enumerate(zip(parts, rows, strict=True)):
        held = part.rows
        if not any(_find(held.terms, term) is not None for term, _ in query.terms):
            continue
        k1, b = _bm25_params(held, query.bm25)
        lengths = held.row_terms.astype(np.float32)
        scores = bm25_scores(query.terms, partial(postings, held), lengths, k1, b, statistics)
        chosen = both(both(scores > 0, allowed), part.text_candidates)
        assert chosen is not None
        row = np.flatnonzero(chosen)
        legs.append(_best_rows(number, held, row, scores[row].astype(np.float64), depth))
    return _joined(parts, legs, depth)


def _bm25_params(rows: Rows, settings: Bm25Settings) -> tuple[F64 | float, F64 | float]:
    """(k1, b): scalars where all kinds agree, else float64 [N]."""
    k1, b = settings.arrays(rows.kinds)
    if len(set(zip(k1.tolist(), b.tolist(), strict=True))) <= 1:
        return float(k1[0]), float(b[0])
    kind = rows.event_kind[rows.row_event]
    return k1[kind], b[kind]


def _vector_leg(parts: Sequence[Part], rows: Sequence[Mask | None], query: RankQuery, depth: int) -> Leg:
    assert query.vector is not None
    fixed, scale = quantize(query.vector[None, :])
    legs = []
    for number, (part, allowed) in enumerate(zip(parts, rows, strict=True)):
        held = part.rows
        if not held.dim:
            continue
        assert held.dim == len(query.vector), "parts and query come from one model"
        chosen = both(both(held.scales > 0, allowed), part.vector_candidates)
        assert chosen is not None
        row = np.flatnonzero(chosen)
        scores = _dots(held, row, fixed[0].astype(np.float64)) * held.scales[row].astype(np.float64) * float(scale[0])
        legs.append(_best_rows(number, held, row, scores, depth))
    return _joined(parts, legs, depth)


def _dots(rows: Rows, chosen: NDArray[np.intp], query: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exact integer dot products of the chosen rows with the query, as float64."""
    every = len(chosen) == rows.row_count
    result = np.empty(len(chosen), np.float64)
    for start in range(0, len(chosen), DOT_ROWS):
        stop = start + DOT_ROWS
        block = rows.vectors[start:stop] if every else rows.vectors[chosen[start:stop]]
        result[start:stop] = block.astype(np.float64) @ query
    return result


def _best_rows(number: int, rows: Rows, row: NDArray[np.intp], scores: NDArray[np.float64], depth: int) -> Leg:
    """Rows (ascending) and their scores -> events with their best row, the first among equals; cut early."""
    if not len(row):
        return empty_leg()
    event = rows.row_event[row]
    starts = np.flatnonzero(np.concatenate(([True], event[1:] != event[:-1])))
    best = np.maximum.reduceat(scores, starts)
    if len(starts) < len(row):
        group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(row))))
        at = np.flatnonzero(scores == best[group])
        first = np.concatenate(([True], group[at][1:] != group[at][:-1]))
        row = row[at[first]]
    event = event[starts]
    if len(best) > depth:
        kept = best >= np.partition(best, len(best) - depth)[len(best) - depth]
        row, event, best = row[kept], event[kept], best[kept]
    return Leg(np.full(len(best), number, np.int64), event.astype(np.int64), row.astype(np.int64), best)


def _joined(parts: Sequence[Part], legs: Sequence[Leg], depth: int) -> Leg:
    if not legs:
        return empty_leg()
    part = np.concatenate([leg.part for leg in legs])
    event = np.concatenate([leg.event for leg in legs])
    row = np.concatenate([leg.row for leg in legs])
    score = np.concatenate([leg.score for leg in legs])
    order = best_first(parts, part, event, score, depth)
    return Leg(part[order], event[order], row[order], score[order])
