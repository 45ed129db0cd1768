"""Recall of a stored graph: how many of the exact nearest rows it proposes, measured before anybody is led by it.

The questions are some of the shard's own vectors, evenly spaced over its rows, which ascend by entity: the same shard
is always asked the same. A row counts as found when its exact score reaches that of the tenth nearest, so that rows
with equal vectors can stand for one another.

The cost is bounded: the shard's files are read once, each row is multiplied with 128 questions, and the graph is asked
128 times. Nothing is embedded.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import numpy as np

from context_plane.catalog.manifest import VectorRef
from context_plane.errors import Conflict
from context_plane.index import vector_shard
from context_plane.index.rows import F32, I64
from context_plane.recall.candidates import vector_depth
from context_plane.shards import ReadFile, dataset_name, unpacked

RECALL_MIN: Final = 0.97
"""Graphs of texts find 0.9875 (one) to 0.9965 (two); what finds less was built wrong, or of unsuitable vectors."""
QUESTIONS: Final = 128
"""With ten rows each, 1,280 trials: enough to tell 0.97 from 0.9875."""
NEAREST: Final = 10
SCORED_ROWS: Final = 1 << 16
"""Rows scored at once: 32 MiB of scores."""
TOLERANCE: Final = 1e-6
"""Of a score: a sum of float32 products differs that much by its order."""


async def stored_recall(ref: VectorRef, read: ReadFile) -> tuple[int, float]:
    """Rows of a stored shard, and the recall of its graph: 1.0 where it carries none. Raises `PlaneError`."""
    async with unpacked(ref, read) as folder:
        return await unpacked_recall(ref, folder)


async def unpacked_recall(ref: VectorRef, folder: Path) -> tuple[int, float]:
    """The same of a shard that is unpacked in `folder`."""
    name = dataset_name(ref.key)
    stored = await asyncio.to_thread(vector_shard.read_vectors, folder, name)
    found = await asyncio.to_thread(recall_of, folder, name, stored.vectors) if ref.ann else 1.0
    return len(stored.vectors), found


async def check_graph(ref: VectorRef, read: ReadFile) -> None:
    """Nobody is led by a graph that does not find the nearest rows. A shard without one is not read.

    Raises `Conflict(graph_recall_low)`.
    """
    if not ref.ann:
        return
    _, found = await stored_recall(ref, read)
    if found < RECALL_MIN:
        detail = "the graph of a vector shard proposes too few of the nearest rows; build it again"
        raise Conflict("graph_recall_low", detail, recall=round(found, 4), recall_min=RECALL_MIN)


def recall_of(folder: Path, name: str, vectors: F32) -> float:
    """Share of the ten nearest of each question that the graph of `folder/name.lance` proposes to a reader.

    `vectors`: float32 [N, D] of its rows, a zero row having none. 1.0 of a shard without vectors. Blocking.
    """
    present = np.flatnonzero(vectors.any(axis=1))
    if not len(present):
        return 1.0
    asked = vectors[present[np.linspace(0, len(present) - 1, min(QUESTIONS, len(present))).astype(np.int64)]]
    depth = min(NEAREST, len(present))
    floors = _tenth_scores(vectors, present, asked, depth)
    searcher = vector_shard.open_ann(folder, name)
    found, proposals = 0, vector_depth(depth)
    for question, floor in zip(asked, floors, strict=True):
        scores = vectors[vector_shard.candidates(searcher, question, proposals)] @ question
        found += min(depth, int(np.count_nonzero(scores >= floor - TOLERANCE)))
    return found / (depth * len(asked))


def _tenth_scores(vectors: F32, present: I64, asked: F32, depth: int) -> F32:
    """float32 [Q]: the exact score of each question's `depth`-th nearest row."""
    best = np.full((len(asked), depth), -np.inf, np.float32)
    for start in range(0, len(present), SCORED_ROWS):
        scores = asked @ vectors[present[start : start + SCORED_ROWS]].T
        best = np.partition(np.concatenate([best, scores], axis=1), -depth, axis=1)[:, -depth:]
    return np.asarray(best.min(axis=1), np.float32)
