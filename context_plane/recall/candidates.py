"""Candidates: where scoring every row would take too long, each shard's own indexes propose rows.

Full-text shards propose by tantivy, with the weights of the whole scope; shards whose vectors are too many to scan
propose by their graph. Both see the filter first. What they propose is scored and ranked by the exact scorers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from context_plane.cache.folders import Folders
from context_plane.catalog.manifest import Shards
from context_plane.errors import Corrupt
from context_plane.index import fulltext_shard, vector_shard
from context_plane.recall.assemble import Source, Started
from context_plane.recall.plan import Plan, has_graph
from context_plane.retrieval.rank import Ranking, RankQuery, candidate_weights, rank_parts, scope_statistics
from context_plane.retrieval.reader import Reader
from context_plane.retrieval.scope import Part, filter_mask, rows_of, scope_mask
from context_plane.shards import UNREAD, dataset_name

CANDIDATES_MIN: Final = 200
CANDIDATES_PER_HIT: Final = 20
"""Rows a shard proposes per hit asked for: tantivy's k1, b and quantized lengths are not ours, so it proposes more than
is wanted of it; over 30 day shards, twice the limit from each found all of the true top 10."""
LOST_KNOWN: Final = 1_024
HITS_MAX: Final = 1_000
"""Hits that rows are proposed for: those of a thousand groups are found among them, and may be fewer for each."""
ROWS_PER_CANDIDATE: Final = 500
"""A large shard's text proposes in proportion: quantized lengths make ties, and more of them among more rows."""


@dataclass(frozen=True, slots=True)
class Indexes:
    """What proposes rows of one part; None: every row is scored."""

    text: fulltext_shard.FulltextSearcher | None = None
    vector: vector_shard.VectorSearcher | None = None


class Proposers:
    """The indexes of one process, opened once and cached."""

    def __init__(self, reader: Reader, folders: Folders) -> None:
        self._reader = reader
        self._folders = folders
        self._lost: LRUCache[str, int] = LRUCache(LOST_KNOWN)
        """Graph -> how often its files went while it was open."""

    async def again(self, source: Source, *, text: bool, vector: bool) -> Indexes:
        """What `of` gives, of a graph whose files went since it was opened: the budget of folders evicts large ones."""
        if source.period is not None and vector and has_graph(source.period.shards):
            key = source.period.shards.vector.key
            self._lost[key] = self._lost.get(key, 0) + 1
            await asyncio.to_thread(self._folders.remove, key)
        return await self.of(source, text=text, vector=vector)

    async def of(self, source: Source, *, text: bool, vector: bool) -> Indexes:
        """What proposes rows of a part for these legs; the tail and shards without a graph need none for theirs."""
        if source.period is None:
            return Indexes()
        shards = source.period.shards
        if text and vector and has_graph(shards):
            return Indexes(*await asyncio.gather(self._fulltext(shards), self._graph(shards)))
        if text:
            return Indexes(text=await self._fulltext(shards))
        return Indexes(vector=await self._graph(shards) if vector and has_graph(shards) else None)

    async def _fulltext(self, shards: Shards) -> fulltext_shard.FulltextSearcher:
        key = shards.fulltext.key

        def unpacked(stored: bytes) -> fulltext_shard.FulltextSearcher:
            folder = self._folders.get(key, lambda target: fulltext_shard.unpack(stored, target))
            return fulltext_shard.open_searcher(folder)

        async def load() -> tuple[fulltext_shard.FulltextSearcher, int]:
            stored = await self._reader.fulltext(shards)
            try:
                searcher = await asyncio.to_thread(unpacked, stored)
            except (OSError, ValueError, Corrupt):  # damaged on disk, or evicted while it was opened
                await asyncio.to_thread(self._folders.remove, key)
                searcher = await asyncio.to_thread(unpacked, stored)
            return searcher, len(stored)

        return await self._reader.cache.derived(f"{key}|searcher", load)

    async def _graph(self, shards: Shards) -> vector_shard.VectorSearcher:
        key = shards.vector.key

        async def opened() -> vector_shard.VectorSearcher:
            return await asyncio.to_thread(vector_shard.open_ann, await self._dataset(shards), dataset_name(key))

        async def load() -> tuple[vector_shard.VectorSearcher, int]:
            try:
                searcher = await opened()
            except (OSError, ValueError, Corrupt):  # damaged on disk, or evicted while it was opened
                await asyncio.to_thread(self._folders.remove, key)
                searcher = await opened()
            return searcher, searcher.bytes

        return await self._reader.cache.derived(f"{key}|graph|{self._lost.get(key, 0)}", load)

    async def _dataset(self, shards: Shards) -> Path:
        ref = shards.vector
        wanted = [file for file in ref.files if not file.path.startswith(UNREAD)]
        files = await asyncio.gather(*(self._reader.file(f"{ref.key}/{file.path}", file) for file in wanted))

        def fill(target: Path) -> None:
            for file, data in zip(wanted, files, strict=True):
                path = target / f"{dataset_name(ref.key)}.lance" / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

        return await asyncio.to_thread(self._folders.get, ref.key, fill)


class Proposals(Started[tuple[str, str] | None, Indexes]):
    """The indexes of one search, opened while the rows they propose are fetched."""

    def __init__(self, proposers: Proposers, *, text: bool, vector: bool) -> None:
        super().__init__()
        self._open = partial(proposers.of, text=text, vector=vector)
        self._open_again = partial(proposers.again, text=text, vector=vector)

    def start(self, plan: Plan) -> None:
        """Start to open the indexes of every part of a plan, unless closed."""
        for read in () if self.closed else plan.reads:
            self.of(Source(read.period))

    def of(self, source: Source) -> asyncio.Task[Indexes]:
        return self.once(self._name(source), partial(self._open, source))

    def again(self, source: Source) -> asyncio.Task[Indexes]:
        """Opened anew: files went, or were damaged, since."""
        self._tasks.pop(self._name(source), None)
        return self.once(self._name(source), partial(self._open_again, source))

    @staticmethod
    def _name(source: Source) -> tuple[str, str] | None:
        shards = None if source.period is None else source.period.shards
        return None if shards is None else (shards.fulltext.key, shards.vector.key)


def rank_candidates(parts: Sequence[Part], indexes: Sequence[Indexes], query: RankQuery) -> Ranking:
    """The ranking of the rows that the parts' indexes propose, with statistics of the whole scope."""
    statistics = scope_statistics(parts, query)
    weights = candidate_weights(query, statistics)
    limited = [_limited(part, each, query, weights) for part, each in zip(parts, indexes, strict=True)]
    return rank_parts(limited, query, statistics)


def text_depth(limit: int, rows: int) -> int:
    """How many rows a full-text shard of `rows` proposes for `limit` hits. Pure."""
    return max(vector_depth(limit), rows // ROWS_PER_CANDIDATE)


def vector_depth(limit: int) -> int:
    """How many rows a graph proposes for `limit` hits. Pure."""
    return max(CANDIDATES_MIN, CANDIDATES_PER_HIT * limit)


def _limited(part: Part, indexes: Indexes, query: RankQuery, weights: Sequence[tuple[str, float]]) -> Part:
    scope = scope_mask(part, query.entities, query.since_us, query.until_us)
    mask = rows_of(part, filter_mask(part, scope, query.where))
    text = vector = None
    hits = min(query.limit * (query.per_group if query.group_by_entity else 1), HITS_MAX)
    if indexes.text is not None:
        depth = text_depth(hits, part.rows.row_count)
        text = fulltext_shard.candidates(indexes.text, weights, depth, mask)
    if indexes.vector is not None and query.vector is not None:
        vector = vector_shard.candidates(indexes.vector, query.vector, vector_depth(hits), mask)
    return part.limited(text=_mask(text, part), vector=_mask(vector, part))


def _mask(rows: NDArray[np.int64] | None, part: Part) -> NDArray[np.bool_] | None:
    if rows is None:
        return None
    mask = np.zeros(part.rows.row_count, np.bool_)
    mask[rows] = True
    return mask
