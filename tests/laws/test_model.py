"""Vectors of two models are never compared: whoever would is told, and everything else goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from context_plane.errors import Invalid
from context_plane.recall.values import OnDemandRequest
from tests.laws.plane_world import BEACON, DAY, SPEC, TENANT, World, event, ids, puts, timeline

SPEC_NAME = str(SPEC["name"])


async def test_a_process_with_another_model_reads_all_but_vectors(world: World) -> None:
    """Seen to fail without `check_model` in each of the three: the other model's scores came back."""
    plane = world.plane()
    await world.write(plane, puts([event(1), event(2)]))
    await plane.build(TENANT, [DAY])
    world.embedder.model = "another"
    plane = world.plane()
    assert await ids(plane) == ["e1", "e2"]
    assert len((await timeline(plane, "acct-01")).events) == 2
    assert (await plane.bundle(TENANT, "acct-01", spec=SPEC_NAME)).entity == "acct-01"
    for entities in (None, ("acct-01",)):
        with pytest.raises(Invalid, match="model_mismatch"):
            await plane.search(TENANT, replace(BEACON, mode="hybrid", entities=entities))
    with pytest.raises(Invalid, match="model_mismatch"):
        await plane.context_on_demand(TENANT, OnDemandRequest("acct-01", SPEC_NAME, text="export"))
    with pytest.raises(Invalid, match="model_mismatch"):
        await plane.materialize(TENANT, SPEC_NAME, DAY)
