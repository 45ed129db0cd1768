"""Changes: which entities' events or bundles are others than at an earlier snapshot.

Events change by writes: those that the newer cut shows and the older one did not, in write order. They are read from
the log, so a page costs what was written, not what is stored; a write of the same content counts. Then come bundles
whose digest differs, by day, spec and bucket. A page reads a bounded number of batches and buckets, so it may be
short or empty while there is more; no page names a change twice, but events of an entity may stand on several pages.

The older snapshot must still be readable, so a batch written after it is still there; where an erasure or a
collection ended it, that is what is said. What a retention took away is no change of an entity.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from context_plane.bundle.pack import bucket_of
from context_plane.catalog.bundles import Bucket
from context_plane.catalog.log import LogObject, list_log
from context_plane.catalog.manifest import BundleDay
from context_plane.catalog.tail import Batch, check_dense, check_whole, read_body, read_headers
from context_plane.engine import Engine
from context_plane.errors import Invalid
from context_plane.layout.batch import decode_names
from context_plane.recall.ahead import in_order
from context_plane.recall.bundles import Bundles
from context_plane.recall.values import Change, ChangesAnswer, ChangesPosition, ChangesRequest
from context_plane.retrieval.snapshots import Outline, Snapshots

BATCHES_MAX: Final = 64
"""Read for one page: as many as a full tail has."""
BUCKETS_MAX: Final = 256
"""Looked at for one page: some 60,000 bundles."""
BATCHES_AHEAD: Final = 4
"""Read ahead of the one looked at: each may hold 32 MiB."""
BUCKETS_AHEAD: Final = 16
LOG: Final = ""
BUNDLES: Final = "0"
"""Parts of the listing in their order; those of bundles begin with their day."""
_Pair: TypeAlias = tuple[BundleDay | None, BundleDay | None]
"""Bundles of one spec and day at the older and at the newer cut."""


@dataclass(slots=True)
class _Page:
    limit: int
    found: dict[Change, None] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        return len(self.found) >= self.limit

    def add(self, change: Change) -> None:
        self.found[change] = None


class Changes:
    """The journey of what changed, of one process."""

    def __init__(self, engine: Engine, snapshots: Snapshots, bundles: Bundles) -> None:
        self._store = engine.store
        self._snapshots = snapshots
        self._bundles = bundles

    async def changes(self, tenant: str, request: ChangesRequest) -> ChangesAnswer:
        """One page. Raises `NotFound(snapshot_expired | snapshot_erased | snapshot_not_found)`, `Invalid`."""
        old = await self._snapshots.pinned_outline(tenant, request.since)
        if request.snapshot is None:
            new = await self._snapshots.outline(tenant, "strong")
        else:
            new = await self._snapshots.pinned_outline(tenant, request.snapshot)
        if new.log_number < old.log_number or new.manifest.version < old.manifest.version:
            raise Invalid("query_invalid", "since is newer than snapshot", since=old.id, snapshot=new.id)
        page = _Page(request.limit)
        position = request.position or ChangesPosition(LOG, 0, 0)
        following: ChangesPosition | None = position
        if position.part == LOG:
            following = await self._of_log(old, new, position, page) or ChangesPosition(BUNDLES, 0, 0)
        if following is not None and following.part != LOG:
            following = await self._of_bundles(old, new, following, page)
        return ChangesAnswer(tuple(page.found), following, old.id, new.id)

    # --- events ---------------------------------------------------------------------------------

    async def _of_log(
        self, old: Outline, new: Outline, position: ChangesPosition, page: _Page
    ) -> ChangesPosition | None:
        """Where the page ends within the log; None when the log is done."""
        objects = await self._shown_since(old, new, position.number)
        headers = await read_headers(self._store, new.tenant, objects[:BATCHES_MAX])
        check_whole(headers)
        shown = [batch for batch in headers if any(_shown(old, new, batch, day) for day in batch.header.days)]
        async with aclosing(
            in_order(shown, lambda batch: self._names(new.tenant, batch), ahead=BATCHES_AHEAD)
        ) as bodies:
            async for batch, names in bodies:
                first = position.line if batch.number == position.number else 0
                for line, (entity, day) in enumerate(names[first:], first):
                    if page.full:
                        return ChangesPosition(LOG, batch.number, line)
                    if _shown(old, new, batch, day) and not new.erasures.hides_log(entity, batch.number):
                        page.add(Change(entity))
        return ChangesPosition(LOG, objects[BATCHES_MAX].number, 0) if len(objects) > BATCHES_MAX else None

    async def _shown_since(self, old: Outline, new: Outline, first: int) -> list[LogObject]:
        """Batches from number `first` on that the newer cut may show more of: those written since the older one, and
        before them the bulk loads that it did not show. Ascending."""
        after = max(old.log_number, first - 1)
        listed = [
            item for item in await list_log(self._store, new.tenant, after=after) if item.number <= new.log_number
        ]
        check_dense(listed, after, max(after, new.log_number))
        waiting = {batch.number for batch in old.pending if batch.header.visible == "after_build"}
        held = [item for item in old.objects if item.number in waiting and first <= item.number <= after]
        return held + listed

    async def _names(self, tenant: str, batch: Batch) -> tuple[Batch, list[tuple[str, str]]]:
        body = await read_body(self._store, tenant, batch)
        return batch, await asyncio.to_thread(decode_names, batch.header, body)

    # --- bundles --------------------------------------------------------------------------------

    async def _of_bundles(
        self, old: Outline, new: Outline, position: ChangesPosition, page: _Page
    ) -> ChangesPosition | None:
        """Where the page ends within the bundles; None when that was all."""
        left = BUCKETS_MAX
        for part, day, spec in _bundle_days(old, new):
            if part < position.part:
                continue
            before, after = _entry(old, day, spec), _entry(new, day, spec)
            first, line = (position.number, position.line) if part == position.part else (0, 0)
            count = max(len(entry.directory.sections) for entry in (before, after) if entry is not None)
            asked = range(first, min(count, first + left))

            async def compare(number: int, count: int = count, pair: _Pair = (before, after)) -> tuple[int, list[str]]:
                return number, await self._differing(new, pair, number, count)

            async with aclosing(in_order(asked, compare, ahead=BUCKETS_AHEAD)) as buckets:
                async for number, names in buckets:
                    for place, name in enumerate(names[line:], line):
                        if page.full:
                            return ChangesPosition(part, number, place)
                        page.add(Change(name, spec, day))
                    line = 0
            left -= len(asked)
            if asked.stop < count or not left:
                return ChangesPosition(part, asked.stop, 0)
        return None

    async def _differing(self, cut: Outline, pair: _Pair, number: int, count: int) -> list[str]:
        """Entities of one bucket out of `count` whose bundle differs between the two days, ascending."""
        held = await asyncio.gather(*(self._bucket(entry, number) for entry in pair))
        if held[0] is not None and held[1] is not None and held[0].digest == held[1].digest:
            return []
        before, after = (_digests(cut, entry, bucket, number, count) for entry, bucket in zip(pair, held, strict=True))
        return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))

    async def _bucket(self, entry: BundleDay | None, number: int) -> Bucket | None:
        """The bucket that holds those of a finer division."""
        if entry is None:
            return None
        return await self._bundles.bucket(entry, number & (len(entry.directory.sections) - 1))


def _digests(cut: Outline, entry: BundleDay | None, bucket: Bucket | None, number: int, count: int) -> dict[str, str]:
    """Entity -> digest, of the bundles that bucket `number` of `count` holds and no erasure hides."""
    if entry is None or bucket is None:
        return {}
    return {
        place.entity: place.digest
        for place in bucket.entries
        if bucket_of(place.entity, count) == number and not cut.erasures.hides_built(place.entity, entry.erasures)
    }


def _shown(old: Outline, new: Outline, batch: Batch, day: str) -> bool:
    """Whether the newer cut shows the batch's writes of a day and the older one did not."""
    return _shows(new, batch, day) and not _shows(old, batch, day)


def _shows(cut: Outline, batch: Batch, day: str) -> bool:
    if batch.number <= cut.manifest.covered(day):
        return True
    return batch.header.visible == "now" and batch.number <= cut.log_number


def _entry(cut: Outline, day: str, spec: str) -> BundleDay | None:
    return cut.manifest.bundles.get(spec, {}).get(day)


def _bundle_days(old: Outline, new: Outline) -> Iterator[tuple[str, str, str]]:
    """(part, day, spec) of the bundle days that came or were made again; ascending. Those that went are no change:
    a retention or a retired spec took them away."""
    specs = old.manifest.bundles.keys() | new.manifest.bundles.keys()
    pairs = {
        (day, spec)
        for spec in specs
        for day in old.manifest.bundles.get(spec, {}).keys() | new.manifest.bundles.get(spec, {}).keys()
    }
    for day, spec in sorted(pairs):
        before, after = _entry(old, day, spec), _entry(new, day, spec)
        if after is not None and (before is None or before.directory.key != after.directory.key):
            yield f"{day} {spec}", day, spec
