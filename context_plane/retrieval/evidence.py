"""Ranking and filters as bundles ask for them: the search engine behind `bundle.history.Retrieval`.

A bundle's evidence is ranked by the same code as a search over one entity, so a person can repeat it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from context_plane.bundle.history import EvidenceHit, EvidenceQuery, History
from context_plane.index.analyzer import term_counts
from context_plane.index.rows import Rows
from context_plane.retrieval.columns import Columns
from context_plane.retrieval.fuse import Fusion
from context_plane.retrieval.rank import RankQuery, rank
from context_plane.retrieval.scope import Part
from context_plane.retrieval.where import Where, evaluate, parse


class Evidence:
    """Stateless; one per process serves every bundle."""

    def parse_where(self, where: object) -> Where:
        return parse(where)

    def matches(self, where: Any, rows: Rows) -> NDArray[np.bool_]:
        return evaluate(where, Columns(rows))

    def rank(self, history: History, query: EvidenceQuery) -> Sequence[EvidenceHit]:
        asked = RankQuery(
            terms=tuple(term_counts(query.text).items()) if query.text and query.mode != "vector" else (),
            vector=query.vector if query.mode != "text" else None,
            since_us=query.since_us,
            until_us=query.until_us,
            where=query.where,
            limit=query.limit,
            fusion=Fusion(mode=query.mode, weight_text=query.weights.text, weight_vector=query.weights.vector),
        )
        parts = [Part.of(part.rows, part.live) for part in history.parts]
        found = []
        for hit in rank(parts, asked):
            rows = parts[hit.part].rows
            scores = {"text": hit.text_score, "vector": hit.vector_score}
            known = {leg: score for leg, score in scores.items() if score is not None}
            start, stop = int(rows.row_start[hit.row]), int(rows.row_stop[hit.row])
            found.append(EvidenceHit(hit.part, hit.event, start, stop, known))
        return found
