"""Why a bundle says what it says: the built bundle of a digest, and the stored lines it was made from.

No index leads from a digest to its bundle, and none is kept for so rare a question: the directories of bundle days
list the digests, so they are read, the newest days first, until one has it. What the caller knows beside the digest
narrows that: with entity, spec and day it is one section of one directory. A bundle that was replaced is found under
the snapshot it was read at, where its citations lead to the very lines; bundles on demand are stored nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import orjson

from context_plane.bundle.pack import bucket_of
from context_plane.catalog.bundles import Bucket, BundleEntry, decode_bucket
from context_plane.catalog.manifest import BundleDay
from context_plane.errors import NotFound
from context_plane.layout.pack import decode_block
from context_plane.model import add_days, day_end_us, day_of, day_start_us
from context_plane.recall.assemble import Assembled
from context_plane.recall.bundles import Bundles
from context_plane.recall.listing import Listing
from context_plane.recall.present import Place, Presenter, segment_of
from context_plane.recall.tail_view import TailView
from context_plane.recall.values import BundleInputs, CitedEvent, InputSegment
from context_plane.retrieval.reader import Reader
from context_plane.retrieval.snapshots import Outline, without_tail
from context_plane.store.base import ByteRange

DIRECTORIES_MAX: Final = 128
"""Looked through for one digest: some months of one spec, and about a megabyte each for ten thousand entities."""
PARALLEL_DIRECTORIES: Final = 8


class _Found(NamedTuple):
    spec: str
    as_of: str
    entry: BundleDay
    bucket: Bucket
    place: BundleEntry


class Why:
    """The journey from a digest to sources, of one process."""

    def __init__(self, reader: Reader, listing: Listing, bundles: Bundles) -> None:
        self._reader = reader
        self._listing = listing
        self._bundles = bundles
        self._presenter = Presenter(reader)

    async def why(
        self,
        tenant: str,
        digest: str,
        *,
        entity: str | None = None,
        spec: str | None = None,
        as_of: str | None = None,
        snapshot: str | None = None,
    ) -> BundleInputs:
        """The inputs of the built bundle of that digest (64 hex). Raises `NotFound(bundle_not_found | spec_not_found)`
        and what a snapshot may raise."""
        cut = await self._bundles.cut(tenant, snapshot, None)
        found = await self._find(cut, digest, entity, spec, as_of)
        built = self._bundles.day(cut, found.spec, found.as_of)
        body = orjson.loads(await self._bundles.body(found.bucket, found.place))
        lookback = self._bundles.spec(found.spec).lookback_days
        since_us, until_us = day_start_us(add_days(found.as_of, 1 - lookback)), day_end_us(found.as_of)
        view = TailView.of(without_tail(cut))
        parts = await self._listing.entity_parts(view, found.place.entity, since_us, until_us)
        places = await asyncio.to_thread(lambda: dict(_live(parts, since_us, until_us)))
        return BundleInputs(
            digest=digest,
            entity=found.place.entity,
            spec=found.spec,
            as_of=found.as_of,
            freshness=built.freshness,
            snapshot=cut.id,
            spec_fingerprint=found.entry.spec_fingerprint,
            sources=found.entry.sources,
            built_us=found.entry.built_us,
            pack=found.bucket.key,
            since_us=since_us,
            until_us=until_us,
            segments=_segments(parts, places),
            citations=await self._cited(view, parts, places, body["citations"]),
        )

    async def _find(self, cut: Outline, digest: str, entity: str | None, spec: str | None, as_of: str | None) -> _Found:
        candidates = self._candidates(cut, spec, as_of)
        for start in range(0, min(len(candidates), DIRECTORIES_MAX), PARALLEL_DIRECTORIES):
            some = candidates[start : start + PARALLEL_DIRECTORIES]
            looked = await asyncio.gather(*(self._look(entry, digest, entity) for _, _, entry in some))
            for (day, name, entry), found in zip(some, looked, strict=True):
                if found is not None and not cut.erasures.hides_built(found[1].entity, entry.erasures):
                    return _Found(name, day, entry, *found)
        raise NotFound(
            "bundle_not_found",
            "no built bundle of the cut has that digest; one that was replaced needs the snapshot it was read at, one "
            "of an older day its spec and as_of, and bundles on demand are not stored",
            snapshot=cut.id,
            looked_through=min(len(candidates), DIRECTORIES_MAX),
        )

    def _candidates(self, cut: Outline, spec: str | None, as_of: str | None) -> list[tuple[str, str, BundleDay]]:
        """(day, spec, bundles), the newest days first. Specs this process does not have cannot be explained."""
        if as_of is not None:
            day_start_us(as_of)
        names = self._bundles.names() if spec is None else [self._bundles.spec(spec).name]
        found = [
            (day, name, entry)
            for name in names
            for day, entry in cut.manifest.bundles.get(name, {}).items()
            if as_of is None or day == as_of
        ]
        return sorted(found, key=lambda one: one[:2], reverse=True)

    async def _look(self, entry: BundleDay, digest: str, entity: str | None) -> tuple[Bucket, BundleEntry] | None:
        spans = entry.directory.ranges
        if entity is not None:
            bucket = await self._bundles.bucket(entry, bucket_of(entity, len(spans)))
            place = bucket.find(entity)
            return None if place is None or place.digest != digest else (bucket, place)
        whole = ByteRange(spans[0].offset, spans[-1].stop - spans[0].offset)
        stored = await self._reader.cache.raw(entry.directory.key, byte_range=whole)
        return await asyncio.to_thread(_scan, stored, spans, digest)

    async def _cited(
        self, view: TailView, parts: Assembled, places: dict[tuple[str, str], _Event], cited: Sequence[dict[str, str]]
    ) -> tuple[CitedEvent, ...]:
        held = [places.get((one["day"], one["id"])) for one in cited]
        same = [
            place if place is not None and place.digest == one["digest"] else None
            for place, one in zip(held, cited, strict=True)
        ]
        shown = [Place(place.part, place.event) for place in same if place is not None]
        events = iter(await self._presenter.events(view, parts, shown))
        return tuple(
            CitedEvent(one["day"], one["id"], one["digest"], None if place is None else next(events))
            for one, place in zip(cited, same, strict=True)
        )


class _Event(NamedTuple):
    part: int
    event: int
    digest: str


def _scan(stored: bytes, spans: Sequence[ByteRange], digest: str) -> tuple[Bucket, BundleEntry] | None:
    """`stored`: the sections of a directory, one behind the other. Only the one that has the digest is decoded."""
    for span in spans:
        start = span.offset - spans[0].offset
        frame = stored[start : start + span.length]
        if digest.encode() not in decode_block(frame):
            continue
        bucket = decode_bucket(frame)
        for place in bucket.entries:
            if place.digest == digest:
                return bucket, place
    return None


def _live(parts: Assembled, since_us: int, until_us: int) -> Iterator[tuple[tuple[str, str], _Event]]:
    """(day, id) of each live event of the window, and where it is."""
    for number, part in enumerate(parts.parts):
        rows = part.rows
        within = (rows.event_ts_us >= since_us) & (rows.event_ts_us < until_us)
        if part.live is not None:
            within &= part.live
        for event in np.flatnonzero(within).tolist():
            digest = rows.event_digest[event].tobytes().hex()
            yield (day_of(int(rows.event_ts_us[event])), rows.ids[event]), _Event(number, event, digest)


def _segments(parts: Assembled, places: dict[tuple[str, str], _Event]) -> tuple[InputSegment, ...]:
    """Ascending by day."""
    counts: dict[tuple[str, str], int] = {}
    for (day, _), place in places.items():
        period = parts.sources[place.part].period
        assert period is not None, "nothing here is from the tail"
        columns = parts.parts[place.part].columns
        key = segment_of(period, columns, int(columns.rows.event_ts_us[place.event]))
        counts[day, key] = counts.get((day, key), 0) + 1
    return tuple(InputSegment(day, key, events) for (day, key), events in sorted(counts.items()))
