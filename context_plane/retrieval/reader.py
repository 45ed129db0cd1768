"""Reading built state through the cache: directory pages, entity blocks, columns, vectors.

Everything read here is immutable, so cache entries need no invalidation. A read of one entity is page,
then block; pages of several days are fetched together, then blocks together: two rounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from context_plane.cache.tiers import Cache
from context_plane.catalog.manifest import FileRef, PackRef, Shards
from context_plane.index.entity_shard import BlockEntry, columns_range, decode_columns, decode_entry_block, decode_note
from context_plane.index.rows import decode_rows
from context_plane.layout import pack
from context_plane.layout.keys import SegmentKey, entity_part
from context_plane.retrieval.columns import Columns
from context_plane.store.base import ByteRange

PARALLEL_BLOCKS: Final = 128
"""Blocks of one read in flight: a year of one entity in three rounds of the network at most."""


class Reader:
    """Decoded built objects of any tenant, by reference."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._gate = asyncio.Semaphore(PARALLEL_BLOCKS)

    async def entries(self, ref: PackRef, page: pack.Page) -> list[pack.Entry]:
        span = ByteRange(page.offset, page.length)
        return await self.cache.value(ref.key, pack.decode_page, byte_range=span, form="page")

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

    async def block(self, tenant: str, period: str, shards: Shards, entity: str) -> Columns | None:
        """The rows of one entity in a day or month shard, with texts, vectors and its segments' keys."""
        found = await self.entry(shards.entity, entity)
        if found is None:
            return None
        entry = BlockEntry.of(found)
        async with self._gate:
            return await self.cache.value(
                shards.entity.key,
                lambda frame: _block(tenant, period, entry, frame),
                byte_range=entry.whole,
                form="block",
            )

    async def blocks(self, tenant: str, period: str, shards: Shards, entities: Collection[str]) -> dict[str, Columns]:
        """Blocks of several entities of one shard, absent ones left out."""
        names = sorted(entities)
        found = await asyncio.gather(*(self.block(tenant, period, shards, name) for name in names))
        return {name: block for name, block in zip(names, found, strict=True) if block is not None}

    async def all_blocks(self, shards: Shards) -> dict[str, Columns]:
        """Every entity's block without its segments' keys, by one GET of the whole pack. Not kept in memory."""
        stored = await self.cache.raw(shards.entity.key)
        return await asyncio.to_thread(_all_blocks, shards.entity, stored)

    async def columns(self, shards: Shards) -> Columns:
        """The shard's rows of all entities without texts and vectors: one range GET.

        A pack ends with its sections and pages, so the same GET brings the directory: hits find their blocks.
        """
        ref = shards.entity
        own = columns_range([section.range for section in ref.sections])
        tail = ByteRange(own.offset, ref.bytes - own.offset)

        def decode(stored: bytes) -> tuple[Columns, list[list[pack.Entry]]]:
            pages = [_cut(stored, tail, ByteRange(page.offset, page.length)) for page in ref.layout_pages()]
            return Columns(decode_columns(_cut(stored, tail, own))), [pack.decode_page(page) for page in pages]

        columns, pages = await self.cache.value(ref.key, decode, byte_range=tail, form="columns")
        for page, entries in zip(ref.layout_pages(), pages, strict=True):
            self.cache.keep(ref.key, ByteRange(page.offset, page.length), "page", entries)
        return columns

    async def file(self, key: str, ref: FileRef) -> bytes:
        """One file of a vector shard, digest checked; kept on disk."""
        return await self.cache.raw(key, sha256=ref.sha256)

    async def fulltext(self, shards: Shards) -> bytes:
        """The packed full-text shard, digest checked; kept on disk."""
        return await self.cache.raw(shards.fulltext.key, sha256=shards.fulltext.sha256)


def _cut(stored: bytes, held: ByteRange, wanted: ByteRange) -> bytes:
    """A range of an object out of a longer one that was read."""
    return stored[wanted.offset - held.offset : wanted.stop - held.offset]


def _block(tenant: str, period: str, entry: BlockEntry, frame: bytes) -> Columns:
    """`frame`: the block, and for a month its note."""
    note = frame[entry.range.length :]
    named = decode_note(note) if note else [(period, entry.segment_id)]
    part = entity_part(entry.entity)
    keys = [str(SegmentKey(tenant, part, day, segment)) for day, segment in named]
    return Columns(decode_entry_block(frame[: entry.range.length], segments=keys))


def _all_blocks(ref: PackRef, stored: bytes) -> dict[str, Columns]:
    return {entry.key: Columns(decode_rows(raw)) for entry, raw in pack.blocks_of(stored, ref.layout_pages())}
