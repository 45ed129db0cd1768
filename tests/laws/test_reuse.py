"""Laws 3 and 4 of a second build: what is the same and whole is named again, and what is damaged comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lancedb
import pytest

from context_plane.catalog.head import load_head
from context_plane.catalog.lists import decode_segments, encode_segments
from context_plane.catalog.manifest import Manifest, Shards, Tombstone
from context_plane.catalog.named import load_buckets, named_keys
from context_plane.erase import begin_erasure, erase_entity, finish_erasure
from context_plane.errors import Corrupt
from context_plane.fold import fold_day
from context_plane.materialize import sources_of
from context_plane.model import add_days
from context_plane.plane import Plane
from context_plane.publish import publish_staged
from context_plane.reindex import build_day, index_entities, index_fulltext, index_vectors
from context_plane.shards import UNREAD, dataset_name, from_store, unpacked
from context_plane.staging import load_staged
from tests.laws.plane_world import DAY, TENANT, World, delete_of, event, ids, month_of, puts, timeline
from tests.laws.test_rebuild import SPEC_NAME, answers, digests, some_events
from tests.laws.test_rollup import DAYS, MONTH, built, closed_world, holding, rolled

NEXT = add_days(DAY, 1)


async def objects(world: World) -> dict[str, bytes]:
    """Everything stored but staging records, which every build writes over."""
    keys = [info.key async for info in world.inner.list("")]
    return {key: await world.inner.get(key) for key in keys if "/staging/" not in key}


async def head(plane: Plane) -> Manifest:
    return await load_head(plane.engine.store, TENANT)


async def test_a_second_build_writes_nothing(world: World) -> None:
    """No object, no manifest version, and no hint; by other processes too. The bundles stay fresh.

    Seen to fail with each of: a shard, a pack or a directory put anew, a commit of an equal day or bundle day.
    """
    await built(world, some_events())
    listed = {info.key async for info in world.inner.list("")}
    before = await objects(world)
    again = world.plane()
    await again.build(TENANT, world.days())
    assert await objects(world) == before
    assert {info.key async for info in world.inner.list("")} == listed
    assert all(item[3] == "fresh" for item in await answers(again) if isinstance(item, tuple) and len(item) == 4)


async def test_one_by_one_the_artefacts_write_nothing_either(world: World) -> None:
    """As Dagster builds them. Seen to fail with a staging record that forgets the day before."""
    plane = await built(world, some_events())
    before = await objects(world)
    for day in world.days():
        await fold_day(plane.engine, TENANT, day)
        assert (await index_vectors(plane.engine, tenant=TENANT, day=day)).reused
        assert (await index_entities(plane.engine, tenant=TENANT, day=day)).reused
        assert (await index_fulltext(plane.engine, tenant=TENANT, day=day)).reused
        assert (await publish_staged(plane.engine, await load_staged(plane.engine.store, TENANT, day))).unchanged
    assert await objects(world) == before


async def derived(plane: Plane) -> dict[str, str]:
    """One key of each kind of derived object of the first day."""
    manifest = await head(plane)
    shards = manifest.days[DAY].shards
    assert shards is not None
    bundles = manifest.bundles[SPEC_NAME][DAY]
    packs = [bucket.key for bucket in await load_buckets(plane.engine.store, bundles) if bucket.key]
    unread = next(file.path for file in shards.vector.files if file.path.startswith(UNREAD))
    read = next(file.path for file in shards.vector.files if not file.path.startswith(UNREAD))
    return {
        "entity": shards.entity.key,
        "fulltext": shards.fulltext.key,
        "vector": f"{shards.vector.key}/{read}",
        "vector, a file that readers leave alone": f"{shards.vector.key}/{unread}",
        "pack": packs[0],
        "directory": bundles.directory.key,
    }


KINDS = ("entity", "fulltext", "vector", "vector, a file that readers leave alone", "pack", "directory")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["deleted", "altered"])
async def test_what_is_damaged_is_written_again(world: World, kind: str, how: str) -> None:
    """And nothing but its artefact (a pack and its directory go together). Seen to fail with
    objects named again unread."""
    plane = await built(world, some_events())
    before, content = await objects(world), await digests(plane)
    key = (await derived(plane))[kind]
    if how == "deleted":
        await world.inner.delete([key])
    else:
        await world.inner.put(key, before[key][:-1] + bytes([before[key][-1] ^ 1]))
    await world.plane().build(TENANT, world.days())
    after = await objects(world)
    named = await named_keys(world.inner, await head(plane), {})
    assert key not in named
    assert named <= after.keys()
    assert await digests(plane) == content
    made = [key for key in after.keys() - before.keys() if "/manifests/" not in key]
    folders = {key.rpartition("/shard-")[0].rpartition("/bundles/")[0] for key in made}
    assert len(folders) == 1
    assert len(made) == {"pack": 2, "directory": 2, "entity": 1, "fulltext": 1}.get(kind, len(made))
    again = await objects(world)
    await world.plane().build(TENANT, world.days())
    assert await objects(world) == again


async def test_a_damaged_segment_list_is_an_error(world: World) -> None:
    """It is no derived state: nothing to restore it from. Seen to fail (an entity is gone) with a list that is decoded
    unhashed."""
    plane = await built(world, some_events())
    segments = (await head(plane)).days[DAY].segments
    assert segments is not None
    entries = decode_segments(await world.inner.get(segments.key))
    await world.inner.put(segments.key, encode_segments(entries[1:])[0])
    with pytest.raises(Corrupt):
        await build_day(plane.engine, TENANT, DAY)


async def test_events_sent_again_cost_a_manifest_and_nothing_else(world: World) -> None:
    """The log has a batch more, which the day must cover; no bundle gets stale. Seen to fail with a day counted as
    unchanged when its contents are (the batch stays in the tail for good), and with bundles that go by `covered`."""
    plane = await built(world, some_events())
    before = await objects(world)
    await world.write(plane, puts([each for each in some_events() if each.day == DAY]))
    await plane.build(TENANT, [DAY], specs=())
    made = (await objects(world)).keys() - before.keys()
    assert {key.split("/")[2] for key in made} == {"log", "manifests"}
    assert (await head(plane)).log_floor == 2
    assert (await plane.bundle(TENANT, "acct-00", spec=SPEC_NAME)).freshness == "fresh"
    manifest = await head(plane)
    spec = plane.specs[SPEC_NAME]
    assert all(manifest.bundles[SPEC_NAME][day].sources == sources_of(manifest, spec, day) for day in world.days())
    assert not (await plane.snapshots.current(TENANT, "strong")).tail.batches


async def test_an_unchanged_day_still_moves_the_floor(world: World) -> None:
    """Two builds that saw different ends of the log left it behind. Seen to fail with no commit at all."""
    plane = world.plane()
    await world.write(plane, puts([event(1, day=NEXT)]))
    await fold_day(plane.engine, TENANT, NEXT)
    await index_vectors(plane.engine, tenant=TENANT, day=NEXT)
    await index_entities(plane.engine, tenant=TENANT, day=NEXT)
    await index_fulltext(plane.engine, tenant=TENANT, day=NEXT)
    await world.write(plane, puts([event(2, day=DAY)]))
    await build_day(plane.engine, TENANT, DAY)
    await publish_staged(plane.engine, await load_staged(plane.engine.store, TENANT, NEXT))
    before = await head(plane)
    assert before.log_floor == 1
    await build_day(plane.engine, TENANT, NEXT)
    after = await head(plane)
    assert (after.log_floor, after.version, after.days) == (2, before.version + 1, before.days)
    await build_day(plane.engine, TENANT, NEXT)
    assert (await head(plane)).version == after.version


async def test_a_day_that_was_emptied_stays_as_it_is(world: World) -> None:
    """It has no shards to compare. Seen to fail with `before` taken for a day that was never built."""
    plane = world.plane()
    only = event(1)
    await world.write(plane, puts([only]))
    await build_day(plane.engine, TENANT, DAY)
    await world.write(plane, [delete_of(only)])
    await build_day(plane.engine, TENANT, DAY)
    version = (await head(plane)).version
    await build_day(plane.engine, TENANT, DAY)
    assert (await head(plane)).version == version


async def test_a_life_begun_again_the_same_is_cited_from_its_own_segment(world: World) -> None:
    """While the erasure is under way the published shard still holds the old life, with the same content. Seen to fail
    with shards named again whatever became of the segments."""
    plane = world.plane()
    events = month_of(1, entities=2)
    await world.write(plane, puts(events))
    await build_day(plane.engine, TENANT, DAY)
    old = (await timeline(plane, "acct-00")).events[0].citation.segment
    stone = await begin_erasure(plane.engine, TENANT, "acct-00", erasure="ab" * 16)
    await world.write(plane, puts([events[0]]))
    await build_day(plane.engine, TENANT, DAY)
    assert isinstance(stone, Tombstone)
    await finish_erasure(plane.engine, TENANT, "acct-00", stone, build_day=build_day)
    new = (await timeline(world.plane(), "acct-00")).events[0].citation.segment
    assert new != old
    assert await world.inner.get(new)
    assert await ids(world.plane()) == ["e0", "e1"]


# --- months -------------------------------------------------------------------------------------


async def test_a_second_backfill_leaves_a_rolled_month_as_it_is(tmp_path: Path) -> None:
    """Seen to fail with days of a month published anew: they leave it, and it is merged again."""
    world = closed_world(tmp_path)
    plane = await built(world)
    await rolled(plane)
    before = await objects(world)
    again = world.plane()
    await again.build(TENANT, world.days())
    assert (await again.roll_up(TENANT, MONTH))[0] == "rolled_up"
    assert await objects(world) == before


def one_key(shards: Shards, kind: str) -> str:
    keys = {"entity": shards.entity.key, "fulltext": shards.fulltext.key}
    return keys.get(kind, f"{shards.vector.key}/{shards.vector.files[0].path}")


@pytest.mark.parametrize("kind", ["entity", "fulltext", "vector"])
@pytest.mark.parametrize("how", ["deleted", "altered"])
async def test_a_damaged_month_is_merged_again(tmp_path: Path, kind: str, how: str) -> None:
    """Only what is damaged is written. Seen to fail with a month that is taken as it is named."""
    world = closed_world(tmp_path)
    plane = await built(world)
    month = await rolled(plane)
    seen, before = await answers(plane), await objects(world)
    key = one_key(month.shards, kind)
    if how == "deleted":
        await world.inner.delete([key])
    else:
        await world.inner.put(key, before[key][:-1] + bytes([before[key][-1] ^ 1]))
    state, entry = await world.plane().roll_up(TENANT, MONTH)
    assert state == "due"
    assert entry is not None
    assert (entry.covered, entry.sources, entry.contents) == (month.covered, month.sources, month.contents)
    assert digests_of(entry.shards) == digests_of(month.shards)
    made = {key for key in (await objects(world)).keys() - before.keys() if "/manifests/" not in key}
    assert {key.split("/")[3] for key in made} == {kind}
    assert await answers(world.plane()) == seen


@pytest.mark.parametrize("kind", ["entity", "fulltext", "vector"])
async def test_days_come_back_whose_month_was_deleted(tmp_path: Path, kind: str) -> None:
    """They leave it until it is merged again: a backfill of days restores what readers see. Seen to fail with days
    that are left in a month nobody can read."""
    world = closed_world(tmp_path)
    plane = await built(world)
    month = await rolled(plane)
    seen = await answers(plane)
    await world.inner.delete([one_key(month.shards, kind)])
    again = world.plane()
    await again.build(TENANT, world.days())
    assert await answers(world.plane()) == seen
    assert digests_of((await rolled(again)).shards) == digests_of(month.shards)
    assert await answers(world.plane()) == seen


async def test_a_month_that_is_merged_of_the_same_days_names_its_shards_again(tmp_path: Path) -> None:
    """A day came back for events that were sent again. Seen to fail with a merge that forgets the month before."""
    world = closed_world(tmp_path)
    plane = await built(world)
    before = await rolled(plane)
    await world.write(plane, puts([each for each in world.events() if each.day == DAYS[1]]))
    await plane.build(TENANT, [DAYS[1]], specs=())
    assert DAYS[1] in (await head(plane)).days
    after = await rolled(plane)
    assert after.shards == before.shards
    assert after.contents == before.contents
    assert (await plane.bundle(TENANT, "acct-00", spec=SPEC_NAME)).freshness == "fresh"
    assert after.covered[DAYS[1]] > before.covered[DAYS[1]]


async def told_by_vectors(plane: Plane, shards: Shards) -> list[dict[str, Any]]:
    """The records of a stored dataset, as plain lancedb reads them."""
    async with unpacked(shards.vector, from_store(plane.engine)) as folder:
        table = lancedb.connect(folder).open_table(dataset_name(shards.vector.key))
        return list(table.search().select(["row", "entity", "kind", "attrs"]).limit(1000).to_arrow().to_pylist())


async def test_a_late_change_of_columns_alone_reaches_the_months_dataset(tmp_path: Path) -> None:
    """Texts, vectors and the order of rows stay: an attribute goes, a kind changes, an event moves to another entity,
    which is erased afterwards. Seen to fail (the removed value and the erased entity stay in the store) with a dataset
    that is named again by its own digest alone."""
    world = closed_world(tmp_path)
    plane = world.plane()
    first = event(0, entity="acct-00", day=DAYS[0], attrs={"mail": "jo@removed.example"})
    moves = event(1, entity="acct-01", day=DAYS[0])
    await world.write(plane, puts([first, moves, event(2, entity="acct-02", day=DAYS[0])]))
    await plane.build(TENANT, [DAYS[0]], specs=())
    before = (await rolled(plane)).shards
    moved = replace(moves, entity="acct-00x")
    await world.write(plane, [*puts([replace(first, attrs={}, kind="note"), moved]), delete_of(moves)])
    await plane.build(TENANT, [DAYS[0]], specs=())
    after = (await rolled(plane)).shards
    assert after.vector.digest == before.vector.digest, "the same texts in the same order"
    told = sorted(await told_by_vectors(plane, after), key=lambda record: record["row"])
    assert [(record["entity"], record["kind"], record["attrs"]) for record in told] == [
        ("acct-00", "note", "{}"),
        ("acct-00x", "ticket", '{"n":1}'),
        ("acct-02", "ticket", '{"n":2}'),
    ]
    await erase_entity(plane.engine, TENANT, "acct-01", build_day=build_day)
    assert [key async for key in holding(world, "acct-01")] == []
    assert [key async for key in holding(world, "jo@removed.example")] == []


def digests_of(shards: Shards) -> tuple[str, str, str]:
    return shards.entity.digest, shards.fulltext.digest, shards.vector.digest
