"""Large tenant-days are cut into ranges of entities: built the same, and one that dies costs itself alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from assets import bundles, days
from assets.days import embed
from assets.published import NO_TENANT_FAILED
from assets.ranges import RANGES_MAX, count_of
from context_plane.plane import Plane
from context_plane.ranges import RangeDone
from tests.assets.test_build import BEFORE_COMMIT, BUNDLES, failures, materialized, number
from tests.assets.world import DAYS, World, answers, digests, events

RANGE = 400
"""Bytes: a few of the eight entities' segments of a day."""


@pytest.fixture
def cut_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tenant is large."""
    monkeypatch.setattr(days, "RANGE_BYTES", RANGE)
    monkeypatch.setattr(bundles, "BUNDLE_RANGE_BYTES", 10 * RANGE)


def world_of(folder: Path, tenants: tuple[str, ...] = ("acme", "beta")) -> World:
    world = World.local(folder)
    for tenant in tenants:
        world.write(tenant, events(tenant))
    return world


def parts(world: World, tenant: str, artifact: str) -> dict[str, int]:
    """When each staged part was written."""
    root = world.settings.store_url.removeprefix("file://")
    return {
        str(path): path.stat().st_mtime_ns for path in Path(root).glob(f"tenants/{tenant}/staging/*/*/*/{artifact}/*")
    }


def test_a_cut_is_bounded() -> None:
    assert [count_of(size, 100) for size in (0, 100, 101, 250)] == [1, 1, 2, 3]
    assert count_of(10**12, 100) == RANGES_MAX


@pytest.mark.usefixtures("cut_up")
def test_a_day_in_ranges_is_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published digests, answers and counts. Seen to fail with the last range left out of both steps' cuts."""
    apart = world_of(tmp_path / "apart")
    result = apart.run([*BEFORE_COMMIT, "published", BUNDLES], DAYS[0])
    assert result.success
    told = materialized(result)
    assert number(told["vector_shards"].metadata, "units") > 3
    assert number(told["vector_shards"].metadata, "texts_embedded") == 80
    assert number(told[BUNDLES].metadata, "units") > 3
    assert all(day.ok for day in apart.build())
    for tenant in ("acme", "beta"):
        assert len(parts(apart, tenant, "vectors")) > 2
        assert len(parts(apart, tenant, "bundles-customer_context_v0")) > 2
    monkeypatch.undo()
    here = world_of(tmp_path / "here")
    here.build()
    with apart.open() as one, here.open() as other:
        for tenant in ("acme", "beta"):
            assert digests(one, tenant) == digests(other, tenant)
            assert answers(one, tenant) == answers(other, tenant)


async def embed_or_die(plane: Plane, tenant: str, day: str, number: int, count: int) -> RangeDone:
    if tenant == "acme" and number == 1 and os.path.exists(os.environ["DEADLY"]):  # noqa: ASYNC240, PTH110
        os.kill(os.getpid(), signal.SIGKILL)
    return await embed(plane, tenant, day, number, count)


@pytest.mark.usefixtures("cut_up")
def test_a_killed_range_is_named_and_made_alone_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tenant-day is withheld, whole. Seen to fail (published, the range embedded by the step) with a tenant whose
    ranges are not waited for, and with parts that a second run makes again."""
    world, whole = world_of(tmp_path / "killed"), world_of(tmp_path / "whole")
    whole.build(DAYS[:1])
    deadly = tmp_path / "deadly"
    deadly.touch()
    monkeypatch.setenv("DEADLY", str(deadly))
    monkeypatch.setattr(days, "embed", embed_or_die)
    result = world.run([*BEFORE_COMMIT, "published"], DAYS[0])
    said = failures(result)[NO_TENANT_FAILED]
    assert f"acme {DAYS[0]}: worker_lost in vector_shards, range 2 of " in said
    assert "acct" not in said
    assert "beta" not in said
    told = materialized(result)["vector_shards"].metadata
    assert (number(told, "workers_lost"), number(told, "failed"), number(told, "tenants")) == (2, 1, 1)
    with world.open() as opened, whole.open() as other:
        assert digests(opened, "acme") == {}
        assert digests(opened, "beta")[DAYS[0]] == digests(other, "beta")[DAYS[0]]
    before = parts(world, "acme", "vectors")
    assert len(before) > 1

    deadly.unlink()
    assert world.build(DAYS[:1])[0].ok
    after = parts(world, "acme", "vectors")
    assert len(after) == len(before) + 1
    assert {key: after[key] for key in before} == before
    with world.open() as opened, whole.open() as other:
        assert digests(opened, "acme") == digests(other, "acme")


def test_small_tenants_are_not_cut(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    assert world.build(DAYS[:1])[0].ok
    assert parts(world, "acme", "vectors") == {}
