"""New and changed specs: what the sensor asks for, what readers get meanwhile, and how an old version ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import pytest
import yaml

from assets import dirt
from assets.automation import look, without_asset
from assets.definitions import build_definitions
from assets.dirt import BUNDLES_JOB, REQUESTS_MAX
from assets.freshness import look_with_ages
from context_plane.catalog.head import load_head
from context_plane.catalog.manifest import Manifest
from context_plane.embed.open import EmbedderSettings
from context_plane.errors import NotFound
from context_plane.model import add_days
from context_plane.recall.values import BundleAnswer
from context_plane.settings import Settings
from context_plane.store.faults import Mishap, Operation
from tests.assets.ticks import execute, tick
from tests.assets.world import DAYS, World, events

OLD, NEW = "notes_v0", "notes_v1"
MANY = [add_days("2026-03-01", n) for n in range(10)]
"""More days than the sensor renews for any other reason, and than it asks for in a tick."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(dirt, "DIRT_AGE_US", 0)  # dirt is due at once
    folder = tmp_path / "specs"
    folder.mkdir()
    settings = Settings(store=(tmp_path / "store").as_uri(), cache_dir=tmp_path / "cache", specs_dir=folder)
    define(World(settings), OLD)
    return World(settings)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def file_of(world: World, name: str) -> Path:
    assert world.settings.specs_dir is not None
    return world.settings.specs_dir / f"{name}.yaml"


def define(world: World, name: str, *, limit: int = 1) -> None:
    """A spec of the newest events."""
    section = {"kind": "recent", "name": "recent", "title": "Recent", "priority": 1, "share": 1.0, "lookback_days": 3}
    spec = {"name": name, "version": int(name[-1]), "budget_tokens": 200, "sections": [{**section, "limit": limit}]}
    file_of(world, name).write_text(yaml.safe_dump(spec))


def head(world: World) -> Manifest:
    with world.open() as opened:
        return opened.run(load_head(opened.plane.engine.store, "acme"))


def read(world: World, spec: str, day: str) -> BundleAnswer:
    """What a reader that was started now gets."""
    with world.open() as opened:
        return opened.run(opened.plane.bundle("acme", "acct-1", spec=spec, as_of=day))


def items(answer: BundleAnswer) -> int:
    return sum(len(section["items"]) for section in orjson.loads(answer.json_bytes)["sections"])


def asked(requests: Any) -> list[tuple[str, str, list[str]]]:
    return [(r.job_name, r.partition_key, [key.to_user_string() for key in r.asset_selection]) for r in requests]


def data(manifest: Manifest) -> Mapping[str, object]:
    return {day: (entry.segments, entry.shards) for day, entry in manifest.days.items()}


def test_a_new_spec_is_a_backfill_of_its_bundles_alone(world: World, instance: dg.DagsterInstance) -> None:
    """Seen to fail with requests that select nothing: they ran the assets of every spec."""
    world.write("acme", events("acme"))
    world.build()
    before = head(world)
    define(world, NEW, limit=2)
    requests, cursor = tick(world, instance, None)
    assert asked(requests) == [(BUNDLES_JOB, day, [f"bundles/{NEW}"]) for day in reversed(DAYS)]
    for request in requests:
        result = execute(world, instance, request)
        assert result.success
        made = [event.asset_key for event in result.get_asset_materialization_events()]
        assert made == [dg.AssetKey(["bundles", NEW])]
    assert list(tick(world, instance, cursor)[0]) == []
    after = head(world)
    assert data(after) == data(before)
    assert after.bundles[OLD] == before.bundles[OLD]
    assert [items(read(world, spec, DAYS[1])) for spec in (OLD, NEW)] == [1, 2], "both are served"


def test_a_changed_spec_is_a_backfill_of_every_day_that_has_its_bundles(
    world: World, instance: dg.DagsterInstance
) -> None:
    """The newest day first, and what it replaces is served until then. Seen to fail without the fingerprint: nothing
    was asked for; and in the order of other dirt: the oldest day came first."""
    world.write("acme", events("acme", MANY, per_day=8))
    world.build(MANY)
    before = head(world)
    define(world, OLD, limit=2)
    first, cursor = tick(world, instance, None)
    assert asked(first) == [(BUNDLES_JOB, day, [f"bundles/{OLD}"]) for day in MANY[: -REQUESTS_MAX - 1 : -1]]
    assert execute(world, instance, first[0]).success
    newest, other = read(world, OLD, MANY[-1]), read(world, OLD, MANY[-2])
    assert (items(newest), newest.freshness) == (2, "fresh")
    assert (items(other), other.freshness) == (1, "stale")
    assert all(execute(world, instance, request).success for request in first[1:])
    rest, cursor = tick(world, instance, cursor)
    assert [request.partition_key for request in rest] == MANY[1::-1]
    assert all(execute(world, instance, request).success for request in rest)
    assert list(tick(world, instance, cursor)[0]) == []
    assert data(head(world)) == data(before)


def test_a_spec_that_is_changed_back_is_asked_for_again(world: World, instance: dg.DagsterInstance) -> None:
    """Dagster starts no run under a key it has seen. Seen to fail with digests of what is wanted alone."""
    world.write("acme", events("acme", DAYS[:1]))
    world.build(DAYS[:1])
    keys = []
    for limit in (2, 1, 2):
        define(world, OLD, limit=limit)
        (request,), _ = tick(world, instance, None)
        assert execute(world, instance, request).success
        keys.append(request.run_key)
    assert len({*keys}) == 3


def test_a_changed_spec_whose_run_failed_is_asked_for_again_the_next_day(
    world: World, instance: dg.DagsterInstance
) -> None:
    """Seen to fail (never asked for again) with digests of spec and bundles alone."""

    def lose_bundles(operation: Operation, key: str) -> Mishap | None:
        return Mishap(lost="request") if operation == "put_new" and "/bundles/" in key else None

    world.write("acme", events("acme", DAYS[:1]))
    world.build(DAYS[:1])
    define(world, OLD, limit=2)
    (request,), cursor = tick(world, instance, None)
    assert not execute(world, instance, request, lose_bundles).success
    assert items(read(world, OLD, DAYS[0])) == 1, "what was there is served meanwhile"
    tomorrow_us = time.time_ns() // 1000 + 24 * 3600 * 1_000_000
    requests, cursor = tick(world, instance, cursor, now_us=tomorrow_us)
    (again,) = [each for each in requests if each.job_name == BUNDLES_JOB]
    assert execute(world, instance, again).success
    assert items(read(world, OLD, DAYS[0])) == 2
    assert not [each for each in tick(world, instance, cursor)[0] if each.job_name == BUNDLES_JOB]


def test_a_changed_spec_makes_nothing_late(world: World) -> None:
    """Seen to fail when it counted from when its bundles were made: months ago, for most."""
    world.write("acme", events("acme"))
    world.build()
    define(world, OLD, limit=2)
    with world.open() as opened:
        assert [item.backfill for item in opened.run(look(opened.plane)).dirt] == [True, True]
        assert opened.run(look_with_ages(opened.plane)) == ([], 0)


def test_a_tenant_of_another_model_is_not_asked_for(world: World) -> None:
    """Its builds would be refused. Seen to fail without the comparison: a run a day, each of which fails."""
    world.write("acme", events("acme"))
    world.build()
    other = EmbedderSettings(kind="given", model="theirs", dim=8)
    with World(world.settings.model_copy(update={"embedder": other})).open() as opened:
        assert opened.run(look(opened.plane)).dirt == ()


def test_a_file_that_the_code_location_has_not_seen_is_told(world: World, instance: dg.DagsterInstance) -> None:
    """Its asset is there after a reload. Seen to fail without the filter: the request named an asset that is not."""
    world.write("acme", events("acme"))
    world.build()
    loaded = build_definitions(world.settings)
    define(world, NEW)
    requests, cursor = tick(world, instance, None, loaded)
    assert list(requests) == []
    with world.open() as opened:
        found = opened.run(look(opened.plane)).dirt
    assert without_asset(found, [OLD]) == [f"spec {NEW} has no asset yet; reload the code location"]
    assert len(tick(world, instance, cursor)[0]) == len(DAYS)


def test_both_versions_are_served_until_the_old_file_goes(world: World) -> None:
    define(world, NEW, limit=2)
    world.write("acme", events("acme"))
    world.build()
    assert [items(read(world, spec, DAYS[1])) for spec in (OLD, NEW)] == [1, 2]
    file_of(world, OLD).unlink()
    with pytest.raises(NotFound, match=f"known: {NEW}"):
        read(world, OLD, DAYS[1])
    assert set(head(world).bundles) == {OLD, NEW}, "a file that went by mistake comes back to its bundles"
