"""Warming: after a hint or a publish, once it is settled, the reads it was for ask the store for no object."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from context_plane import warm
from context_plane.errors import Invalid, Unavailable
from context_plane.plane import Plane
from context_plane.recall.values import SearchRequest
from context_plane.store.counting import trace
from context_plane.store.faults import Mishap
from tests.laws.plane_world import BEACON, DAY, TENANT, World, event, month_of, puts, timeline

ENTITY = replace(BEACON, mode="hybrid", limit=10, entities=("acct-00",))
WIDE = replace(BEACON, mode="hybrid", limit=10)
EVERYONE = replace(ENTITY, entities=tuple(f"acct-0{n}" for n in range(4)))


async def built(world: World) -> Plane:
    plane = world.plane()
    await world.write(plane, puts(month_of(3, entities=4)))
    await plane.build(TENANT, world.days())
    return plane


async def publish(world: World, builder: Plane, n: int) -> None:
    """Another process writes to every entity on a built day and on a new one, and builds both."""
    more = [event(n + e, entity=f"acct-0{e}", day=day) for e in range(4) for day in (DAY, "2026-03-09")]
    await world.write(builder, puts(replace(each, id=f"{each.id}-{each.day}") for each in more))
    await builder.build(TENANT, [DAY, "2026-03-09"])


async def gets(plane: Plane, request: SearchRequest) -> int:
    with trace() as counted:
        answer = await plane.search(TENANT, request)
    assert answer.hits
    assert not answer.partial
    return counted.gets


@pytest.mark.parametrize("read", [ENTITY, WIDE], ids=["entity", "tenant"])
async def test_what_a_publish_brings_to_the_hot_is_there_before_their_next_read(
    timed: World, read: SearchRequest
) -> None:
    """The read that learns of the publish fetches the manifest; once the prefetch settled, the next one fetches
    nothing: a tenant-wide one takes its hits' texts from the blocks of entities that are hot too. Seen to fail
    without the callback, and without the days' vectors."""
    builder = await built(timed)
    plane = timed.plane()
    await plane.search(TENANT, read)
    if read is WIDE:
        await plane.search(TENANT, EVERYONE)
    await publish(timed, builder, 100)
    assert await gets(plane, replace(BEACON, limit=10, entities=("acct-03",))) > 0
    await plane.warmer.settled()
    assert plane.cache.stats.prefetched > 0
    assert await gets(plane, read) == 0


async def test_the_hot_entitys_timeline_and_bundle_are_there_too(timed: World) -> None:
    """Seen to fail with bundles left out of the prefetch."""
    builder = await built(timed)
    plane = timed.plane()
    await plane.bundle(TENANT, "acct-00", spec="law_v0")
    await timeline(plane, "acct-00")
    await publish(timed, builder, 100)
    await plane.search(TENANT, replace(BEACON, entities=("acct-03",)))
    await plane.warmer.settled()
    with trace() as counted:
        bundle = await plane.bundle(TENANT, "acct-00", spec="law_v0")
        await timeline(plane, "acct-00")
    assert bundle.as_of == "2026-03-09"
    assert counted.gets == 0


async def test_what_was_read_long_ago_is_not_fetched(timed: World) -> None:
    """Seen to fail with HOT_S left out of the choice of entities."""
    builder = await built(timed)
    plane = timed.plane()
    await plane.search(TENANT, ENTITY)
    assert timed.clock is not None
    timed.clock.advance(warm.HOT_S + 1)
    await plane.search(TENANT, replace(ENTITY, entities=("acct-01",)))
    await publish(timed, builder, 100)
    await plane.search(TENANT, replace(ENTITY, entities=("acct-03",)))
    await plane.warmer.settled()
    assert await gets(plane, replace(ENTITY, entities=("acct-01",))) == 0
    assert await gets(plane, ENTITY) > 0


async def test_a_prefetch_is_bounded_in_bytes(timed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail without the look at what is spent."""
    monkeypatch.setattr(warm, "PREFETCH_BYTES_MAX", 1)
    builder = await built(timed)
    plane = timed.plane()
    await plane.search(TENANT, ENTITY)
    await plane.search(TENANT, WIDE)
    await publish(timed, builder, 100)
    await plane.search(TENANT, replace(ENTITY, entities=("acct-03",)))
    await plane.warmer.settled()
    assert plane.cache.stats.prefetched == 0


async def test_no_request_waits_for_a_prefetch_or_counts_it(timed: World) -> None:
    """The store hangs for the prefetch's reads; the read that started it has long answered. Seen to fail with a task
    in the request's own context."""
    builder = await built(timed)
    plane = timed.plane()
    first = await gets(timed.plane(), replace(ENTITY, entities=("acct-03",)))
    await plane.search(TENANT, EVERYONE)
    await plane.search(TENANT, WIDE)
    await publish(timed, builder, 100)
    with timed.faults.on("vector", Mishap(delay_s=0.3)):
        with trace() as counted:
            await plane.search(TENANT, replace(ENTITY, entities=("acct-03",)))
            assert plane.warmer._worker is not None
            await plane.warmer.settled()
        assert counted.gets <= first + 2, "the manifest, and pages and blocks of two days"
    assert await gets(plane, WIDE) == 0


async def test_a_failing_store_ends_a_prefetch_and_no_read(timed: World, caplog: pytest.LogCaptureFixture) -> None:
    """It is no error to report, and the next publish is prefetched. Seen to fail with errors let out of the worker."""
    builder = await built(timed)
    plane = timed.plane()
    await plane.search(TENANT, ENTITY)
    await publish(timed, builder, 100)
    with timed.faults.on("/indexes/", Mishap(lost="request")):
        await plane.snapshots.outline(TENANT, "strong")
        await plane.warmer.settled()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert await gets(plane, ENTITY) > 0
    await publish(timed, builder, 200)
    await plane.snapshots.outline(TENANT, "strong")
    await plane.warmer.settled()
    assert await gets(plane, ENTITY) == 0


async def test_a_hint_of_entities_brings_what_reads_of_them_take(timed: World) -> None:
    """It answers before anything is fetched. Seen to fail with pages only."""
    await built(timed)
    plane = timed.plane()
    plane.warmer.warm(TENANT, entities=["acct-00"])
    assert plane.store.total.gets == 0
    await plane.warmer.settled()
    assert plane.cache.stats.prefetched > 0
    assert await gets(plane, ENTITY) == 0


async def test_a_hint_of_days_leaves_a_tenants_read_the_texts_of_its_hits(timed: World) -> None:
    """Seen to fail with columns only."""
    await built(timed)
    plane = timed.plane()
    plane.warmer.warm(TENANT, days=timed.days())
    await plane.warmer.settled()
    one = replace(WIDE, limit=1)
    assert await gets(plane, one) <= 1
    assert await gets(timed.plane(), one) > 3


async def test_pins_stay_follow_publishes_and_are_let_go(timed: World) -> None:
    """Whatever else is read. Seen to fail with pins that stay with the old shards, and with names never let go."""
    builder = await built(timed)
    plane = timed.plane(cache_memory_bytes=1 << 20, cache_disk_bytes=0)
    plane.warmer.warm(TENANT, entities=["acct-00", "acct-01"], pin=True)
    await plane.warmer.settled()
    held = plane.cache.stats.pinned_bytes
    assert held > 0

    async def sweep() -> None:
        """Twice the memory of other things, read again and again."""
        for _ in range(4):
            for n in range(200):
                await plane.cache.derived(f"other{n}", lambda: asyncio.sleep(0, ("x", 10_000)))

    await sweep()
    assert await gets(plane, ENTITY) == 0
    await publish(timed, builder, 100)
    await plane.snapshots.outline(TENANT, "strong")
    await plane.warmer.settled()
    assert plane.cache.stats.pinned_bytes > held
    pinned = set().union(*plane.warmer._pins.values())
    assert all(plane.cache.has(name) for name in pinned)
    await sweep()
    assert await gets(plane, ENTITY) == 0
    plane.warmer.warm(TENANT, entities=["acct-00"], pin=False)
    assert plane.cache.stats.pinned_bytes > 0, "the other entity holds the pages they share"
    plane.warmer.warm(TENANT, entities=["acct-01"], pin=False)
    assert plane.cache.stats.pinned_bytes == 0
    await plane.warmer.settled()


async def test_hints_have_limits(timed: World) -> None:
    """Seen to fail without the bound on hints that wait."""
    plane = timed.plane()
    many = [f"e{n}" for n in range(warm.HINT_ENTITIES_MAX + 1)]
    for entities, days in ((None, None), (["a"], [DAY]), (None, ["March"]), ([""], None), (many, None)):
        with pytest.raises(Invalid):
            plane.warmer.warm(TENANT, entities=entities, days=days)
    with pytest.raises(Unavailable) as refused:  # noqa: PT012  # the last of many
        for _ in range(warm.HINTS_MAX + 1):
            plane.warmer.warm(TENANT, days=[DAY])
    assert refused.value.code == "rate_limited"
    await plane.warmer.aclose()
    await plane.warmer.settled()


async def test_a_cancelled_worker_starts_nothing(timed: World) -> None:
    """As when a loop ends with hints that wait. Seen to fail, and to hang a loop that ends, with a worker that is
    always followed by another."""
    plane = timed.plane()
    for _ in range(3):
        plane.warmer.warm(TENANT, days=[DAY])
    await asyncio.sleep(0)
    assert plane.warmer._worker is not None
    plane.warmer._worker.cancel()
    await plane.warmer.settled()
    assert len(plane.warmer._hints) == 2
