"""The built state of one day, whether the day is open or inside a rolled month."""

from __future__ import annotations

import asyncio
from typing import Protocol

from context_plane.catalog.lists import SegmentEntry, decode_days, decode_segments
from context_plane.catalog.manifest import DayEntry, Manifest, SegmentListRef
from context_plane.errors import Corrupt
from context_plane.model import sha256_hex
from context_plane.store.base import Store


class HasSegments(Protocol):
    """A published or staged day."""

    @property
    def segments(self) -> SegmentListRef | None: ...


async def load_day(store: Store, manifest: Manifest, day: str) -> DayEntry | None:
    """The day's entry; for a day of a rolled month, from the month's list. None when nothing was built."""
    entry = manifest.days.get(day)
    month = manifest.months.get(day[:7])
    if entry is not None or month is None or day in month.masked or day not in month.covered:
        return entry
    return decode_days(await store.get(month.days.key)).get(day)


async def load_days(store: Store, manifest: Manifest) -> dict[str, DayEntry]:
    """Entries of every built day, ascending: open days, and those of rolled months. One GET for each month."""
    found: dict[str, DayEntry] = {}
    for month in manifest.months.values():
        held = decode_days(await store.get(month.days.key))
        found |= {day: entry for day, entry in held.items() if day not in month.masked}
    return dict(sorted({**found, **manifest.days}.items()))


async def load_segments(store: Store, entry: HasSegments | None) -> list[SegmentEntry]:
    """The day's segments, ascending by entity. Raises `Corrupt` for a list that is not what was written."""
    if entry is None or entry.segments is None:
        return []
    stored = await store.get(entry.segments.key)
    if await asyncio.to_thread(sha256_hex, stored) != entry.segments.sha256:
        raise Corrupt("corrupt_object", "a segment list does not match its recorded digest", key=entry.segments.key)
    return decode_segments(stored)
