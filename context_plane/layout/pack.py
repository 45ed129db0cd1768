"""Packs: many keyed blocks in one immutable object, addressable without reading a footer. Format 1.

    magic (8 bytes) | block ... | section ... | directory page ...

A block and a page are one zstd frame each, checksummed, so a range read is verified on its own. A page
is JSON: `[[key, offset, length, *meta], ...]`, ascending by key; whoever names the pack (a manifest)
holds the pages' addresses with each page's first key, so reading one key is: page, then block.
A block may be followed by a note, a frame of its own: what belongs beside the block and is no content of it
(names of objects); its length is the last of the entry's meta, so that one range read brings both.
Sections are unkeyed frames addressed the same way (columns of a whole shard, for instance).
The content digest is over keys and uncompressed bytes, never over compressed ones.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, overload

import orjson

from context_plane.errors import Corrupt
from context_plane.layout.compression import compress, decompress, decompress_pieces
from context_plane.store.base import Body, ByteRange
from context_plane.store.pieces import Pieces

MAGIC: Final = b"CPPACK1\n"
PAGE_ENTRIES: Final = 512
"""About 20 KiB compressed: one range read and well under a millisecond to parse."""
BLOCK_BYTES_MAX: Final = 1 << 30
PAGE_BYTES_MAX: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Page:
    """Address of one directory page; `first` is its smallest key."""

    first: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Entry:
    """Directory entry of one block; `meta` is whatever the writer put beside the address."""

    key: str
    offset: int
    length: int
    meta: tuple[Any, ...] = ()

    @property
    def range(self) -> ByteRange:
        return ByteRange(self.offset, self.length)


@dataclass(frozen=True, slots=True)
class Block:
    """A block to write. `note` is stored behind it and enters no digest."""

    key: str
    raw: bytes
    meta: tuple[Any, ...] = ()
    note: bytes = b""


@dataclass(frozen=True, slots=True)
class EncodedPack:
    stored: bytes
    digest: str
    pages: tuple[Page, ...]
    sections: tuple[ByteRange, ...]
    entries: tuple[Entry, ...]


def encode(blocks: Iterable[Block], sections: Sequence[bytes] = ()) -> EncodedPack:
    """Blocks must be strictly ascending by key (code point order)."""
    parts: list[bytes] = [MAGIC]
    offset = len(MAGIC)
    digest = hashlib.sha256()
    entries: list[Entry] = []
    for block in blocks:
        assert not entries or entries[-1].key < block.key, "blocks ascend by key"
        frame = compress(block.raw)
        note = compress(block.note) if block.note else b""
        meta = (*block.meta, len(note)) if note else block.meta
        entries.append(Entry(block.key, offset, len(frame), meta))
        parts += (frame, note)
        offset += len(frame) + len(note)
        _feed(digest, block.key.encode(), block.raw)
    addresses = []
    for section in sections:
        frame = compress(section)
        addresses.append(ByteRange(offset, len(frame)))
        parts.append(frame)
        offset += len(frame)
        _feed(digest, b"", section)
    pages = []
    for start in range(0, len(entries), PAGE_ENTRIES):
        group = entries[start : start + PAGE_ENTRIES]
        frame = compress(orjson.dumps([[e.key, e.offset, e.length, *e.meta] for e in group]))
        pages.append(Page(group[0].key, offset, len(frame)))
        parts.append(frame)
        offset += len(frame)
    return EncodedPack(b"".join(parts), digest.hexdigest(), tuple(pages), tuple(addresses), tuple(entries))


class PageEntries(Sequence[Entry]):
    """The entries of a directory page, each made when it is asked for: a read looks at one of hundreds."""

    __slots__ = ("_rows",)

    def __init__(self, rows: list[list[Any]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> list[Entry]: ...
    def __getitem__(self, at: int | slice) -> Entry | list[Entry]:
        if isinstance(at, slice):
            return [_entry(row) for row in self._rows[at]]
        return _entry(self._rows[at])


def _entry(row: list[Any]) -> Entry:
    return Entry(row[0], row[1], row[2], tuple(row[3:]))


def decode_page(frame: Body) -> PageEntries:
    return PageEntries(orjson.loads(decompress(frame, size_max=PAGE_BYTES_MAX)))


def decode_block(frame: Body) -> bytes:
    return decompress(frame, size_max=BLOCK_BYTES_MAX)


def decode_block_pieces(frame: Pieces) -> memoryview:
    """As `decode_block`, of a frame that was read in pieces."""
    return decompress_pieces(frame, size_max=BLOCK_BYTES_MAX)


def page_of(pages: Sequence[Page], key: str) -> Page | None:
    """The only page that can hold `key`, or None when it sorts before every page."""
    at = bisect.bisect_right(pages, key, key=lambda page: page.first) - 1
    return pages[at] if at >= 0 else None


def find(entries: Sequence[Entry], key: str) -> Entry | None:
    at = bisect.bisect_left(entries, key, key=lambda entry: entry.key)
    return entries[at] if at < len(entries) and entries[at].key == key else None


def blocks_of(stored: bytes, pages: Sequence[Page]) -> Iterator[tuple[Entry, bytes]]:
    """Every block of a wholly read pack, decoded, ascending by key. Raises `Corrupt`."""
    if not stored.startswith(MAGIC):
        raise Corrupt("format_unknown", "an object that should be a pack is not one")
    view = memoryview(stored)
    for page in pages:
        for entry in decode_page(bytes(view[page.offset : page.offset + page.length])):
            yield entry, decode_block(bytes(view[entry.offset : entry.offset + entry.length]))


def _feed(digest: Any, key: bytes, raw: bytes) -> None:
    digest.update(len(key).to_bytes(4, "big") + key + len(raw).to_bytes(8, "big"))
    digest.update(raw)
