"""Many bundles in one read are what single reads give, and no more than two windows of them are held."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from random import Random

import pytest

from context_plane.catalog.bundles import Bucket, BundleEntry
from context_plane.plane import Plane
from context_plane.recall import fleet
from context_plane.recall.values import BundleAnswer
from tests.laws.plane_world import DAY, TENANT, World, event, puts

SPEC = "law_v0"
ENTITIES = 600


@pytest.fixture
async def built(world: World) -> World:
    """More entities than two buckets take."""
    plane = world.plane()
    await world.write(plane, puts(event(n, entity=f"acct-{n:04}") for n in range(ENTITIES)))
    await plane.build(TENANT, [DAY])
    return world


async def items(plane: Plane, entities: list[str] | None) -> list[tuple[str, bytes | str]]:
    found: list[tuple[str, bytes | str]] = []
    _, stream = await plane.bundle_batch(TENANT, entities, spec=SPEC)
    async for item in stream:
        if isinstance(item, BundleAnswer):
            found.append((item.entity, item.json_bytes))
        else:
            found.append((item[0], item[1].code))
    return found


@pytest.mark.parametrize("window", [1, 3000, 1 << 20])
async def test_every_window_gives_the_same_bundles_in_the_order_asked(
    built: World, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """Seen to fail with the ranges of a pack cut at their first bundle's end."""
    monkeypatch.setattr(fleet, "WINDOW_BYTES", window)
    monkeypatch.setattr(fleet, "GAP_BYTES", window // 10)
    plane, rng = built.plane(), Random(window)
    names = [f"acct-{n:04}" for n in range(ENTITIES)]
    single = {name: (await plane.bundle(TENANT, name, spec=SPEC)).json_bytes for name in names}
    assert await items(built.plane(), None) == [(name, single[name]) for name in names]
    asked = [*rng.sample(names, 50), "nobody", *rng.sample(names, 50), names[7], names[7]]
    expected = [(name, single.get(name, "entity_not_found")) for name in asked]
    assert await items(built.plane(), asked) == expected
    assert await items(built.plane(), ["nobody"]) == [("nobody", "entity_not_found")]


async def test_bundles_are_read_as_they_are_taken(built: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows and no more, whatever the tenant holds. Seen to fail with every window begun at once."""
    monkeypatch.setattr(fleet, "WINDOW_BYTES", 2000)
    monkeypatch.setattr(fleet, "GAP_BYTES", 0)
    plane = built.plane()
    with plane.store.trace() as trace:
        async with aclosing((await plane.bundle_batch(TENANT, None, spec=SPEC))[1]) as stream:
            await anext(stream)
            first = trace.bytes_read
            for _ in range(ENTITIES - 1):
                await anext(stream)
    buckets = len((await plane.snapshots.outline(TENANT, "eventual")).manifest.bundles[SPEC][DAY].directory.sections)
    assert buckets >= 4
    assert trace.bytes_read - first > 20 * 2000


async def test_a_cold_fleet_of_one_window_is_four_round_trips(built: World) -> None:
    """Manifest and log, sections, ranges. Seen to fail with buckets read one by one."""
    plane = built.plane()
    with plane.store.trace() as trace:
        assert len(await items(plane, None)) == ENTITIES
    assert trace.round_trips <= 4
    assert trace.gets <= 12


async def test_who_stops_taking_stops_the_reads(built: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail without the end of windows: their reads went on."""
    monkeypatch.setattr(fleet, "WINDOW_BYTES", 500)
    monkeypatch.setattr(fleet, "PARALLEL_READS", 1)
    plane = built.plane()
    built.faults.delay_s = 0.02
    before = asyncio.all_tasks()
    async with aclosing((await plane.bundle_batch(TENANT, None, spec=SPEC))[1]) as stream:
        await anext(stream)
    built.faults.delay_s = 0.0
    for _ in range(5):
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() - before if "Fleet" in repr(task)]
    assert left == []


def test_entities_strewn_over_a_large_tenant_are_read_in_smaller_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read along counts. Seen to fail (one run that reads everything) with wanted bytes counted alone."""
    monkeypatch.setattr(fleet, "READ_BYTES_MAX", 4_000)
    entries = tuple(BundleEntry(f"acct-{n:03}", n * 100, 100, "", 1) for n in range(100))
    home = Bucket("tenants/acme/bundles/x", "digest", entries)
    strewn = [(entry.entity, home, entry) for entry in entries[::10]]
    runs = list(fleet._runs(strewn))
    assert [place for run in runs for place in run.places] == strewn
    assert len(runs) > 1
    assert all(sum(span.length for _, span in run.ranges) <= 4_000 for run in runs)
