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
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from context_plane.index.bm25 import F64, Bm25Settings, ScopeStatistics
from context_plane.index.planes import ROUNDING
from context_plane.index.rows import F32
from context_plane.retrieval.columns import Mask
from context_plane.retrieval.fuse import Fusion, Hit, Leg, by_rank, group_by_entity
from context_plane.retrieval.legs import Pool, Posting, TextLeg, VectorLeg, postings, text_leg, vector_leg
from context_plane.retrieval.order import Index, best_first, name
from context_plane.retrieval.scope import Part, both, filter_mask, rows_of, scope_mask
from context_plane.retrieval.where import Where

LEG_DEPTH: Final = 1_000
"""Ranks past this add less than 1/1,000 of a score by reciprocal ranks at k = 10; a larger limit deepens it."""
RANKS_MAX: Final = 100
"""A hit further down in a leg tells no rank of it: what a person reads of ranks is whether a leg put it first."""
RUNS_PER_HIT: Final = 4
RUN_MIN: Final = 2
"""Runs of scores whose maxima bound the wanted depth: shorter ones save nothing against sorting all out at once."""
REFINE_MIN: Final = 64
"""More candidates than this, beyond the depth, are narrowed in float32 before they are scored exactly."""
GROUP_DEPTH: Final = 1_000
"""Groups by entity are filled from so many of the best events, or from ten times those asked for; where one entity's
many events keep others out, from `GROUP_DEEPER` times as many, and again, up to `GROUP_DEPTH_MAX`, in a tenth of a
second."""
GROUP_DEEPER: Final = 8
GROUP_DEPTH_MAX: Final = 64_000
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
    hits = _ordered(pool, text, vector, query)
    if query.group_by_entity:
        hits = _grouped(parts, hits, pool, text, vector, query)
    return Ranking(tuple(hits), _rows_scored(parts, rows, query), statistics)


def _ordered(pool: Pool, text: TextLeg | None, vector: VectorLeg | None, query: RankQuery) -> list[Hit]:
    """The best events, `query.depth` of them or all there are."""
    if query.fusion.mode != "hybrid":
        return _by_one(pool, text, vector, query)
    if query.fusion.method == "reciprocal_rank":
        return _by_rank(pool, text, vector, query)
    return _by_share(pool, text, vector, query)


def _grouped(
    parts: Sequence[Part],
    hits: list[Hit],
    pool: Pool,
    text: TextLeg | None,
    vector: VectorLeg | None,
    query: RankQuery,
) -> list[Hit]:
    """Hits of the best entities, as many as asked for, or of all that match."""
    wanted = query.limit
    while True:
        found = group_by_entity(parts, hits, groups=query.limit, per_group=query.per_group)
        groups = len({name(parts, hit.part, hit.event)[0] for hit in found})
        if groups >= wanted or len(hits) < query.depth or query.depth >= GROUP_DEPTH_MAX:
            return found
        wanted = min(wanted, _entities(parts, pool, text, vector))
        if groups >= wanted:
            return found
        query = replace(query, group_depth=min(GROUP_DEEPER * query.depth, GROUP_DEPTH_MAX))
        hits = _ordered(pool, text, vector, query)


def _entities(parts: Sequence[Part], pool: Pool, text: TextLeg | None, vector: VectorLeg | None) -> int:
    """How many entities have an event that a leg scores."""
    legs = [] if text is None else [text.event]
    legs += [] if vector is None else [np.flatnonzero(vector.approximate > -np.inf)]
    found: set[str] = set()
    for events in legs:
        part, event = pool.places(events)
        for n in np.unique(part).tolist():
            rows = parts[n].rows
            found.update(rows.entities[code] for code in np.unique(rows.event_entity[event[part == n]]).tolist())
    return len(found)


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


def _by_one(pool: Pool, text: TextLeg | None, vector: VectorLeg | None, query: RankQuery) -> list[Hit]:
    """The best events of the one leg that is asked, by its own score."""
    if text is not None:
        near = _reach(text.score, query.depth, 0.0)
        events, score, row = text.event[near], text.score[near], text.row[near]
    elif vector is not None:
        events = _reach(vector.approximate, query.depth, 2 * vector.error)
        score, row = vector.exact(events)
    else:
        return []
    part, event = pool.places(events)
    order = best_first(pool.parts, part, event, score, query.depth)
    columns = (of[order].tolist() for of in (part, event, row, score))
    hits = []
    for place, (own_part, own_event, own_row, own_score) in enumerate(zip(*columns, strict=True), 1):
        rank = place if place <= RANKS_MAX else None
        legs = (rank, None, own_score, None) if text else (None, rank, None, own_score)
        hits.append(Hit(own_part, own_event, own_row, own_score, *legs))
    return hits


def _by_share(pool: Pool, text: TextLeg | None, vector: VectorLeg | None, query: RankQuery) -> list[Hit]:
    """The best events by the weighted sum of their scores relative to each leg's best."""
    shares = _shares(text, vector, query.fusion)
    events = _candidates(text, vector, shares, query.depth)
    text_score, text_row = text.of(events) if text else _nothing(events)
    vector_score, vector_row = vector.of(events) if vector else _nothing(events)
    score = shares.of(text_score, vector_score)
    part, event = pool.places(events)
    order = best_first(pool.parts, part, event, score, query.depth)
    found = events[order]
    text_rank = _text_ranks(pool, text, found) if text else itertools.repeat(None)
    vector_rank = _vector_ranks(pool, vector, found, vector_score[order]) if vector else itertools.repeat(None)
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
    return float(np.maximum.reduce(vector.exact(_reach(vector.approximate, 1, 2 * vector.error))[0], initial=0.0))


def _candidates(text: TextLeg | None, vector: VectorLeg | None, shares: _Shares, depth: int) -> Index:
    """Events among which the best `depth` surely are, ascending."""
    if vector is None:
        return np.zeros(0, np.int64) if text is None else text.event[_reach(text.score, depth, 0.0)]
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
    events = _reach(scores, depth, 2 * (vector.error * shares.vector + slack))
    if len(events) <= REFINE_MIN + depth:
        return events
    nearer = np.zeros(len(events), np.float64)
    has = vector.approximate[events] > -np.inf
    nearer[has] = vector.refined(events[has])
    texts = text.of(events)[0] if text else np.zeros(len(events))
    return events[_reach(shares.of(texts, nearer), depth, 2 * (ROUNDING * shares.vector + slack))]


def _reach(scores: F32 | F64, depth: int, margin: float) -> Index:
    """Places of scores (not -inf) at most `margin` below the best `depth`, ascending.

    The `depth`-th best of the maxima of disjoint runs is a score that `depth` others reach: few are left to sort out.
    """
    if depth <= 0:
        return np.zeros(0, np.int64)
    width = len(scores) // (RUNS_PER_HIT * depth)
    if width >= RUN_MIN:
        runs = np.maximum.reduce(scores[: len(scores) // width * width].reshape(-1, width), axis=1)
        floor = _nth_best(runs, depth) - margin
    else:
        floor = -np.inf
    near: Index = (scores >= floor if floor > -np.inf else scores > -np.inf).nonzero()[0]
    if depth < len(near):
        held = scores.take(near)
        near = near[held >= _nth_best(held, depth) - margin]
    return near


def _nth_best(scores: F32 | F64, depth: int) -> float:
    ordered = scores.copy()
    ordered.partition(len(scores) - depth)
    return float(ordered[len(scores) - depth])


# --- ranks of hits within their legs ------------------------------------------------------------


def _text_ranks(pool: Pool, text: TextLeg, events: Index) -> list[int | None]:
    score, row = text.of(events)
    near = _reach(text.score, RANKS_MAX, 0.0)
    return _ranks(pool, text.event[near], text.score[near], events, np.where(row >= 0, score, -np.inf))


def _vector_ranks(pool: Pool, vector: VectorLeg, events: Index, score: F64) -> list[int | None]:
    """Every event that may be above one of these within RANKS_MAX is compared, exactly where rounding could tell."""
    found = vector.approximate[events] > -np.inf
    near = _reach(vector.approximate, RANKS_MAX, 2 * vector.error)
    held = vector.approximate[near]
    if len(near) > RANKS_MAX:
        found &= score + vector.error >= _nth_best(held, RANKS_MAX)  # else so many are surely above
    if not found.any():
        return [None] * len(events)
    near = near[held >= score[found].min() - vector.error]
    compared = vector.refined(near)
    asked = np.sort(score[found])
    close = asked.searchsorted(compared + ROUNDING, side="right") > asked.searchsorted(compared - ROUNDING)
    compared[close], _ = vector.exact(near[close])
    return _ranks(pool, near, compared, events, np.where(found, score, -np.inf))


def _ranks(pool: Pool, leg: Index, leg_scores: F64, events: Index, scores: F64) -> list[int | None]:
    """1-based rank of each event in its leg; None beyond RANKS_MAX and for a score of -inf.

    `leg` holds at least every event that ranks above RANKS_MAX and above the worst of `events`."""
    ascending = np.sort(leg_scores)
    above = len(ascending) - ascending.searchsorted(scores, side="right")
    equal = len(ascending) - ascending.searchsorted(scores, side="left") - above
    found: list[int | None] = []
    ties: dict[float, dict[int, int]] = {}
    for event, score, better, tied in zip(
        events.tolist(), scores.tolist(), above.tolist(), equal.tolist(), strict=True
    ):
        rank = better + 1
        if tied > 1 and rank <= RANKS_MAX:
            if score not in ties:
                ties[score] = _tied(pool, leg[leg_scores == score])
            rank += ties[score].get(event, RANKS_MAX)
        found.append(rank if tied and rank <= RANKS_MAX else None)
    return found


def _tied(pool: Pool, events: Index) -> dict[int, int]:
    """Places of the first RANKS_MAX events of one score."""
    order = best_first(pool.parts, *pool.places(events), np.zeros(len(events)), RANKS_MAX)
    return {event: place for place, event in enumerate(events[order].tolist())}


# --- reciprocal ranks ---------------------------------------------------------------------------


def _by_rank(pool: Pool, text: TextLeg | None, vector: VectorLeg | None, query: RankQuery) -> list[Hit]:
    depth = max(LEG_DEPTH, query.depth)
    none = Leg.empty()
    left = none if text is None else _leg(pool, text.event, text.row, text.score, depth)
    right = none
    if vector is not None:
        near = _reach(vector.approximate, depth, 2 * vector.error)
        exact, row = vector.exact(near)
        right = _leg(pool, near, row, exact, depth)
    return by_rank(pool.parts, left, right, query.fusion, None if query.group_by_entity else query.limit)


def _leg(pool: Pool, events: Index, row: Index, score: F64, depth: int) -> Leg:
    part, event = pool.places(events)
    order = best_first(pool.parts, part, event, score, depth)
    return Leg(part[order], event[order], row[order], score[order])
