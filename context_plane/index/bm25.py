"""BM25 over term-major postings: pure arithmetic, the same for blocks, shards and the tail.

Lucene's variant: `idf = ln(1 + (N - df + 0.5) / (df + 0.5))`, and a row's score is the sum over query
terms of `count * idf * tf / (tf + k1 * (1 - b + b * length / average))` (Robertson & Zaragoza 2009;
Kamphuis et al. 2020). N, df and the average length come in as `ScopeStatistics`: they belong to the
query's scope, so a row's score does not depend on the block it is stored in.

Sums run in float64 in the order of the query's terms, and are rounded to float32 once: every row is
computed by itself, hence equal bits however rows are split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
Postings: TypeAlias = Callable[[str], tuple[NDArray[np.int32], NDArray[np.integer[Any]]] | None]
"""Of a term: row numbers (int32, each at most once) and counts beside them, or None when it has no row."""


@dataclass(frozen=True, slots=True)
class Bm25Params:
    """`k1` >= 0: how soon repeats of a term stop counting. `b` in 0..1: how much length is discounted."""

    k1: float
    b: float


@dataclass(frozen=True, slots=True)
class Bm25Settings:
    """Parameters by event kind; kinds that are not named take the default."""

    default: Bm25Params = Bm25Params(k1=0.9, b=0.4)
    by_kind: Mapping[str, Bm25Params] = field(default_factory=dict)

    def of(self, kind: str) -> Bm25Params:
        return self.by_kind.get(kind, self.default)

    def arrays(self, kinds: Sequence[str]) -> tuple[F64, F64]:
        """(k1, b) of rows of these kinds, float64 [len(kinds)] each."""
        params = [self.of(kind) for kind in kinds]
        return np.array([each.k1 for each in params]), np.array([each.b for each in params])


ARTICLE: Final = Bm25Params(k1=1.5, b=0.75)
"""For collections of long articles, where the default costs 0.05 to 0.08 of nDCG@10."""


@dataclass(frozen=True, slots=True)
class ScopeStatistics:
    """What a term's weight depends on: rows of the scope, their total length in terms, rows per term."""

    rows: int
    total_length: int
    df: Mapping[str, int]

    def __add__(self, other: ScopeStatistics) -> ScopeStatistics:
        """Statistics of two disjoint sets of rows together."""
        terms = self.df.keys() | other.df.keys()
        df = {term: self.df.get(term, 0) + other.df.get(term, 0) for term in sorted(terms)}
        return ScopeStatistics(self.rows + other.rows, self.total_length + other.total_length, df)

    @staticmethod
    def merge(parts: Iterable[ScopeStatistics]) -> ScopeStatistics:
        """Statistics of disjoint sets of rows, in any order and grouping; of none: no rows."""
        rows, total_length, df = 0, 0, dict[str, int]()
        for part in parts:
            rows += part.rows
            total_length += part.total_length
            for term, count in part.df.items():
                df[term] = df.get(term, 0) + count
        return ScopeStatistics(rows, total_length, df)

    @property
    def length_mean(self) -> float:
        """Average length; 1 for a scope without terms, where it weighs nothing."""
        return self.total_length / self.rows if self.total_length else 1.0

    def idf(self, term: str) -> float:
        df = self.df.get(term, 0)
        return math.log1p((self.rows - df + 0.5) / (df + 0.5))


def bm25_rows(
    query_terms: Sequence[tuple[str, int]],
    postings: Postings,
    lengths: NDArray[np.integer[Any]] | F32,
    k1: F64 | F32 | float,
    b: F64 | F32 | float,
    stats: ScopeStatistics,
    allowed: NDArray[np.bool_] | None = None,
    saturation: F64 | None = None,
) -> tuple[NDArray[np.intp], F32]:
    """(rows, scores float32) of the rows in which a query term occurs, ascending by row.

    `query_terms`: distinct terms with their counts in the query. `lengths`: terms of each row. `k1`, `b`:
    one for all rows, or one per row. `stats` counts at least these rows. `allowed`: bool per row, others are
    not scored; None allows all. `saturation`: what `saturation_of` gives for all rows, where it is known.
    """
    found = [(count * stats.idf(term), held) for term, count in query_terms if (held := postings(term)) is not None]
    if not found:
        return np.zeros(0, np.intp), np.zeros(0, np.float32)
    rows = np.concatenate([held[0] for _, held in found])
    tf = np.concatenate([held[1] for _, held in found]).astype(np.float64)
    weight = np.repeat([weight for weight, _ in found], [len(held[0]) for _, held in found])
    if allowed is not None:
        chosen = allowed[rows]
        rows, tf, weight = rows[chosen], tf[chosen], weight[chosen]
    if saturation is not None:
        own = saturation[rows]
    else:
        own_k1 = k1 if isinstance(k1, float) else k1[rows].astype(np.float64)
        own_b = b if isinstance(b, float) else b[rows].astype(np.float64)
        own = saturation_of(lengths[rows], own_k1, own_b, stats.length_mean)
    own += tf
    tf /= own
    tf *= weight
    parts = tf
    if len(rows) * _SPARSE < len(lengths):
        found_rows, place = np.unique(rows, return_inverse=True)
        return found_rows.astype(np.intp), np.bincount(place, parts).astype(np.float32)
    scores = np.bincount(rows, parts, minlength=len(lengths))  # sums in the order of the query's terms
    found_rows = np.flatnonzero(scores)
    return found_rows, scores[found_rows].astype(np.float32)


def saturation_of(lengths: NDArray[np.integer[Any]] | F32, k1: F64 | float, b: F64 | float, mean: float) -> F64:
    """`k1 * (1 - b + b * length / mean)`: the count at which a term has half its weight. float64, elementwise."""
    own: F64 = k1 * (1.0 - b + b * (lengths.astype(np.float64) / mean))
    return own


_SPARSE: Final = 16
"""Where fewer than one row in so many is touched, sorting them is faster than looking through all."""
