"""Fleet reads: the bundles of many entities at one cut, as a stream whose memory does not grow with them.

The entities, in the order asked or in key order, are cut into windows of some megabytes of stored bundles. What a
window needs of each pack is read in as few ranges as its places allow: all of it for a whole tenant of ordinary size.
A bundle is sent as soon as its range is here, while the rest of its window and the next one are on their way. Held at
once: the ranges of two windows, and the places of the entities, some 300 bytes each.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from context_plane.bundle.pack import bucket_of
from context_plane.cache.tiers import Lookups, track_lookups
from context_plane.catalog.bundles import Bucket, BundleEntry
from context_plane.errors import PlaneError
from context_plane.layout.pack import decode_block
from context_plane.recall.assemble import abandon
from context_plane.recall.bundles import BuiltDay, Bundles, answer_of
from context_plane.recall.values import BundleAnswer
from context_plane.retrieval.reader import Reader
from context_plane.retrieval.snapshots import Consistency, Outline
from context_plane.store.base import ByteRange

WINDOW_BYTES: Final = 8 * 1024 * 1024
"""Stored bundles of one window: some twenty thousand of a growth agent's, and twice as much decoded."""
WINDOW_ENTITIES_MAX: Final = 65_536
READ_BYTES_MAX: Final = 2 * WINDOW_BYTES
"""Of one window with what is read along. Entities strewn over a far larger tenant need smaller windows."""
GAP_BYTES: Final = 32 * 1024
"""Bytes between two wanted bundles that are read along: less than a request would cost."""
PARALLEL_READS: Final = 64
"""Directory sections or ranges of packs in flight for one answer: half of what a tenant may have."""

FleetItems: TypeAlias = AsyncGenerator[BundleAnswer | tuple[str, PlaneError], None]
"""Bundles, and for entities without one why there is none."""
_Place: TypeAlias = tuple[str, Bucket | None, BundleEntry | None]
"""An entity, and where its bundle is."""
_Bodies: TypeAlias = Mapping[int, bytes]
"""Bundles of a range, by their offset in the pack."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Entities in order, and the ranges that hold their bundles, as they are first needed."""

    places: Sequence[_Place] = ()
    ranges: Sequence[tuple[Bucket, ByteRange]] = ()
    range_of: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """(pack, offset) of a bundle -> number of its range."""


@dataclass(frozen=True, slots=True)
class _Window:
    """A run whose ranges are being read."""

    run: _Run
    reads: Sequence[asyncio.Task[_Bodies]]

    async def body(self, home: Bucket, place: BundleEntry) -> bytes:
        return (await self.reads[self.run.range_of[home.key, place.offset]])[place.offset]

    def end(self) -> None:
        for read in self.reads:
            abandon(read)


class Fleet:
    """The journey of many bundles, of one process."""

    def __init__(self, reader: Reader, bundles: Bundles) -> None:
        self._cache = reader.cache
        self._bundles = bundles

    async def batch(
        self,
        tenant: str,
        entities: Sequence[str] | None,
        *,
        spec: str,
        as_of: str | None,
        snapshot: str | None,
        consistency: Consistency = "eventual",
    ) -> tuple[str, FleetItems]:
        """The cut, and one item per entity, in the order asked, or in key order for every entity (None)."""
        self._bundles.spec(spec)
        lookups = track_lookups()
        cut = await self._bundles.cut(tenant, snapshot, None, consistency)
        return cut.id, self._items(cut, self._bundles.day(cut, spec, as_of), entities, lookups)

    async def _items(
        self, cut: Outline, built: BuiltDay, entities: Sequence[str] | None, lookups: Lookups
    ) -> FleetItems:
        count, gate = len(built.entry.directory.sections), asyncio.Semaphore(PARALLEL_READS)
        wanted = await asyncio.to_thread(_numbers, entities, count)

        async def bucket(number: int) -> Bucket:
            async with gate:
                return await self._bundles.bucket(built.entry, number)

        held = dict(zip(wanted, await asyncio.gather(*map(bucket, wanted)), strict=True))
        runs = _runs(_all(held) if entities is None else _asked(held, entities, count))
        current = self._begin(await asyncio.to_thread(next, runs, _Run()), gate)
        following = _Window(_Run(), ())
        try:
            following = self._begin(await asyncio.to_thread(next, runs, _Run()), gate)
            while current.run.places:
                for name, home, place in current.run.places:
                    if home is None or place is None or cut.erasures.hides_built(name, built.entry.erasures):
                        if entities is not None:
                            yield name, await self._bundles.absent(cut, name, built.as_of)
                        continue
                    yield answer_of(built, place, await current.body(home, place), lookups.temperature)
                current.end()
                current, following = following, _Window(_Run(), ())
                following = self._begin(await asyncio.to_thread(next, runs, _Run()), gate)
        finally:
            current.end()
            following.end()

    def _begin(self, run: _Run, gate: asyncio.Semaphore) -> _Window:
        return _Window(run, [asyncio.ensure_future(self._read(home, span, gate)) for home, span in run.ranges])

    async def _read(self, home: Bucket, span: ByteRange, gate: asyncio.Semaphore) -> _Bodies:
        def decode(stored: bytes) -> _Bodies:
            view = memoryview(stored)
            return {
                place.offset: decode_block(view[place.offset - span.offset : place.offset - span.offset + place.length])
                for place in home.entries
                if span.offset <= place.offset and place.offset + place.length <= span.stop
            }

        async with gate:
            return await self._cache.value(home.key, decode, byte_range=span, form="bundles")


def _numbers(entities: Sequence[str] | None, count: int) -> Sequence[int]:
    """Of the buckets that hold these entities."""
    return range(count) if entities is None else sorted({bucket_of(name, count) for name in entities})


def _all(held: Mapping[int, Bucket]) -> Iterator[_Place]:
    """Every bundle, by entity."""
    return heapq.merge(*map(_places, held.values()), key=lambda place: place[0])


def _places(bucket: Bucket) -> Iterator[_Place]:
    return ((place.entity, bucket, place) for place in bucket.entries)


def _asked(held: Mapping[int, Bucket], entities: Iterable[str], count: int) -> Iterator[_Place]:
    for name in entities:
        home = held[bucket_of(name, count)]
        yield name, home, home.find(name)


def _runs(places: Iterable[_Place]) -> Iterator[_Run]:
    """The places cut into runs of about a window, each with its ranges. Pure."""
    run: list[_Place] = []
    size = 0
    for place in places:
        run.append(place)
        size += 0 if place[2] is None else place[2].length
        if size >= WINDOW_BYTES or len(run) >= WINDOW_ENTITIES_MAX:
            yield from _bounded(run)
            run, size = [], 0
    if run:
        yield from _bounded(run)


def _bounded(places: Sequence[_Place]) -> Iterator[_Run]:
    """The places as runs that read READ_BYTES_MAX at most. Pure."""
    run, middle = _run(places), len(places) // 2
    if not middle or sum(span.length for _, span in run.ranges) <= READ_BYTES_MAX:
        yield run
        return
    yield from _bounded(places[:middle])
    yield from _bounded(places[middle:])


def _run(places: Sequence[_Place]) -> _Run:
    homes: dict[str, tuple[Bucket, list[BundleEntry]]] = {}
    for _, home, place in places:
        if home is not None and place is not None:
            homes.setdefault(home.key, (home, []))[1].append(place)
    ranges: list[tuple[Bucket, ByteRange]] = []
    range_of: dict[tuple[str, int], int] = {}
    for home, wanted in homes.values():
        for span in _spans(wanted):
            inside = (place.offset for place in wanted if span.offset <= place.offset < span.stop)
            range_of |= {(home.key, offset): len(ranges) for offset in inside}
            ranges.append((home, span))
    return _Run(places, ranges, range_of)


def _spans(wanted: Iterable[BundleEntry]) -> list[ByteRange]:
    """Ranges of a pack that hold these bundles, ascending; what lies between two is read along where it is short.
    Pure."""
    spans: list[ByteRange] = []
    for place in sorted(set(wanted), key=lambda place: place.offset):
        last = spans[-1] if spans else None
        if last is not None and place.offset - last.stop <= GAP_BYTES:
            spans[-1] = ByteRange(last.offset, place.offset + place.length - last.offset)
        else:
            spans.append(ByteRange(place.offset, place.length))
    return spans
