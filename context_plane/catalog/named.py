"""Everything a manifest keeps alive: the objects it names, and what the lists it names name in turn.

Lists are a day's segment list, a month's list of days, and a bundle day's directory. Day shards of a
rolled month stay named through the month's list: an erasure opens the month again from them, and a late
day reuses their vectors. Lists are immutable, so what one names is read once per key.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Final, TypeAlias

from context_plane.catalog.bundles import Bucket, decode_bucket
from context_plane.catalog.days import load_segments
from context_plane.catalog.lists import decode_days
from context_plane.catalog.manifest import BundleDay, DayEntry, Manifest, PackRef, shard_keys
from context_plane.errors import Corrupt, NotFound
from context_plane.layout.pack import decode_page, find, page_of
from context_plane.store.base import ByteRange, Store

PARALLEL_LISTS: Final = 32
"""Lists read at once: they hide latency, and a decoded one is some megabytes at most."""

NamedCache: TypeAlias = MutableMapping[str, frozenset[str]]
"""Key of a list -> the keys it names."""


async def named_keys(store: Store, manifest: Manifest, cache: NamedCache) -> set[str]:
    """Keys of every object that a reader of `manifest` may need. Raises `NotFound` when a list of segments or of a
    month's days is gone; a lost or damaged directory of bundles keeps every object of its spec and day."""
    gate = asyncio.Semaphore(PARALLEL_LISTS)
    named = set(manifest.keys())
    days = list(manifest.days.items())
    for month in manifest.months.values():
        rolled = decode_days(await store.get(month.days.key))
        days += rolled.items()

    async def of_day(day: str, entry: DayEntry) -> frozenset[str]:
        if entry.segments is None:
            return frozenset()
        if entry.segments.key not in cache:
            async with gate:
                segments = await load_segments(store, entry)
            cache[entry.segments.key] = frozenset(s.key(manifest.tenant, day) for s in segments)
        return cache[entry.segments.key] | {entry.segments.key}

    async def of_bundles(bundles: BundleDay) -> frozenset[str]:
        key = bundles.directory.key
        if key not in cache:
            async with gate:
                buckets = await read_buckets(store, bundles)
            if buckets is None:  # it may have named any pack of its spec and day
                folder = key.rpartition("/")[0] + "/"
                return frozenset([info.key async for info in store.list(folder)])
            cache[key] = frozenset(bucket.key for bucket in buckets if bucket.key)
        return cache[key]

    bundle_days = [bundles for by_day in manifest.bundles.values() for bundles in by_day.values()]
    bundle_days += [pending.bundles for by_day in manifest.pending.values() for pending in by_day.values()]
    lists = [*(of_day(day, entry) for day, entry in days), *(of_bundles(bundles) for bundles in bundle_days)]
    for keys in await asyncio.gather(*lists):
        named |= keys
    for _, entry in days:
        if entry.shards is not None:
            named.update(shard_keys(entry.shards))
    return named


async def load_buckets(store: Store, bundles: BundleDay) -> list[Bucket]:
    """The whole directory of a bundle day, in one read."""
    spans = [ByteRange(span.offset, span.length) for span in bundles.directory.sections]
    return [decode_bucket(frame) for frame in await store.get_ranges(bundles.directory.key, spans)]


async def read_buckets(store: Store, bundles: BundleDay) -> list[Bucket] | None:
    """The same; None where it is lost or damaged: bundles are disposable, and made again.

    Raises `Unavailable`: a store that does not answer tells nothing of what is there."""
    try:
        return await load_buckets(store, bundles)
    except (Corrupt, NotFound):
        return None


async def holds(store: Store, pack: PackRef, key: str) -> bool:
    """Whether a pack has a block for `key`: one range read of the only directory page that can tell."""
    page = page_of(pack.layout_pages(), key)
    if page is None:
        return False
    frame = await store.get_range(pack.key, ByteRange(page.offset, page.length))
    return find(decode_page(frame), key) is not None
