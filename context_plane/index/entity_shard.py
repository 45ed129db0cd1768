"""Entity shard: one pack per tenant-day with a block per entity, and the columns of all of them.

    block            encode_rows(rows of one entity, with texts and vectors), keyed by the entity
    directory entry  [events, rows, first_ts_us, last_ts_us, segment_id, segment_digest]
    sections[0]      encode_rows(all blocks in one, without payload): what tenant-wide reads filter and score

Segment ids carry a nonce and are no part of the content digest: the same segments' content gives the same
digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from context_plane.errors import Corrupt
from context_plane.index.rows import Rows, concat, decode_rows, encode_rows
from context_plane.layout.pack import Block, EncodedPack, Entry, decode_block, encode
from context_plane.store.base import ByteRange

COLUMNS_SECTION: Final = 0
META_FIELDS: Final = 6


@dataclass(frozen=True, slots=True)
class ShardBlock:
    """One entity's block to write."""

    rows: Rows
    segment_id: str
    segment_digest: str


@dataclass(frozen=True, slots=True)
class BlockEntry:
    """Directory entry of one entity's block."""

    entity: str
    range: ByteRange
    events: int
    rows: int
    first_ts_us: int
    last_ts_us: int
    segment_id: str
    segment_digest: str

    @classmethod
    def of(cls, entry: Entry) -> BlockEntry:
        """The typed form of a pack's directory entry. Raises `Corrupt(format_unknown)`."""
        if len(entry.meta) != META_FIELDS:
            raise Corrupt("format_unknown", "a directory entry is not that of an entity shard", fields=len(entry.meta))
        return cls(entry.key, entry.range, *entry.meta)


def encode_shard(day: str | None, blocks: Iterable[ShardBlock]) -> EncodedPack:
    """A day's shard (or a month's rollup, `day` None). Blocks ascend by entity; each has one entity."""
    packed: list[Block] = []
    held: list[Rows] = []
    for block in blocks:
        assert len(block.rows.entities) == 1, "a block holds one entity"
        packed.append(Block(block.rows.entities[0], encode_rows(block.rows), _meta(block)))
        held.append(block.rows.without_payload())
    return encode(packed, sections=[encode_rows(concat(held, day=day))])


def columns_range(sections: Sequence[ByteRange]) -> ByteRange:
    """Address of the columns among a pack's sections."""
    return sections[COLUMNS_SECTION]


def decode_entry_block(frame: bytes, *, segment: str = "") -> Rows:
    """One entity's rows from its frame. `segment` is the key that citations name."""
    rows = decode_rows(decode_block(frame))
    return replace(rows, segments=(segment,))


def decode_columns(frame: bytes, *, segments: Sequence[str] = ()) -> Rows:
    """The shard's columns from their frame; `segments`: one key per entity, in the directory's order."""
    rows = decode_rows(decode_block(frame))
    if segments and len(segments) != len(rows.entities):
        raise Corrupt("corrupt_object", "a shard's columns and its directory name different numbers of entities")
    return replace(rows, segments=tuple(segments))


def _meta(block: ShardBlock) -> tuple[int | str, ...]:
    ts = block.rows.event_ts_us
    return (
        block.rows.event_count,
        block.rows.row_count,
        int(ts.min()),
        int(ts.max()),
        block.segment_id,
        block.segment_digest,
    )
