"""Fusion: two ranked legs to one list of hits.

`relative_score` (the default) is a convex combination: each leg's scores are divided by that leg's best, so
a clear winner stays clear (Bruch, Gai, Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", TOIS
2023); `rank` computes it over every event in scope. `reciprocal_rank` sums weight / (k + rank), ranks from 1
(Cormack, Clarke, Büttcher, SIGIR 2009), over the best of each leg. With one leg the score is that leg's own.
Ties break as everywhere (`order.best_first`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from context_plane.retrieval.order import Index, best_first
from context_plane.retrieval.scope import Part

FUSION_K: Final = 10
"""Of reciprocal ranks. 60, the paper's value, is flat for entities with few events and was better on no data
set measured."""
WEIGHT_TEXT: Final = 0.8
WEIGHT_VECTOR: Final = 0.2
"""Tuned on five products of an enterprise data set and judged on five others: benchmarks/results/quality.json."""

Mode: TypeAlias = Literal["hybrid", "text", "vector"]
FusionMethod: TypeAlias = Literal["relative_score", "reciprocal_rank"]


@dataclass(frozen=True, slots=True)
class Leg:
    """Events of one leg in their final order; position n has rank n + 1. All arrays have one length."""

    part: Index
    event: Index
    row: Index
    """The event's best row."""
    score: NDArray[np.float64]

    @classmethod
    def empty(cls) -> Leg:
        none = np.zeros(0, np.int64)
        return cls(none, none, none, np.zeros(0, np.float64))


class Hit(NamedTuple):
    """One event found. `part` indexes the parts given, `event` and `row` that part's rows.

    A leg that did not find the event has neither rank nor score; beyond its depth it has no rank.
    """

    part: int
    event: int
    row: int
    """The chunk that represents the event: the text leg's best, else the vector leg's."""
    score: float
    text_rank: int | None = None
    vector_rank: int | None = None
    text_score: float | None = None
    vector_score: float | None = None


@dataclass(frozen=True, slots=True)
class Fusion:
    """How two legs become one list. `k` >= 0 is read by `reciprocal_rank` only; weights >= 0."""

    mode: Mode = "hybrid"
    method: FusionMethod = "relative_score"
    k: float = FUSION_K
    weight_text: float = WEIGHT_TEXT
    weight_vector: float = WEIGHT_VECTOR


def by_rank(parts: Sequence[Part], text: Leg, vector: Leg, fusion: Fusion, limit: int | None) -> list[Hit]:
    """The best `limit` (None: all) events of both legs by reciprocal ranks, best first."""
    width = 1 + max((int(leg.event.max()) for leg in (text, vector) if len(leg.event)), default=0)
    keys, place = np.unique(
        np.concatenate([text.part * width + text.event, vector.part * width + vector.event]), return_inverse=True
    )
    in_text, in_vector = _ranks(place[: len(text.event)], len(keys)), _ranks(place[len(text.event) :], len(keys))
    score = np.zeros(len(keys), np.float64)
    score[place[: len(text.event)]] += fusion.weight_text * _reciprocal(fusion.k, len(text.event))
    score[place[len(text.event) :]] += fusion.weight_vector * _reciprocal(fusion.k, len(vector.event))
    part, event = keys // width, keys % width
    order = best_first(parts, part, event, score, limit)
    return [
        _hit(int(part[n]), int(event[n]), float(score[n]), text, int(in_text[n]), vector, int(in_vector[n]))
        for n in order.tolist()
    ]


def _reciprocal(k: float, count: int) -> NDArray[np.float64]:
    return 1.0 / (k + np.arange(1, count + 1, dtype=np.float64))


def _ranks(places: NDArray[np.intp], count: int) -> Index:
    """Rank per event of the union; 0 where the leg has not got it."""
    ranks = np.zeros(count, np.int64)
    ranks[places] = np.arange(1, len(places) + 1)
    return ranks


def _hit(part: int, event: int, score: float, text: Leg, text_rank: int, vector: Leg, vector_rank: int) -> Hit:
    return Hit(
        part,
        event,
        int(text.row[text_rank - 1] if text_rank else vector.row[vector_rank - 1]),
        score,
        text_rank or None,
        vector_rank or None,
        float(text.score[text_rank - 1]) if text_rank else None,
        float(vector.score[vector_rank - 1]) if vector_rank else None,
    )
