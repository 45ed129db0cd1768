"""LanceDB OSS: BM25 full-text index, IVF_HNSW_SQ vector index, hybrid with its own RRF reranker.

Settings and their sources (LanceDB's documentation: "Vector indexes", "Full-text search", "Scalar indexes",
"Hybrid search", "Optimize query performance"): IVF_HNSW_SQ with one partition, which the API recommends for most
tables, m and ef_construction at their defaults of 20 and 300; distance `dot`, which equals cosine on unit
vectors; `ef` begins at its documented 1.5 k and doubles until the recall is reached; refinement of the quantized
scores with the full vectors where that is what it takes. Filters are pre-filters, the default, over a BTREE on
times and on entities. Full text with its default English stemming and stop words, without positions. Indexes
are prewarmed and only the row number is read. The Python calls are the synchronous ones of its guides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from benchmarks.corpus import Corpus, Question
from benchmarks.peers.base import Built, is_filtered, library, query_text, query_vector, widened

EF_START: Final = 15
EF_END: Final = 480
REFINE: Final = 2
"""Quantized candidates read again at full precision, in multiples of k, where eight bits alone miss the recall."""


class LanceDb:
    NAME: ClassVar[str] = "lancedb"

    def __init__(self) -> None:
        self.lancedb = library("lancedb")
        self.index = library("lancedb.index")
        self.reranker = library("lancedb.rerankers").RRFReranker()
        self.built = Built()
        self.table: Any = None
        self.ef = EF_START
        self.refine = 1

    def load(self, folder: Path, corpus: Corpus, tuning: Sequence[Question] = ()) -> None:
        stage = self.built.stage
        with stage("rows"):
            self.table = self.lancedb.connect(folder).create_table("rows", _rows(corpus))
        with stage("text"):
            self.table.create_index("text", config=self.index.FTS(with_position=False))
        with stage("vector"):
            config = self.index.HnswSq(distance_type="dot", num_partitions=1)
            self.table.create_index("vector", config=config)
        with stage("filters"):
            self.table.create_index("entity", config=self.index.BTree())
            self.table.create_index("ts", config=self.index.BTree())
        for index in self.table.list_indices():
            self.table.prewarm_index(index.name)
        self.ef = widened(self._near, corpus, tuning, EF_START, EF_END)
        if self.ef == EF_END:
            self.refine = REFINE
            self.ef = widened(self._near, corpus, tuning, REFINE * EF_START, EF_END)
        self.built.settings |= {"index": "IVF_HNSW_SQ", "ef": self.ef, "refine_factor": self.refine}

    def text(self, question: Question, k: int) -> list[int]:
        return self._numbers(self.table.search(query_text(question), query_type="fts"), question, k)

    def vector(self, question: Question, k: int) -> list[int]:
        search = self.table.search(query_vector(question), query_type="vector")
        return self._numbers(self._tuned(search), question, k)

    def hybrid(self, question: Question, k: int) -> list[int]:
        search = self.table.search(query_type="hybrid").vector(query_vector(question)).text(query_text(question))
        return self._numbers(self._tuned(search).rerank(self.reranker), question, k)

    def close(self) -> None:
        self.table = None

    def _near(self, question: Question, ef: int) -> list[int]:
        self.ef = ef
        return self.vector(question, 10)

    def _tuned(self, search: Any) -> Any:
        search = search.distance_type("dot").ef(self.ef)
        return search if self.refine == 1 else search.refine_factor(self.refine)

    def _numbers(self, search: Any, question: Question, k: int) -> list[int]:
        if is_filtered(question):
            search = search.where(_where(question), prefilter=True)
        found: list[int] = search.select(["n"]).limit(k).to_arrow()["n"].to_pylist()
        return found


def _rows(corpus: Corpus) -> pa.Table:
    events = corpus.events
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(corpus.vectors.ravel()), corpus.dim)
    return pa.table(
        {
            "n": pa.array(np.arange(len(events), dtype=np.int64)),
            "entity": [event.entity for event in events],
            "ts": [event.ts_us for event in events],
            "text": [event.text or "" for event in events],
            "vector": vectors,
        }
    )


def _where(question: Question) -> str:
    parts = []
    if question.entities is not None:
        quoted = ", ".join("'" + entity.replace("'", "''") + "'" for entity in question.entities)
        parts.append(f"entity IN ({quoted})")
    if question.since_us is not None:
        parts.append(f"ts >= {question.since_us}")
    if question.until_us is not None:
        parts.append(f"ts < {question.until_us}")
    return " AND ".join(parts)
