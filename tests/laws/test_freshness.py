"""A bundle says whether it is what its spec and sources would give today."""

from __future__ import annotations

import pytest

from tests.laws.plane_world import DAY, SPEC, TENANT, World, event, puts

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
