"""Ranks: which place a hit has in each leg, exactly, without ordering the leg.

What is above a hit is counted; ties are put in order where they decide (`order.best_first`). Places count from 1.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from context_plane.index.bm25 import F64
from context_plane.index.planes import ROUNDING
from context_plane.retrieval.legs import Pool, TextLeg, VectorLeg
from context_plane.retrieval.order import Index, best_first, nth_best, reach

RANKS_MAX: Final = 100
"""A hit further down in a leg tells no rank of it: what a person reads of ranks is whether a leg put it first."""


def text_ranks(pool: Pool, text: TextLeg, events: Index) -> list[int | None]:
    """Of events that the leg need not have."""
    score, row = text.of(events)
    near = reach(text.score, RANKS_MAX, 0.0)
    return _ranks(pool, text.event[near], text.score[near], events, np.where(row >= 0, score, -np.inf))


def vector_ranks(pool: Pool, vector: VectorLeg, events: Index, score: F64) -> list[int | None]:
    """`score`: exact, of these events.

    Every event that may be above one of these within RANKS_MAX is compared, exactly where rounding could tell."""
    found = vector.approximate[events] > -np.inf
    near = reach(vector.approximate, RANKS_MAX, 2 * vector.error)
    held = vector.approximate[near]
    if len(near) > RANKS_MAX:
        found &= score + vector.error >= nth_best(held, RANKS_MAX)  # else so many are surely above
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
