"""Reading built state through the cache: directory pages, entity blocks, columns, vectors.

Everything read here is immutable, so cache entries need no invalidation. A read of one entity is page,
then block; pages of several days are fetched together, then blocks together: two rounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from context_plane.cache.tiers import Cache
from context_plane.catalog.lists import SegmentEntry, decode_days, decode_segments
from context_plane.catalog.manifest import DayEntry, FileRef, ObjectRef, PackRef, SegmentListRef, Shards
from context_plane.index.entity_shard import BlockEntry, columns_range, decode_columns, decode_entry_block
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
        """The rows of one entity in a day or month shard, with texts, vectors and its segment's key."""
        entry = await self.entry(shards.entity, entity)
        if entry is None:
            return None
        async with self._gate:
            return await self.cache.value(
                shards.entity.key,
                lambda frame: _block(tenant, period, BlockEntry.of(entry), frame),
                byte_range=entry.range,
                form="block",
            )

    async def blocks(self, tenant: str, period: str, shards: Shards, entities: Collection[str]) -> dict[str, Columns]:
        """Blocks of several entities of one shard, absent ones left out."""
        names = sorted(entities)
        found = await asyncio.gather(*(self.block(tenant, period, shards, name) for name in names))
        return {name: block for name, block in zip(names, found, strict=True) if block is not None}

    async def all_blocks(self, tenant: str, period: str, shards: Shards) -> dict[str, Columns]:
        """Every entity's block, by one GET of the whole pack. Decoded in a thread; not kept in memory."""
        stored = await self.cache.raw(shards.entity.key)
        return await asyncio.to_thread(_all_blocks, tenant, period, shards.entity, stored)

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

    async def month_days(self, ref: ObjectRef) -> dict[str, DayEntry]:
        """The days' entries of a rolled month."""
        return await self.cache.value(ref.key, decode_days, form="days")

    async def segment_lines(self, ref: SegmentListRef) -> list[SegmentEntry]:
        return await self.cache.value(ref.key, decode_segments, form="segments")


def _cut(stored: bytes, held: ByteRange, wanted: ByteRange) -> bytes:
    """A range of an object out of a longer one that was read."""
    return stored[wanted.offset - held.offset : wanted.stop - held.offset]


def _block(tenant: str, period: str, entry: BlockEntry, frame: bytes) -> Columns:
    return Columns(decode_entry_block(frame, segment=_segment_key(tenant, period, entry)))


def _all_blocks(tenant: str, period: str, ref: PackRef, stored: bytes) -> dict[str, Columns]:
    found = {}
    for entry, raw in pack.blocks_of(stored, ref.layout_pages()):
        rows = replace(decode_rows(raw), segments=(_segment_key(tenant, period, BlockEntry.of(entry)),))
        found[entry.key] = Columns(rows)
    return found


def _segment_key(tenant: str, period: str, entry: BlockEntry) -> str:
    """The segment citations name; a month's block has many, found through the month's list."""
    if len(period) != len("2026-03-04"):
        return ""
    return str(SegmentKey(tenant, entity_part(entry.entity), period, entry.segment_id))
