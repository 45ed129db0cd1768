"""Retired days are gone for readers and then for the store; what the log still holds of them does not come back.
Bundles of a spec that is defined no more go the same way, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from context_plane.catalog.head import load_head
from context_plane.collect import collect
from context_plane.erased import contents
from context_plane.errors import Invalid
from context_plane.fold import load_pending
from context_plane.model import add_days, day_start_us
from context_plane.plane import Plane
from context_plane.reindex import build_day
from context_plane.retention import first_kept_day, retire_days, retire_specs
from tests.laws.plane_world import DAY, SPEC, TENANT, Clock, World, event, ids, month_of, puts
from tests.store.dictionary import DictStore

SPEC_NAME = str(SPEC["name"])
NEXT = add_days(DAY, 1)
THIRD = add_days(DAY, 2)


async def built(world: World, days: int = 3) -> Plane:
    plane = world.plane()
    await world.write(plane, puts(month_of(days, entities=2)))
    await plane.build(TENANT, world.days())
    return plane


def kept(world: World, first: str) -> list[str]:
    return sorted(each.id for each in world.events() if each.day >= first)


def test_the_first_kept_day_is_so_many_before_today() -> None:
    assert first_kept_day(day_start_us("2026-03-10") + 5, 1) == "2026-03-09"
    assert first_kept_day(day_start_us("2026-03-01"), 30) == "2026-01-30"


async def test_a_dry_run_counts_what_a_run_then_takes(world: World) -> None:
    plane = await built(world)
    before = await load_head(plane.engine.store, TENANT)
    told = await retire_days(plane.engine, TENANT, NEXT)
    assert (told.days, told.events, told.bundle_days) == (1, 2, 1)
    assert told.bytes > 0
    assert (await load_head(plane.engine.store, TENANT)).version == before.version
    assert await retire_days(plane.engine, TENANT, NEXT, dry_run=False) == told
    head = await load_head(plane.engine.store, TENANT)
    assert set(head.days) == {NEXT, THIRD}
    assert set(head.bundles[SPEC_NAME]) == {NEXT, THIRD}
    assert await ids(world.plane()) == kept(world, NEXT)
    again = await retire_days(plane.engine, TENANT, NEXT, dry_run=False)
    assert again.days == 0
    assert (await load_head(plane.engine.store, TENANT)).version == head.version


async def test_what_the_log_holds_of_a_retired_day_stays_covered(world: World) -> None:
    """One batch of two days, of which one is built and retired: the floor cannot pass it. Seen to fail without
    the emptied entry: the day's events were back."""
    plane = world.plane()
    await world.write(plane, puts([event(1, day=DAY), event(2, day=NEXT)]))
    await plane.build(TENANT, [DAY], specs=())
    await retire_days(plane.engine, TENANT, NEXT, dry_run=False)
    assert await ids(world.plane()) == ["e2"]
    pending = await load_pending(plane.engine, TENANT)
    assert set(pending.dirty) == {NEXT}
    await plane.build(TENANT, [DAY, NEXT], specs=())
    assert await ids(world.plane()) == ["e2"]
    assert (await load_head(plane.engine.store, TENANT)).log_floor == 1
    await retire_days(plane.engine, TENANT, NEXT, dry_run=False)
    assert set((await load_head(plane.engine.store, TENANT)).days) == {NEXT}
    assert await ids(world.plane()) == ["e2"]


async def test_a_late_event_of_a_retired_day_is_found_and_retired_by_the_next_run(world: World) -> None:
    plane = await built(world)
    await retire_days(plane.engine, TENANT, NEXT, dry_run=False)
    await world.write(plane, puts([event(99, day=DAY)]))
    assert await ids(world.plane()) == sorted([*kept(world, NEXT), "e99"])
    await plane.build(TENANT, [DAY], specs=())
    assert await ids(world.plane()) == sorted([*kept(world, NEXT), "e99"])
    told = await retire_days(plane.engine, TENANT, NEXT, dry_run=False)
    assert (told.days, told.events) == (1, 1)
    assert await ids(world.plane()) == kept(world, NEXT)


async def test_a_build_that_began_before_does_not_bring_the_day_back(world: World) -> None:
    plane = await built(world)
    await world.write(plane, puts([event(99, day=DAY)]))

    async def retire_while_embedding(texts: list[str]) -> object:
        world.embedder.__dict__.pop("embed_documents")
        await retire_days(plane.engine, TENANT, NEXT, dry_run=False)
        return await world.embedder.embed_documents(texts)

    world.embedder.__dict__["embed_documents"] = retire_while_embedding
    await build_day(plane.engine, TENANT, DAY)
    assert await ids(world.plane()) == sorted([*kept(world, NEXT), "e99"])


async def test_a_rolled_month_gives_up_its_old_days_and_is_rolled_up_again(tmp_path: Path) -> None:
    """And the store keeps nothing of them once it is collected, in no object."""
    world = World(DictStore(), tmp_path, clock=Clock(day_start_us("2026-04-10")))
    assert world.clock is not None
    plane = world.plane()
    secret = "unmistakable words"
    events = month_of(3, entities=2)
    await world.write(plane, puts([replace(events[0], text=f"beacon {secret}"), *events[1:]]))
    await plane.build(TENANT, world.days())
    assert (await plane.roll_up(TENANT, DAY[:7]))[0] == "due"
    told = await retire_days(plane.engine, TENANT, NEXT, dry_run=False)
    assert (told.days, told.months_opened) == (1, 1)
    assert await ids(world.plane()) == kept(world, NEXT)
    plane = world.plane()
    await plane.build(TENANT, [NEXT, THIRD])
    assert (await plane.roll_up(TENANT, DAY[:7]))[0] == "due"
    head = await load_head(plane.engine.store, TENANT)
    assert set(head.months[DAY[:7]].covered) == {NEXT, THIRD}
    assert await ids(world.plane()) == kept(world, NEXT)
    world.clock.now_us += 3 * 86_400_000_000
    for _ in range(2):
        await collect(plane.engine, TENANT, dry_run=False)
    async for info in plane.engine.store.list(f"tenants/{TENANT}/"):
        assert secret.encode() not in contents(await plane.engine.store.get(info.key)), info.key


async def test_a_spec_without_a_file_leaves_with_its_bundles_alone(tmp_path: Path) -> None:
    """A dry run counts what a run takes; a collection then deletes it. Seen to fail with the bundles of every spec
    taken, and without the commit."""
    world = World(DictStore(), tmp_path, clock=Clock(day_start_us("2026-03-10")))
    assert world.clock is not None
    plane = await built(world)
    before = await load_head(plane.engine.store, TENANT)
    assert await retire_specs(plane.engine, TENANT, [SPEC_NAME]) == {}
    assert await retire_specs(plane.engine, TENANT, ["law_v1"]) == {SPEC_NAME: 3}
    assert await retire_specs(plane.engine, TENANT, [SPEC_NAME], dry_run=False) == {}
    assert (await load_head(plane.engine.store, TENANT)).version == before.version
    assert await retire_specs(plane.engine, TENANT, ["law_v1"], dry_run=False) == {SPEC_NAME: 3}
    after = await load_head(plane.engine.store, TENANT)
    assert after.bundles == {}
    assert after.days == before.days
    world.clock.now_us += 3 * 86_400_000_000
    for _ in range(2):
        await collect(plane.engine, TENANT, dry_run=False)
    folders = {info.key.split("/")[2] async for info in plane.engine.store.list(f"tenants/{TENANT}/")}
    assert "bundles" not in folders
    assert {"entities", "indexes"} <= folders
    assert await ids(world.plane()) == kept(world, DAY)


async def test_a_folder_without_specs_retires_none(world: World) -> None:
    """A wrong folder is more likely than a plane without bundles. Seen to fail without the refusal."""
    plane = await built(world)
    with pytest.raises(Invalid, match="CONTEXT_PLANE_SPECS_DIR"):
        await retire_specs(plane.engine, TENANT, [], dry_run=False)
    assert set((await load_head(plane.engine.store, TENANT)).bundles) == {SPEC_NAME}
