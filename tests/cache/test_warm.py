"""Warming: after a hint or a publish, once it is settled, the reads it was for ask the store for no object."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from context_plane import warm
from context_plane.cache import admission
from context_plane.erase import begin_erasure, erase_entity
from context_plane.errors import Invalid, Unavailable
from context_plane.plane import Plane
from context_plane.recall.values import SearchRequest
from context_plane.reindex import build_day
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
    assert set(plane.warmer._holders) == pinned
    assert all(plane.cache.has(name) for name in pinned)
    await sweep()
    assert await gets(plane, ENTITY) == 0
    plane.warmer.warm(TENANT, entities=["acct-00"], pin=False)
    assert plane.cache.stats.pinned_bytes > 0, "the other entity holds the pages they share"
    plane.warmer.warm(TENANT, entities=["acct-01"], pin=False)
    assert plane.cache.stats.pinned_bytes == 0
    await plane.warmer.settled()


async def test_pins_have_a_limit(timed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past it, hints fetch. Seen to fail without the bound."""
    monkeypatch.setattr(warm, "PINS_MAX", 1)
    builder = await built(timed)
    plane = timed.plane()
    plane.warmer.warm(TENANT, entities=["acct-01", "acct-00"], pin=True)
    plane.warmer.warm(TENANT, days=[DAY], pin=True)
    await plane.warmer.settled()
    assert list(plane.warmer._pins) == [(TENANT, ("entity", "acct-01"))]
    assert await gets(plane, ENTITY) == 0
    await publish(timed, builder, 100)
    await plane.snapshots.outline(TENANT, "strong")
    await plane.warmer.settled()
    assert list(plane.warmer._pins) == [(TENANT, ("entity", "acct-01"))], "a publish moves what is at the limit"


@pytest.mark.parametrize("refused", [False, True])
async def test_only_what_is_pinned_is_remembered(timed: World, monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    """Entities of which nothing is built leave no name, nor those that the share of pins refuses. Seen to fail with
    every subject of a hint kept."""
    if refused:
        monkeypatch.setattr(admission, "PIN_SHARE", 0.0)
    await built(timed)
    plane = timed.plane()
    names = EVERYONE.entities if refused else [f"nobody-{n}" for n in range(100)]
    plane.warmer.warm(TENANT, entities=names, pin=True)
    await plane.warmer.settled()
    assert plane.cache.stats.prefetched > 0
    assert plane.cache.stats.pinned_bytes == 0
    assert not plane.warmer._pins


async def test_a_hint_of_what_is_in_memory_lets_others_run(timed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it waits for the store. Seen to fail with units made all at once, and with lanes that never rest."""
    await built(timed)
    plane = timed.plane()
    names = [f"nobody-{n}" for n in range(200)]
    plane.warmer.warm(TENANT, entities=names)
    await plane.warmer.settled()
    made, unit = 0, warm._Unit

    def make(*values: Any, **more: Any) -> warm._Unit:
        nonlocal made
        made += 1
        return unit(*values, **more)

    monkeypatch.setattr(warm, "_Unit", make)
    plane.warmer.warm(TENANT, entities=names)
    turns = [made]
    while plane.warmer._worker is not None:
        await asyncio.sleep(0)
        turns.append(made)
    assert made == 3 * len(names)
    assert max(after - before for before, after in pairwise(turns)) <= 2 * warm.PARALLEL


async def test_a_subject_that_was_not_read_whole_keeps_its_pins(timed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of a prefetch end after the newest day. Seen to fail with what was read put in the place of all."""
    builder = await built(timed)
    plane = timed.plane()
    plane.warmer.warm(TENANT, entities=["acct-00"], pin=True)
    await plane.warmer.settled()
    before, held = dict(plane.warmer._pins), plane.cache.stats.pinned_bytes
    with monkeypatch.context() as patched:
        of_newest = property(lambda unit: 0 if unit.period.name == "2026-03-09" else warm.PREFETCH_BYTES_MAX + 1)
        patched.setattr(warm._Unit, "bytes_expected", of_newest)
        await publish(timed, builder, 100)
        await plane.snapshots.outline(TENANT, "strong")
        await plane.warmer.settled()
    assert plane.warmer._pins == before
    assert plane.cache.stats.pinned_bytes == held
    await publish(timed, builder, 200)
    await plane.snapshots.outline(TENANT, "strong")
    await plane.warmer.settled()
    assert plane.warmer._pins != before


async def test_what_is_let_go_while_a_publish_is_followed_stays_let_go(timed: World) -> None:
    """Seen to fail with everything pinned that was pinned when the job began."""
    builder = await built(timed)
    plane = timed.plane()
    plane.warmer.warm(TENANT, entities=["acct-00"], pin=True)
    await plane.warmer.settled()
    await publish(timed, builder, 100)
    await plane.snapshots.outline(TENANT, "strong")
    await asyncio.sleep(0)
    assert not plane.warmer._published, "it is followed now"
    plane.warmer.warm(TENANT, entities=["acct-00"], pin=False)
    await plane.warmer.settled()
    assert not plane.warmer._pins
    assert plane.cache.stats.pinned_bytes == 0


@pytest.mark.parametrize("whole", [False, True], ids=["begun", "done"])
async def test_the_name_of_an_erased_entity_is_not_kept(timed: World, whole: bool) -> None:
    """Neither as a pin nor as what is read, from its tombstone on and after that is retired; pins of others stay.
    Seen to fail without either of the two."""
    builder = await built(timed)
    plane = timed.plane()
    plane.warmer.warm(TENANT, entities=["acct-00", "acct-01"], pin=True)
    await plane.search(TENANT, ENTITY)
    await plane.bundle(TENANT, "acct-00", spec="law_v0")
    await plane.warmer.settled()
    if whole:
        await erase_entity(builder.engine, TENANT, "acct-00", build_day=build_day)
    else:
        await begin_erasure(builder.engine, TENANT, "acct-00", erasure="e" * 32)
    await plane.snapshots.outline(TENANT, "strong")
    await plane.warmer.settled()
    assert list(plane.warmer._pins) == [(TENANT, ("entity", "acct-01"))]
    assert set(plane.warmer._holders) == set().union(*plane.warmer._pins.values())
    hot = plane.warmer._hot[TENANT]
    assert "acct-00" not in hot.entities
    assert not [entity for entity, _ in hot.bundles if entity == "acct-00"]


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
