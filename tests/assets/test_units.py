"""Units: how tenants are cut, and that a day is built the same by workers, whatever happens to them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets import days, units
from assets.days import fold
from assets.report import Made
from assets.units import UNIT_TENANTS_MAX, Unit, cut, do, run_unit
from context_plane.errors import NotFound
from context_plane.plane import Plane
from resources.workers import Processes
from tests.assets.world import DAYS, World, digests, events

SLOTS = 2


@pytest.fixture
def workers() -> Iterator[Processes]:
    made = Processes(SLOTS)
    yield made
    made.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.local(tmp_path)


@pytest.fixture
def always_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "HERE_BYTES_MAX", 0)


async def marked(plane: Plane, tenant: str, day: str, *, folder: Path) -> Made:
    """Dies for tenant `mortal`, the first time for `shaken`; refuses `refused`; else tells which process it was."""
    deaths = folder / f"{tenant}-died"
    if tenant == "mortal" or (tenant == "shaken" and not deaths.exists()):
        deaths.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if tenant == "refused":
        raise NotFound("object_not_found", "of a test")
    return Made(tenant, rows=1, aside=os.getpid())


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(1, 10**9), min_size=1, max_size=200),
    st.integers(1, 16),
)
def test_every_tenant_is_in_one_unit(weights: dict[str, int], slots: int) -> None:
    groups = cut(weights, slots)
    assert sorted(name for group in groups for name in group) == sorted(weights)
    assert max(map(len, groups)) <= UNIT_TENANTS_MAX
    assert len(groups) >= min(slots, len(weights))
    assert cut(dict(reversed(weights.items())), slots) == groups


@given(st.lists(st.integers(1, 1000), min_size=4, max_size=60), st.integers(2, 4))
def test_units_weigh_about_the_same(sizes: list[int], slots: int) -> None:
    """No unit is heavier than the mean by more than the heaviest tenant (Graham's bound). Seen to fail with tenants
    dealt out in turn."""
    weights = {f"t{n:03}": size for n, size in enumerate(sizes)}
    found = [sum(weights[name] for name in group) for group in cut(weights, slots)]
    if len(sizes) <= UNIT_TENANTS_MAX:
        assert max(found) <= sum(found) / len(found) + max(sizes)


@pytest.mark.usefixtures("always_apart")
def test_a_dead_worker_costs_one_tenant(world: World, workers: Processes, tmp_path: Path) -> None:
    """Its unit is done again, each tenant by itself; who dies twice is named, and everyone else is reported."""
    tenants = dict.fromkeys(["calm", "mortal", "quiet", "refused", "shaken"], 1)
    with world.open() as opened:
        found = do(opened, workers, tenants, DAYS[0], "segments", partial(marked, folder=tmp_path))
    assert sorted(found.made) == ["calm", "quiet", "shaken"]
    assert [(item.tenant, item.code) for item in found.failed] == [
        ("mortal", "worker_lost"),
        ("refused", "object_not_found"),
    ]
    assert found.lost >= 2
    assert os.getpid() not in {made.aside for made in found.made.values()}
    assert any("mortal" in line for line in found.errors)


def test_little_work_stays_here(world: World, workers: Processes, tmp_path: Path) -> None:
    with world.open() as opened:
        found = do(opened, workers, {"a": 1, "b": 1}, DAYS[0], "segments", partial(marked, folder=tmp_path))
    assert {made.aside for made in found.made.values()} == {os.getpid()}


@pytest.mark.usefixtures("always_apart")
def test_workers_build_what_one_process_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests of everything, bundles too, and metadata that counts what the workers did. Seen to fail with requests of
    this process alone."""
    apart, here = World.local(tmp_path / "apart"), World.local(tmp_path / "here")
    tenants = ("acme", "globex", "initech")
    for world in (apart, here):
        for tenant in tenants:
            world.write(tenant, events(tenant))
    puts = []
    for world, here_bytes_max in ((apart, 0), (here, 1 << 60)):
        monkeypatch.setattr(units, "HERE_BYTES_MAX", here_bytes_max)
        with dg.DagsterInstance.ephemeral() as instance:
            assert all(day.ok for day in world.build(instance=instance))
            made = instance.get_latest_materialization_event(dg.AssetKey("segments"))
        assert made is not None
        assert made.asset_materialization is not None
        puts.append(made.asset_materialization.metadata["puts"].value)
    assert puts[0] == puts[1]
    with apart.open() as one, here.open() as other:
        for tenant in tenants:
            assert digests(one, tenant) == digests(other, tenant)


def test_an_unopenable_store_fails_the_units_tenants(tmp_path: Path) -> None:
    settings = World.at("file:///proc/nowhere/store", tmp_path).settings
    found = run_unit(Unit(settings, "segments", DAYS[0], ("a", "b"), fold))
    assert [item.tenant for item in found.failed] == ["a", "b"]


async def fold_or_die(plane: Plane, tenant: str, day: str, *, deadly: Path) -> Made:
    if tenant == "t3" and deadly.exists():  # noqa: ASYNC240
        os.kill(os.getpid(), signal.SIGKILL)
    return await fold(plane, tenant, day)


@pytest.mark.usefixtures("always_apart")
def test_a_day_whose_worker_is_killed_is_named_and_mended_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_and_mended(tmp_path, monkeypatch, {})


def killed_and_mended(tmp_path: Path, patch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    """Who shared a unit with the dead one is published whole; who is missing is named; the next run builds it. The
    `environment` says where the workers are."""
    tenants = [f"t{n}" for n in range(6)]
    world, whole = World.local(tmp_path / "killed"), World.local(tmp_path / "whole")
    for tenant in tenants:
        world.write(tenant, events(tenant))
        whole.write(tenant, events(tenant))
    whole.build(DAYS[:1])
    with whole.open() as opened:
        wanted = {tenant: digests(opened, tenant) for tenant in tenants}
    for name, value in environment.items():
        patch.setenv(name, value)
    deadly = tmp_path / "deadly"
    deadly.touch()
    patch.setattr(days, "fold", partial(fold_or_die, deadly=deadly))
    day = world.build(DAYS[:1])[0]
    assert not day.ok
    assert f"t3 {DAYS[0]}: worker_lost in segments" in " ".join(day.problems)
    with world.open() as opened:
        found = {tenant: digests(opened, tenant) for tenant in tenants}
    assert found == {**wanted, "t3": {}}

    deadly.unlink()
    assert world.build(DAYS[:1])[0].ok
    with world.open() as opened:
        assert {tenant: digests(opened, tenant) for tenant in tenants} == wanted
