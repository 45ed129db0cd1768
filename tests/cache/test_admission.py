"""What memory and disk keep: within their budgets, and not what is read once in place of what is read again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from cachetools import LRUCache
from hypothesis import given, settings
from hypothesis import strategies as st

from context_plane.cache.admission import ENTRY_SHARE_MAX, GHOSTS_MAX, PIN_SHARE, Memory
from context_plane.cache.disk import SCANS_PER_BUDGET, UNPROVEN_AGE_S, DiskCache
from context_plane.cache.tiers import Cache, track_lookups
from context_plane.retrieval.columns import EVENT_BYTES
from context_plane.settings import Settings
from context_plane.store import CountingStore
from context_plane.store.faults import FaultyStore, Mishap
from tests.store.dictionary import DictStore

BUDGET = 1_000_000
HOT_SHARE_KEPT = 0.9
"""Of the hot set's reads, answered from memory beside a scan. Plain recency keeps a seventh of them."""

Read = tuple[str, int]


def hot_set(random: random.Random, share: float, name: str = "hot") -> list[Read]:
    """Entries of mixed sizes that together take `share` of the budget."""
    found: list[Read] = []
    left = int(BUDGET * share)
    while left > 0:
        size = min(random.randint(500, 30_000), left)
        found.append((f"{name}{len(found)}", size))
        left -= size
    return found


def beside_a_scan(random: random.Random, hot: list[Read], rounds: int, scanned_bytes: int) -> Iterator[Read]:
    """Each round reads the hot set once, in any order; while it does, a scan reads as many bytes of new things."""
    scanned = 0
    for _ in range(rounds):
        order = random.sample(hot, len(hot))
        for read in order:
            yield read
            budget = scanned_bytes // len(order)
            while budget > 0:
                size = random.randint(500, 30_000)
                yield f"scan{scanned}", size
                scanned += 1
                budget -= size


def kept(memory: Memory, reads: Iterable[Read], prefix: str = "hot") -> float:
    """Share of the reads of names with the prefix that memory answers; the others are put after a miss."""
    hits = misses = 0
    for name, size in reads:
        hit = memory.get(name) is not None
        if not hit:
            memory.put(name, name, size)
        if name.startswith(prefix):
            hits, misses = hits + hit, misses + (not hit)
    return hits / (hits + misses)


def kept_by_recency(reads: Iterable[Read]) -> float:
    lru: LRUCache[str, int] = LRUCache(BUDGET, getsizeof=int)
    hits = misses = 0
    for name, size in reads:
        hit = lru.get(name) is not None
        if not hit:
            lru[name] = size
        if name.startswith("hot"):
            hits, misses = hits + hit, misses + (not hit)
    return hits / (hits + misses)


@pytest.mark.parametrize("seed", range(8))
def test_a_scan_beside_them_leaves_the_hot_where_they_are(seed: int) -> None:
    """A budget of things read once passes by between two reads of each hot one. Seen to fail with `Memory` as an
    LRU: the same trace, read here beside it, leaves an LRU a seventh of it."""
    rng = random.Random(seed)
    hot = hot_set(rng, 0.6)
    reads = list(beside_a_scan(rng, hot, rounds=30, scanned_bytes=BUDGET))
    assert kept(Memory(BUDGET), reads) >= HOT_SHARE_KEPT
    assert kept_by_recency(reads) <= 0.2


@pytest.mark.parametrize("seed", range(8))
def test_one_scan_takes_nothing_that_proved_itself(seed: int) -> None:
    """Ten budgets in a row, each thing looked at twice, without a read of the hot ones in between. Seen to fail with
    one hit as a proof."""
    rng = random.Random(seed)
    memory = Memory(BUDGET)
    hot = hot_set(rng, 0.8)
    for _ in range(4):
        kept(memory, hot)
    for n in range(600):
        kept(memory, [(f"scan{n}", 15_000)] * 2, "scan")
    assert all(name in memory for name, _ in hot)


def test_a_new_hot_set_replaces_the_old_one() -> None:
    """What proved itself once does not stay for ever. Seen to fail without ghosts, beside a scan."""
    rng = random.Random(7)
    memory = Memory(BUDGET)
    kept(memory, beside_a_scan(rng, hot_set(rng, 0.6), rounds=10, scanned_bytes=BUDGET))
    later = hot_set(rng, 0.6, "later")
    kept(memory, beside_a_scan(rng, later, rounds=3, scanned_bytes=BUDGET // 2), "later")
    assert kept(memory, beside_a_scan(rng, later, rounds=5, scanned_bytes=BUDGET // 2), "later") >= HOT_SHARE_KEPT


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "get", "pin", "unpin"]), st.integers(0, 9), st.integers(1, BUDGET // 3)),
    min_size=20,
    max_size=120,
)


@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
def test_memory_counts_what_it_holds_and_never_holds_more(operations: list[tuple[str, int, int]]) -> None:
    """Whatever happens in whatever order. Seen to fail with a promotion that forgets the bytes it moves."""
    memory = Memory(BUDGET)
    sizes: dict[str, int] = {}
    pinned: set[str] = set()
    for operation, n, size in operations:
        name = f"k{n}"
        match operation:
            case "put":
                held = name in memory
                assert memory.put(name, n, size) == (name in memory)
                sizes[name] = sizes[name] if held else size
                assert size <= BUDGET * ENTRY_SHARE_MAX or held or name not in memory
            case "get":
                entry = memory.get(name)
                assert entry is None or entry.value == n
            case "pin":
                if memory.pin(name):
                    pinned.add(name)
            case "unpin":
                memory.unpin(name)
                pinned.discard(name)
        assert memory.used_bytes == sum(size for name, size in sizes.items() if name in memory)
        assert memory.used_bytes <= BUDGET
        assert all(name in memory for name in pinned)
        assert memory.pinned_bytes == sum(sizes[name] for name in pinned) <= BUDGET * PIN_SHARE


def test_pins_outlast_what_is_read_until_they_are_let_go() -> None:
    """Within their share. Seen to fail with pinned entries left in their queue, and without the share."""
    memory = Memory(BUDGET)
    for n in range(30):
        memory.put(f"pin{n}", n, 10_000)
    held = [n for n in range(30) if memory.pin(f"pin{n}")]
    assert held == list(range(25))
    proven = [(f"other{n}", 20_000) for n in range(200)]
    for _ in range(4):
        kept(memory, proven, "other")
    assert all(f"pin{n}" in memory for n in held)
    assert "pin29" not in memory
    for n in held:
        memory.unpin(f"pin{n}")
    for _ in range(4):
        kept(memory, [(f"more{n}", 20_000) for n in range(45)], "more")
    assert memory.pinned_bytes == 0
    assert not all(f"pin{n}" in memory for n in held)


def test_names_of_what_left_are_bounded() -> None:
    """Seen to fail without the bound on their number."""
    memory = Memory(50_000)
    for n in range(50_000 + GHOSTS_MAX + 5_000):
        memory.put(f"k{n}", None, 1)
    assert memory.used_bytes <= 50_000
    assert len(memory._ghosts) <= GHOSTS_MAX


def test_what_is_too_large_is_counted_as_refused() -> None:
    memory = Memory(BUDGET)
    assert not memory.put("large", None, int(BUDGET * ENTRY_SHARE_MAX) + 1)
    assert (memory.refused, memory.evictions, memory.used_bytes) == (1, 0, 0)


class Clock:
    def __init__(self) -> None:
        self.s = 1_800_000_000.0

    def __call__(self) -> float:
        self.s += 0.001
        return self.s


def test_a_scan_leaves_on_disk_what_was_read_again(tmp_path: Path) -> None:
    """By whichever process, and for a day. Seen to fail with files born young: recency alone."""
    clock = Clock()
    first, second = (DiskCache(tmp_path, BUDGET, now_s=clock) for _ in range(2))
    for n in range(20):
        first.put(f"hot{n}", b"x" * 20_000)
        assert first.get(f"hot{n}") is not None
    for n in range(500):
        second.put(f"scan{n}", b"x" * 20_000)
    assert second.evictions > 0
    assert all(first.get(f"hot{n}") is not None for n in range(20))
    clock.s += UNPROVEN_AGE_S + 3600
    for n in range(500, 600):
        second.put(f"scan{n}", b"x" * 20_000)
    assert not any(first.get(f"hot{n}") is not None for n in range(20)), "after a day without a read"


async def test_what_memory_answers_stays_on_disk(tmp_path: Path) -> None:
    """The disk hears nothing of what memory answers; a process that starts again still finds the hot. Seen to fail
    without `touch`."""
    clock = Clock()
    objects = {f"hot{n}": b"x" * 5_000 for n in range(10)} | {f"scan{n}": b"x" * 20_000 for n in range(200)}
    store = CountingStore(DictStore(objects))
    cache = Cache(store, BUDGET, DiskCache(tmp_path, BUDGET, now_s=clock))
    for n in range(200):
        for hot in range(10):
            await cache.value(f"hot{hot}", bytes)
        await cache.value(f"scan{n}", bytes)
        await cache.settled()  # the disk is written behind the reads
        clock.s += 60
    assert cache.stats.disk_evictions > 0
    assert cache.stats.misses == 210
    again = Cache(store, BUDGET, DiskCache(tmp_path, BUDGET, now_s=clock))
    for hot in range(10):
        await again.value(f"hot{hot}", bytes)
    assert (again.stats.disk_hits, again.stats.misses) == (10, 0)


def test_a_restart_keeps_what_proved_itself_before_it(tmp_path: Path) -> None:
    """Recency lives in the files. Seen to fail with hits that leave no trace in them."""
    clock = Clock()
    before = DiskCache(tmp_path, BUDGET, now_s=clock)
    for n in range(20):
        before.put(f"hot{n}", b"x" * 20_000)
        before.get(f"hot{n}")
    after = DiskCache(tmp_path, BUDGET, now_s=clock)
    assert after.used_bytes == before.used_bytes
    for n in range(200):
        after.put(f"scan{n}", b"x" * 20_000)
        assert after.used_bytes <= BUDGET * (1 + 1 / SCANS_PER_BUDGET) + 20_032
    assert all(after.get(f"hot{n}") is not None for n in range(20))


async def test_who_joins_a_fetch_says_how_cold_it_was() -> None:
    """And the fetch is counted once. Seen to fail with the reads counted for the one who started it only."""
    slow = FaultyStore(DictStore({"k": b"payload"}), lambda operation, key: Mishap(delay_s=0.02))
    cache = Cache(CountingStore(slow), BUDGET, None)

    async def one() -> str:
        lookups = track_lookups()
        await cache.value("k", bytes)
        return lookups.temperature

    assert await asyncio.gather(*(one() for _ in range(3))) == ["cold"] * 3
    assert await one() == "memory"
    assert (cache.stats.misses, cache.stats.memory_misses, cache.stats.memory_hits) == (1, 3, 1)


def test_a_month_of_a_large_tenant_is_kept_under_the_default_budget() -> None:
    """Else each read decodes it anew: 230 ms for 5. Seen to fail with a quarter of the budget for one entry."""
    rows, dim = 100_000, 384
    size = rows * (dim * 2 * 3 // 2 + EVENT_BYTES)
    memory = Memory(Settings(store="memory://x").cache_memory_bytes)
    assert memory.put("month", None, size)
    assert "month" in memory
