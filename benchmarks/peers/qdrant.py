"""Qdrant Edge: Qdrant's engine in process (not the pure Python local mode of its client, which is for tests).

Settings and their sources (Qdrant's documentation: "Qdrant Edge", "Indexing", "Filtering", "Hybrid queries"):
HNSW with the default m = 16 and ef_construct raised to 200, vectors, graph and payload indexes in memory, one
segment after `optimize`, `hnsw_ef` doubled until the recall is reached. Payload indexes on entities (keyword)
and times (integer range) let it filter while it walks the graph, or scan what is left when that is little. Text
is its own BM25: sparse vectors with the IDF modifier. Hybrid is its own query: two prefetches, fused by reciprocal
rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from benchmarks.corpus import Corpus, Question
from benchmarks.peers.base import LEG_DEPTH, RRF_K, Built, library, query_text, query_vector, widened

EF_START: Final = 32
EF_END: Final = 1024
BATCH: Final = 1000
"""Points of one update."""
INDEX_KB: Final = 1
"""Index any segment however small: by default those below 10 MB have no graph."""
FULL_SCAN_KB: Final = 10_000
"""Its default: when a filter leaves less than this, it scans instead of walking the graph."""


class Qdrant:
    NAME: ClassVar[str] = "qdrant"

    def __init__(self) -> None:
        self.edge = library("qdrant_edge")
        self.built = Built()
        self.shard: Any = None
        self.bm25: Any = None
        self.ef = EF_START

    def load(self, folder: Path, corpus: Corpus, tuning: Sequence[Question] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        words = sum(len((event.text or "").split()) for event in corpus.events)
        self.bm25 = self.edge.Bm25(self.edge.Bm25Config(avg_len=max(1.0, words / max(1, len(corpus.events)))))
        self.shard = self.edge.EdgeShard.create(str(folder), self._config(corpus.dim))
        with self.built.stage("rows"):
            for start in range(0, len(corpus.events), BATCH):
                self.shard.update(self.edge.UpdateOperation.upsert_points(self._points(corpus, start)))
        with self.built.stage("filters"):
            self._payload_index("entity", self.edge.KeywordIndexParams())
            self._payload_index("ts", self.edge.IntegerIndexParams(lookup=False, range=True))
        with self.built.stage("vector"):
            self.shard.optimize()
            self.shard.flush()
        self.ef = widened(self._near, corpus, tuning, EF_START, EF_END)
        self.built.settings |= {"index": "HNSW", "hnsw_ef": self.ef, "m": 16}

    def text(self, question: Question, k: int) -> list[int]:
        sparse = self.bm25.embed_query(query_text(question))
        query = self.edge.Query.Nearest(sparse, using="text")
        return self._ask(self.edge.QueryRequest(limit=k, query=query, filter=self._filter(question)))

    def vector(self, question: Question, k: int) -> list[int]:
        return self._ask(
            self.edge.QueryRequest(
                limit=k,
                query=self._dense(question),
                filter=self._filter(question),
                params=self.edge.SearchParams(hnsw_ef=self.ef),
            )
        )

    def hybrid(self, question: Question, k: int) -> list[int]:
        chosen, depth = self._filter(question), LEG_DEPTH * k
        sparse = self.edge.Query.Nearest(self.bm25.embed_query(query_text(question)), using="text")
        width = self.edge.SearchParams(hnsw_ef=max(self.ef, depth))
        legs = [
            self.edge.Prefetch(limit=depth, query=self._dense(question), filter=chosen, params=width),
            self.edge.Prefetch(limit=depth, query=sparse, filter=chosen),
        ]
        fusion = self.edge.Fusion.Rrf(k=RRF_K + 1)  # its ranks begin at 0
        return self._ask(self.edge.QueryRequest(limit=k, query=fusion, prefetches=legs))

    def close(self) -> None:
        if self.shard is not None:
            self.shard.close()
        self.shard = None

    def _config(self, dim: int) -> Any:
        edge = self.edge
        hnsw = edge.HnswIndexConfig(m=16, ef_construct=200, full_scan_threshold=FULL_SCAN_KB, memory=edge.Memory.Pinned)
        return edge.EdgeConfig(
            vectors={"vector": edge.EdgeVectorParams(size=dim, distance=edge.Distance.Dot, hnsw_config=hnsw)},
            sparse_vectors={"text": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
            hnsw_config=hnsw,
            optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=INDEX_KB),
            payload_memory=edge.Memory.Cached,
        )

    def _points(self, corpus: Corpus, start: int) -> list[Any]:
        return [
            self.edge.Point(
                start + place,
                {"vector": corpus.vectors[start + place].tolist(), "text": self.bm25.embed_document(event.text or "")},
                {"entity": event.entity, "ts": event.ts_us},
            )
            for place, event in enumerate(corpus.events[start : start + BATCH])
        ]

    def _payload_index(self, name: str, kind: Any) -> None:
        self.shard.update(self.edge.UpdateOperation.create_field_index(name, kind))

    def _dense(self, question: Question) -> Any:
        return self.edge.Query.Nearest(query_vector(question).tolist(), using="vector")

    def _ask(self, request: Any) -> list[int]:
        return [point.id for point in self.shard.query(request)]

    def _near(self, question: Question, ef: int) -> list[int]:
        self.ef = ef
        return self.vector(question, 10)

    def _filter(self, question: Question) -> Any:
        edge, must = self.edge, []
        if question.entities is not None:
            must.append(edge.FieldCondition("entity", match=edge.MatchAny(list(question.entities))))
        if question.since_us is not None or question.until_us is not None:
            span = edge.RangeFloat(gte=question.since_us, lt=question.until_us)
            must.append(edge.FieldCondition("ts", range=span))
        return edge.Filter(must=must) if must else None
