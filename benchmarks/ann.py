"""The graph index of large vector shards: recall@10 of its candidates against exact, and what it costs.

Two kinds of rows: clustered unit vectors of 384 dimensions, and texts (HERB's or the demo's, joined anew until
there are enough) as the default model embeds them, asked with words taken from single texts. `recall_at_10` is the
share of the exact ten nearest admitted rows among the candidates, which the caller then scores exactly.
`brute force` is one float32 product with every row and a partial sort. One query at a time, in process.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.load import percentiles
from benchmarks.scenario import Row
from benchmarks.texts import joined, pieces_of
from context_plane.embed.static import StaticEmbedder
from context_plane.index.blocks import build_block
from context_plane.index.rows import DIGEST_BYTES, F32, Rows, concat
from context_plane.index.vector_shard import VectorSearcher, candidates, open_ann, write_dataset
from context_plane.model import Event, day_start_us

SUMMARY: Final = "graph index of large vector shards: recall@10 against exact, build time, query time"
SIZES: Final = (50_000, 200_000)
QUICK_SIZES: Final = (5_000,)
QUESTIONS: Final = 500
QUICK_QUESTIONS: Final = 50
CANDIDATES: Final = 200
"""What a tenant-wide search of ten hits asks a shard for."""
FILTER_SHARE: Final = 0.3
DIM: Final = 384
CLUSTER_ROWS: Final = 200
NOISE: Final = 1.0
"""Length of the noise beside a unit centre: members of a cluster have a cosine of about 0.5."""
DAY: Final = "2025-03-01"
NAME: Final = "shard"


def run(*, quick: bool, seed: int) -> list[Row]:
    """Three rows for each size and kind: the graph, the graph under a filter, brute force."""
    sizes, asked = (QUICK_SIZES, QUICK_QUESTIONS) if quick else (SIZES, QUESTIONS)
    import_module("lancedb")  # what it costs belongs to no build
    made = {"clustered": _clustered(seed, max(sizes), asked), "texts": _texts(seed, max(sizes), asked)}
    rows: list[Row] = []
    for size, (kind, (vectors, queries)) in itertools.product(sizes, made.items()):
        rows += _measured(f"{kind}, {size:,} rows", vectors[:size], queries, seed)
    return rows


# --- what is searched -----------------------------------------------------------------------------


def _clustered(seed: int, count: int, asked: int) -> tuple[F32, F32]:
    """float32 [count, DIM] and [asked, DIM], unit rows of one mixture."""
    rng = np.random.default_rng(seed)
    centres = _unit(rng.standard_normal((max(1, count // CLUSTER_ROWS), DIM), np.float32))
    total = count + asked
    noise = rng.standard_normal((total, DIM), np.float32) * np.float32(NOISE / DIM**0.5)
    rows = _unit(centres[rng.integers(len(centres), size=total)] + noise)
    return rows[:count], rows[count:]


def _texts(seed: int, count: int, asked: int) -> tuple[F32, F32]:
    """Vectors of `count` texts and of `asked` questions: four to nine consecutive words of one of them."""
    rng = Random(f"{seed}:ann")
    pieces, _ = pieces_of(seed)
    texts = list(itertools.islice(itertools.chain(pieces, joined(rng, pieces)), count))
    rng.shuffle(texts)
    questions = []
    for text in rng.sample(texts, asked):
        words, length = text.split(), rng.randint(4, 9)
        start = rng.randrange(max(1, len(words) - length + 1))
        questions.append(" ".join(words[start : start + length]))
    embedder = StaticEmbedder()

    async def embedded() -> tuple[F32, F32]:
        return await embedder.embed_documents(texts), await embedder.embed_documents(questions)

    return asyncio.run(embedded())


def _unit(rows: F32) -> F32:
    made: F32 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made


def _columns(count: int) -> Rows:
    first_us = day_start_us(DAY)
    events = [Event("acct", first_us + n, f"e{n:07d}", "crm", "note", text="x") for n in range(count)]
    return concat([build_block("acct", DAY, events, np.zeros((count, 0), np.float32))], day=DAY)


# --- measuring ------------------------------------------------------------------------------------


def _measured(case: str, vectors: F32, queries: F32, seed: int) -> list[Row]:
    count, dim = vectors.shape
    columns, digests = _columns(count), np.zeros((count, DIGEST_BYTES), np.uint8)
    with tempfile.TemporaryDirectory(prefix="context-plane-") as scratch:
        plain, indexed = Path(scratch, "plain"), Path(scratch, "indexed")
        table_s = _timed(lambda: write_dataset(plain, NAME, columns, vectors, digests, ann_rows_min=count + 1))
        both_s = _timed(lambda: write_dataset(indexed, NAME, columns, vectors, digests, ann_rows_min=1))
        searcher = open_ann(indexed, NAME)
        said = {"rows": count, "dim": dim, "build_s": round(both_s - table_s, 2), "bytes": searcher.bytes}
        mask = np.asarray(np.random.default_rng([seed, 1]).random(count) < FILTER_SHARE)
        shared: dict[str, Any] = {"where": "in_process", "candidates": CANDIDATES, "runs": len(queries)}
        return [
            {"case": case, "system": "context-plane", **_graph(searcher, vectors, queries, None), **shared, **said},
            {
                "case": f"{case}, a filter admits {FILTER_SHARE:.0%}",
                "system": "context-plane",
                **_graph(searcher, vectors, queries, mask),
                **shared,
                **said,
            },
            {"case": case, "system": "brute force", **_brute(vectors, queries), **shared, "rows": count, "dim": dim},
        ]


def _graph(searcher: VectorSearcher, vectors: F32, queries: F32, mask: NDArray[np.bool_] | None) -> dict[str, float]:
    admitted = np.arange(len(vectors)) if mask is None else np.flatnonzero(mask)
    within = vectors[admitted]
    candidates(searcher, queries[0], CANDIDATES, mask)  # loads the graph
    found, ms = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(candidates(searcher, query, CANDIDATES, mask))
        ms.append((time.perf_counter() - started) * 1000)
    exact = [admitted[_top(within @ query)] for query in queries]
    shares = [len(np.intersect1d(rows, best)) / 10 for rows, best in zip(found, exact, strict=True)]
    return {**percentiles(ms), "recall_at_10": round(float(np.mean(shares)), 4)}


def _brute(vectors: F32, queries: F32) -> dict[str, float]:
    _top(vectors @ queries[0])
    ms = [_timed(partial(lambda query: _top(vectors @ query), query)) * 1000 for query in queries]
    return {**percentiles(ms), "recall_at_10": 1.0}


def _top(scores: F32) -> NDArray[np.int64]:
    best = np.argpartition(-scores, 10)[:10]
    return np.asarray(best[np.argsort(-scores[best], kind="stable")], np.int64)


def _timed(work: Callable[[], object]) -> float:
    """Seconds it took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
