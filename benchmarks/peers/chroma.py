"""Chroma, persistent client in process: HNSW over cosine; filters on metadata.

Settings and their sources (Chroma's documentation: "Configure collections"; cookbook: "Configuration"):
`ef_construction` 200 and `max_neighbors` 32, the documented values for accuracy, `ef_search` doubled from the
default of 100 until the recall is reached, as many threads as there are cores. Filters are metadata `where`
clauses, which Chroma applies before the vector search.
It has no ranked text search in process (`where_document` filters without rank, and `Collection.search` with
ranking expressions says that it works in hosted and distributed Chroma only), hence neither text nor hybrid.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn

from benchmarks.corpus import Corpus, Question
from benchmarks.peers.base import Built, Unsupported, library, query_vector, widened

EF_START: Final = 100
EF_END: Final = 800


class Chroma:
    NAME: ClassVar[str] = "chroma"

    def __init__(self) -> None:
        self.chroma = library("chromadb")
        self.built = Built()
        self.client: Any = None
        self.rows: Any = None
        self.ef = EF_START

    def load(self, folder: Path, corpus: Corpus, tuning: Sequence[Question] = ()) -> None:
        settings = self.chroma.Settings(anonymized_telemetry=False)
        self.client = self.chroma.PersistentClient(path=str(folder), settings=settings)
        hnsw = {"space": "cosine", "ef_construction": 200, "max_neighbors": 32, "ef_search": EF_START}
        hnsw["num_threads"] = os.cpu_count() or 1
        self.rows = self.client.create_collection("rows", configuration={"hnsw": hnsw}, embedding_function=None)
        step = self.client.get_max_batch_size()
        with self.built.stage("rows"):  # Chroma indexes while it adds
            for start in range(0, len(corpus.events), step):
                self._add(corpus, start, start + step)
        self.ef = widened(self._near, corpus, tuning, EF_START, EF_END)
        self._widen(self.ef)
        self.built.settings |= {"index": "HNSW", "ef_search": self.ef, "max_neighbors": 32}

    def text(self, question: Question, k: int) -> NoReturn:
        raise Unsupported("Chroma has no ranked text search in process")

    def vector(self, question: Question, k: int) -> list[int]:
        found = self.rows.query(
            query_embeddings=query_vector(question)[None, :], n_results=k, where=_where(question), include=[]
        )
        return [int(name) for name in found["ids"][0]]

    def hybrid(self, question: Question, k: int) -> NoReturn:
        raise Unsupported("Chroma's hybrid search works in hosted and distributed Chroma only")

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
        self.client = self.rows = None

    def _add(self, corpus: Corpus, start: int, end: int) -> None:
        events = corpus.events[start:end]
        self.rows.add(
            ids=[str(start + place) for place in range(len(events))],
            embeddings=corpus.vectors[start:end],
            documents=[event.text or "" for event in events],
            metadatas=[{"entity": event.entity, "ts": event.ts_us} for event in events],
        )

    def _near(self, question: Question, ef: int) -> list[int]:
        if ef != self.ef:
            self._widen(ef)
        return self.vector(question, 10)

    def _widen(self, ef: int) -> None:
        self.rows.modify(configuration={"hnsw": {"ef_search": ef}})
        self.ef = ef


def _where(question: Question) -> dict[str, Any] | None:
    parts: list[dict[str, Any]] = []
    if question.entities is not None:
        parts.append({"entity": {"$in": list(question.entities)}})
    if question.since_us is not None:
        parts.append({"ts": {"$gte": question.since_us}})
    if question.until_us is not None:
        parts.append({"ts": {"$lt": question.until_us}})
    if len(parts) > 1:
        return {"$and": parts}
    return parts[0] if parts else None
