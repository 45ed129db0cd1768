"""Law 3 of a day that is cut: wherever and in whatever order its ranges are made, the same bytes are published."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import context_plane.materialize
from context_plane.catalog.head import load_head
from context_plane.erase import erase_entity
from context_plane.erased import verify_erasure
from context_plane.fold import fold_day
from context_plane.layout.keys import PartKey, parse
from context_plane.plane import Plane
from context_plane.publish import publish_staged
from context_plane.ranges import cut, embed_range, vectors_ahead
from context_plane.reindex import build_day, index_entities, index_fulltext, index_vectors
from context_plane.staging import load_staged
from tests.laws.plane_world import DAY, TENANT, World, event, month_of, puts
from tests.laws.test_rebuild import SPEC_NAME, digests, some_events
from tests.store.dictionary import DictStore


@given(st.lists(st.integers(0, 10**6), max_size=60), st.integers(1, 12))
def test_ranges_cover_all_in_turn_and_weigh_about_the_same(sizes: list[int], count: int) -> None:
    """No range is heavier than its share by more than the heaviest item. Seen to fail with an empty range."""
    spans = cut(sizes, count)
    assert [n for first, stop in spans for n in range(first, stop)] == list(range(len(sizes)))
    assert all(first < stop for first, stop in spans)
    assert len(spans) <= count
    weights = [max(size, 1) for size in sizes]
    for first, stop in spans:
        assert sum(weights[first:stop]) <= sum(weights) / count + max(weights)


async def build_in_ranges(plane: Plane, day: str, count: int, order: Sequence[int]) -> None:
    """As the assets do: ranges first, by planes of their own, then the step. `order`: of the ranges that are made."""
    await fold_day(plane.engine, TENANT, day)
    for number in order:
        await embed_range(plane.engine, TENANT, day, number, count)
    ahead = await vectors_ahead(plane.engine, TENANT, day, count)
    await index_vectors(plane.engine, tenant=TENANT, day=day, ahead=ahead)
    await index_entities(plane.engine, tenant=TENANT, day=day)
    await index_fulltext(plane.engine, tenant=TENANT, day=day)
    await publish_staged(plane.engine, await load_staged(plane.engine.store, TENANT, day))


async def bundles_in_ranges(plane: Plane, day: str, count: int, order: Sequence[int]) -> None:
    for number in order:
        await plane.materialize_range(TENANT, SPEC_NAME, day, number, count)
    await plane.materialize(TENANT, SPEC_NAME, day, ranges=count)


def whole(folder: Path) -> Any:
    async def made() -> Any:
        world = World(DictStore(), folder)
        plane = world.plane()
        await world.write(plane, puts(some_events()))
        await plane.build(TENANT, world.days())
        return await digests(plane)

    return asyncio.run(made())


WHOLE: list[Any] = []
"""Made once: what a build that is not cut publishes."""


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 7), st.data())
def test_any_cut_publishes_the_same_bytes(count: int, data: st.DataObject) -> None:
    """Ranges in any order, twice, or not at all. Seen to fail with a range left out of the bundles, and with a range
    of another cut taken for one of this."""
    order = data.draw(st.lists(st.integers(0, count - 1), max_size=2 * count))
    other = data.draw(st.integers(1, 7), "another cut, whose first range was made too")

    async def made(folder: Path) -> Any:
        world = World(DictStore(), folder)
        plane = world.plane()
        await world.write(plane, puts(some_events()))
        for day in world.days():
            await build_in_ranges(plane, day, count, order)
        for day in world.days():
            await plane.materialize_range(TENANT, SPEC_NAME, day, 0, other)
            await bundles_in_ranges(plane, day, count, order)
        return await digests(plane)

    with TemporaryDirectory() as folder:
        if not WHOLE:
            WHOLE.append(whole(Path(folder) / "whole"))
        assert asyncio.run(made(Path(folder) / "cut")) == WHOLE[0]


async def test_what_ranges_made_is_not_made_again(world: World) -> None:
    """By a range that is asked for again, the step, or another cut's day. Seen to fail with parts that are not looked
    for, and with texts embedded once for each event that has them."""
    plane = world.plane()
    same = [event(n, entity=f"acct-{n:02}", text="one text for all") for n in range(3)]
    await world.write(plane, puts([*month_of(1, entities=6), *same]))
    await fold_day(plane.engine, TENANT, DAY)
    for number in range(3):
        assert (await embed_range(plane.engine, TENANT, DAY, number, 3)).made > 0
    embedded = world.embedder.embedded
    assert (await embed_range(plane.engine, TENANT, DAY, 1, 3)).objects == 0
    assert (await embed_range(plane.engine, TENANT, DAY, 7, 3)).objects == 0, "a day of fewer ranges"
    stage = await index_vectors(
        plane.engine, tenant=TENANT, day=DAY, ahead=await vectors_ahead(plane.engine, TENANT, DAY, 3)
    )
    assert world.embedder.embedded == embedded
    assert stage.embedded == stage.rows


async def test_a_rebuild_embeds_only_the_texts_that_are_new(world: World) -> None:
    """In ranges too. Seen to fail with ranges that know nothing of the published shard."""
    plane = world.plane()
    await world.write(plane, puts(month_of(1, entities=6, per_day=2)))
    await build_day(plane.engine, TENANT, DAY)
    await world.write(plane, puts([event(500, entity="acct-03", text="a new text")]))
    await fold_day(plane.engine, TENANT, DAY)
    before = world.embedder.embedded
    done = [await embed_range(plane.engine, TENANT, DAY, number, 4) for number in range(4)]
    assert [each.made for each in done] == [1, 0, 0, 0], "one segment changed, and one of its texts is new"
    assert world.embedder.embedded == before + 1


@pytest.mark.parametrize("how", ["deleted", "damaged"])
async def test_parts_are_disposable(world: World, how: str) -> None:
    """Seen to fail with an error from a part that is not there."""
    plane = world.plane()
    await world.write(plane, puts(some_events()))
    await plane.build(TENANT, world.days())
    wanted = await digests(plane)
    other = World(DictStore(), world.folder / "other")
    plane = other.plane()
    await other.write(plane, puts(some_events()))
    for day in other.days():
        await fold_day(plane.engine, TENANT, day)
        for number in range(2):
            await embed_range(plane.engine, TENANT, day, number, 2)
        await spoil(other, how)
        await build_in_ranges(plane, day, 2, [])
    for day in other.days():
        for number in range(2):
            await plane.materialize_range(TENANT, SPEC_NAME, day, number, 2)
        await spoil(other, how)
        await bundles_in_ranges(plane, day, 2, [])
    assert await digests(plane) == wanted


async def test_another_program_takes_no_bundles_that_were_staged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mended one makes all of them anew. Seen to fail (nothing made) with a key that does not name the program."""
    plane = world.plane()
    await world.write(plane, puts(some_events()))
    await plane.build(TENANT, world.days(), specs=())
    day = world.days()[-1]
    assert (await plane.materialize_range(TENANT, SPEC_NAME, day, 0, 2)).made > 0
    assert (await plane.materialize_range(TENANT, SPEC_NAME, day, 0, 2)).made == 0
    monkeypatch.setattr(context_plane.materialize, "PROGRAM", "mended")
    assert (await plane.materialize_range(TENANT, SPEC_NAME, day, 0, 2)).made > 0


async def spoil(world: World, how: str) -> None:
    keys = [info.key async for info in world.inner.list("") if isinstance(parse(info.key), PartKey)]
    assert keys
    if how == "deleted":
        await world.inner.delete(keys)
        return
    for key in keys:
        stored = await world.inner.get(key)
        await world.inner.put(key, stored[:-1] + bytes([stored[-1] ^ 1]))


async def test_an_erasure_leaves_no_part_that_names_the_entity(world: World) -> None:
    """Law 8. Seen to fail with parts that a sweep does not know."""
    plane = world.plane()
    await world.write(plane, puts(month_of(1, entities=4)))
    await plane.build(TENANT, [DAY])
    for number in range(2):
        await plane.materialize_range(TENANT, SPEC_NAME, DAY, number, 2)
    receipt = await erase_entity(plane.engine, TENANT, "acct-01", build_day=build_day)
    assert await verify_erasure(plane.engine, TENANT, "acct-01", receipt) == []
    parts = [info.key async for info in world.inner.list("") if isinstance(parse(info.key), PartKey)]
    assert parts == []
    assert (await load_head(plane.engine.store, TENANT)).tombstones == ()
