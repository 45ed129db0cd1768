"""Segments: the events of one entity on one UTC day, JSON lines in one zstd frame. Format 1.

Line 1 is the header `{"day","entity","events","format"}`; then one canonical event a line, ascending by
(ts, id). Line numbers in citations are 1-based over the whole file. The content digest is SHA-256 of
the uncompressed bytes: the same events give the same digest whatever their order of arrival.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from context_plane.errors import Corrupt
from context_plane.layout.compression import compress, decompress
from context_plane.model import Event, canonical_json, event_from_record, event_record, sha256_hex

FORMAT: Final = 1
SEGMENT_BYTES_MAX: Final = 1 << 30
"""Uncompressed; a busier entity-day than this is not an entity."""
FIRST_EVENT_LINE: Final = 2


@dataclass(frozen=True, slots=True)
class EncodedSegment:
    stored: bytes
    digest: str
    events: int


def encode(entity: str, day: str, events: Sequence[Event]) -> EncodedSegment:
    """Events must be of this entity and day, strictly ascending by (ts, id), at least one."""
    assert all(event.entity == entity and event.day == day for event in events)
    assert all(a.order < b.order for a, b in itertools.pairwise(events))
    return encode_lines(entity, day, [event_line(event) for event in events])


def event_line(event: Event) -> bytes:
    """An event as its segment holds it, without the line end; the event's digest is that of these bytes."""
    return canonical_json(event_record(event))


def encode_lines(entity: str, day: str, lines: Sequence[bytes]) -> EncodedSegment:
    """The segment of events given as their lines, in the order of `encode`."""
    assert lines, "an empty segment is never written"
    header = {"format": FORMAT, "entity": entity, "day": day, "events": len(lines)}
    raw = b"\n".join([canonical_json(header), *lines, b""])
    return EncodedSegment(compress(raw), sha256_hex(raw), len(lines))


def decode(stored: bytes, *, digest: str | None = None) -> list[Event]:
    """Inverse of `encode`; with `digest`, the content is checked against it. Raises `Corrupt`."""
    return [event_from_record(orjson.loads(line)) for line in decode_lines(stored, digest=digest)]


def decode_lines(stored: bytes, *, digest: str | None = None) -> list[bytes]:
    """The events' lines, in order. Raises `Corrupt`."""
    raw = decompress(stored, size_max=SEGMENT_BYTES_MAX)
    if digest is not None and sha256_hex(raw) != digest:
        raise Corrupt("corrupt_object", "a segment's content does not match its digest", expected=digest)
    head, *lines = raw.splitlines()
    header = orjson.loads(head)
    if header.get("format") != FORMAT:
        raise Corrupt("format_unknown", "a segment of an unknown format", format=header.get("format"))
    if header["events"] != len(lines):
        raise Corrupt("corrupt_object", "a segment has another number of lines than its header says")
    return lines
