"""Laws 2 and 5: a reader sees one snapshot, every event exactly once, and what was acknowledged at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from context_plane.erase import erase_entity
from context_plane.errors import Invalid, NotFound
from context_plane.fold import fold_day
from context_plane.model import Put, Write, add_days
from context_plane.plane import Plane
from context_plane.publish import publish_day
from context_plane.recall.values import BundleAnswer
from context_plane.reindex import build_day, index_entities, index_fulltext, index_vectors
from context_plane.retrieval.snapshots import EVENTUAL_AGE_MAX_S, SNAPSHOT_TTL_US
from tests.laws.plane_world import (
    BEACON,
    DAY,
    SPEC,
    TENANT,
    World,
    delete_of,
    event,
    fingerprint,
    ids,
    month_of,
    puts,
    timeline,
)


async def steps(plane: Plane, day: str) -> AsyncIterator[str]:
    """A build of one day, one artefact at a time."""
    segments = await fold_day(plane.engine, TENANT, day)
    yield "fold"
    vector = await index_vectors(plane.engine, segments)
    yield "vectors"
    entity = await index_entities(plane.engine, segments, vector)
    yield "entities"
    fulltext = await index_fulltext(plane.engine, segments, entity)
    yield "fulltext"
    await publish_day(plane.engine, segments, vector, entity, fulltext)
    yield "publish"


async def check_once(world: World, plane: Plane) -> None:
    """Each event of the truth exactly once, by every way to read it, and in its newest form."""
    truth = world.events()
    wanted = sorted(each.id for each in truth)
    assert await ids(plane) == wanted
    assert await ids(plane, mode="hybrid") == wanted
    listed = (await plane.entities(TENANT, limit=1000)).entities
    assert {info.entity: info.events for info in listed} == {
        entity: sum(each.entity == entity for each in truth) for entity in {each.entity for each in truth}
    }
    for entity in {each.entity for each in truth}:
        own = sorted((each for each in truth if each.entity == entity), key=lambda each: each.order, reverse=True)
        assert [(e.id, e.text) for e in (await timeline(plane, entity)).events] == [(e.id, e.text) for e in own]
        assert await ids(plane, entities=(entity,)) == sorted(each.id for each in own)
        assert next(info for info in listed if info.entity == entity).last_ts_us == own[0].ts_us


async def test_every_event_is_there_once_at_every_step_of_a_build(world: World) -> None:
    """New, updated and deleted events, on days built before and not, read by an old and a new process.

    Seen to fail with tail rows that do not mask built ones, and with `strong` read as `eventual`.
    """
    writer, old = world.plane(), world.plane()
    events = month_of(3, entities=2, per_day=2)
    await world.write(writer, puts(events[:8]))
    await writer.build(TENANT, [DAY], specs=())
    await world.write(writer, puts(events[8:]))
    await world.write(writer, [Put(replace(events[0], text="beacon rewritten")), delete_of(events[1])])
    await check_once(world, old)
    for day in (DAY, add_days(DAY, 1)):
        async for _ in steps(writer, day):
            await check_once(world, old)
        await check_once(world, world.plane())
    await world.write(writer, [delete_of(event) for event in events[8:10]])
    await check_once(world, old)


async def test_a_tail_row_hides_its_built_row_before_statistics_and_ranking(world: World) -> None:
    """An update that no longer has the word is not found by it, and its old text weighs nothing.

    Seen to fail with tail rows that do not mask built ones.
    """
    plane = world.plane()
    events = [event(n, text=f"beacon export {'invoice ' * n}") for n in range(6)]
    await world.write(plane, puts(events))
    await plane.build(TENANT, [DAY], specs=())
    changes: list[Write] = [Put(replace(events[0], text="nothing of the kind")), delete_of(events[1])]
    await world.write(plane, changes)
    masked = await plane.search(TENANT, replace(BEACON, text="invoice beacon", mode="hybrid"))
    entity = await plane.search(TENANT, replace(BEACON, text="invoice beacon", mode="hybrid", entities=("acct-01",)))
    await plane.build(TENANT, [DAY], specs=())
    built = await world.plane().search(TENANT, replace(BEACON, text="invoice beacon", mode="hybrid"))
    assert scores(masked) == scores(built) == scores(entity)


def scores(answer: object) -> list[tuple[object, ...]]:
    return [(e[1], *e[5:12]) for e in fingerprint(answer)]  # type: ignore[arg-type]  # a SearchAnswer


async def test_an_acknowledged_event_is_found_by_the_next_strong_read_of_any_process(world: World) -> None:
    """Before any build, and after one, on a day inside built ones. Seen to fail with `strong` read as `eventual`."""
    writer, reader = world.plane(), world.plane()
    assert await ids(reader) == []
    for n in range(4):
        await world.write(writer, puts([event(n)]))
        assert await ids(reader) == [f"e{i}" for i in range(n + 1)]
        assert next(e.id for e in (await timeline(reader, "acct-01")).events) == f"e{n}"
    await writer.build(TENANT, [DAY], specs=())
    await world.write(writer, puts([event(9)]))
    assert "e9" in await ids(reader)
    answer = await reader.search(TENANT, BEACON)
    assert answer.stats.tail_events == 1
    found = next(hit for hit in answer.hits if hit.id == "e9")
    assert found.citation.segment.startswith("tenants/acme/log/")
    assert found.citation.line == 2


async def test_a_read_that_an_erasure_overtakes_is_answered_from_the_newest_cut(timed: World) -> None:
    """Another entity is erased, and everything built before it deleted, while a process still holds its cut of
    before. Seen to fail without the second read in `Plane._read` (`object_not_found`)."""
    reader, writer = timed.plane(), timed.plane()
    await timed.write(writer, puts(month_of(1, entities=3)))
    await writer.build(TENANT, [DAY])
    spec = str(SPEC["name"])
    before = await reader.bundle(TENANT, "acct-00", spec=spec)
    await erase_entity(writer.engine, TENANT, "acct-02", build_day=build_day)
    await writer.materialize(TENANT, spec, DAY)
    assert (await reader.bundle(TENANT, "acct-01", spec=spec)).entity == "acct-01"

    reader = timed.plane()
    await reader.search(TENANT, BEACON)  # it knows the cut, and nothing of its bundles
    await erase_entity(writer.engine, TENANT, "acct-01", build_day=build_day)
    await writer.materialize(TENANT, spec, DAY)
    _, stream = await reader.bundle_batch(TENANT, None, spec=spec)
    items = [item async for item in stream]
    assert [item.entity for item in items if isinstance(item, BundleAnswer)] == ["acct-00"]
    with pytest.raises(NotFound, match="snapshot_erased"):
        await reader.bundle(TENANT, "acct-00", spec=spec, snapshot=before.snapshot)


async def test_an_eventual_read_is_at_most_a_second_old(timed: World) -> None:
    """Seen to fail with EVENTUAL_AGE_MAX_S ignored."""
    assert timed.clock is not None
    writer, reader = timed.plane(), timed.plane()
    await timed.write(writer, puts([event(1)]))
    assert await ids(reader, consistency="eventual") == ["e1"]
    await timed.write(writer, puts([event(2)]))
    before = reader.store.total.lists
    assert await ids(reader, consistency="eventual") == ["e1"]
    assert reader.store.total.lists == before
    timed.clock.advance(EVENTUAL_AGE_MAX_S + 0.1)
    assert await ids(reader, consistency="eventual") == ["e1", "e2"]


async def test_a_pinned_cut_answers_the_same_bytes_whatever_happens_after(world: World) -> None:
    """Publishes, late writes, updates, deletes; by this process and by another.

    Seen to fail with a pinned cut that reads the newest tail, and with the newest manifest's shards.
    """
    writer = world.plane()
    events = month_of(3, entities=2)
    await world.write(writer, puts(events[:4]))
    await writer.build(TENANT, [DAY, add_days(DAY, 1)])
    await world.write(writer, puts(events[4:]))
    query = replace(BEACON, mode="hybrid")
    first = await writer.search(TENANT, query)
    lines = await timeline(writer, "acct-01")
    pinned = first.snapshot

    async def same(plane: Plane) -> None:
        again = await plane.search(TENANT, replace(query, snapshot=pinned))
        assert fingerprint(again) == fingerprint(first)
        assert again.snapshot == pinned
        assert [hit.citation for hit in again.hits] == [hit.citation for hit in first.hits]
        assert fingerprint(await timeline(plane, "acct-01", snapshot=pinned)) == fingerprint(lines)
        assert (await plane.entities(TENANT, snapshot=pinned)).entities == listed.entities

    listed = await writer.entities(TENANT, snapshot=pinned)
    await same(writer)
    await world.write(writer, [*puts([event(50), replace(events[0], text="beacon changed")]), delete_of(events[5])])
    await same(world.plane())
    await writer.build(TENANT, world.days())
    await same(writer)
    await same(world.plane())
    bundle = await writer.bundle(TENANT, "acct-00", spec="law_v0", snapshot=pinned)
    assert bundle.as_of == add_days(DAY, 1)
    assert fingerprint(await writer.search(TENANT, query)) != fingerprint(first)


@pytest.mark.parametrize(
    "form", ["", "1", "1.", ".1", "1.1.1", "a.b", "-1.1", "1.-1", " 1.1", "1.1\n", "01.1", "1e1.1"]
)
async def test_a_snapshot_of_another_form_is_refused(world: World, form: str) -> None:
    """Seen to fail without the comparison with the form printed back (01.1 is read as 1.1)."""
    plane = world.plane()
    with pytest.raises(Invalid) as refused:
        await ids(plane, snapshot=form)
    assert refused.value.code == "snapshot_invalid"


async def test_a_snapshot_that_was_never_made_is_not_found(world: World) -> None:
    """Ahead of the manifests or of the log, or below what is built, which would show half a batch.

    Seen to fail without the comparison with `covered_max`: 1.1 of a manifest that covers batch 2 answers.
    """
    plane = world.plane()
    await world.write(plane, puts([event(1)]))
    await world.write(plane, puts([event(2), event(3, day=add_days(DAY, 1))]))
    await plane.build(TENANT, [DAY], specs=())
    assert await ids(plane, snapshot="1.2") == ["e1", "e2", "e3"]
    assert await ids(plane, snapshot="0.1") == ["e1"]
    for form in ("2.2", "1.3", "1.1", "1.0", "0.3", "999999999999999999.1"):
        with pytest.raises(NotFound) as refused:
            await ids(plane, snapshot=form)
        assert refused.value.code == "snapshot_not_found", form


async def test_a_replaced_cut_ends_after_its_retention_and_the_newest_never(timed: World) -> None:
    """Its age counts from its replacement. Seen to fail with the age taken from its own commit."""
    assert timed.clock is not None
    plane = timed.plane()
    await timed.write(plane, puts([event(1)]))
    await plane.build(TENANT, [DAY], specs=())
    pinned = (await plane.search(TENANT, BEACON)).snapshot
    timed.clock.advance(10 * SNAPSHOT_TTL_US / 1e6)
    assert await ids(plane, snapshot=pinned) == ["e1"]
    await timed.write(plane, puts([event(2)]))
    await plane.build(TENANT, [DAY], specs=())
    timed.clock.advance(SNAPSHOT_TTL_US / 1e6 - 60)
    assert await ids(timed.plane(), snapshot=pinned) == ["e1"]
    timed.clock.advance(120)
    for reader in (plane, timed.plane()):
        with pytest.raises(NotFound) as refused:
            await ids(reader, snapshot=pinned)
        assert refused.value.code == "snapshot_expired"
