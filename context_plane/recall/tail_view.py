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
VECTORS_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of tail texts, by digest: a full tail of ordinary events at 256 dimensions."""
INLINE_WRITES_MAX: Final = 100
"""Fewer writes are looked through in under half a millisecond, on the event loop."""
TAIL_ROW_BYTES: Final = 2048
"""About what a row of the tail takes in memory beside its vector: text, terms."""
OF_TAIL: Final = "tail|"
"""How the names of its rows in the cache begin."""
PLAIN: Final = "plain"
"""In the names of rows without vectors."""


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
        if not self.latest:
            return 0
        names = self.latest.keys() if entities is None else entities
        return sum(len(ids) for name in names for ids in self.latest.get(name, {}).values())

    def touches(self, entities: Iterable[str] | None) -> bool:
        """Whether the tail holds a write of a scope of entities."""
        if not self.latest or entities is None:
            return bool(self.latest)
        return any(name in self.latest for name in entities)

    def place(self, entity: str, ts_us: int, event_id: str) -> tuple[str, int]:
        """(log object, 1-based line) of a tail event."""
        item = self.latest[entity][day_of(ts_us)][event_id]
        return str(LogKey(self.snapshot.tenant, item.number)), item.line + LOG_FIRST_LINE


class TailRows:
    """Makes rows of tail events, embedding what is asked for once per process."""

    def __init__(self, embedder: Embedder, cache: Cache) -> None:
        self._embedder = embedder
        self._cache = cache
        self._vectors: LRUCache[bytes, F32] = LRUCache(VECTORS_BYTES_MAX, lambda vector: vector.nbytes)

    async def of_entities(self, view: TailView, entities: Collection[str], *, vectors: bool) -> list[Columns]:
        """One part per entity and day that the tail touches with a put. What lacks a vector is embedded at once;
        without `vectors` nothing is, and rows have none."""
        if view.count(entities) <= INLINE_WRITES_MAX:
            wanted = _wanted(view, entities)
        else:
            wanted = await asyncio.to_thread(_wanted, view, entities)
        if not vectors:
            return list(await asyncio.gather(*(self._plain(*one) for one in wanted)))
        unmade = [events for name, _, _, events in wanted if not self._cache.has(name)]
        known = await self._vectors_of(await asyncio.to_thread(_texts, unmade)) if unmade else {}
        made = (self._block(*one, known) for one in wanted)
        return list(await asyncio.gather(*made))

    async def of_tenant(self, view: TailView, *, vectors: bool) -> tuple[Columns, ...]:
        """The whole tail as one part; none where it holds no put."""
        if not view.latest:
            return ()

        async def load() -> tuple[tuple[Columns, ...], int]:
            parts = await self.of_entities(view, view.latest.keys(), vectors=vectors)
            if not parts:
                return (), 0
            joined = await asyncio.to_thread(blocks.join_blocks, [part.rows for part in parts], day=None)
            return (Columns(joined),), _size(joined)

        name = f"{OF_TAIL}{view.snapshot.tenant}|{view.snapshot.id}|{view.snapshot.erasures.newest}"
        return await self._cache.derived(name if vectors else f"{name}|{PLAIN}", load)

    async def _plain(self, name: str, entity: str, day: str, events: list[Event]) -> Columns:
        async def load() -> tuple[Columns, int]:
            none = np.zeros((0, 0), np.float32)
            rows = await asyncio.to_thread(blocks.build_block, entity, day, events, none)
            return Columns(rows), _size(rows)

        return await self._cache.derived(f"{name}|{PLAIN}", load)

    async def _block(
        self, name: str, entity: str, day: str, events: list[Event], vectors: Mapping[bytes, F32]
    ) -> Columns:
        async def load() -> tuple[Columns, int]:
            texts = await asyncio.to_thread(_texts, [events])
            known = vectors if texts.keys() <= vectors.keys() else await self._vectors_of(texts)
            dim = self._embedder.dim

            def build() -> Rows:
                found = [known[text_digest(text)] for text in blocks.rows_to_embed(events)]
                embedded = np.stack(found) if found else np.zeros((0, dim), np.float32)
                return blocks.build_block(entity, day, events, blocks.row_vectors(events, embedded, dim))

            rows = await asyncio.to_thread(build)
            return Columns(rows), _size(rows)

        return await self._cache.derived(name, load)

    async def _vectors_of(self, wanted: Mapping[bytes, str]) -> dict[bytes, F32]:
        """Vectors of texts by digest; those not remembered are embedded together."""
        found = {digest: self._vectors[digest] for digest in wanted if digest in self._vectors}
        missing = [digest for digest in wanted if digest not in found]
        if missing:
            made = await self._embedder.embed_documents([wanted[digest] for digest in missing])
            for digest, vector in zip(missing, made, strict=True):
                self._vectors[digest] = found[digest] = vector
        return found


def _size(rows: Rows) -> int:
    return rows.row_count * TAIL_ROW_BYTES + rows.vectors.nbytes


def _wanted(view: TailView, entities: Iterable[str]) -> list[tuple[str, str, str, list[Event]]]:
    """(cache name, entity, day, puts) of every entity and day with puts, ascending."""
    found = []
    for entity in sorted(entities):
        for day in sorted(view.latest.get(entity, {})):
            events = view.puts(entity, day)
            if events:
                numbers = sorted((item.number, item.line) for item in view.latest[entity][day].values())
                digest = sha256_hex(repr((entity, day, numbers)).encode())
                found.append((f"{OF_TAIL}{view.snapshot.tenant}|{digest}", entity, day, events))
    return found


def _texts(groups: Iterable[list[Event]]) -> dict[bytes, str]:
    """Texts of the rows that need a computed vector, by digest."""
    return {text_digest(text): text for events in groups for text in blocks.rows_to_embed(events)}
