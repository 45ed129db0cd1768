"""A check that rebuilds a sample: silent over what is whole, and it names what is not. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from context_plane.catalog.head import load_head
from context_plane.catalog.lists import decode_days
from context_plane.layout.keys import BundleKey, SegmentKey, ShardFileKey, ShardKey, parse
from context_plane.model import day_start_us
from context_plane.plane import Plane
from context_plane.verify import Checked, sample, verify_bundles, verify_days, verify_months
from tests.laws.plane_world import DAY, SPEC, TENANT, Clock, World, event, month_of, puts
from tests.store.dictionary import DictStore

SPEC_NAME = str(SPEC["name"])


def world_of(folder: Path) -> tuple[World, DictStore]:
    store = DictStore()
    return World(store, folder, clock=Clock(day_start_us("2026-04-10"))), store


async def built(world: World, *, roll: bool = False) -> Plane:
    plane = world.plane()
    await world.write(plane, puts(month_of(2, entities=2, per_day=2)))
    await plane.build(TENANT, world.days())
    if roll:
        await plane.roll_up(TENANT, DAY[:7])
    return world.plane()


async def check(plane: Plane, *, embed_rows: int = 100) -> Checked:
    manifest = await load_head(plane.engine.store, TENANT)
    checked = Checked()
    await verify_days(plane.engine, manifest, checked, count=9, seed=1, embed_rows=embed_rows)
    await verify_months(plane.engine, manifest, checked, count=9, seed=1)
    specs = [await plane.bundles.compiled(SPEC_NAME)]
    await verify_bundles(plane.engine, plane.reader, manifest, specs, checked, count=9, seed=1)
    return checked


@pytest.mark.parametrize("roll", [False, True])
async def test_what_is_whole_passes_and_nothing_is_written(tmp_path: Path, roll: bool) -> None:
    world, store = world_of(tmp_path)
    plane = await built(world, roll=roll)
    before = dict(store.objects)
    checked = await check(plane)
    assert checked.findings == []
    assert (checked.days, checked.months, checked.bundle_days, checked.stale) == (2, int(roll), 2, 0)
    assert (checked.events, checked.rows, checked.embedded) == (8, 8, 8)
    assert checked.bytes > 0
    assert store.objects == before


def is_entity(key: object) -> bool:
    return isinstance(key, ShardKey) and key.kind == "entity"


def is_fulltext(key: object) -> bool:
    return isinstance(key, ShardKey) and key.kind == "fulltext"


def is_vectors(key: object) -> bool:
    return isinstance(key, ShardFileKey) and key.path.endswith(".lance")


DAMAGE: list[tuple[str, Callable[[object], bool]]] = [
    ("segments", lambda key: isinstance(key, SegmentKey)),
    ("entity_shards", is_entity),
    ("fulltext_shards", is_fulltext),
    ("vector_shards", is_vectors),
    (f"bundles/{SPEC_NAME}", lambda key: isinstance(key, BundleKey)),
]


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize(("artefact", "wanted"), DAMAGE, ids=[name for name, _ in DAMAGE])
async def test_a_lost_or_changed_object_is_named_by_day_and_artefact(
    tmp_path: Path, artefact: str, wanted: Callable[[object], bool], lost: bool
) -> None:
    """Seen to fail with a rebuild of bundles that let the lost entity shard end the whole check."""
    world, store = world_of(tmp_path)
    plane = await built(world)
    for key in [key for key in store.objects if wanted(parse(key))]:
        if lost:
            del store.objects[key]
        else:
            data = store.objects[key]
            store.objects[key] = data[:12] + bytes(byte ^ 0x55 for byte in data[12:40]) + data[40:]
    checked = await check(plane)
    assert artefact in {found.artefact for found in checked.findings}
    assert {found.period for found in checked.findings} <= set(world.days())
    assert not any("acct-" in str(found) for found in checked.findings)


async def test_an_index_of_other_events_is_found_although_its_bytes_are_whole(tmp_path: Path) -> None:
    """The shards of another build under this day's segments: every stored byte is what was written."""
    world, store = world_of(tmp_path)
    plane = await built(world)
    before = (await load_head(store, TENANT)).days[DAY]
    await world.write(plane, puts([event(0, entity="acct-00", day=DAY, text="quite another beacon")]))
    await plane.build(TENANT, [DAY])
    head = await load_head(store, TENANT)
    mixed = head.model_copy(
        update={"days": {**head.days, DAY: head.days[DAY].model_copy(update={"shards": before.shards})}}
    )
    checked = Checked()
    await verify_days(plane.engine, mixed, checked, count=9, seed=1)
    assert {(found.period, found.artefact) for found in checked.findings} == {(DAY, "vector_shards")}


async def test_a_dataset_whose_columns_tell_of_other_events_is_found(tmp_path: Path) -> None:
    """The same texts and vectors: its digest is right, and so is every byte. Seen to fail with the digest alone."""
    world, store = world_of(tmp_path)
    plane = await built(world)
    old = (await load_head(store, TENANT)).days[DAY]
    first = next(each for each in world.events() if each.day == DAY)
    await world.write(plane, puts([replace(first, attrs={})]))
    await plane.build(TENANT, [DAY])
    await plane.roll_up(TENANT, DAY[:7])
    head = await load_head(store, TENANT)
    checked = Checked()
    await verify_months(plane.engine, head, checked, count=9, seed=1)
    assert (checked.months, checked.findings) == (1, [])
    days = decode_days(await store.get(head.months[DAY[:7]].days.key))
    shards = days[DAY].shards
    assert shards is not None
    assert old.shards is not None
    assert shards.vector.digest == old.shards.vector.digest
    mixed = days[DAY].model_copy(update={"shards": shards.model_copy(update={"vector": old.shards.vector})})
    await verify_days(plane.engine, head.model_copy(update={"days": {DAY: mixed}}), checked, count=9, seed=1)
    assert [str(found) for found in checked.findings] == [
        f"{DAY} vector_shards: 1 of 4 stored records say other than their events"
    ]


async def test_vectors_that_the_texts_do_not_give_are_found(tmp_path: Path) -> None:
    world, _ = world_of(tmp_path)
    plane = await built(world)

    async def others(texts: list[str]) -> object:
        return (await type(world.embedder).embed_documents(world.embedder, texts))[::-1]

    world.embedder.__dict__["embed_documents"] = others
    found = (await check(plane)).findings
    assert {each.artefact for each in found} == {"vector_shards"}
    assert (await check(plane, embed_rows=0)).findings == []


async def test_stale_bundles_are_counted_and_not_compared(tmp_path: Path) -> None:
    world, _ = world_of(tmp_path)
    plane = await built(world)
    await world.write(plane, puts([event(77, day=DAY)]))
    await plane.build(TENANT, [DAY], specs=())
    checked = await check(world.plane())
    assert (checked.findings, checked.stale) == ([], 2)


def test_a_sample_is_the_seeds() -> None:
    days = [f"2026-03-{n:02}" for n in range(1, 29)]
    assert sample(days, 5, 1, "acme") == sample(days[::-1], 5, 1, "acme")
    assert sample(days, 5, 1, "acme") != sample(days, 5, 2, "acme")
    assert sample(days, 99, 1, "acme") == days
