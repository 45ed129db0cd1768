"""Entity shard: one pack per tenant-day or month with a block per entity, and the columns of all of them.

    block            encode_rows(rows of one entity, with texts and vectors), keyed by the entity
    directory entry  [events, rows, first_ts_us, last_ts_us, segment_id, segment_digest]
    first section    the vectors of all rows, where there are any, up to VECTORS_BYTES_MAX
    last section     encode_rows(all blocks in one, without payload): what tenant-wide reads filter and score

So what a tenant-wide read takes is the end of the pack, with the vectors or without: one range, no block.
A month's block joins those of its days. Its entry is `[events, rows, first_ts_us, last_ts_us, note_bytes]`, and
behind the block lies its note, `[[day, segment_id], ...]` of the days it joins: citations need no other read,
and directories stay as small as a day's.

Segment ids carry a nonce and are no part of the content digest: the same segments' content gives the same
digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import orjson

from context_plane.errors import Corrupt
from context_plane.index.rows import F32, I16, Rows, concat, decode_rows, encode_rows
from context_plane.layout.pack import (
    BLOCK_BYTES_MAX,
    Block,
    EncodedPack,
    Entry,
    decode_block,
    decode_block_pieces,
    encode,
)
from context_plane.store.base import ByteRange
from context_plane.store.pieces import Pieces

_VECTORS_HEAD: Final = 8
"""Rows and dimension, 4 bytes each, little endian: then scales float32 [N], vectors int16 [N, D]."""
VECTORS_BYTES_MAX: Final = BLOCK_BYTES_MAX - _VECTORS_HEAD
"""Of the vectors section, which is one frame. Of larger shards the vector shard is read."""
META_FIELDS: Final = 6
MONTH_META_FIELDS: Final = 5


@dataclass(frozen=True, slots=True)
class ShardBlock:
    """One entity's block to write: of a day with its segment, of a month with (day, segment id) of its days."""

    rows: Rows
    segment_id: str = ""
    segment_digest: str = ""
    segments: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class BlockEntry:
    """Directory entry of one entity's block. `note_bytes`: of a month's note, which follows the block."""

    entity: str
    range: ByteRange
    events: int
    rows: int
    first_ts_us: int
    last_ts_us: int
    segment_id: str
    segment_digest: str
    note_bytes: int = 0

    @property
    def whole(self) -> ByteRange:
        """The block with its note."""
        return ByteRange(self.range.offset, self.range.length + self.note_bytes)

    @classmethod
    def of(cls, entry: Entry) -> BlockEntry:
        """The typed form of a pack's directory entry. Raises `Corrupt(format_unknown)`."""
        if len(entry.meta) == MONTH_META_FIELDS:
            events, rows, first_ts_us, last_ts_us, note_bytes = entry.meta
            return cls(entry.key, entry.range, events, rows, first_ts_us, last_ts_us, "", "", note_bytes)
        if len(entry.meta) != META_FIELDS:
            raise Corrupt("format_unknown", "a directory entry is not that of an entity shard", fields=len(entry.meta))
        return cls(entry.key, entry.range, *entry.meta)


def encode_shard(day: str | None, blocks: Iterable[ShardBlock]) -> EncodedPack:
    """A day's shard (or a month's rollup, `day` None). Blocks ascend by entity; each has one entity."""
    packed: list[Block] = []
    held: list[Rows] = []
    vectors: list[Rows] | None = []
    vectors_bytes = 0
    for block in blocks:
        assert len(block.rows.entities) == 1, "a block holds one entity"
        note = orjson.dumps(block.segments) if block.segments else b""
        packed.append(Block(block.rows.entities[0], encode_rows(block.rows), _meta(block), note))
        held.append(block.rows.without_payload())
        vectors_bytes += block.rows.vectors.nbytes + block.rows.scales.nbytes
        if vectors is not None and block.rows.dim and vectors_bytes <= VECTORS_BYTES_MAX:
            vectors.append(block.rows)
        else:
            vectors = None
    columns = encode_rows(concat(held, day=day))
    return encode(packed, sections=[encode_vectors(vectors), columns] if vectors else [columns])


def columns_range(sections: Sequence[ByteRange]) -> ByteRange:
    """Address of the columns among a pack's sections."""
    return sections[-1]


def wide_range(sections: Sequence[ByteRange], size: int, *, vectors: bool) -> ByteRange | None:
    """What a tenant-wide read takes of a pack of `size` bytes: its columns and directory, behind its vectors if wanted.

    None where the pack has no section of vectors.
    """
    if vectors and len(sections) < 2:
        return None
    start = sections[0 if vectors else -1].offset
    return ByteRange(start, size - start)


def encode_vectors(blocks: Sequence[Rows]) -> bytes:
    """The vectors section of these blocks, all of one dimension."""
    count, dim = sum(block.row_count for block in blocks), blocks[0].dim
    head = count.to_bytes(4, "little") + dim.to_bytes(4, "little")
    scales = [np.ascontiguousarray(block.scales, "<f4").data for block in blocks]
    return b"".join([head, *scales, *(np.ascontiguousarray(block.vectors, "<i2").data for block in blocks)])


def decode_vectors(frame: Pieces) -> tuple[F32, I16]:
    """(scales [N], vectors [N, D]), read-only views of the decoded frame. Raises `Corrupt`."""
    raw = decode_block_pieces(frame)
    count, dim = int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:_VECTORS_HEAD], "little")
    if len(raw) != _VECTORS_HEAD + count * (4 + 2 * dim):
        raise Corrupt("corrupt_object", "a section of vectors has another length than it says", rows=count, dim=dim)
    scales = np.frombuffer(raw, "<f4", count, _VECTORS_HEAD)
    return scales, np.frombuffer(raw, "<i2", count * dim, _VECTORS_HEAD + 4 * count).reshape(count, dim)


def decode_entry_block(frame: bytes, *, segments: Sequence[str] = ()) -> Rows:
    """One entity's rows from its frame. `segments`: the keys that citations name."""
    return replace(decode_rows(decode_block(frame)), segments=tuple(segments))


def decode_note(frame: bytes) -> list[tuple[str, str]]:
    """(day, segment id) of a month's block, ascending, from the note's frame."""
    return [(day, segment) for day, segment in orjson.loads(decode_block(frame))]


def decode_columns(frame: Pieces) -> Rows:
    """The shard's columns from their frame."""
    return decode_rows(decode_block_pieces(frame))


def _meta(block: ShardBlock) -> tuple[int | str, ...]:
    ts = block.rows.event_ts_us
    counts = (block.rows.event_count, block.rows.row_count, int(ts.min()), int(ts.max()))
    return counts if block.segments else (*counts, block.segment_id, block.segment_digest)
