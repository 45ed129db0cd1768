"""What counts as a round trip."""

from __future__ import annotations

import asyncio

import pytest

from context_plane.errors import NotFound
from context_plane.store import ByteRange, CountingStore, trace
from tests.store.dictionary import DictStore


@pytest.fixture
def counting() -> CountingStore:
    return CountingStore(DictStore({f"k/{n:04d}": b"0123456789" for n in range(1500)}))


async def test_parallel_requests_are_one_round_trip_and_sequential_ones_are_each_one(counting: CountingStore) -> None:
    """Seen to fail when every request opens a round."""
    with counting.trace() as counted:
        await asyncio.gather(*(counting.get(f"k/{n:04d}") for n in range(64)))
        assert (counted.round_trips, counted.gets, counted.bytes_read) == (1, 64, 640)
        await counting.get("k/0000")
        await counting.put("k/0000", b"abc")
        assert (counted.round_trips, counted.puts, counted.bytes_written) == (3, 1, 3)


async def test_overlapping_chains_count_the_longest(counting: CountingStore) -> None:
    async def chain(length: int) -> None:
        for _ in range(length):
            await counting.get("k/0000")

    with counting.trace() as counted:
        await asyncio.gather(chain(2), chain(4), chain(3))
    assert counted.round_trips == 4
    assert counted.gets == 9


async def test_concurrent_traces_keep_apart_and_nested_ones_add_up(counting: CountingStore) -> None:
    async def request(gets: int) -> tuple[int, int]:
        with counting.trace() as counted:
            for _ in range(gets):
                await counting.get("k/0000")
        return counted.gets, counted.round_trips

    with trace() as outer:
        assert list(await asyncio.gather(request(1), request(5))) == [(1, 1), (5, 5)]
    assert outer.gets == counting.total.gets == 6


async def test_ranges_count_what_they_coalesce_into_and_lists_their_pages(counting: CountingStore) -> None:
    with counting.trace() as counted:
        await counting.get_ranges("k/0001", [ByteRange(0, 2), ByteRange(4, 2), ByteRange(10_000_000, 1)])
        assert (counted.gets, counted.round_trips, counted.bytes_read) == (2, 1, 7)
        assert len([info async for info in counting.list("k/")]) == 1500
        assert (counted.lists, counted.round_trips) == (2, 3)
        await counting.delete(["k/0000"])
        with pytest.raises(NotFound):
            await counting.get("k/0000")
        assert (counted.deletes, counted.gets, counted.round_trips) == (1, 3, 5)
