"""The doctor tells what is wrong, what that means and what to do: each fault is made, and found."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from assets.external import READ_VARIABLE
from assets.operations.warming import KEY_VARIABLE
from assets.partitions import START_VARIABLE
from commands.doctor import machine, storage, tenants
from commands.doctor.command import TENANTS_MAX, _look
from commands.doctor.finding import Finding
from context_plane import plane as planes
from context_plane.catalog import tail
from context_plane.embed.open import EmbedderSettings
from context_plane.plane import Plane
from context_plane.settings import Settings
from context_plane.store import Store, open_store
from context_plane.store.faults import FaultyStore, Mishap, Operation
from context_plane.tenants import TenantSettings, put_tenant
from resources.workers import WorkerSettings
from tests.laws.plane_world import DAY, event, puts


def settings(folder: Path, **more: object) -> Settings:
    return Settings(store=(folder / "store").as_uri(), cache_dir=folder / "cache", **more)  # type: ignore[arg-type]  # values of fields


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async with planes.open(settings(tmp_path)) as opened:
        yield opened


# --- the machine --------------------------------------------------------------------------------


def test_the_deployments_variables_are_those_it_reads() -> None:
    """By name in the doctor, which may not import Dagster. Seen to fail with one left out."""
    workers = {f"CONTEXT_PLANE_{name.upper()}" for name in WorkerSettings.model_fields}
    assert workers | {START_VARIABLE, READ_VARIABLE, KEY_VARIABLE} == machine.OF_DAGSTER


def test_a_misspelt_variable_is_found_and_the_right_one_named() -> None:
    found = machine.variables(["PATH", "CONTEXT_PLANE_STOER", "CONTEXT_PLANE_EMBEDDER__DIM", "CONTEXT_PLANE_BENCH_DIR"])
    assert (found.state, found.fact) == ("warn", "CONTEXT_PLANE_STOER (perhaps CONTEXT_PLANE_STORE)")
    assert "changes nothing" in found.means
    assert "unset it" in found.advice


def test_a_variable_that_was_renamed_is_told_by_its_new_name() -> None:
    for old, new in machine.RENAMED.items():
        assert machine.variables([old]).fact == f"{old} (now {new})"
        assert machine.variables([new]).state == "ok"


def test_values_of_variables_are_never_shown() -> None:
    assert machine.variables({"CONTEXT_PLANE_KEY": "cp_secret"}).fact == "CONTEXT_PLANE_KEY set"


async def test_the_cache_is_looked_at(tmp_path: Path) -> None:
    assert (await machine.cache(settings(tmp_path))).state == "ok"
    assert "no disk cache" in (await machine.cache(settings(tmp_path, cache_disk_bytes=0))).fact
    full = await machine.cache(settings(tmp_path, cache_disk_bytes=1 << 60))
    assert (full.state, "free some space" in full.advice) == ("warn", True)
    (tmp_path / "cache").chmod(0o777)
    shared = await machine.cache(settings(tmp_path))
    assert (shared.state, shared.advice) == ("warn", f"chmod o-rwx {tmp_path / 'cache'}")


async def test_a_cache_that_is_a_file_is_a_failure_with_advice(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    found = {finding.name: finding for finding in await _look(settings(tmp_path), None)}
    assert (found["cache"].state, found["cache"].advice) == ("fail", "make the folder writable, or choose another")


# --- the store ----------------------------------------------------------------------------------

DENIED: dict[str, set[Operation]] = {
    "write": {"put_new", "put"},
    "read": {"get", "get_range", "get_ranges"},
    "list": {"list"},
    "delete": {"delete"},
}


def store_without(operations: set[Operation], name: str) -> Store:
    return FaultyStore(
        open_store(f"memory://{name}"), lambda op, _: Mishap(lost="request") if op in operations else None
    )


@pytest.mark.parametrize("right", DENIED)
async def test_each_right_that_is_missing_is_named_alone(right: str, store_name: str) -> None:
    found = await storage.rights(store_without(DENIED[right], store_name), "n0")
    assert found.state == "fail"
    assert found.fact.startswith(f"may not {right}: ")
    assert found.fact.count("may not") == 1
    assert found.means == storage.NEEDS[right]


async def test_a_right_that_is_missing_hides_no_other(store_name: str) -> None:
    """Seen to fail with the first refusal ending the tries."""
    found = await storage.rights(store_without(DENIED["write"] | DENIED["delete"], store_name), "n0")
    assert found.means == f"{storage.NEEDS['write']}; {storage.NEEDS['delete']}"


async def test_every_right_leaves_nothing_behind(store: Store) -> None:
    assert (await storage.rights(store, "n0")).state == "ok"
    assert [info.key async for info in store.list("")] == []


async def test_a_store_that_cannot_be_reached_ends_the_looks_at_it(tmp_path: Path) -> None:
    """The port is nobody's: no rights, no race and no tenant is looked at, and the model still is."""
    (tmp_path / "cache").mkdir()
    unreachable = Settings(store="s3://bucket/prefix", cache_dir=tmp_path / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        patch.setenv("AWS_ACCESS_KEY_ID", "x")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        found = await _look(unreachable, None)
    assert [finding.name for finding in found] == ["settings", "versions", "cache", "store", "model"]
    assert (found[3].state, "AWS_ENDPOINT_URL" in found[3].advice) == ("fail", True)


async def test_a_clock_that_is_off_is_found(plane: Plane) -> None:
    assert (await storage.clock(plane)).state == "ok"
    engine = plane.engine
    ahead = type(engine)(engine.store, engine.embedder, now_us=lambda: engine.now_us() + 60_000_000)
    found = await storage.clock(planes.assemble(plane.settings, plane.store, plane.engine.embedder, ahead))  # type: ignore[arg-type]  # the plane's own embedder
    assert (found.state, found.advice) == ("warn", "turn on NTP")
    assert found.fact in {"differs from the store's by 59 s", "differs from the store's by 58 s"}
    assert [info.key async for info in plane.store.list("control/probe/")] == []


def test_room_is_that_of_a_local_store(tmp_path: Path) -> None:
    found = storage.room(tmp_path.as_uri())
    assert found is not None
    assert "free below the store" in found.fact
    assert storage.room("s3://bucket/prefix") is None


# --- tenants ------------------------------------------------------------------------------------


async def test_a_tail_is_told_before_it_refuses_writes(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "TAIL_OBJECTS_MAX", 4)
    states: list[Finding] = []
    for number in range(4):
        await plane.write("acme", puts([event(number)]), body_bytes=100)
        states.append(await tenants.tenant(plane, "acme"))
    assert [found.state for found in states] == ["warn", "warn", "warn", "fail"]
    assert "in no bundle" in states[0].means
    assert ["tail 25% full" in states[0].fact, "tail 100% full" in states[3].fact] == [True, True]
    assert "searches the tail" in states[1].means
    assert "tail_full" in states[3].means
    assert {found.advice for found in states} == {"context-plane build --tenant acme"}


async def test_vectors_of_another_model_are_a_failure(plane: Plane, tmp_path: Path) -> None:
    await plane.write("acme", puts([event(0)]), body_bytes=100)
    await plane.build("acme", [DAY], specs=())
    assert (await tenants.tenant(plane, "acme")).state == "ok"
    given = EmbedderSettings(kind="given", model="another", dim=8)
    async with planes.open(settings(tmp_path, embedder=given)) as other:
        found = await tenants.tenant(other, "acme")
    assert (found.state, "re-embed" in found.advice) == ("fail", True)


async def test_a_tenant_that_is_not_there_is_a_failure(plane: Plane) -> None:
    assert (await tenants.tenant(plane, "nobody")).state == "fail"


async def test_of_very_many_tenants_some_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commands.doctor.command.TENANTS_MAX", 2)
    async with planes.open(settings(tmp_path)) as opened:
        for number in range(3):
            await put_tenant(opened.engine, f"t{number}", TenantSettings())
    names = [finding.name for finding in await _look(settings(tmp_path), None)]
    assert names[-3:] == ["tenant t0", "tenant t1", "tenants"]
    assert TENANTS_MAX >= 2
