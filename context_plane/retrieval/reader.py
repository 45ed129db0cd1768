"""Reading built state through the cache: directory pages, entity blocks, columns, vectors.

Everything read here is immutable, so cache entries need no invalidation. A read of one entity is page,
then block; pages of several days are fetched together, then blocks together: two rounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from context_plane.cache.tiers import Cache, entry_name
from context_plane.catalog.manifest import FileRef, PackRef, Shards
from context_plane.errors import Corrupt
from context_plane.index.blocks import rows_with, with_vectors_of
from context_plane.index.entity_shard import (
    BlockEntry,
    columns_range,
    decode_columns,
    decode_entry_block,
    decode_note,
    decode_vectors,
    wide_range,
)
from context_plane.index.rows import decode_rows
from context_plane.layout import pack
from context_plane.layout.keys import SegmentKey, entity_part
from context_plane.retrieval.columns import Columns
from context_plane.store.base import ByteRange
from context_plane.store.pieces import Pieces

PLACES_KNOWN: Final = 262_144
"""Addresses of blocks remembered beside the pages: a year of a few hundred entities, some 150 MiB. Then all are
forgotten at once: they are found again in the pages, and keeping their order would cost every read."""
PAGE: Final = "page"
BLOCK: Final = "block"
COLUMNS: Final = "columns"
WHOLE: Final = "whole"
"""Forms of an entity shard's ranges in the cache."""


class Absent(Enum):
    """A shard that is known to hold nothing of an entity."""

    ABSENT = 0


ABSENT: Final = Absent.ABSENT
Held: TypeAlias = Columns | Absent | None
_Wide: TypeAlias = tuple[Columns, list[pack.PageEntries]]
"""Columns, and the directory that was read with them."""
_UNKNOWN: Final = object()


@dataclass(slots=True)
class _Place:
    """Of a block: `name` in the cache; `segment`, its key, when somebody asked for it."""

    entry: BlockEntry
    name: str
    segment: str | None = None

    @classmethod
    def of(cls, ref: PackRef, entry: BlockEntry) -> _Place:
        return cls(entry, entry_name(ref.key, entry.whole, BLOCK))


class Reader:
    """Decoded built objects of any tenant, by reference."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._places: dict[tuple[str, str], _Place | None] = {}

    def clear(self) -> None:
        """Forget what is known beside the cache."""
        self._places.clear()

    async def entries(self, ref: PackRef, page: pack.Page) -> pack.PageEntries:
        held = self._held_wide(ref, vectors=True) or self._held_wide(ref, vectors=False)
        if held is not None:
            return held[1][ref.layout_pages().index(page)]
        span = ByteRange(page.offset, page.length)
        return await self.cache.value(ref.key, pack.decode_page, byte_range=span, form=PAGE)

    async def entry(self, ref: PackRef, key: str) -> pack.Entry | None:
        """Directory entry of one key: one GET, none when the key sorts before every page."""
        page = pack.page_of(ref.layout_pages(), key)
        if page is None:
            return None
        return pack.find(await self.entries(ref, page), key)

    async def directory(self, ref: PackRef) -> list[pack.Entry]:
        """Every entry, ascending by key."""
        pages = await asyncio.gather(*(self.entries(ref, page) for page in ref.layout_pages()))
        return [entry for page in pages for entry in page]

    async def place(self, ref: PackRef, entity: str) -> BlockEntry | None:
        """Where a shard holds the entity's block, and what it spans; None where it has none."""
        place = self._places.get((ref.key, entity), _UNKNOWN)
        if place is _UNKNOWN:
            found = await self.entry(ref, entity)
            if len(self._places) >= PLACES_KNOWN:
                self._places.clear()
            place = self._places[ref.key, entity] = None if found is None else _Place.of(ref, BlockEntry.of(found))
        return place.entry if isinstance(place, _Place) else None

    async def block(self, tenant: str, period: str, shards: Shards, entity: str) -> Columns | None:
        """The rows of one entity in a day or month shard, with texts, vectors and its segments' keys."""
        entry = await self.place(shards.entity, entity)
        return None if entry is None else await self.block_at(tenant, period, shards, entry)

    async def block_at(self, tenant: str, period: str, shards: Shards, entry: BlockEntry) -> Columns:
        return await self.cache.value(
            shards.entity.key,
            lambda frame: _block(tenant, period, entry, frame),
            byte_range=entry.whole,
            form=BLOCK,
        )

    def held_block(self, shards: Shards, entity: str) -> Held:
        """What `block` gives, where that is known without waiting; ABSENT where the shard has no block of it."""
        place = self._places.get((shards.entity.key, entity), _UNKNOWN)
        if isinstance(place, _Place):
            found: Columns | None = self.cache.held(place.name)
            return found
        return ABSENT if place is None else None

    async def segment(self, tenant: str, day: str, shards: Shards, entity: str) -> str:
        """The key of the entity's segment of a day shard: by its directory alone. Raises `Corrupt`."""
        if await self.place(shards.entity, entity) is None:
            raise Corrupt("corrupt_object", "a shard's columns name an entity its directory lacks", day=day)
        found = self.held_segment(tenant, day, shards, entity)
        assert found is not None, "its place is known"
        return found

    def held_segment(self, tenant: str, day: str, shards: Shards, entity: str) -> str | None:
        """What `segment` gives, where that is known without waiting."""
        place = self._places.get((shards.entity.key, entity))
        if place is None:
            return None
        if place.segment is None:
            place.segment = str(SegmentKey(tenant, entity_part(entity), day, place.entry.segment_id))
        return place.segment

    async def whole(self, shards: Shards) -> Columns:
        """As `columns` with vectors, of a pack without a section of them: by one GET of all of it."""
        ref = shards.entity
        own = columns_range(ref.ranges)

        def decode(stored: bytes) -> Columns:
            rows = decode_columns(Pieces([stored]).cut(own.offset, own.stop))
            held = [decode_rows(raw) for _, raw in pack.blocks_of(stored, ref.layout_pages())]
            return Columns(with_vectors_of(rows, held))

        async def load() -> tuple[Columns, int]:
            stored = await self.cache.raw(ref.key, sha256=ref.sha256)
            found = await asyncio.to_thread(decode, stored)
            for page in ref.layout_pages():
                span = ByteRange(page.offset, page.length)
                self.cache.keep(ref.key, span, PAGE, pack.decode_page(stored[page.offset : span.stop]))
            return found, found.nbytes

        return await self.cache.derived(f"{ref.key}|{WHOLE}", load)

    def held_columns(self, shards: Shards, *, vectors: bool) -> Columns | None:
        """The shard's rows of all entities where they are in memory, with vectors if wanted."""
        ref = shards.entity
        held = self._held_wide(ref, vectors=True) or (None if vectors else self._held_wide(ref, vectors=False))
        if held is not None:
            return held[0]
        found: Columns | None = self.cache.held(f"{ref.key}|{WHOLE}")
        return self.cache.held(f"{shards.vector.key}|{WHOLE}") if found is None and vectors else found

    def _held_wide(self, ref: PackRef, *, vectors: bool) -> _Wide | None:
        """What `columns` decoded, where it is in memory."""
        span = wide_range(ref.ranges, ref.bytes, vectors=vectors)
        held: _Wide | None = None if span is None else self.cache.held_value(ref.key, span, COLUMNS)
        return held

    async def columns(self, shards: Shards, *, vectors: bool = False) -> Columns:
        """The shard's rows of all entities without texts, with their vectors if wanted: one range GET.

        A pack ends with its sections and pages, so the same GET brings the directory: hits find their blocks.
        `vectors` only of a pack that has a section of them.
        """
        ref = shards.entity
        span = wide_range(ref.ranges, ref.bytes, vectors=vectors)
        assert span is not None, "the plan reads no section that is not there"

        def part(stored: Pieces, wanted: ByteRange) -> Pieces:
            return stored.cut(wanted.offset - span.offset, wanted.stop - span.offset)

        def decode(stored: Pieces) -> _Wide:
            pages = [part(stored, ByteRange(page.offset, page.length)) for page in ref.layout_pages()]
            rows = decode_columns(part(stored, columns_range(ref.ranges)))
            if vectors:
                rows = rows_with(rows, *decode_vectors(part(stored, ref.ranges[0])))
            return Columns(rows), [pack.decode_page(page.joined()) for page in pages]

        def size_of(found: _Wide) -> int:
            return found[0].nbytes

        columns, pages = await self.cache.value_of_parts(
            ref.key, decode, span, form=COLUMNS, size_of=size_of if vectors else None
        )
        self._keep_pages(ref, pages)
        return columns

    def _keep_pages(self, ref: PackRef, pages: Sequence[pack.PageEntries]) -> None:
        for page, entries in zip(ref.layout_pages(), pages, strict=True):
            self.cache.keep(ref.key, ByteRange(page.offset, page.length), PAGE, entries)

    async def file(self, key: str, ref: FileRef) -> bytes:
        """One file of a vector shard, digest checked; kept on disk."""
        return await self.cache.raw(key, byte_range=ref.range, sha256=ref.sha256, in_parts=True)

    async def fulltext(self, shards: Shards) -> bytes:
        """The packed full-text shard, digest checked; kept on disk."""
        ref = shards.fulltext
        return await self.cache.raw(ref.key, byte_range=ByteRange(0, ref.bytes), sha256=ref.sha256, in_parts=True)


def _block(tenant: str, period: str, entry: BlockEntry, frame: bytes) -> Columns:
    """`frame`: the block, and for a month its note."""
    note = frame[entry.range.length :]
    named = decode_note(note) if note else [(period, entry.segment_id)]
    part = entity_part(entry.entity)
    keys = [str(SegmentKey(tenant, part, day, segment)) for day, segment in named]
    return Columns(decode_entry_block(frame[: entry.range.length], segments=keys))
