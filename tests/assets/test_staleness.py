"""Since when bundles are stale, whatever was published after they became so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from assets.automation import look
from assets.bundles import is_stale
from assets.staleness import Versions, stale_since, with_ages
from context_plane.bundle.spec import Spec, load_specs
from context_plane.catalog.head import load_head
from context_plane.catalog.manifest import BundleDay, DayEntry, Manifest, PackRef, SegmentListRef, encode
from context_plane.layout.keys import ManifestKey
from context_plane.materialize import sources_of
from context_plane.plane import Plane, shipped_specs
from context_plane.store.base import Store
from context_plane.store.open import open_store
from tests.assets.world import DAYS, SPEC, World, events

DAY = "2026-03-04"
MINUTE_US = 60 * 1_000_000
MADE_AT = 3
"""The version that commits the bundles; every other one publishes the day."""
NEWEST = 12


@pytest.fixture
def spec() -> Spec:
    return load_specs(shipped_specs())[SPEC]


def history(spec: Spec, *, bundles: bool = True) -> list[Manifest]:
    """A day that is published every minute; its bundles were made once."""
    found: list[Manifest] = []
    held: dict[str, dict[str, BundleDay]] = {}
    for version in range(1, NEWEST + 1):
        covered = version - 1 if version == MADE_AT else version
        segments = SegmentListRef(key=f"list-{covered}", bytes=1, sha256="", digest="", entities=1, events=1)
        entry = DayEntry(covered=covered, segments=segments, shards=None, erasures=0, built_us=covered * MINUTE_US)
        manifest = Manifest(tenant="acme", version=version, committed_us=version * MINUTE_US, days={DAY: entry})
        if version == MADE_AT and bundles:
            held = {spec.name: {DAY: made(sources_of(manifest, spec, DAY))}}
        found.append(manifest.model_copy(update={"bundles": held}))
    return found


def made(sources: str) -> BundleDay:
    directory = PackRef(key="directory", bytes=1, sha256="", digest="", pages=())
    return BundleDay(
        directory=directory,
        spec_fingerprint="",
        sources=sources,
        entities=1,
        erasures=0,
        built_us=MADE_AT * MINUTE_US - 1,
    )


async def stored(name: str, manifests: Sequence[Manifest]) -> Store:
    store = open_store(f"memory://{name}")
    for manifest in manifests:
        await store.put_new(str(ManifestKey("acme", manifest.version)), encode(manifest))
    return store


async def test_bundles_are_stale_from_the_first_publish_after_them(spec: Spec, tmp_path: Path) -> None:
    """Seen to fail when the newest publish counted, as it does for the sensor: such bundles were never late."""
    manifests = history(spec)
    assert [is_stale(manifest, spec, DAY) for manifest in manifests[MADE_AT - 1 :]] == [False] + [True] * 9
    store = await stored(tmp_path.name, manifests)
    asked: Versions = {}
    assert await stale_since(store, manifests[-1], spec, DAY, asked) == (MADE_AT + 1) * MINUTE_US
    assert len(asked) <= NEWEST.bit_length()


async def test_missing_bundles_count_from_the_first_publish(spec: Spec, tmp_path: Path) -> None:
    manifests = history(spec, bundles=False)
    store = await stored(tmp_path.name, manifests)
    assert await stale_since(store, manifests[-1], spec, DAY, {}) == MINUTE_US


async def test_where_versions_are_collected_bundles_count_from_when_they_were_made(spec: Spec, tmp_path: Path) -> None:
    """Seen to fail when the oldest version that is left counted: it is never older than versions are kept."""
    manifests = history(spec)
    store = await stored(tmp_path.name, manifests[6:])
    assert await stale_since(store, manifests[-1], spec, DAY, {}) == MADE_AT * MINUTE_US - 1


async def test_where_an_erasure_ended_versions_the_first_that_is_left_counts(spec: Spec, tmp_path: Path) -> None:
    manifests = history(spec)
    ended = [manifest.redact() for manifest in manifests[:6]]
    store = await stored(tmp_path.name, [*ended, *manifests[6:]])
    assert await stale_since(store, manifests[-1], spec, DAY, {}) == 7 * MINUTE_US


def test_the_check_sees_bundles_that_publishes_left_behind(tmp_path: Path) -> None:
    """A late event is published twice over, without its bundles: they are as old as the first of both commits."""
    world = World.local(tmp_path)
    world.write("acme", events("acme"))
    world.build()
    before_commit = ["segments", "vector_shards", "entity_shards", "fulltext_shards", "published"]
    heads = []
    for late in events("late")[:2]:
        world.write("acme", [late])
        assert world.run(before_commit, DAYS[0]).success
        with world.open() as opened:
            heads.append(opened.run(load_head(opened.plane.engine.store, "acme")))

    async def looked(plane: Plane) -> list[tuple[str, str, int]]:
        found = await with_ages(plane, (await look(plane)).dirt)
        return [(item.job, item.day, item.oldest_us) for item in found]

    with world.open() as opened:
        found = opened.run(looked(opened.plane))
    assert heads[0].committed_us < heads[1].committed_us
    assert found == [("build_bundles", day, heads[0].committed_us) for day in DAYS]
