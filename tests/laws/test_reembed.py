"""Another model for a tenant: every day in one commit, resumable, and never a mixture."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from context_plane.catalog.days import load_days
from context_plane.catalog.head import load_head
from context_plane.errors import Conflict, PlaneError, Unavailable
from context_plane.merge import merge_month
from context_plane.model import add_days, day_start_us
from context_plane.plane import Plane
from context_plane.reembed import reembed
from context_plane.rollup import roll_up
from context_plane.store.faults import Mishap
from tests.laws.plane_world import BEACON, DAY, TENANT, Clock, World, event, fingerprint, ids, month_of, puts
from tests.store.dictionary import DictStore

HYBRID = replace(BEACON, text="invoice beacon question", mode="hybrid")
NEXT = add_days(DAY, 1)


async def old(world: World) -> Plane:
    """Three built days of a model, and a process of another."""
    plane = world.plane()
    await world.write(plane, puts(month_of(3, entities=2)))
    await plane.build(TENANT, world.days(), specs=())
    world.embedder.model = "another"
    return world.plane()


async def shards(plane: Plane) -> dict[str, Any]:
    days = await load_days(plane.engine.store, await load_head(plane.engine.store, TENANT))
    return {
        day: (e.shards.entity.digest, e.shards.fulltext.digest, e.shards.vector.digest)
        for day, e in days.items()
        if e.shards
    }


async def test_all_days_change_in_one_commit_and_answer_as_if_built_so(world: World, tmp_path: Path) -> None:
    plane = await old(world)
    before = await load_head(plane.engine.store, TENANT)
    dry = await reembed(plane.engine, TENANT)
    assert (dry.changed, dry.days, dry.rows, dry.embedded) == (True, 3, 6, 0)
    assert (await load_head(plane.engine.store, TENANT)).version == before.version
    world.embedder.embedded = 0
    told = await reembed(plane.engine, TENANT, dry_run=False)
    assert (told.changed, told.before, told.after) == (True, "made", "another")
    assert (told.days, told.embedded, told.reused) == (3, 6, 0)
    assert world.embedder.embedded == 6
    head = await load_head(plane.engine.store, TENANT)
    assert head.version == before.version + 1
    assert head.model is not None
    assert head.model.name == "another"
    fresh = World(DictStore(), tmp_path / "fresh")
    fresh.embedder.model = "another"
    direct = fresh.plane()
    await fresh.write(direct, puts(world.events()))
    await direct.build(TENANT, fresh.days(), specs=())
    assert await shards(plane) == await shards(direct)
    reader = world.plane()
    assert fingerprint(await reader.search(TENANT, HYBRID)) == fingerprint(await direct.search(TENANT, HYBRID))
    assert not (await reembed(plane.engine, TENANT, dry_run=False)).changed


async def test_started_again_it_embeds_nothing_twice(world: World) -> None:
    plane = await old(world)
    last = f"/indexes/vector/{add_days(DAY, 2).replace('-', '/')}"
    world.embedder.embedded = 0
    with world.faults.on(last, Mishap(lost="request"), "put_new"), pytest.raises(Unavailable):
        await reembed(plane.engine, TENANT, dry_run=False)
    model = (await load_head(plane.engine.store, TENANT)).model
    assert model is not None
    assert model.name == "made"
    first = world.embedder.embedded
    told = await reembed(world.plane().engine, TENANT, dry_run=False)
    assert told.reused >= 1
    assert world.embedder.embedded == first + 2 * (3 - told.reused)
    assert await ids(world.plane()) == sorted(e.id for e in world.events())


async def test_what_waited_too_long_is_written_again_from_its_own_vectors(tmp_path: Path) -> None:
    """Seven hours after the interruption the staged objects are too old to be named safely for long."""
    world = World(DictStore(), tmp_path, clock=Clock())
    plane = await old(world)
    with world.faults.on("/manifests/0", Mishap(lost="request"), "put_new"), pytest.raises(Unavailable):
        await reembed(plane.engine, TENANT, dry_run=False)
    assert world.clock is not None
    world.clock.advance(7 * 3600)
    world.embedder.embedded = 0
    told = await reembed(world.plane().engine, TENANT, dry_run=False)
    assert (told.reused, told.embedded, world.embedder.embedded) == (0, 0, 0)
    assert await ids(world.plane(), request=HYBRID) == sorted(e.id for e in world.events())


async def test_events_written_meanwhile_stay_in_the_tail_and_are_built_later(world: World) -> None:
    plane = await old(world)
    await world.write(plane, puts([event(50, day=NEXT)]))
    await reembed(plane.engine, TENANT, dry_run=False)
    assert await ids(world.plane()) == sorted(e.id for e in world.events())
    await world.plane().build(TENANT, [NEXT], specs=())
    assert await ids(world.plane(), request=HYBRID) == sorted(e.id for e in world.events())


async def test_a_day_published_meanwhile_is_made_again(world: World) -> None:
    """A process of the old model publishes while the days are embedded. Seen to fail without
    `same_sources`: the event was lost."""
    plane = await old(world)
    await world.write(plane, puts([event(50, day=NEXT)]))
    embed = world.embedder.embed_documents

    async def publish_first(texts: Any) -> Any:
        world.embedder.__dict__.pop("embed_documents")
        mine, world.embedder = world.embedder, copy(world.embedder)  # another day is being made with it meanwhile
        world.embedder.model = "made"
        other, world.embedder = world.plane(), mine
        await other.build(TENANT, [NEXT], specs=())
        return await embed(texts)

    world.embedder.__dict__["embed_documents"] = publish_first
    told = await reembed(plane.engine, TENANT, dry_run=False)
    assert told.rows == 7
    days = await load_days(plane.engine.store, await load_head(plane.engine.store, TENANT))
    assert {e.shards.vector.model for e in days.values() if e.shards} == {"another"}
    assert await ids(world.plane(), request=HYBRID) == sorted(e.id for e in world.events())


async def test_a_process_of_the_old_model_can_no_longer_build(world: World) -> None:
    plane = await old(world)
    await reembed(plane.engine, TENANT, dry_run=False)
    world.embedder.model = "made"
    await world.write(plane, puts([event(50, day=NEXT)]))
    with pytest.raises(PlaneError, match="model_mismatch"):
        await world.plane().build(TENANT, [NEXT], specs=())


async def test_a_rolled_month_is_opened_and_merged_anew(tmp_path: Path) -> None:
    world = World(DictStore(), tmp_path, clock=Clock(day_start_us("2026-04-10")))
    plane = world.plane()
    await world.write(plane, puts(month_of(3, entities=2)))
    await plane.build(TENANT, world.days(), specs=())
    await plane.roll_up(TENANT, DAY[:7])
    world.embedder.model = "another"
    plane = world.plane()
    told = await reembed(plane.engine, TENANT, dry_run=False)
    assert (told.days, told.months_opened) == (3, 1)
    assert await ids(world.plane(), request=HYBRID) == sorted(e.id for e in world.events())
    state, entry = await world.plane().roll_up(TENANT, DAY[:7])
    assert state == "due"
    assert entry is not None
    assert entry.shards.vector.model == "another"


async def test_a_merge_of_the_old_model_under_way_is_refused(tmp_path: Path) -> None:
    """The month's days have the same sources before and after: only the model tells. Seen to fail without
    `same_model`."""
    world = World(DictStore(), tmp_path, clock=Clock(day_start_us("2026-04-10")))
    plane = world.plane()
    await world.write(plane, puts(month_of(3, entities=2)))
    await plane.build(TENANT, world.days(), specs=())
    merge = merge_month(plane.engine, TENANT, DAY[:7])

    async def merged(days: Any) -> Any:
        made = await merge(days)
        world.embedder.model = "another"
        await reembed(world.plane().engine, TENANT, dry_run=False)
        return made

    with pytest.raises(Conflict, match="build_stale"):
        await roll_up(plane.engine, TENANT, DAY[:7], merge=merged)
