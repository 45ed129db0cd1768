"""A bundle says whether it is what its spec and sources would give today."""

from __future__ import annotations

import pytest

from context_plane.cache.recent import Held, Latest
from tests.laws.plane_world import DAY, SPEC, TENANT, World, event, ids, puts

NAME = str(SPEC["name"])


async def test_a_bundle_says_when_its_sources_or_its_spec_moved(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail (`fresh` throughout) without the comparison of sources, and of the spec's fingerprint."""
    plane = world.plane()

    async def freshness() -> str:
        plane.snapshots.forget(TENANT)
        return (await plane.bundle(TENANT, "acct-01", spec=NAME)).freshness

    await world.write(plane, puts([event(1)]))
    await plane.build(TENANT, [DAY])
    assert await freshness() == "fresh"
    await world.write(plane, puts([event(2)]))
    assert await freshness() == "building"
    await plane.build(TENANT, [DAY], specs=[])
    assert await freshness() == "stale"
    await plane.materialize(TENANT, NAME, DAY)
    assert await freshness() == "fresh"
    monkeypatch.setitem(SPEC, "budget_tokens", 90)
    plane = world.plane()
    assert await freshness() == "stale"
    await plane.materialize(TENANT, NAME, DAY)
    assert await freshness() == "fresh"


async def test_what_waits_is_told_of_the_cuts_in_use(timed: World) -> None:
    """The oldest of all tenants' writes, until it is built; nothing of cuts that nobody confirmed for a while.

    Seen to fail with the newest write's age, with old cuts counted, and with the look counted as use of a cut."""
    assert timed.clock is not None
    plane = timed.plane()
    for n in range(2):
        await timed.write(plane, puts([event(n)]))
        timed.clock.advance(20)
    assert plane.snapshots.waiting(age_max_s=60) == (0.0, 0), "nobody has read"
    await ids(plane)
    timed.clock.advance(10)
    assert plane.snapshots.waiting(age_max_s=60) == (50.0, 2)
    timed.clock.advance(60)
    assert plane.snapshots.waiting(age_max_s=60) == (0.0, 0)
    await ids(plane)
    assert plane.snapshots.waiting(age_max_s=60) == (110.0, 2)
    await plane.build(TENANT, timed.days())
    await ids(plane)
    assert plane.snapshots.waiting(age_max_s=60) == (0.0, 0)


def test_to_look_at_what_is_known_is_no_use_of_it() -> None:
    """What was used last stays. Seen to fail with `values()`."""
    latest: Latest[str] = Latest(2)
    for name in "ab":
        latest[name] = Held(name, 1.0, 2.0)
    latest.get("a")
    assert [held.value for held in latest.untouched()] == ["a", "b"]
    latest["c"] = Held("c", 1.0, 2.0)
    assert [held.value for held in latest.untouched()] == ["a", "c"]
