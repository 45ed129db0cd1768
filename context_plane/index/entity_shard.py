"""Entity shard: one pack per tenant-day or month with a block per entity, and the columns of all of them.

    block            encode_rows(rows of one entity, with texts and vectors), keyed by the entity
    directory entry  [events, rows, first_ts_us, last_ts_us, segment_id, segment_digest]
    sections[0]      encode_rows(all blocks in one, without payload): what tenant-wide reads filter and score

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

import orjson

from context_plane.errors import Corrupt
from context_plane.index.rows import Rows, concat, decode_rows, encode_rows
from context_plane.layout.pack import Block, EncodedPack, Entry, decode_block, encode
from context_plane.store.base import ByteRange

COLUMNS_SECTION: Final = 0
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
    for block in blocks:
        assert len(block.rows.entities) == 1, "a block holds one entity"
        note = orjson.dumps(block.segments) if block.segments else b""
        packed.append(Block(block.rows.entities[0], encode_rows(block.rows), _meta(block), note))
        held.append(block.rows.without_payload())
    return encode(packed, sections=[encode_rows(concat(held, day=day))])


def columns_range(sections: Sequence[ByteRange]) -> ByteRange:
    """Address of the columns among a pack's sections."""
    return sections[COLUMNS_SECTION]


def decode_entry_block(frame: bytes, *, segments: Sequence[str] = ()) -> Rows:
    """One entity's rows from its frame. `segments`: the keys that citations name."""
    return replace(decode_rows(decode_block(frame)), segments=tuple(segments))


def decode_note(frame: bytes) -> list[tuple[str, str]]:
    """(day, segment id) of a month's block, ascending, from the note's frame."""
    return [(day, segment) for day, segment in orjson.loads(decode_block(frame))]


def decode_columns(frame: bytes, *, segments: Sequence[str] = ()) -> Rows:
    """The shard's columns from their frame; `segments`: one key per entity, in the directory's order."""
    rows = decode_rows(decode_block(frame))
    if segments and len(segments) != len(rows.entities):
        raise Corrupt("corrupt_object", "a shard's columns and its directory name different numbers of entities")
    return replace(rows, segments=tuple(segments))


def _meta(block: ShardBlock) -> tuple[int | str, ...]:
    ts = block.rows.event_ts_us
    counts = (block.rows.event_count, block.rows.row_count, int(ts.min()), int(ts.max()))
    return counts if block.segments else (*counts, block.segment_id, block.segment_digest)
