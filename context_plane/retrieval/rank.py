"""Ranking: parts of rows and a query in, hits out. Pure, exact over what it is given, the same on every path.

Row scores do not depend on the part that holds the row: BM25 takes its statistics from the query's whole
scope, and a cosine is an integer dot product in fixed point times two scales. Hence the same events give the
same bits in one part or in thirty. A hit is an event; in each leg it scores what its best row scores.

Scores of the vector leg are approximate at first, within a known bound: whatever can reach the wanted depth is
scored exactly, so the answer is that of a full exact scan.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from context_plane.index.bm25 import F64, Bm25Settings, ScopeStatistics
from context_plane.index.planes import ROUNDING
from context_plane.index.rows import F32
from context_plane.retrieval.columns import Mask
from context_plane.retrieval.fuse import Fusion, Hit, Leg, by_rank
from context_plane.retrieval.groups import GROUP_DEPTH, grouped
from context_plane.retrieval.legs import Pool, Posting, TextLeg, VectorLeg, postings, text_leg, vector_leg
from context_plane.retrieval.order import Index, best_first, reach
from context_plane.retrieval.ranks import RANKS_MAX, text_ranks, vector_ranks
from context_plane.retrieval.scope import Part, both, filter_mask, rows_of, scope_mask
from context_plane.retrieval.where import Where

LEG_DEPTH: Final = 1_000
"""Ranks past this add less than 1/1,000 of a score by reciprocal ranks at k = 10; a larger limit deepens it."""
REFINE_MIN: Final = 64
"""More candidates than this, beyond the depth, are narrowed in float32 before they are scored exactly."""
SLACK: Final = 1e-6
"""Of float32 sums of shares, each at most 1 times its weight."""


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
    group_depth: int = GROUP_DEPTH
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

    @property
    def depth(self) -> int:
        """Events to order."""
        return max(self.group_depth, 10 * self.limit * self.per_group) if self.group_by_entity else self.limit


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
    found = [_scoped(part, scope, query) for part, scope in zip(parts, scopes, strict=True)]
    if statistics is None:
        statistics = ScopeStatistics.merge(each.statistics for each in found)
    events = [filter_mask(part, scope, query.where) for part, scope in zip(parts, scopes, strict=True)]
    rows = [rows_of(part, mask) for part, mask in zip(parts, events, strict=True)]
    pool = Pool.of(parts, events)
    text = None
    if query.wants_text:
        held = [each.postings for each in found]
        text = text_leg(pool, held, rows, query.terms, query.bm25, statistics, filtered=query.where is not None)
    vector = vector_leg(pool, rows, query.vector) if query.wants_vector and query.vector is not None else None
    if query.group_by_entity:
        hits = grouped(
            pool,
            text,
            vector,
            lambda depth: _ordered(pool, text, vector, query, depth),
            depth=query.depth,
            groups=query.limit,
            per_group=query.per_group,
        )
    else:
        hits = _ordered(pool, text, vector, query, query.depth)
    return Ranking(tuple(hits), _rows_scored(parts, rows, query), statistics)


def _ordered(pool: Pool, text: TextLeg | None, vector: VectorLeg | None, query: RankQuery, depth: int) -> list[Hit]:
    """The best events, `depth` of them or all there are."""
    if query.fusion.mode != "hybrid":
        return _by_one(pool, text, vector, depth)
    if query.fusion.method == "reciprocal_rank":
        return _by_rank(pool, text, vector, query, depth)
    return _by_share(pool, text, vector, query.fusion, depth)


def scope_statistics(parts: Sequence[Part], query: RankQuery) -> ScopeStatistics:
    """BM25 statistics of the query's scope: live events of its entities and window, whatever `where` says.

    They count rows with at least one term, ignore candidates, and add up over parts in any order.
    """
    return ScopeStatistics.merge(_scoped(part, _scope(part, query), query).statistics for part in parts)


def candidate_weights(query: RankQuery, statistics: ScopeStatistics) -> list[tuple[str, float]]:
    """Each query term with its weight in the scope: what a full-text shard is asked with."""
    return [(term, count * statistics.idf(term)) for term, count in query.terms if statistics.df.get(term)]


# --- statistics ---------------------------------------------------------------------------------


def _scope(part: Part, query: RankQuery) -> Mask | None:
    return scope_mask(part, query.entities, query.since_us, query.until_us)


@dataclass(frozen=True, slots=True)
class _Scoped:
    """What the text leg reads of a part: the query's terms in the scope, and how much the scope holds."""

    postings: Mapping[str, Posting]
    statistics: ScopeStatistics


def _scoped(part: Part, scope: Mask | None, query: RankQuery) -> _Scoped:
    chosen = rows_of(part, scope)
    if chosen is None:
        rows, length = part.columns.lengths
    else:
        lengths = part.rows.row_terms[chosen]
        rows, length = int(np.count_nonzero(lengths)), int(lengths.sum(dtype=np.int64))
    found: dict[str, Posting] = {}
    for term, _ in query.terms:
        held = postings(part.rows, term)
        if held is not None and chosen is not None:
            inside = chosen[held[0]]
            held = held[0][inside], held[1][inside]
        if held is not None:
            found[term] = held
    df = {term: len(found[term][0]) if term in found else 0 for term, _ in query.terms}
    return _Scoped(found, ScopeStatistics(rows, length, df))


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


# --- fusing -------------------------------------------------------------------------------------


def _by_one(pool: Pool, text: TextLeg | None, vector: VectorLeg | None, depth: int) -> list[Hit]:
    """The best events of the one leg that is asked, by its own score."""
    if text is not None:
        near = reach(text.score, depth, 0.0)
        events, score, row = text.event[near], text.score[near], text.row[near]
    elif vector is not None:
        events = reach(vector.approximate, depth, 2 * vector.error)
        score, row = vector.exact(events)
    else:
        return []
    part, event = pool.places(events)
    order = best_first(pool.parts, part, event, score, depth)
    columns = (of[order].tolist() for of in (part, event, row, score))
    hits = []
    for place, (own_part, own_event, own_row, own_score) in enumerate(zip(*columns, strict=True), 1):
        rank = place if place <= RANKS_MAX else None
        legs = (rank, None, own_score, None) if text else (None, rank, None, own_score)
        hits.append(Hit(own_part, own_event, own_row, own_score, *legs))
    return hits


def _by_share(pool: Pool, text: TextLeg | None, vector: VectorLeg | None, fusion: Fusion, depth: int) -> list[Hit]:
    """The best events by the weighted sum of their scores relative to each leg's best."""
    shares = _shares(text, vector, fusion)
    events = _candidates(text, vector, shares, depth)
    text_score, text_row = text.of(events) if text else _nothing(events)
    vector_score, vector_row = vector.of(events) if vector else _nothing(events)
    score = shares.of(text_score, vector_score)
    part, event = pool.places(events)
    order = best_first(pool.parts, part, event, score, depth)
    found = events[order]
    text_rank = text_ranks(pool, text, found) if text else itertools.repeat(None)
    vector_rank = vector_ranks(pool, vector, found, vector_score[order]) if vector else itertools.repeat(None)
    columns = (part, event, score, text_row, vector_row, text_score, vector_score)
    return [
        Hit(
            own_part,
            own_event,
            in_vector if in_text < 0 else in_text,
            own_score,
            of_text,
            of_vector,
            None if in_text < 0 else own_text,
            None if in_vector < 0 else own_vector,
        )
        for (own_part, own_event, own_score, in_text, in_vector, own_text, own_vector), of_text, of_vector in zip(
            zip(*(of[order].tolist() for of in columns), strict=True), text_rank, vector_rank, strict=False
        )
    ]


def _nothing(events: Index) -> tuple[F64, Index]:
    """(scores, rows) of a leg that has none of the events."""
    return np.zeros(len(events), np.float64), np.full(len(events), -1, np.int64)


@dataclass(frozen=True, slots=True)
class _Shares:
    """What a leg's score adds to an event's: its weighted share of the leg's best. 0: nothing."""

    weight_text: float
    best_text: float
    weight_vector: float
    best_vector: float

    def of(self, text: F64, vector: F64) -> F64:
        score = np.zeros(len(text), np.float64)
        if self.best_text > 0:
            score += self.weight_text * (np.maximum(text, 0.0) / self.best_text)
        if self.best_vector > 0:
            score += self.weight_vector * (np.maximum(vector, 0.0) / self.best_vector)
        return score

    @property
    def text(self) -> float:
        return self.weight_text / self.best_text if self.best_text > 0 else 0.0

    @property
    def vector(self) -> float:
        return self.weight_vector / self.best_vector if self.best_vector > 0 else 0.0


def _shares(text: TextLeg | None, vector: VectorLeg | None, fusion: Fusion) -> _Shares:
    best_text = float(np.maximum.reduce(text.score, initial=0.0)) if text else 0.0
    return _Shares(fusion.weight_text, best_text, fusion.weight_vector, _best(vector) if vector else 0.0)


def _best(vector: VectorLeg) -> float:
    """The leg's best exact score; 0 when nothing scores more."""
    return float(np.maximum.reduce(vector.exact(reach(vector.approximate, 1, 2 * vector.error))[0], initial=0.0))


def _candidates(text: TextLeg | None, vector: VectorLeg | None, shares: _Shares, depth: int) -> Index:
    """Events among which the best `depth` surely are, ascending."""
    if vector is None:
        return np.zeros(0, np.int64) if text is None else text.event[reach(text.score, depth, 0.0)]
    scores = np.maximum(vector.approximate, np.float32(0.0))
    scores *= np.float32(shares.vector)
    if not vector.whole:
        scores[vector.approximate == -np.inf] = -np.inf
    if text is not None and len(text.event):
        own = (text.score * shares.text).astype(np.float32)
        if vector.whole:
            scores[text.event] += own
        else:
            scores[text.event] = np.maximum(scores[text.event], np.float32(0.0)) + own
    slack = SLACK * max(1.0, shares.weight_text + shares.weight_vector)
    events = reach(scores, depth, 2 * (vector.error * shares.vector + slack))
    if len(events) <= REFINE_MIN + depth:
        return events
    nearer = np.zeros(len(events), np.float64)
    has = vector.approximate[events] > -np.inf
    nearer[has] = vector.refined(events[has])
    texts = text.of(events)[0] if text else np.zeros(len(events))
    return events[reach(shares.of(texts, nearer), depth, 2 * (ROUNDING * shares.vector + slack))]


# --- reciprocal ranks ---------------------------------------------------------------------------


def _by_rank(pool: Pool, text: TextLeg | None, vector: VectorLeg | None, query: RankQuery, depth: int) -> list[Hit]:
    """With groups, everything that either leg has to that depth."""
    limit = None if query.group_by_entity else depth
    depth = max(LEG_DEPTH, depth)
    none = Leg.empty()
    left = none if text is None else _leg(pool, text.event, text.row, text.score, depth)
    right = none
    if vector is not None:
        near = reach(vector.approximate, depth, 2 * vector.error)
        exact, row = vector.exact(near)
        right = _leg(pool, near, row, exact, depth)
    return by_rank(pool.parts, left, right, query.fusion, limit)


def _leg(pool: Pool, events: Index, row: Index, score: F64, depth: int) -> Leg:
    part, event = pool.places(events)
    order = best_first(pool.parts, part, event, score, depth)
    return Leg(part[order], event[order], row[order], score[order])
