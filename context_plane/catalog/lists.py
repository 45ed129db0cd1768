"""Large lists a manifest names: the segments of a day, the day entries of a rolled month. Pure codecs.

The digest of a segment list covers (entity, content digest) pairs only: ids carry nonces.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from context_plane.catalog.manifest import DayEntry
from context_plane.layout.compression import compress, decompress
from context_plane.layout.keys import SegmentKey, entity_part
from context_plane.model import canonical_json, sha256_hex

LIST_BYTES_MAX = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One segment of a day. `digest` is of its uncompressed content."""

    entity: str
    id: str
    digest: str
    events: int
    bytes: int

    def key(self, tenant: str, day: str) -> str:
        return str(SegmentKey(tenant, entity_part(self.entity), day, self.id))


def encode_segments(entries: Sequence[SegmentEntry]) -> tuple[bytes, str]:
    """Entries ascending by entity -> stored bytes and content digest."""
    assert all(a.entity < b.entity for a, b in itertools.pairwise(entries))
    digest = sha256_hex(canonical_json([[e.entity, e.digest] for e in entries]))
    rows = [[e.entity, e.id, e.digest, e.events, e.bytes] for e in entries]
    return compress(orjson.dumps(rows)), digest


def decode_segments(stored: bytes) -> list[SegmentEntry]:
    return [SegmentEntry(*row) for row in orjson.loads(decompress(stored, size_max=LIST_BYTES_MAX))]


def encode_days(entries: Mapping[str, DayEntry]) -> tuple[bytes, str]:
    raw = canonical_json({day: entry.model_dump(mode="json") for day, entry in entries.items()})
    return compress(raw), sha256_hex(raw)


def decode_days(stored: bytes) -> dict[str, DayEntry]:
    raw = orjson.loads(decompress(stored, size_max=LIST_BYTES_MAX))
    return {day: DayEntry.model_validate(entry) for day, entry in raw.items()}
