"""Changes between two cuts are what brute force finds, in any pages, and name nobody who was erased."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from context_plane.errors import Invalid, NotFound
from context_plane.plane import Plane
from context_plane.recall import changes
from context_plane.recall.values import Change, ChangesRequest
from tests.laws.plane_world import DAY, TENANT, World, delete_of, event, puts

SPEC = "law_v0"
NEXT = "2026-03-02"


async def cut(plane: Plane) -> str:
    return (await plane.snapshots.current(TENANT, "strong")).id


async def changed(plane: Plane, since: str, *, limit: int = 1000, snapshot: str | None = None) -> list[Change]:
    """Every change, page by page."""
    found: list[Change] = []
    request = ChangesRequest(since, snapshot, limit)
    for _ in range(200):
        page = await plane.changes(TENANT, request)
        assert len(page.changes) <= limit
        assert len(set(page.changes)) == len(page.changes)
        found += page.changes
        if page.next_position is None:
            return found
        request = replace(request, snapshot=page.snapshot, position=page.next_position)
    raise AssertionError("the pages never end")


async def digests(plane: Plane, snapshot: str, day: str) -> dict[str, str]:
    """Entity -> digest of its bundle, read one by one as agents do."""
    found = {}
    _, items = await plane.bundle_batch(TENANT, None, spec=SPEC, as_of=day, snapshot=snapshot)
    async for item in items:
        assert not isinstance(item, tuple)
        found[item.entity] = item.digest
    return found


async def test_events_changed_where_something_was_written_and_not_where_it_was_built(world: World) -> None:
    """A build of what was known changes no events. Seen to fail with every batch above the old cut's cover counted."""
    plane = world.plane()
    await world.write(plane, puts(event(n, entity=f"acct-{n}") for n in range(4)))
    since = await cut(plane)
    await plane.build(TENANT, [DAY])
    found = await changed(plane, since)
    assert {change for change in found if change.spec is None} == set()
    assert {change.entity for change in found} == {f"acct-{n}" for n in range(4)}, "their bundles came"
    await world.write(plane, puts([event(9, entity="acct-2")]))
    await world.write(plane, [delete_of(event(1, entity="acct-1"))])
    assert [change for change in await changed(plane, since) if change.spec is None] == [
        Change("acct-2"), Change("acct-1")
    ]  # fmt: skip
    assert await changed(plane, await cut(plane)) == []


async def test_bulk_loads_change_events_when_they_are_built(world: World) -> None:
    """Seen to fail with only batches above the old cut looked at."""
    plane = world.plane()
    await world.write(plane, puts([event(1, entity="acct-1")]))
    await world.write(plane, puts([event(2, entity="acct-2")]), visible="after_build")
    since = await cut(plane)
    await world.write(plane, puts([event(3, entity="acct-3", day=NEXT)]), visible="after_build")
    assert await changed(plane, since) == []
    await plane.build(TENANT, [DAY], specs=[])
    assert await changed(plane, since) == [Change("acct-2")]
    await plane.build(TENANT, [NEXT], specs=[])
    assert await changed(plane, since) == [Change("acct-2"), Change("acct-3")]


@pytest.mark.parametrize("seed", range(3))
async def test_changes_are_what_brute_force_finds_in_any_pages(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Seen to fail with the old directory's buckets compared by number alone: their count differs."""
    rng, plane = Random(seed), world.plane()
    names = [f"acct-{n:03}" for n in range(300)]
    await world.write(plane, puts(event(n, entity=name) for n, name in enumerate(names[:100])))
    await plane.build(TENANT, [DAY])
    since = await cut(plane)
    written = rng.sample(names, 250)  # more entities than one bucket takes
    for part in (written[:40], written[40:]):
        await world.write(plane, puts(event(1000 + n, entity=name) for n, name in enumerate(part)))
    await plane.build(TENANT, [DAY])
    late = rng.sample(names, 5)
    await world.write(plane, puts(event(5000 + n, entity=name) for n, name in enumerate(late)))
    now = await cut(plane)
    before, after = await digests(plane, since, DAY), await digests(plane, now, DAY)
    differing = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    expected = {Change(name) for name in {*written, *late}} | {Change(name, SPEC, DAY) for name in differing}
    whole = await changed(plane, since)
    assert set(whole) == expected
    monkeypatch.setattr(changes, "BATCHES_MAX", 1)
    monkeypatch.setattr(changes, "BUCKETS_MAX", 1)
    for limit in (7, 100, 1000):
        assert set(await changed(plane, since, limit=limit, snapshot=now)) == expected


async def test_an_erased_entity_is_no_change_and_ends_the_snapshots_of_before(world: World) -> None:
    from context_plane.erase import begin_erasure, erase_entity
    from context_plane.reindex import build_day

    plane = world.plane()
    await world.write(plane, puts(event(n, entity=f"acct-{n}") for n in range(3)))
    await plane.build(TENANT, [DAY])
    since = await cut(plane)
    await world.write(plane, puts([event(7, entity="acct-1"), event(8, entity="acct-2")]))
    erasure = "ab" * 16
    await begin_erasure(plane.engine, TENANT, "acct-1", erasure=erasure)
    assert await changed(plane, since) == [Change("acct-2")]
    await erase_entity(plane.engine, TENANT, "acct-1", build_day=build_day, erasure=erasure)
    with pytest.raises(NotFound, match="snapshot_erased"):
        await changed(plane, since)


async def test_snapshots_end_and_do_not_run_backwards(timed: World) -> None:
    plane = timed.plane()
    await timed.write(plane, puts([event(1)]))
    since = await cut(plane)
    await plane.build(TENANT, [DAY])
    now = await cut(plane)
    with pytest.raises(Invalid, match="since is newer"):
        await changed(plane, now, snapshot=since)
    assert timed.clock is not None
    timed.clock.advance(25 * 3600)
    with pytest.raises(NotFound, match="snapshot_expired"):
        await changed(plane, since)
    with pytest.raises(NotFound, match="snapshot_not_found"):
        await changed(plane, "99.99")
