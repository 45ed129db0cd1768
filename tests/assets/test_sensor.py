"""The sensor and the schedule over a real store, tick by tick."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

import assets.bundles
import assets.days
from assets import automation, dirt
from assets.definitions import defs
from assets.dirt import BUNDLES_JOB, DAY_JOB
from context_plane.catalog.head import load_head
from context_plane.engine import Engine
from context_plane.fold import Pending, load_pending
from context_plane.model import add_days, day_of, day_start_us
from context_plane.store.faults import Mishap, Operation
from context_plane.tenants import TenantSettings, put_tenant
from resources.plane import OpenPlane
from tests.assets.test_gate import emptying_fold
from tests.assets.test_operations import ask, run
from tests.assets.ticks import evaluate, execute, night, tick
from tests.assets.world import DAYS, SPEC, World, digests, events

BEFORE_BUNDLES = ["landing", "segments", "vector_shards", "entity_shards", "fulltext_shards", "published"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(dirt, "DIRT_AGE_US", 0)  # dirt is due at once
    return World.local(tmp_path)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def test_dirt_becomes_runs_and_is_gone(world: World, instance: dg.DagsterInstance) -> None:
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant))
    first, cursor = tick(world, instance, None)
    assert [(r.job_name, r.partition_key) for r in first] == [(DAY_JOB, day) for day in DAYS]
    assert all(str(r.run_key).startswith(f"{DAY_JOB}:{r.partition_key}:") for r in first)
    asked_again, cursor = tick(world, instance, cursor)
    assert list(asked_again) == [], "what was asked for is not asked for twice"
    assert all(execute(world, instance, request).success for request in first)
    after, cursor = tick(world, instance, cursor)
    assert list(after) == []
    assert cursor == "[]"
    world.write("beta", events("beta")[:1])
    late, _ = tick(world, instance, cursor)
    assert [(r.job_name, r.partition_key) for r in late] == [(DAY_JOB, DAYS[0])]


def test_a_late_day_renews_the_bundles_of_later_days(world: World, instance: dg.DagsterInstance) -> None:
    world.write("acme", events("acme"))
    world.build()
    world.write("acme", events("other")[:1])
    (request,), cursor = tick(world, instance, None)
    assert execute(world, instance, request).success
    (renewal,), cursor = tick(world, instance, cursor)
    assert (renewal.job_name, renewal.partition_key) == (BUNDLES_JOB, DAYS[1])
    assert execute(world, instance, renewal).success
    assert list(tick(world, instance, cursor)[0]) == []


def losing(folder: str) -> Callable[[Operation, str], Mishap | None]:
    """Whatever is to be created below a folder of a tenant is lost on its way to the store."""
    return lambda operation, key: Mishap(lost="request") if operation == "put_new" and f"/{folder}/" in key else None


def noon(days_ahead: int) -> int:
    """Of a day to come: whatever was built until now is older."""
    return day_start_us(add_days(day_of(time.time_ns() // 1000), days_ahead)) + 12 * 3600 * 1_000_000


def test_a_run_that_fails_is_silent_until_the_schedule_asks_and_then_succeeds_once(
    world: World, stored_instance: dg.DagsterInstance
) -> None:
    """Tick by tick over a store that loses the shards of the first run. Nothing is lost, nothing runs twice.
    Seen to fail (asked for at once, again and again) with a cursor that is not kept, and (never again) without the
    schedule's own keys."""
    instance = stored_instance
    world.write("acme", events("acme", DAYS[:1]))
    (request,), cursor = tick(world, instance, None)
    assert not execute(world, instance, request, losing("indexes")).success
    for _ in range(2):
        silent, cursor = tick(world, instance, cursor)
        assert list(silent) == []
    asked = {again.partition_key: again for again in night(world, instance, add_days(DAYS[0], 9))}
    assert execute(world, instance, asked[DAYS[0]]).success
    after, cursor = tick(world, instance, cursor)
    assert (list(after), cursor) == ([], "[]")
    assert DAYS[0] not in {again.partition_key for again in night(world, instance, add_days(DAYS[0], 10))}
    states = [run.status for run in instance.get_runs()]  # the newest first
    assert states == [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    with world.open() as opened:
        head = opened.run(load_head(opened.plane.engine.store, "acme"))
    segments = head.days[DAYS[0]].segments
    assert segments is not None
    assert (head.version, segments.events) == (2, 40), "one commit of the day, and one of its bundles"


def tick_of_bundles(
    world: World, instance: dg.DagsterInstance, cursor: str | None, days_ahead: int
) -> tuple[list[dg.RunRequest], str | None]:
    """Without the rollups that come with time: whether the month is over at that noon depends on today."""
    requests, cursor = tick(world, instance, cursor, now_us=noon(days_ahead))
    return [request for request in requests if request.job_name == BUNDLES_JOB], cursor


def test_bundles_whose_run_failed_are_asked_for_again_the_next_day(world: World, instance: dg.DagsterInstance) -> None:
    """No schedule asks for bundles. Seen to fail (never asked for again) with digests of the input alone."""
    world.write("acme", events("acme", DAYS[:1]))
    assert world.run(BEFORE_BUNDLES, DAYS[0]).success
    (request,), cursor = tick_of_bundles(world, instance, None, 1)
    assert not execute(world, instance, request, losing("bundles")).success
    none, cursor = tick_of_bundles(world, instance, cursor, 1)
    assert none == [], "once a day"
    (again,), cursor = tick_of_bundles(world, instance, cursor, 2)
    assert execute(world, instance, again).success
    for days_ahead in (2, 3):
        none, cursor = tick_of_bundles(world, instance, cursor, days_ahead)
        assert none == []
    with world.open() as opened:
        assert f"{SPEC} {DAYS[0]}" in digests(opened, "acme")


def test_bundles_that_an_erasure_made_stale_are_asked_for_on_the_same_day(
    world: World, instance: dg.DagsterInstance
) -> None:
    """Of somebody else, so their sources stay as they were. Seen to fail (never asked for again) with digests of the
    sources alone."""
    world.write("acme", events("acme", DAYS[:1]))
    assert world.run(BEFORE_BUNDLES, DAYS[0]).success
    (request,), cursor = tick_of_bundles(world, instance, None, 1)
    assert execute(world, instance, request).success
    ask(world, "acme", "acct-unknown")
    assert run(world, "erase").success
    (again,), cursor = tick_of_bundles(world, instance, cursor, 1)
    assert again.partition_key == DAYS[0]
    assert execute(world, instance, again).success
    assert tick_of_bundles(world, instance, cursor, 1)[0] == []


def test_a_tick_tells_what_it_costs(world: World, instance: dg.DagsterInstance) -> None:
    """Seen to fail with the reason alone."""
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant, DAYS[:1]))
    world.build(DAYS[:1])
    found = evaluate(world, instance, None)
    cost = r"tenants looked at: 2, in \d+\.\d\d s, (\d+) GETs, (\d+) LISTs"
    form = rf"nothing is due; runs whose writes still rest: 0; {cost}"
    told = re.fullmatch(form, found.skip_message)
    assert told is not None, found.skip_message
    assert int(told[1]) >= 2, "a manifest of each"
    assert int(told[2]) >= 4, "and the names and the log of each"


def test_bundles_that_a_failed_check_held_back_are_asked_for(world: World, instance: dg.DagsterInstance) -> None:
    world.write("acme", events("acme"))
    world.run(BEFORE_BUNDLES, DAYS[0])
    requests, _ = tick(world, instance, None)
    assert {(r.job_name, r.partition_key) for r in requests} == {(BUNDLES_JOB, DAYS[0]), (DAY_JOB, DAYS[1])}
    for request in requests:
        assert execute(world, instance, request).success
    with world.open() as opened:
        assert f"{SPEC} {DAYS[0]}" in digests(opened, "acme")


MANY = [add_days("2026-03-01", n) for n in range(9)]
"""More built days than the newest, whose bundles the sensor makes unasked."""


def test_bundles_of_old_days_that_a_run_did_not_come_to_are_asked_for(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the tenants that passed, and nothing else of that age. Seen to fail (nothing was asked for) with the newest
    days alone; and with every built day looked at: the day that nobody wanted bundles of was asked for too."""
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant, MANY, per_day=8))
    assert all(day.ok for day in world.build(MANY[:1], bundle_days=0))

    async def dies(*_: object) -> dict[str, int]:
        raise RuntimeError("as a run that is killed after its commit")

    def fails(request: dg.RunRequest) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(assets.days, "fold", emptying_fold)
            patch.setattr(assets.bundles, "weigh", dies)
            assert not execute(world, instance, request).success

    fails(dg.RunRequest(job_name=DAY_JOB, partition_key=MANY[1], run_config=automation.ONLY_DIRTY))
    assert all(day.ok for day in world.build(MANY[2:]))
    (again,), cursor = tick(world, instance, None)
    assert (again.job_name, again.partition_key) == (DAY_JOB, MANY[1]), "it would make the bundles, too"
    fails(again)
    (held_back,), cursor = tick(world, instance, cursor)
    assert (held_back.job_name, held_back.partition_key) == (BUNDLES_JOB, MANY[1])
    assert execute(world, instance, held_back).success
    with world.open() as opened:
        assert f"{SPEC} {MANY[1]}" in digests(opened, "beta")
        assert f"{SPEC} {MANY[0]}" not in digests(opened, "beta")
    assert list(tick(world, instance, cursor)[0]) == []


def test_a_failed_run_that_was_to_make_no_bundles_holds_none_back(world: World, instance: dg.DagsterInstance) -> None:
    """As the command line builds older days. Seen to fail with every failed run looked at."""
    world.write("acme", events("acme", MANY, per_day=8))
    world.build(MANY, bundle_days=7)
    chosen = frozenset({dg.AssetKey("segments"), dg.AssetKey("published")})
    tags = {"dagster/partition": MANY[0]}
    failed = dg.DagsterRunStatus.FAILURE
    instance.add_run(dg.DagsterRun(DAY_JOB, status=failed, tags=tags, asset_selection=chosen))
    assert list(tick(world, instance, None)[0]) == []
    instance.add_run(dg.DagsterRun(DAY_JOB, status=failed, tags=tags))
    assert [r.partition_key for r in tick(world, instance, None)[0]] == [MANY[0]]


def test_specs_that_a_tenant_leaves_out_are_neither_built_nor_asked_for(
    world: World, instance: dg.DagsterInstance
) -> None:
    """Seen to fail with the setting obeyed by builds alone: the sensor asked for the missing bundles without end."""
    world.write("acme", events("acme"))
    with world.open() as opened:
        opened.run(put_tenant(opened.plane.engine, "acme", TenantSettings(specs=[])))
    requests, cursor = tick(world, instance, None)
    assert all(execute(world, instance, request).success for request in requests)
    assert list(tick(world, instance, cursor)[0]) == []
    with world.open() as opened:
        assert not any(name.startswith(SPEC) for name in digests(opened, "acme"))


@pytest.mark.parametrize(
    "tags",
    [
        {"dagster/partition": DAYS[0]},
        {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[0]},
        {"dagster/asset_partition_range_start": add_days(DAYS[0], -1), "dagster/asset_partition_range_end": DAYS[0]},
    ],
    ids=["run", "older backfill", "range"],
)
def test_a_day_of_which_a_run_is_under_way_is_left_alone(
    world: World, stored_instance: dg.DagsterInstance, tags: dict[str, str]
) -> None:
    """By the sensor, and by the schedule; also of runs that name a range, as backfills of older deployments did. Seen
    to fail, built twice, with these not counted, and with a schedule that does not look."""
    world.write("acme", events("acme"))
    run = dg.DagsterRun(DAY_JOB, status=dg.DagsterRunStatus.STARTED, tags=tags)
    stored_instance.add_run(run)
    requests, _ = tick(world, stored_instance, None)
    assert [request.partition_key for request in requests] == [DAYS[1]]
    tonight = night(world, stored_instance, add_days(DAYS[1], 9))
    assert DAYS[1] in {request.partition_key for request in tonight}
    assert DAYS[0] not in {request.partition_key for request in tonight}


def test_a_look_waits_for_many_tenants_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick has a minute for all. Seen to fail with as many as builds work on."""
    waiting, most = 0, 0

    async def counted(engine: Engine, tenant: str) -> Pending:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0)
        waiting -= 1
        return await load_pending(engine, tenant)

    tenants = [f"t{n}" for n in range(dirt.LOOKS_AT_ONCE + 8)]
    monkeypatch.setattr(dirt, "load_pending", counted)
    with world.open() as opened:
        assert opened.run(dirt.survey(opened.plane, tenants)).tenants == len(tenants)
    assert most == dirt.LOOKS_AT_ONCE == 32


def test_a_tenant_that_cannot_be_read_is_told_and_stops_no_other(world: World) -> None:
    async def damage(opened: OpenPlane) -> dirt.Survey:
        store = opened.plane.engine.store
        key = "tenants/acme/log/00000000000000000001.jsonl.zst"
        await store.put(key, b"nothing")
        return await automation.look(opened.plane)

    world.write("acme", events("acme"))
    world.write("beta", events("beta"))
    with world.open() as opened:
        found = opened.run(damage(opened))
    assert found.failed == (("acme", "corrupt_object"),)
    assert {item.tenant for item in found.dirt} == {"beta"}
    assert automation.remarks(found, []) == ["tenant acme cannot be read: corrupt_object"]


def test_dirt_without_a_partition_is_told_not_asked_for(world: World, instance: dg.DagsterInstance) -> None:
    world.write("acme", events("acme", ["1999-12-31"]))
    requests, _ = tick(world, instance, None)
    assert list(requests) == []
    with world.open() as opened:
        found = opened.run(automation.look(opened.plane))
    inside, outside = automation.split_by_partition(found.dirt)
    assert inside == []
    assert "CONTEXT_PLANE_FIRST_DAY=1999-12-31" in automation.remarks(found, outside)[0]


def test_the_schedule_asks_for_dirty_days_and_those_whose_exports_land(
    world: World, stored_instance: dg.DagsterInstance
) -> None:
    """Exports in the order in which they came. Seen to fail with the newest first."""
    world.write("acme", events("acme"))
    found = night(world, stored_instance, "2026-03-06")
    landing = ["2026-03-04", "2026-03-05", "2026-03-06"]
    assert [r.run_key for r in found] == [f"daily:2026-03-06:{day}" for day in [*landing, DAYS[0]]]


def test_a_requested_run_takes_its_store_from_the_environment(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deployment's own resources, and the run configuration that automation sends."""
    world.write("acme", events("acme"))
    (request, _), _ = tick(world, instance, None)
    monkeypatch.setenv("CONTEXT_PLANE_STORE", world.settings.store)
    monkeypatch.setenv("CONTEXT_PLANE_CACHE_DIR", str(world.settings.cache_dir))
    result = defs.resolve_job_def(str(request.job_name)).execute_in_process(
        instance=instance, partition_key=request.partition_key, run_config=request.run_config, raise_on_error=False
    )
    assert result.success
    with world.open() as opened:
        assert list(digests(opened, "acme")) == [DAYS[0], f"{SPEC} {DAYS[0]}"]
