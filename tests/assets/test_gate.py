"""What the gate withholds: damage to any new object, artefacts of other events, a day that is emptied without a reason,
and a graph that does not find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import assets.days
import assets.published
from assets.gate import CHECK, RECOVERY, Counts, Withheld, check_result, judge
from assets.report import Made
from context_plane import reread
from context_plane.catalog.head import load_head
from context_plane.errors import Conflict, Unavailable
from context_plane.fold import fold_day, load_pending
from context_plane.index import vector_shard
from context_plane.layout.pack import decode_page
from context_plane.model import Delete, Put
from context_plane.plane import Plane
from context_plane.publish import publish_staged
from context_plane.reindex import index_entities, index_fulltext, index_vectors
from context_plane.shards import from_store, put_fulltext, put_vectors, read_vectors
from context_plane.staging import (
    Staged,
    load_entity_stage,
    load_fulltext_stage,
    load_staged,
    load_vector_stage,
    save,
)
from context_plane.store.faults import Mishap
from tests.assets.test_build import BEFORE_COMMIT, checks
from tests.assets.world import DAYS, World, answers, digests, events
from tests.laws import plane_world
from tests.laws.plane_world import DAY, TENANT, event, puts
from tests.laws.test_ann_recall import poor_graphs
from tests.store.dictionary import DictStore


async def emptying_fold(plane: Plane, tenant: str, day: str) -> Made:
    """A fold that finds nothing in the day of `acme`, and says that it has everything."""
    stage = await fold_day(plane.engine, tenant, day, pending=await load_pending(plane.engine, tenant))
    if tenant == "acme":
        stage = stage.model_copy(update={"segments": None})
        await save(plane.engine.store, tenant, day, "segments", stage)
    return Made("")


def test_a_day_that_is_emptied_without_a_reason_is_withheld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All artefacts agree: they hold nothing. Seen to fail (published, and every event gone) with counts alone."""
    world = World.local(tmp_path)
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant))
    assert world.build()[-1].ok
    with world.open() as opened:
        before, read = digests(opened, "acme"), answers(opened, "acme")
    monkeypatch.setattr(assets.days, "fold", emptying_fold)
    (day,) = world.build(DAYS[-1:])
    said = " ".join(day.problems)
    assert f"acme {DAYS[-1]}: the day would be empty, and no delete, erasure or retention explains it" in said
    assert "40 events missing" in said
    assert "beta" not in said
    monkeypatch.undo()
    with world.open() as opened:
        assert digests(opened, "acme") == before
        assert answers(opened, "acme") == read


def test_a_day_whose_every_event_is_deleted_is_published_empty(tmp_path: Path) -> None:
    world = World.local(tmp_path)
    writes = events("acme", DAYS[:1])
    world.write("acme", writes)
    assert world.build(DAYS[:1])[0].ok
    gone = [Delete(w.event.entity, w.event.ts_us, w.event.id) for w in writes if isinstance(w, Put)]
    world.write("acme", gone)
    result = world.run([*BEFORE_COMMIT, "published"], DAYS[0])
    assert result.success
    assert checks(result)[CHECK].passed


def test_a_day_whose_graph_misses_the_nearest_is_withheld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`beta` is small and carries no graph. Seen to fail (published) without the measurement."""
    world = World.local(tmp_path)
    day = DAYS[0]
    many = events("acme", [day], per_day=1_200)
    world.write("acme", many)
    world.write("beta", events("beta", [day]))
    with monkeypatch.context() as patch:
        poor_graphs(patch)
        result = world.run([*BEFORE_COMMIT, "published"], day)
        check = checks(result)[CHECK]
        assert not check.passed
        assert check.description is not None
        assert f"acme {day}: its graph finds 0." in check.description
        assert "building the day again makes another graph" in check.description
        assert "beta" not in check.description
        with world.open() as opened:
            assert digests(opened, "acme") == {}
            assert day in digests(opened, "beta")
    monkeypatch.setattr(vector_shard, "ANN_ROWS_MIN", 100)
    assert world.run([*BEFORE_COMMIT, "published"], day).success, "a sound graph passes"


async def stage(plane: Plane, tenant: str, day: str) -> None:
    """What a run leaves before its commit."""
    await fold_day(plane.engine, tenant, day)
    await index_vectors(plane.engine, tenant=tenant, day=day)
    await index_entities(plane.engine, tenant=tenant, day=day)
    await index_fulltext(plane.engine, tenant=tenant, day=day)


def test_what_was_judged_is_what_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run stages the whole day meanwhile, with a late event. Seen to fail (its records published, which nobody
    had judged) when the commit read the records again."""
    world, day = World.local(tmp_path), DAYS[0]
    world.write("acme", events("acme", [day]))
    assert world.run(BEFORE_COMMIT, day).success

    async def overtaken(plane: Plane, staged: Staged) -> Withheld | None:
        found = await judge(plane, staged)
        await plane.write("acme", events("late", [day])[:1], body_bytes=1_000)
        await stage(plane, "acme", day)
        return found

    async def publish_later(plane: Plane) -> None:
        await publish_staged(plane.engine, await load_staged(plane.engine.store, "acme", day))

    with monkeypatch.context() as patch, world.open() as opened:
        first = opened.run(load_staged(opened.plane.engine.store, "acme", day))
        patch.setattr(assets.published, "judge", overtaken)
        assert world.run(["published"], day).success
        head = opened.run(load_head(opened.plane.engine.store, "acme"))
        assert head.days[day].segments == first.segments.segments
        with pytest.raises(Conflict) as raised:
            opened.run(publish_later(opened.plane))
        assert raised.value.code == "build_stale", "the later run is told so"
    assert world.build([day])[0].ok


# --- damage -------------------------------------------------------------------------------------


ARTEFACTS = {
    "/segments/": "segment",
    "/lists/": "segment list",
    "/indexes/entity/": "entity shard",
    "/indexes/fulltext/": "full-text shard",
    "/indexes/vector/": "vector shard",
}


def artefact_of(key: str) -> str:
    [name] = [name for part, name in ARTEFACTS.items() if part in key]
    return name


async def judged(plane: Plane) -> Withheld | None:
    return await judge(plane, await load_staged(plane.engine.store, TENANT, DAY))


async def staged(world: plane_world.World, plane: Plane) -> dict[str, bytes]:
    """What a day's four artefacts wrote, beside their records."""
    before = {info.key async for info in world.inner.list("")}
    await stage(plane, TENANT, DAY)
    keys = [info.key async for info in world.inner.list("") if info.key not in before]
    return {key: await world.inner.get(key) for key in keys if "/staging/" not in key}


@pytest.mark.parametrize("piece_bytes", [reread.PIECE_BYTES, 512])
async def test_a_flipped_byte_of_anything_new_is_found_and_named(
    piece_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is, read whole or in pieces. Seen to fail without each of: the hash of the entity shard, that of
    files that only writers of a dataset open, the segments; and with the last piece unread."""
    monkeypatch.setattr(reread, "PIECE_BYTES", piece_bytes)
    world = plane_world.World(DictStore(), tmp_path)
    plane = world.plane()
    await world.write(plane, puts(event(n, entity=f"acct-{n % 3}") for n in range(9)))
    new = await staged(world, plane)
    assert {artefact_of(key) for key in new} == set(ARTEFACTS.values())
    assert await judged(plane) is None
    for key, stored in new.items():
        for at in (len(stored) // 2, len(stored) - 1):
            await world.inner.put(key, stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :])
            found = await judged(plane)
            assert found is not None, (key, at)
            assert found.counts is None
            assert f"corrupt_object: the {artefact_of(key)} tenants/{TENANT}/" in found.reason
            assert key.rpartition("/")[2] in found.reason
            assert "acct-" not in found.reason, "what is told outlives an erasure"
        await world.inner.put(key, stored + b"!")
        assert await judged(plane) is not None, "it goes on"
        await world.inner.put(key, stored)
    assert await judged(plane) is None


async def test_anything_new_that_is_gone_is_found_and_named(tmp_path: Path) -> None:
    """Seen to fail (an error of the step, and a check that says that all agree) with damage alone as a verdict."""
    world = plane_world.World(DictStore(), tmp_path)
    plane = world.plane()
    await world.write(plane, puts(event(n, entity=f"acct-{n % 3}") for n in range(9)))
    for key, stored in (await staged(world, plane)).items():
        await world.inner.delete([key])
        found = await judged(plane)
        assert found is not None, key
        assert found.counts is None
        assert f"object_not_found: the {artefact_of(key)} tenants/{TENANT}/" in found.reason
        assert f"{key.rpartition('/')[2]} is not there" in found.reason
        assert "acct-" not in found.reason, "what is told outlives an erasure"
        await world.inner.put(key, stored)
    assert await judged(plane) is None


async def test_large_objects_are_hashed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with the shard fetched whole."""
    world = plane_world.World(DictStore(), tmp_path)
    plane = world.plane()
    await world.write(plane, puts(event(n, entity=f"acct-{n % 3}") for n in range(9)))
    await staged(world, plane)
    shard = (await load_entity_stage(plane.engine.store, TENANT, DAY)).shard
    assert shard is not None
    monkeypatch.setattr(reread, "PIECE_BYTES", shard.bytes // 4)
    with world.faults.on(shard.key, Mishap(lost="request"), "get"):
        assert await judged(plane) is None


async def test_what_the_published_day_names_is_not_hashed_again(tmp_path: Path) -> None:
    """Seen to fail with every segment of the list read."""
    world = plane_world.World(DictStore(), tmp_path)
    plane = world.plane()
    await world.write(plane, puts(event(n, entity=f"acct-{n % 3}") for n in range(9)))
    first = await staged(world, plane)
    await publish_staged(plane.engine, await load_staged(plane.engine.store, TENANT, DAY))
    await world.write(plane, puts([event(20, entity="acct-1")]))
    second = await staged(world, plane)
    assert sum("/segments/" in key for key in second) == 1
    with world.faults.on("/segments/", Mishap(lost="request"), times=1), pytest.raises(Unavailable):
        await judged(plane)
    kept = [key for key in first if "/segments/" in key]
    for key in kept:
        with world.faults.on(key, Mishap(lost="request")):
            assert await judged(plane) is None


def flip_in_a_block(store: Path, opened: Any, tenant: str, day: str) -> str:
    """One bit of one entity's block of a staged entity shard; the shard's key."""

    async def place() -> tuple[str, int]:
        shard = (await load_entity_stage(opened.plane.engine.store, tenant, day)).shard
        assert shard is not None
        first = decode_page(await opened.plane.engine.store.get_range(shard.key, shard.pages[0].range))[0]
        return shard.key, first.range.offset + first.range.length // 2

    key, at = opened.run(place())
    stored = bytearray((store / key).read_bytes())
    stored[at] ^= 1
    (store / key).write_bytes(stored)
    return str(key)


def test_a_block_that_rotted_is_never_published(tmp_path: Path) -> None:
    """The primary read path. Seen to fail (published, and unreadable) with directory and columns read alone."""
    world = World.local(tmp_path)
    day = DAYS[0]
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant, [day]))
    assert world.run(BEFORE_COMMIT, day).success
    with world.open() as opened:
        key = flip_in_a_block(tmp_path / "store", opened, "acme", day)
    result = world.run(["published"], day)
    check = checks(result)[CHECK]
    assert (check.passed, check.description is not None) == (False, True)
    assert f"acme {day}: corrupt_object: the entity shard {key} is not what was written" in str(check.description)
    assert RECOVERY in str(check.description)
    with world.open() as opened:
        assert digests(opened, "acme") == {}
        assert day in digests(opened, "beta")
    assert world.build([day])[0].ok, "the recovery text is right"


def test_counts_are_shown_where_something_was_counted() -> None:
    """Seen to fail with a row of zeros for a shard that was not opened."""
    seen = Withheld("acme", Counts(entity_rows=3, vector_rows=2, graph_recall=None), "counts disagree")
    damaged = Withheld("beta", None, "corrupt_object: the entity shard x is not what was written")
    table = check_result(DAYS[0], 2, [seen, damaged]).metadata["counts"]
    assert isinstance(table, dg.TableMetadataValue)
    first, second = (str(record.data["counts"]) for record in table.records)
    assert "entity rows 3, vector rows 2" in first
    assert "recall" not in first
    assert second == "not counted"


async def others(plane: Plane, stages: Staged, artefact: str) -> None:
    """A shard of as many rows, of other events, under the record of the right one."""
    columns = (await reread.reread(plane.engine.store, stages)).columns
    assert columns is not None
    if artefact == "vector":
        assert stages.vector.shard is not None
        held = await read_vectors(stages.vector.shard, from_store(plane.engine))
        ids = (*columns.ids[1:], columns.ids[0])
        made = await put_vectors(plane.engine, TENANT, DAY, replace(columns, ids=ids), held.vectors, held.text_digests)
        stage = await load_vector_stage(plane.engine.store, TENANT, DAY)
        await save(plane.engine.store, TENANT, DAY, "vector", stage.model_copy(update={"shard": made}))
        return
    terms = tuple(f"{term}x" for term in columns.terms)
    index = await put_fulltext(plane.engine, TENANT, DAY, replace(columns, terms=terms))
    of_text = await load_fulltext_stage(plane.engine.store, TENANT, DAY)
    await save(plane.engine.store, TENANT, DAY, "fulltext", of_text.model_copy(update={"shard": index}))


@pytest.mark.parametrize("artefact", ["vector", "fulltext"])
async def test_a_shard_of_other_events_is_withheld_though_its_rows_are_as_many(artefact: str, tmp_path: Path) -> None:
    """Seen to fail with rows counted alone."""
    world = plane_world.World(DictStore(), tmp_path)
    plane = world.plane()
    await world.write(plane, puts(event(n, entity=f"acct-{n % 3}") for n in range(9)))
    await staged(world, plane)
    assert await judged(plane) is None
    await others(plane, await load_staged(plane.engine.store, TENANT, DAY), artefact)
    found = await judged(plane)
    assert found is not None
    assert found.counts is not None
    assert found.counts.vector_rows == found.counts.fulltext_rows == found.counts.entity_rows == 9
    strange = (found.counts.vector_rows_misplaced, found.counts.fulltext_terms_miscounted)
    assert [number > 0 for number in strange] == [artefact == "vector", artefact == "fulltext"]
