"""Laws 3 and 4: the same inputs give the same bytes, and derived state can be thrown away."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from context_plane.catalog.head import load_head
from context_plane.catalog.named import load_buckets
from context_plane.fold import fold_day
from context_plane.model import Event
from context_plane.plane import Plane
from context_plane.publish import publish_staged
from context_plane.reindex import build_day, index_entities, index_fulltext, index_vectors
from context_plane.staging import load_staged
from tests.laws.plane_world import BEACON, SPEC, TENANT, World, event, fingerprint, ids, month_of, puts, timeline
from tests.store.dictionary import DictStore

SPEC_NAME = str(SPEC["name"])
QUERY = replace(BEACON, text="invoice beacon question", mode="hybrid")


def some_events() -> list[Event]:
    events = month_of(3, entities=3, per_day=2)
    events[4] = replace(events[4], text="a long story about the export. " * 200)
    events[7] = replace(events[7], text=None, attrs={"seats": 4})
    return [replace(e, kind="message", thread="t", text="ok") if n % 5 == 0 else e for n, e in enumerate(events)]


async def digests(plane: Plane) -> dict[str, Any]:
    """Content digests of everything built, by what it is."""
    head = await load_head(plane.engine.store, TENANT)
    found: dict[str, Any] = {}
    for day, entry in head.days.items():
        assert entry.segments
        assert entry.shards
        shards = entry.shards
        found[day] = (entry.segments.digest, shards.entity.digest, shards.fulltext.digest, shards.vector.digest)
    for day, built in head.bundles[SPEC_NAME].items():
        found[f"bundles {day}"] = [bucket.digest for bucket in await load_buckets(plane.engine.store, built)]
    return found


async def answers(plane: Plane) -> list[Any]:
    """Every way to read, without the keys of objects."""
    found: list[Any] = [fingerprint(await plane.search(TENANT, QUERY))]
    found += [fingerprint(await plane.search(TENANT, replace(QUERY, entities=("acct-00", "acct-02"))))]
    found += [(await plane.entities(TENANT)).entities]
    for entity in ("acct-00", "acct-01", "acct-02"):
        found += [fingerprint(await timeline(plane, entity))]
        bundle = await plane.bundle(TENANT, entity, spec=SPEC_NAME)
        found += [(bundle.as_of, bundle.json_bytes, bundle.digest, bundle.freshness)]
    return found


async def at_once(world: World, plane: Plane) -> None:
    await world.write(plane, puts(some_events()))
    await plane.build(TENANT, world.days())


async def test_any_order_any_batches_any_builds_the_same_bytes(world: World, real_world: World) -> None:
    """Events one by one in random order, built after every few, days in any order; the store is another one too.

    Seen to fail with blocks in the order of arrival (`apply_writes` without its sort), and with randomness in a
    vector shard's digest.
    """
    one, other = world.plane(), real_world.plane()
    await at_once(world, one)
    events = some_events()
    random.Random(7).shuffle(events)
    for start in range(0, len(events), 5):
        for each in events[start : start + 5]:
            if each.id == "e3":
                await real_world.write(other, puts([replace(each, text="a first version")]))
            await real_world.write(other, puts([each]), visible="after_build" if start == 5 else "now")
        if start in (5, 10):
            await other.build(TENANT, [events[start].day], specs=())
    await other.build(TENANT, real_world.days()[::-1])
    assert await digests(one) == await digests(other)
    assert await answers(world.plane()) == await answers(real_world.plane())
    assert real_world.embedder.embedded < 3 * len(events)


async def test_a_tail_and_a_build_answer_alike(world: World) -> None:
    """All but short messages, which the build joins to their predecessors wherever these are.

    Seen to fail with tail rows whose vectors are lost.
    """
    plane = world.plane()
    events = [replace(e, thread=None) for e in some_events()]
    events[2] = replace(events[2], vector=world_vector())
    await world.write(plane, puts(events))
    before = await legs(plane)
    await plane.build(TENANT, world.days(), specs=())
    after = await legs(plane)
    assert before == after


def world_vector() -> Any:
    from tests.retrieval.world import embed

    return embed(["somewhere else"])[0]


async def legs(plane: Plane) -> list[Any]:
    """Scores and ranks of the tenant's search and of one entity's."""
    one = replace(QUERY, entities=("acct-01",))
    return [leg_scores(await plane.search(TENANT, request)) for request in (QUERY, one)]


def leg_scores(answer: Any) -> list[tuple[Any, ...]]:
    return [(e[1], *e[7:12]) for e in fingerprint(answer)]


@pytest.mark.parametrize("kept", ["nothing", "directories"])
async def test_indexes_and_bundles_can_be_deleted_and_come_back(real_world: World, kept: str) -> None:
    """The published manifest names shards and packs that are gone; the same process may hold them in its cache.

    Seen to fail with packs reused because a directory, cached or kept, names them.
    """
    plane = real_world.plane()
    await at_once(real_world, plane)
    before, seen = await digests(plane), await answers(plane)
    doomed = [info.key async for info in real_world.inner.list(f"tenants/{TENANT}/")]
    doomed = [key for key in doomed if "/indexes/" in key or "/bundles/" in key]
    if kept == "directories":
        head = await load_head(plane.engine.store, TENANT)
        named = {built.directory.key for built in head.bundles[SPEC_NAME].values()}
        doomed = [key for key in doomed if key not in named]
    assert doomed
    await real_world.inner.delete(doomed)
    await plane.build(TENANT, real_world.days())
    assert await digests(plane) == before
    assert await answers(real_world.plane()) == seen
    assert await answers(plane) == seen


async def test_unchanged_bundles_are_not_written_again(world: World) -> None:
    """Seen to fail with `_buckets_before` returning nothing."""
    plane = world.plane()
    await at_once(world, plane)
    again = await plane.materialize(TENANT, SPEC_NAME, world.days()[-1])
    assert again.objects == 0
    assert again.reused == 2, "the pack and the directory"


async def test_a_rebuild_embeds_only_what_changed(world: World) -> None:
    """Seen to fail with `known_vectors` returning nothing."""
    plane = world.plane()
    await at_once(world, plane)
    before = world.embedder.embedded
    await world.write(plane, puts([event(500, text="one new text")]))
    await plane.build(TENANT, world.days(), specs=())
    assert world.embedder.embedded - before == 1
    assert len(await ids(world.plane(), replace(BEACON, text="new"))) == 1


async def test_a_build_that_hands_over_in_memory_makes_what_the_artefacts_make_one_by_one(world: World) -> None:
    """Twice, so that the second build meets segments that the log touches and others that it does not.

    Seen to fail with a part of an entity's lines handed over.
    """
    plane, other = world.plane(), World(DictStore(), world.folder / "other")
    staged = other.plane()
    for events in (some_events(), [replace(some_events()[0], text="rewritten"), event(99, entity="acct-09")]):
        await world.write(plane, puts(events))
        await other.write(staged, puts(events))
        for day in world.days():
            await build_day(plane.engine, TENANT, day)
            await fold_day(staged.engine, TENANT, day)
            await index_vectors(staged.engine, tenant=TENANT, day=day)
            await index_entities(staged.engine, tenant=TENANT, day=day)
            await index_fulltext(staged.engine, tenant=TENANT, day=day)
            await publish_staged(staged.engine, await load_staged(staged.engine.store, TENANT, day))
        assert await shards_of(plane) == await shards_of(staged)


async def shards_of(plane: Plane) -> dict[str, Any]:
    """Content digests of the days' segments and shards, without bundles."""
    head = await load_head(plane.engine.store, TENANT)
    found = {}
    for day, entry in head.days.items():
        assert entry.segments
        assert entry.shards
        shards = entry.shards
        found[day] = (entry.segments.digest, shards.entity.digest, shards.fulltext.digest, shards.vector.digest)
    return found
