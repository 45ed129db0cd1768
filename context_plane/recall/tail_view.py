"""The tail as rows: what a read sees of acknowledged writes that are not built yet.

Per identity the last write wins. Its built row, if any, is hidden before anything is counted or ranked;
a put is searched as a row of its own, a delete is not. Blocks are made by the same function as built ones.
A short message of a thread is indexed with the message before it when that one is in the tail too; the
build completes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from cachetools import LRUCache

from context_plane.cache.tiers import Cache
from context_plane.catalog.tail import TailWrite
from context_plane.embed.base import Embedder
from context_plane.index import blocks
from context_plane.index.rows import F32, Rows
from context_plane.layout.keys import LogKey
from context_plane.model import Event, Put, day_of, identity, sha256_hex, text_digest
from context_plane.retrieval.columns import Columns
from context_plane.retrieval.snapshots import Snapshot

LOG_FIRST_LINE: Final = 2
"""Line 1 of a log object is its header."""
VECTORS_KEPT: Final = 65_536
"""Of tail texts, by digest: a full tail of ordinary events, 64 MiB at 256 dimensions."""


@dataclass(frozen=True, slots=True)
class TailView:
    """The visible tail of one snapshot. `latest`: entity -> day -> id -> last write."""

    snapshot: Snapshot
    latest: Mapping[str, Mapping[str, Mapping[str, TailWrite]]]
    rewritten: Mapping[str, Collection[tuple[str, str]]]
    """entity -> (day, id)s whose built rows are hidden."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> TailView:
        latest: dict[str, dict[str, dict[str, TailWrite]]] = {}
        for item in snapshot.tail.writes:
            entity, day, event_id = identity(item.write)
            if not snapshot.erasures.hides_log(entity, item.number):
                latest.setdefault(entity, {}).setdefault(day, {})[event_id] = item
        rewritten = {
            entity: {(day, event_id) for day, ids in by_day.items() for event_id in ids}
            for entity, by_day in latest.items()
        }
        return cls(snapshot, latest, rewritten)

    def puts(self, entity: str, day: str) -> list[Event]:
        """Live events of the tail, ascending by (ts, id)."""
        found = [item.write.event for item in self.latest[entity][day].values() if isinstance(item.write, Put)]
        return sorted(found, key=lambda event: event.order)

    def count(self, entities: Iterable[str] | None) -> int:
        """Writes of the tail in a scope of entities."""
        names = self.latest.keys() if entities is None else entities
        return sum(len(ids) for name in names for ids in self.latest.get(name, {}).values())

    def place(self, entity: str, ts_us: int, event_id: str) -> tuple[str, int]:
        """(log object, 1-based line) of a tail event."""
        item = self.latest[entity][day_of(ts_us)][event_id]
        return str(LogKey(self.snapshot.tenant, item.number)), item.line + LOG_FIRST_LINE


class TailRows:
    """Makes rows of tail events, embedding what is asked for once per process."""

    def __init__(self, embedder: Embedder, cache: Cache) -> None:
        self._embedder = embedder
        self._cache = cache
        self._vectors: LRUCache[bytes, F32] = LRUCache(VECTORS_KEPT)

    async def of_entities(self, view: TailView, entities: Collection[str]) -> list[Columns]:
        """One part per entity and day that the tail touches with a put."""
        wanted = [(name, day) for name in sorted(entities) for day in sorted(view.latest.get(name, {}))]
        return [part for name, day in wanted if (part := await self._block(view, name, day)) is not None]

    async def of_tenant(self, view: TailView) -> Columns | None:
        """The whole tail as one part."""
        if not view.latest:
            return None

        async def load() -> tuple[Columns | None, int]:
            parts = await self.of_entities(view, view.latest.keys())
            if not parts:
                return None, 0
            joined = await asyncio.to_thread(blocks.join_blocks, [part.rows for part in parts], day=None)
            return Columns(joined), joined.row_count * 2048

        name = f"tail|{view.snapshot.tenant}|{view.snapshot.id}|{view.snapshot.erasures.newest}"
        return await self._cache.derived(name, load)

    async def _block(self, view: TailView, entity: str, day: str) -> Columns | None:
        events = view.puts(entity, day)
        if not events:
            return None
        numbers = [(i.number, i.line) for i in view.latest[entity][day].values()]

        async def load() -> tuple[Columns, int]:
            vectors = await self._row_vectors(events)
            rows: Rows = await asyncio.to_thread(blocks.build_block, entity, day, events, vectors)
            return Columns(rows), rows.row_count * 2048

        digest = sha256_hex(repr((entity, day, sorted(numbers))).encode())
        return await self._cache.derived(f"tail|{view.snapshot.tenant}|{digest}", load)

    async def _row_vectors(self, events: list[Event]) -> F32:
        texts = blocks.rows_to_embed(events)
        missing = list({text_digest(text): text for text in texts if text_digest(text) not in self._vectors}.items())
        fresh = {digest: self._vectors[digest] for text in texts if (digest := text_digest(text)) in self._vectors}
        if missing:
            made = await self._embedder.embed_documents([text for _, text in missing])
            for (digest, _), vector in zip(missing, made, strict=True):
                self._vectors[digest] = fresh[digest] = vector
        dim = self._embedder.dim
        known = [fresh[text_digest(text)] for text in texts]
        return blocks.row_vectors(events, np.stack(known) if known else np.zeros((0, dim), np.float32), dim)
