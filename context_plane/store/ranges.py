"""Planning of range reads: which requests fetch which ranges. Pure.

A request costs a round trip whatever its size, so near ranges are read together with the gap between
them; a long request is slower than two in parallel, so joining stops at a length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from context_plane.store.base import Body, ByteRange

RANGE_GAP_MAX: Final = 256 * 1024
"""Bytes read for nothing rather than sending another request: some 5 ms at 50 MB/s, against 60 ms of latency."""
RANGE_LENGTH_MAX: Final = 8 * 1024 * 1024
"""Joined requests stop here; beyond it, parallel connections are faster than one."""
RANGES_PARALLEL_MAX: Final = 16
"""Requests of one `get_ranges` in flight: more only queue at the client's own connections."""


PARTS_MAX: Final = 64
"""Requests that one long range is read by: a gigabyte in parts of 16 MiB, a sixth of a second each."""


@dataclass(frozen=True, slots=True)
class Span:
    """One request, and the positions (in the caller's order) of the ranges it answers."""

    range: ByteRange
    members: tuple[int, ...]


def coalesce(ranges: Sequence[ByteRange], *, gap_max: int, length_max: int) -> list[Span]:
    """Requests that together cover every non-empty range, ascending by offset.

    Each non-empty range is the member of exactly one span and lies within it. Neighbours are joined
    when at most `gap_max` bytes lie between them and the span stays within `length_max` bytes; a
    single range longer than `length_max` is a span of its own. Empty ranges need no request.
    """
    order = sorted((r.offset, r.stop, position) for position, r in enumerate(ranges) if r.length > 0)
    spans: list[Span] = []
    start = stop = 0
    members: list[int] = []
    for offset, end, position in order:
        joined_stop = max(stop, end)
        if members and offset - stop <= gap_max and (joined_stop - start <= length_max or joined_stop == stop):
            stop = joined_stop
            members.append(position)
            continue
        if members:
            spans.append(Span(ByteRange(start, stop - start), tuple(members)))
        start, stop, members = offset, end, [position]
    if members:
        spans.append(Span(ByteRange(start, stop - start), tuple(members)))
    return spans


def plan(ranges: Sequence[ByteRange]) -> list[Span]:
    """`coalesce` with the limits every store uses."""
    return coalesce(ranges, gap_max=RANGE_GAP_MAX, length_max=RANGE_LENGTH_MAX)


def cut(ranges: Sequence[ByteRange], spans: Sequence[Span], bodies: Sequence[Body]) -> list[bytes]:
    """The bytes of each range, in the caller's order, out of the bodies of the spans."""
    parts = [b""] * len(ranges)
    for span, body in zip(spans, bodies, strict=True):
        for position in span.members:
            start = ranges[position].offset - span.range.offset
            parts[position] = bytes(body[start : start + ranges[position].length])
    return parts


def parts(whole: ByteRange) -> list[ByteRange]:
    """A range as requests side by side: one up to RANGE_LENGTH_MAX, never more than PARTS_MAX."""
    length = max(RANGE_LENGTH_MAX, -(-whole.length // PARTS_MAX))
    starts = range(whole.offset, whole.stop, length) if whole.length else (whole.offset,)
    return [ByteRange(start, min(length, whole.stop - start)) for start in starts]
