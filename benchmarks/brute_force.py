"""Brute force over the rows of one entity: every row scored by itself in float64, of its text and its float32 vector.

No block, posting, integer, bound or candidate: what the plane's legs are held against. Chunks and threads are the
product's own, for they decide what a row is; scores are BM25 over term counts and cosines. (`benchmarks.corpus.exact`
ranks a million events of one row each, by arrays.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from benchmarks.corpus import Leg
from context_plane.index.analyzer import term_counts
from context_plane.index.bm25 import Bm25Settings
from context_plane.index.chunker import chunk
from context_plane.index.rows import F32
from context_plane.index.threads import bm25_texts
from context_plane.model import Event, Vector
from context_plane.retrieval.fuse import WEIGHT_TEXT, WEIGHT_VECTOR

Scores: TypeAlias = Mapping[int, float]
"""Event number -> score of its best row; an event that the leg has not found is not there."""


@dataclass(frozen=True, slots=True)
class BruteForce:
    """`row_event[n]`: the event of row n. `vectors`: float32 [rows, D], zero where a row has none."""

    events: Sequence[Event]
    row_event: Sequence[int]
    row_terms: Sequence[Mapping[str, int]]
    vectors: F32

    @classmethod
    def of(cls, days: Iterable[tuple[Sequence[Event], F32]]) -> BruteForce:
        """Of (events, vectors of their rows) by day, as builds make them."""
        events: list[Event] = []
        row_event: list[int] = []
        row_terms: list[Mapping[str, int]] = []
        vectors: list[F32] = []
        for own, matrix in days:
            for n, texts in enumerate(_row_texts(own), len(events)):
                row_event += [n] * len(texts)
                row_terms += map(term_counts, texts)
            events += own
            vectors.append(matrix)
        return cls(events, row_event, row_terms, np.concatenate(vectors))

    def rank(self, text: str, vector: Vector, leg: Leg, k: int) -> list[str]:
        """Ids of the best `k` events; of one score the newest first."""
        found = self._fused(text, vector) if leg == "hybrid" else self._leg(text, vector, leg)
        best = sorted(found, key=lambda n: (-found[n], -self.events[n].ts_us, self.events[n].id))
        return [self.events[n].id for n in best[:k]]

    def _leg(self, text: str, vector: Vector, leg: Leg) -> Scores:
        return self._text(text) if leg == "text" else self._vector(vector)

    def _fused(self, text: str, vector: Vector) -> Scores:
        fused: dict[int, float] = {}
        for scores, weight in ((self._text(text), WEIGHT_TEXT), (self._vector(vector), WEIGHT_VECTOR)):
            best = max(scores.values(), default=0.0)
            for n, score in scores.items() if best > 0 else ():
                fused[n] = fused.get(n, 0.0) + weight * max(score, 0.0) / best
        return fused

    def _text(self, text: str) -> Scores:
        """Lucene's BM25 (`context_plane.index.bm25`), with statistics of all rows that have a term."""
        params, asked = Bm25Settings().default, term_counts(text)
        lengths = [sum(counts.values()) for counts in self.row_terms]
        rows = sum(length > 0 for length in lengths)
        mean = sum(lengths) / max(1, rows)
        df = {term: sum(term in counts for counts in self.row_terms) for term in asked}
        idf = {term: math.log1p((rows - df[term] + 0.5) / (df[term] + 0.5)) for term in asked}
        found: dict[int, float] = {}
        for n, counts, length in zip(self.row_event, self.row_terms, lengths, strict=True):
            norm = params.k1 * (1 - params.b + params.b * length / mean)
            shared = [(term, counts[term]) for term in asked if term in counts]
            score = sum(asked[term] * idf[term] * tf / (tf + norm) for term, tf in shared)
            if shared:
                found[n] = max(score, found.get(n, 0.0))
        return found

    def _vector(self, vector: Vector) -> Scores:
        cosines = (self.vectors.astype(np.float64) @ np.asarray(vector, np.float64)).tolist()
        has_vector: list[bool] = np.any(self.vectors, axis=1).tolist()
        found: dict[int, float] = {}
        for n, score, has in zip(self.row_event, cosines, has_vector, strict=True):
            if has:
                found[n] = max(score, found.get(n, -math.inf))
        return found


def _row_texts(events: Sequence[Event]) -> list[list[str]]:
    """What BM25 sees of each event's rows: a short message with the one before it, a long text by its chunks."""
    texts = []
    for event, joined in zip(events, bm25_texts(events), strict=True):
        own = event.text or ""
        pieces = chunk(own) if own else []
        texts.append([own[each.start : each.stop] for each in pieces] if len(pieces) > 1 else [joined])
    return texts
