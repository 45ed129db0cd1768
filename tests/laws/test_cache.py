"""Caches: they survive restarts, keep their budgets, fetch once, and share a folder without coordination."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from context_plane.cache.disk import SCANS_PER_BUDGET, DiskCache
from context_plane.cache.folders import Folders
from context_plane.cache.tiers import Cache
from context_plane.errors import Corrupt, Unavailable
from context_plane.store import ByteRange, CountingStore, ranges
from context_plane.store.faults import FaultyStore, Mishap
from context_plane.store.pieces import Pieces
from tests.laws.plane_world import BEACON, TENANT, World, event, ids, month_of, puts
from tests.store.dictionary import DictStore

QUERY = replace(BEACON, mode="hybrid", limit=10)


async def built(world: World) -> None:
    plane = world.plane()
    await world.write(plane, puts(month_of(3, entities=2)))
    await plane.build(TENANT, world.days())


async def test_a_restarted_process_reads_its_disk(world: World) -> None:
    """Entities, tenant and bundles: manifests and the log are asked, built objects are not.

    Seen to fail with vector shards read past the cache.
    """
    await built(world)
    folder = world.folder / "kept"
    first, second = world.plane(cache=folder), world.plane(cache=folder)
    lost = Mishap(lost="request")
    for plane, mishap in ((first, Mishap()), (second, lost)):
        with world.faults.on("/indexes/", mishap), world.faults.on("/bundles/", mishap):
            answers = [await plane.search(TENANT, replace(QUERY, entities=scope)) for scope in (None, ("acct-01",))]
            bundle = await plane.bundle(TENANT, "acct-01", spec="law_v0")
        await plane.cache.settled()  # the disk is written behind the reads
        assert not any(answer.partial for answer in answers)
    assert first.cache.stats.misses > 0
    assert second.cache.stats.misses == 0
    assert (second.cache.stats.disk_hit_ratio, 0 < second.cache.stats.memory_hit_ratio < 1) == (1.0, True)
    assert {answer.stats.cache for answer in answers} <= {"disk", "memory"}
    assert bundle.cache == "disk"


async def test_emptied_caches_read_as_a_new_process_does(world: World) -> None:
    """Seen to fail with each of the four left as it was."""
    await built(world)
    first = world.plane()
    costs = []
    for each in (first, first, world.plane()):
        if each is first:
            first.folders.get("unpacked", lambda target: (target / "file").touch())
            await first.empty_caches()
            assert not any(path.is_file() for path in first.settings.cache_folder.rglob("*"))
        before, asked = each.store.total.gets, world.embedder.queries
        answer = await each.search(TENANT, QUERY)
        assert answer.stats.cache == "cold"
        costs.append((each.store.total.gets - before, world.embedder.queries - asked))
    assert costs[0] == costs[1] == costs[2]


async def test_concurrent_reads_of_one_thing_fetch_it_once(world: World) -> None:
    """Fifty at once cost what one costs. Seen to fail with `_once` that never joins."""
    await built(world)
    world.faults.delay_s = 0.05
    alone = world.plane()
    await alone.search(TENANT, replace(QUERY, entities=("acct-01",), consistency="eventual"))
    plane = world.plane()
    same = replace(QUERY, entities=("acct-01",), consistency="eventual")
    answers = await asyncio.gather(*(plane.search(TENANT, same) for _ in range(50)))
    assert len({tuple(hit.id for hit in answer.hits) for answer in answers}) == 1
    assert plane.cache.stats.misses == alone.cache.stats.misses
    assert plane.store.total.gets == alone.store.total.gets


async def test_a_long_range_is_fetched_by_requests_side_by_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In one round, and is one entry. Its parts are kept on disk each by itself, so what came before a failure is not
    fetched again, and damage there is not taken for the object's. Seen to fail with parts awaited in turn, with the
    whole kept on disk instead, and with a damaged part that stays there."""
    monkeypatch.setattr(ranges, "RANGE_LENGTH_MAX", 10)
    body, span = bytes(range(100)), ByteRange(3, 45)
    mishaps = iter([Mishap(delay_s=0.05, lost="request")])

    def plan(operation: str, key: str) -> Mishap:
        return next(mishaps, Mishap(delay_s=0.05))

    def decode(pieces: Pieces) -> bytes:
        data = bytes(pieces.joined())
        if data != body[3:48]:
            raise Corrupt("corrupt_object", "another payload")
        return data

    store = CountingStore(FaultyStore(DictStore({"k": body}), plan))
    disk = DiskCache(tmp_path, 1 << 20)
    cache = Cache(store, 1 << 20, disk)
    with pytest.raises(Unavailable):
        await cache.value_of_parts("k", decode, span)
    await asyncio.sleep(0.1)
    await cache.settled()
    with store.trace() as trace:
        assert await cache.value_of_parts("k", decode, span) == body[3:48]
    assert (trace.gets, trace.round_trips, cache.holds("k", span)) == (1, 1, True)
    await cache.settled()
    disk.put("k#13+10", b"0123456789")
    again = Cache(store, 1 << 20, disk)
    with store.trace() as trace:
        assert await again.value_of_parts("k", decode, span) == body[3:48]
    assert (trace.gets, trace.round_trips, trace.bytes_read) == (5, 1, 45)
    await again.settled()
    assert bytes(disk.get("k#13+10") or b"") == body[13:23]


async def test_the_longest_range_is_read_in_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with places for sixteen parts: four rounds."""
    monkeypatch.setattr(ranges, "RANGE_LENGTH_MAX", 1)
    body = bytes(range(256)) * 5
    store = CountingStore(FaultyStore(DictStore({"k": body}), lambda operation, key: Mishap(delay_s=0.05)))
    cache = Cache(store, 1 << 20, None)
    with store.trace() as trace:
        assert await cache.value_of_parts("k", Pieces.joined, ByteRange(0, len(body))) == body
    assert (trace.gets, trace.round_trips) == (ranges.PARTS_MAX, 1)


async def test_a_cancelled_reader_does_not_end_the_fetch_of_others(world: World) -> None:
    """Seen to fail without the shield."""
    inner = DictStore({"k": b"payload"})
    store = CountingStore(FaultyStore(inner, lambda operation, key: Mishap(delay_s=0.05)))
    cache = Cache(store, 1 << 20, None)
    first, second = (asyncio.create_task(cache.value("k", bytes)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    assert await second == b"payload"
    assert store.total.gets == 1


async def test_memory_keeps_its_budget(world: World) -> None:
    """And drops what was used longest ago. Seen to fail with entries counted as one byte each."""
    budget = 1 << 20
    objects = {f"k{n}": os.urandom(10_000) for n in range(100)}
    store = CountingStore(DictStore(objects))
    cache = Cache(store, budget, None)
    for key in objects:
        await cache.value(key, bytes)
        await cache.value("k0", bytes)
    assert sum(len(key) + 4 * 10_000 for key in objects if cache.holds(key)) <= budget
    assert cache.holds("k0")
    assert cache.holds("k99")
    assert not cache.holds("k1")


def test_the_disk_keeps_its_budget_whoever_fills_it(tmp_path: Path) -> None:
    """Two processes on one folder, each of which counts only its own writes between two looks.

    Seen to fail without the periodic count: the folder grows to twice the budget.
    """
    budget = 1 << 20
    caches = [DiskCache(tmp_path, budget) for _ in range(2)]
    for n in range(400):
        caches[n % 2].put(f"k{n}", os.urandom(9_000))
        used = sum(path.stat().st_size for path in tmp_path.glob("??/*"))
        assert used <= budget * (1 + 2 / SCANS_PER_BUDGET) + 20_000
    assert caches[0].get("k399") is not None
    assert caches[0].get("k0") is None
    assert DiskCache(tmp_path, budget).used_bytes <= budget * (1 + 2 / SCANS_PER_BUDGET)


def test_a_flipped_bit_on_disk_is_a_miss(tmp_path: Path) -> None:
    """And the file is gone. Seen to fail with `get` trusting the file."""
    cache = DiskCache(tmp_path, 100_000)
    cache.put("k", b"payload")
    (path,) = tmp_path.glob("??/*")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert cache.get("k") is None
    assert not path.exists()


def test_one_object_never_empties_the_disk(tmp_path: Path) -> None:
    """Larger than a tenth of the budget is not kept. Seen to fail without the bound on a payload."""
    cache = DiskCache(tmp_path, 100_000)
    cache.put("small", b"x" * 1000)
    cache.put("large", b"x" * 50_000)
    assert cache.get("small") is not None
    assert cache.get("large") is None


def test_unpacked_folders_keep_their_budget_and_survive_neighbours(tmp_path: Path) -> None:
    """Folders go oldest first, are made again when asked, and a failed one leaves nothing.

    Seen to fail with a scratch folder left behind by a fill that raises.
    """
    made: list[str] = []

    def fill(name: str, target: Path) -> None:
        made.append(name)
        (target / "file").write_bytes(b"x" * 1000)

    folders, neighbour = Folders(tmp_path, 3500), Folders(tmp_path, 3500)
    for n in range(5):
        path = folders.get(f"f{n}", lambda target, n=n: fill(f"f{n}", target))  # type: ignore[misc]  # bound now
        os.utime(path, (1_700_000_000 + n, 1_700_000_000 + n))
    assert len(list(tmp_path.iterdir())) <= 4
    assert (neighbour.get("f4", lambda target: fill("again", target)) / "file").exists()
    assert made == [f"f{n}" for n in range(5)]
    neighbour.remove("f4")
    assert (folders.get("f4", lambda target: fill("f4", target)) / "file").exists()
    assert made[-1] == "f4"
    before = {path.name for path in tmp_path.iterdir()}

    def broken(target: Path) -> None:
        raise ValueError("no space")

    try:
        folders.get("bad", broken)
    except ValueError:
        assert {path.name for path in tmp_path.iterdir()} == before


async def test_a_new_event_is_never_hidden_by_a_cache(world: World) -> None:
    """Immutable keys need no invalidation. Seen to fail with the columns cached under the day."""
    await built(world)
    plane, folder = world.plane(cache=world.folder / "one"), world.folder / "one"
    assert len(await ids(plane, QUERY)) == 6
    await world.write(plane, puts([event(70)]))
    await plane.build(TENANT, world.days())
    for reader in (plane, world.plane(cache=folder)):
        assert "e70" in await ids(reader, QUERY)
