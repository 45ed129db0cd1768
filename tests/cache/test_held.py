"""Looking into the memory tier without a task."""

from __future__ import annotations

import asyncio

import pytest

from context_plane.cache.tiers import Cache, track_lookups
from context_plane.store import CountingStore
from context_plane.store.base import ByteRange
from tests.store.dictionary import DictStore

SPAN = ByteRange(1, 2)


def cache_of(objects: dict[str, bytes]) -> Cache:
    return Cache(CountingStore(DictStore(objects)), 1 << 20, None)


async def test_what_is_held_is_what_a_read_gives_and_counts_the_same() -> None:
    """Seen to fail with `held` that does not count, and with a name that leaves the form out."""
    cache = cache_of({"k": b"abcd"})
    assert cache.held_value("k", SPAN, "upper") is None
    assert await cache.value("k", bytes.upper, byte_range=SPAN, form="upper") == b"BC"
    assert cache.held_value("k", SPAN, "other") is None
    assert cache.stats.memory_hits == 0
    lookups = track_lookups()
    assert cache.held_value("k", SPAN, "upper") == b"BC"
    assert await cache.value("k", bytes.upper, byte_range=SPAN, form="upper") == b"BC"
    assert (cache.stats.memory_hits, lookups.memory, lookups.cold) == (2, 2, 0)


async def test_a_derived_value_is_held_under_its_name() -> None:
    cache = cache_of({})

    async def load() -> tuple[str, int]:
        return "made", 10

    assert cache.held("name") is None
    assert await cache.derived("name", load) == "made"
    assert cache.held("name") == "made"


async def test_a_hit_starts_no_task() -> None:
    """Seen to fail with hits that go through the flights."""
    cache = cache_of({"k": b"abcd"})
    await cache.value("k", bytes)
    before = asyncio.all_tasks()
    with pytest.raises(StopIteration) as done:
        cache.value("k", bytes).send(None)
    assert done.value.value == b"abcd"
    assert asyncio.all_tasks() == before
