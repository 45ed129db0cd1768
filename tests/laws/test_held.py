"""What is in memory is answered without waiting, and is what a read from the store would answer."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest

from context_plane.catalog.bundles import Bucket, BundleEntry
from context_plane.catalog.erasures import entity_hash
from context_plane.catalog.manifest import Tombstone
from context_plane.errors import NotFound
from context_plane.plane import Plane
from context_plane.recall.values import BundleAnswer
from context_plane.retrieval.snapshots import CONFIRM_AFTER_S, EVENTUAL_AGE_MAX_S
from context_plane.store import deadline
from tests.laws.plane_world import DAY, SPEC, TENANT, World, event, puts

NAME = str(SPEC["name"])


def _held(plane: Plane, entity: str = "acct-01", as_of: str | None = None) -> BundleAnswer | None:
    return plane.bundles.held(TENANT, entity, spec=NAME, as_of=as_of)


async def test_a_held_bundle_is_the_read_one_and_is_gone_when_anything_of_it_is(timed: World) -> None:
    """Seen to fail with the age of the cut ignored, and with the tombstones ignored."""
    assert timed.clock is not None
    writer, reader = timed.plane(), timed.plane()
    await timed.write(writer, puts([event(1), event(2, entity="acct-02")]))
    await writer.build(TENANT, [DAY])
    assert _held(reader) is None
    for as_of in (None, DAY):
        cold = await reader.bundle(TENANT, "acct-01", spec=NAME, as_of=as_of)
        assert _held(reader, as_of=as_of) == replace(cold, cache="memory")
    assert _held(reader, "acct-02") is None, "its block was not read"
    assert _held(reader, "nobody") is None
    with pytest.raises(NotFound, match="bundle_not_built"):
        _held(reader, as_of="2020-01-01")
    before = reader.store.total.lists, reader.store.total.gets
    await reader.bundle(TENANT, "acct-01", spec=NAME)
    assert (reader.store.total.lists, reader.store.total.gets) == before
    timed.clock.advance(EVENTUAL_AGE_MAX_S + 0.1)
    assert _held(reader) is None
    cut = await reader.snapshots.outline(TENANT, "strong")
    assert _held(reader) is not None
    stone = Tombstone(
        seq=cut.erasures.newest + 1, hash=entity_hash(cut.erasures.key, "acct-01"), log_number=1, erasure="e", at_us=0
    )
    erasures = replace(cut.erasures, newest=stone.seq, by_hash={stone.hash: stone})
    reader.snapshots._known[TENANT].value = replace(cut, erasures=erasures)
    assert _held(reader) is None


async def test_a_busy_tenants_cut_is_confirmed_before_it_is_too_old(timed: World) -> None:
    """Seen to fail (the reader waits for two listings each second) without CONFIRM_AFTER_S."""
    assert timed.clock is not None
    writer, reader = timed.plane(), timed.plane()
    await timed.write(writer, puts([event(1)]))
    await writer.build(TENANT, [DAY])
    first = await reader.bundle(TENANT, "acct-01", spec=NAME)
    await timed.write(writer, puts([event(2)]))
    timed.clock.advance((CONFIRM_AFTER_S + EVENTUAL_AGE_MAX_S) / 2)
    held = _held(reader)
    assert held is not None
    assert held.snapshot == first.snapshot
    await asyncio.gather(*reader.snapshots._flights.values())
    held = _held(reader)
    assert held is not None
    assert held.snapshot != first.snapshot
    assert held.freshness == "building"


async def test_a_confirmation_outlives_the_read_that_began_it(timed: World) -> None:
    """Reads with less time than the store takes still meet a young cut. Seen to fail with the read's own deadline."""
    assert timed.clock is not None
    writer, reader = timed.plane(), timed.plane()
    await timed.write(writer, puts([event(1)]))
    await writer.build(TENANT, [DAY])
    await reader.bundle(TENANT, "acct-01", spec=NAME)
    timed.clock.advance((CONFIRM_AFTER_S + EVENTUAL_AGE_MAX_S) / 2)
    with deadline.within(0.001):
        assert reader.snapshots.known(TENANT) is not None
        [confirming] = reader.snapshots._flights.values()
    assert deadline._flights[confirming].at_s == math.inf
    await confirming
    timed.clock.advance(EVENTUAL_AGE_MAX_S / 2)
    assert _held(reader) is not None


def test_a_bucket_finds_each_of_its_entities_and_no_other() -> None:
    """Seen to fail with the slice of one entry taken without comparing its name."""
    names = ["a", "b", "bb", "é", "日本"]
    bucket = Bucket("k", "d", tuple(BundleEntry(name, 0, 1, "d", 1) for name in names))
    for name in names:
        found = bucket.find(name)
        assert found is not None
        assert found.entity == name
    assert [bucket.find(name) for name in ("", "aa", "c", "zz", "日本語")] == [None] * 5
    assert Bucket("", "", ()).find("a") is None
