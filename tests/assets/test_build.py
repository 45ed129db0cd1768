"""Laws of a build through Dagster: it is the engine's build, one tenant cannot stop another, and what was
derived can be thrown away."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import assets.days
from assets.bundle_gate import BUDGET, CHANGES
from assets.definitions import build_definitions
from assets.dirt import DAY_JOB
from assets.gate import CHECK
from assets.plan import PLANS_KEPT, Failed, load_plan, plan_day, plans_folder, save_plan
from assets.published import ALONE, NO_TENANT_FAILED
from assets.report import Made
from assets.step import PUBLISHED
from context_plane.catalog.head import load_head
from context_plane.catalog.log import list_log
from context_plane.catalog.manifest import object_ref
from context_plane.catalog.named import named_keys
from context_plane.engine import Engine
from context_plane.fold import fold_day, load_pending
from context_plane.index import fulltext_shard
from context_plane.index.entity_shard import decode_entry_block
from context_plane.layout.keys import LogKey
from context_plane.layout.pack import decode_page
from context_plane.model import Event, Put, Write, day_start_us, identity
from context_plane.plane import Plane
from context_plane.staging import LogDays, load_entity_stage, load_fulltext_stage, save
from resources.scope import BuildScope
from resources.workers import Processes
from tests.assets.test_landing import with_tickets
from tests.assets.world import DAYS, SPEC, World, answers, delete_below, digests, events
from tests.store.servers import Server

BEFORE_COMMIT = ["landing", "segments", "vector_shards", "entity_shards", "fulltext_shards"]
BUNDLES = f"bundles/{SPEC}"


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    found = (e.step_materialization_data.materialization for e in result.get_asset_materialization_events())
    return {m.asset_key.to_user_string(): m for m in found}


def version_of(one: dg.AssetMaterialization) -> str:
    assert one.tags is not None
    return one.tags["dagster/data_version"]


def number(told: Mapping[str, dg.MetadataValue[Any]], name: str) -> int:
    return int(str(told[name].value))


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Failed step -> what it says."""
    found = {}
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            told = data.user_failure_data.description if data.user_failure_data else None
            found[str(event.step_key)] = told or data.error_display_string
    return found


def test_a_build_through_dagster_equals_the_engines(tmp_path: Path) -> None:
    """Law 3, and ascending order of days: bundles look back. Seen to fail with a step that skipped the second
    tenant, and with days built in the order given."""
    through, plain = World.local(tmp_path / "dagster"), World.local(tmp_path / "engine")
    for tenant in ("acme", "beta"):
        through.write(tenant, events(tenant))
        shuffled = events(tenant)
        random.Random(7).shuffle(shuffled)
        plain.write(tenant, shuffled, batch=13)
    days = through.build(list(reversed(DAYS)))
    assert [day.day for day in days] == DAYS
    assert all(day.ok and day.events == 80 for day in days)
    with plain.open() as engine, through.open() as dagster:
        for tenant in ("acme", "beta"):
            engine.run(engine.plane.build(tenant, DAYS))
            assert digests(dagster, tenant) == digests(engine, tenant)
            assert answers(dagster, tenant) == answers(engine, tenant)


def test_a_run_reports_under_stable_names(tmp_path: Path) -> None:
    world = World.local(tmp_path)
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant))
    result = world.run([*BEFORE_COMMIT, "published", BUNDLES], DAYS[0])
    assert result.success
    told = materialized(result)
    assert set(told) == {*BEFORE_COMMIT, "published", BUNDLES}
    for name, one in told.items():
        assert {"rows", "bytes", "objects", "seconds", "tenants", "failed"} <= set(one.metadata)
        assert one.metadata["failed"].value == 0
        assert version_of(one), name
    assert told["segments"].metadata["events"].value == 80
    assert told["vector_shards"].metadata["texts_embedded"].value == 80
    assert told["published"].metadata["tenants"].value == 2
    passed = {name: check.passed for name, check in checks(result).items()}
    assert passed == {CHECK: True, NO_TENANT_FAILED: True, BUDGET: True, CHANGES: True}
    with world.open() as opened:
        assert opened.run(delete_below(opened.plane, plans_folder(DAYS[0]))) == 0, "of a run without failures"


def test_a_tenant_that_fails_is_named_and_stops_no_other(tmp_path: Path) -> None:
    """Its bundles are made by the same run. Seen to fail when `each_tenant` let the error out, and when `segments`, or
    `published`, failed by itself (Dagster then skips everything after it)."""
    world = World.local(tmp_path)
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant))

    async def damage(plane: Plane) -> None:
        key = str(LogKey("acme", 1))
        stored = await plane.engine.store.get(key)
        await plane.engine.store.put(key, stored[:-40] + bytes(40))

    with world.open() as opened:
        opened.run(damage(opened.plane))
    result = world.run([*BEFORE_COMMIT, "published", BUNDLES], DAYS[0])
    assert not result.success
    said = failures(result)
    assert set(said) == {NO_TENANT_FAILED}
    assert f"acme {DAYS[0]}: corrupt_object in segments" in said[NO_TENANT_FAILED]
    assert "beta" not in said[NO_TENANT_FAILED]
    assert checks(result)[NO_TENANT_FAILED].description == said[NO_TENANT_FAILED]
    with world.open() as opened:
        assert f"{SPEC} {DAYS[0]}" in digests(opened, "beta"), "by the same run"
    (built,) = world.build(DAYS[:1])
    assert not built.ok
    assert len(built.problems) == len(built.run_ids) == 1
    assert built.bundles > 0, "bundles of the tenant that was published"
    with world.open() as opened:
        assert f"{SPEC} {DAYS[0]}" in digests(opened, "beta")
        assert digests(opened, "acme") == {}


def test_a_check_that_was_launched_without_its_run_judges_nothing(tmp_path: Path) -> None:
    """Seen to fail (green, over the verdict of the run that failed) when a run without a plan was one without
    failures."""
    world = World.local(tmp_path)
    world.write("acme", events("acme"))
    with world.open() as opened, dg.DagsterInstance.ephemeral() as instance:
        resources = {"plane": opened, "workers": Processes(1), "scope": BuildScope()}
        job = build_definitions(world.settings, resources).resolve_job_def(DAY_JOB)
        alone = job.get_subset(asset_check_selection={dg.AssetCheckKey(PUBLISHED, NO_TENANT_FAILED)})
        result = alone.execute_in_process(instance=instance, partition_key=DAYS[0], raise_on_error=False)
    assert not result.success
    assert failures(result)[NO_TENANT_FAILED] == ALONE
    assert checks(result) == {}


def test_a_step_without_the_commit_fails_itself(tmp_path: Path) -> None:
    world = World.local(tmp_path)
    world.write("acme", events("acme"))
    world.write("beta", events("beta"))
    world.run(["segments"], DAYS[0])

    async def lose(plane: Plane) -> None:
        await delete_below(plane, "tenants/acme/entities/")

    with world.open() as opened:
        opened.run(lose(opened.plane))
    result = world.run(["vector_shards"], DAYS[0])
    assert set(failures(result)) == {"vector_shards"}
    assert materialized(result)["vector_shards"].metadata["tenants"].value == 1


def test_the_gate_withholds_what_disagrees_and_publishes_the_rest(tmp_path: Path) -> None:
    """The record still claims the full count: seen to fail (published) when the gate compared records only."""
    world = World.local(tmp_path)
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant))
    assert world.run(BEFORE_COMMIT, DAYS[0]).success
    scratch = tmp_path / "cut"
    scratch.mkdir()
    with world.open() as opened:
        opened.run(_cut_fulltext(opened.plane.engine, scratch, "acme", DAYS[0]))
    result = world.run(["published", BUNDLES], DAYS[0])
    assert not result.success
    check = checks(result)[CHECK]
    assert (check.passed, check.blocking) == (False, False)
    assert check.description is not None
    assert f"acme {DAYS[0]}" in check.description
    assert "Materialize the day again" in check.description
    assert "beta" not in check.description
    assert set(failures(result)) == {NO_TENANT_FAILED}
    assert f"acme {DAYS[0]}: check_failed in published" in failures(result)[NO_TENANT_FAILED]
    with world.open() as opened:
        assert digests(opened, "acme") == {}
        assert f"{SPEC} {DAYS[0]}" in digests(opened, "beta"), "by the same run"
        assert DAYS[0] in digests(opened, "beta")
    (again,) = world.build(DAYS[:1])
    assert again.ok, "the recovery text is right"
    with world.open() as opened:
        assert DAYS[0] in digests(opened, "acme")


async def forgetful_fold(plane: Plane, tenant: str, day: str) -> Made:
    """A fold that loses the newest batch of `acme`, and says that it has it."""
    pending = await load_pending(plane.engine, tenant)
    short = replace(pending, batches=pending.batches[:-1]) if tenant == "acme" else pending
    stage = await fold_day(plane.engine, tenant, day, pending=short)
    observed = tuple(LogDays(number=b.number, days=tuple(b.header.days)) for b in pending.batches)
    said = stage.model_copy(update={"covered": pending.log_number, "observed": observed})
    await save(plane.engine.store, tenant, day, "segments", said)
    return Made("")


def test_the_gate_withholds_a_day_that_lost_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All artefacts agree, but the log has more. Seen to fail (published, and the events gone for good) with counts
    alone."""
    world = World.local(tmp_path)
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant), batch=30)
    monkeypatch.setattr(assets.days, "fold", forgetful_fold)
    (day,) = world.build(DAYS[-1:])
    assert not day.ok
    said = " ".join(day.problems)
    assert f"acme {DAYS[-1]}: 20 events missing; the log and the day before say 40 events" in said
    assert "beta" not in said
    monkeypatch.undo()
    with world.open() as opened:
        assert digests(opened, "acme") == {}
    assert world.build()[-1].ok
    with world.open() as opened:
        assert DAYS[-1] in digests(opened, "acme")


async def missing(plane: Plane, tenant: str) -> set[str]:
    """Objects that the newest manifest names and the store lacks."""
    named = await named_keys(plane.engine.store, await load_head(plane.engine.store, tenant), {})
    return named - {info.key async for info in plane.engine.store.list(f"tenants/{tenant}/")}


async def _cut_fulltext(engine: Engine, scratch: Path, tenant: str, day: str) -> None:
    """A full-text shard of the first entity alone, under a record that says nothing of it."""
    entity = await load_entity_stage(engine.store, tenant, day)
    fulltext = await load_fulltext_stage(engine.store, tenant, day)
    assert entity.shard is not None
    assert fulltext.shard is not None
    first = decode_page(await engine.store.get_range(entity.shard.key, entity.shard.pages[0].range))[0]
    block = decode_entry_block(bytes(await engine.store.get_range(entity.shard.key, first.range)))
    stored = fulltext_shard.build(block, scratch)
    key = fulltext.shard.key.replace("shard-", "shard-cut")
    await engine.store.put_new(key, stored)
    cut = fulltext.model_copy(update={"shard": object_ref(key, stored, fulltext.shard.digest)})
    await save(engine.store, tenant, day, "fulltext", cut)


@pytest.mark.parametrize("where", ["local", "seaweedfs"])
def test_indexes_and_bundles_are_disposable(
    where: str, tmp_path: Path, store_name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 4. Seen to fail when days without uncovered writes were left alone, as automation leaves them, and when
    bundle packs were reused by a cached directory whose packs were gone."""
    world = World.local(tmp_path)
    if where == "seaweedfs":
        server: Server = request.getfixturevalue("seaweedfs")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        world = World.at(server.url(store_name), tmp_path / "cache")
    world.write("acme", events("acme"))
    assert all(day.ok for day in world.build())
    with world.open() as opened:
        before = digests(opened, "acme"), answers(opened, "acme")
        for folder in ("indexes", "bundles"):
            assert opened.run(delete_below(opened.plane, f"tenants/acme/{folder}/")) > 0
    assert all(day.ok for day in world.build()), "with a cache that still holds what was deleted"
    with World.at(world.settings.store, tmp_path / "empty").open() as opened:
        assert opened.run(missing(opened.plane, "acme")) == set()
        assert (digests(opened, "acme"), answers(opened, "acme")) == before


def test_a_second_build_of_clean_days_does_nothing_when_only_dirty_ones_are_wanted(tmp_path: Path) -> None:
    world = World.local(tmp_path)
    world.write("acme", events("acme"))
    world.write("beta", events("beta"))
    first = world.run([*BEFORE_COMMIT, "published", BUNDLES], DAYS[0])
    assert not failures(first)
    with world.open() as opened:
        version = opened.run(load_head(opened.plane.engine.store, "acme")).version
    world.write("beta", events("beta")[:1])
    second = world.run([*BEFORE_COMMIT, "published", BUNDLES], DAYS[0], BuildScope(only_dirty=True))
    assert second.success
    told = materialized(second)
    table = told["segments"].metadata["tenant_days"]
    assert isinstance(table, dg.TableMetadataValue)
    states = {row.data["tenant"]: row.data["state"] for row in table.records}
    assert states == {"acme": "kept", "beta": "unchanged"}, "one was left alone, one came out the same"
    with world.open() as opened:
        assert opened.run(load_head(opened.plane.engine.store, "acme")).version == version
    for name, one in materialized(first).items():
        if name != "landing":
            assert version_of(one) == version_of(told[name]), f"{name}: same contents, same version"


WHOLE = ("dagster/row_count", "rows", "events", "entities", "bytes", "rows_by_tenant")
"""What a materialization tells of its partition, whatever part of it the run rebuilt."""


def test_an_ordinary_run_tells_of_the_whole_partition(tmp_path: Path) -> None:
    """Automation leaves alone what did not change. Files that landed before count, and so does what a tenant whose run
    fails had before. Seen to fail (rows fell to those of the late tenant, and to none) with sums over what was made."""
    world, day, steps = World.local(tmp_path), DAYS[1], [*BEFORE_COMMIT, "published", BUNDLES]
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant, [day]))
    with_tickets(world)
    first, nothing_new = (materialized(world.run(steps, day, BuildScope(only_dirty=True))) for _ in range(2))
    assert number(first["landing"].metadata, "rows") == 3
    for name in steps:
        told, before = nothing_new[name].metadata, first[name].metadata
        assert {key: told.get(key) for key in WHOLE} == {key: before.get(key) for key in WHOLE}, name
        assert number(told, "rows") == number(before, "rows_rebuilt") > 0, name
        assert (number(told, "rows_rebuilt"), number(told, "objects")) == (0, 0), name
        assert (number(told, "tenants"), number(told, "tenants_unchanged")) == (2, 2), name
        assert version_of(nothing_new[name]) == version_of(first[name]), name
    world.write("beta", one_late(day))
    late = materialized(world.run(steps, day, BuildScope(only_dirty=True)))
    for name in steps[1:-1]:
        told = late[name].metadata
        assert number(told, "rows") == number(first[name].metadata, "rows") + 1, name
        assert number(told, "rows_rebuilt") == 41, name
        assert (number(told, "tenants"), number(told, "tenants_unchanged")) == (2, 1), name
    assert number(late[BUNDLES].metadata, "rows") == number(first[BUNDLES].metadata, "rows") + 1
    for tenant in ("acme", "beta"):
        world.write(tenant, one_late(day, "later"))
    with world.open() as opened:
        opened.run(damage_newest(opened.plane, "beta"))
    result = world.run(steps, day, BuildScope(only_dirty=True))
    assert not result.success
    failed = materialized(result)
    for name in steps[1:-1]:
        assert number(failed[name].metadata, "rows") == number(late[name].metadata, "rows") + 1, name
        assert [number(failed[name].metadata, key) for key in ("tenants", "tenants_unchanged")] == [2, 1], name


def one_late(day: str, name: str = "late") -> list[Write]:
    """An event of an entity of its own."""
    return [Put(Event(entity=name, ts_us=day_start_us(day), id=name, source="crm", kind="note", text="a word"))]


async def damage_newest(plane: Plane, tenant: str) -> None:
    """The tenant's newest log batch does not decode."""
    key = str(LogKey(tenant, (await list_log(plane.engine.store, tenant, after=0))[-1].number))
    stored = await plane.engine.store.get(key)
    await plane.engine.store.put(key, stored[:-40] + bytes(40))


def test_runs_of_one_day_keep_their_plans_apart_and_few_stay(tmp_path: Path) -> None:
    """A person's run beside one that is under way. Seen to fail with a plan by day: the first run forgot who failed in
    it, and took whatever was staged."""
    world, scope = World.local(tmp_path), BuildScope()
    world.write("acme", events("acme", DAYS[:1]))
    with world.open() as opened:
        plane, store = opened.plane, opened.plane.engine.store
        plan = opened.run(plan_day(plane, scope, "first", DAYS[0]))
        failed = [Failed(tenant="acme", step="segments", code="corrupt_object")]
        opened.run(save_plan(store, plan.with_failed(failed)))
        opened.run(save_plan(store, opened.run(plan_day(plane, scope, "second", DAYS[0]))))
        assert opened.run(load_plan(plane, scope, "first", DAYS[0])).failed == tuple(failed)
        assert opened.run(load_plan(plane, scope, "second", DAYS[0])).left() == ["acme"]
        for number_of in range(2 * PLANS_KEPT):
            opened.run(save_plan(store, opened.run(plan_day(plane, scope, f"run-{number_of}", DAYS[0]))))
        assert opened.run(delete_below(plane, plans_folder(DAYS[0]))) <= PLANS_KEPT + 1


def test_a_scope_of_tenants_leaves_the_others_alone(tmp_path: Path) -> None:
    world = World.local(tmp_path)
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant))
    world.build(tenants=["beta"])
    with world.open() as opened:
        assert digests(opened, "acme") == {}
        assert len(digests(opened, "beta")) == 4


def test_nothing_a_run_leaves_names_an_entity(tmp_path: Path) -> None:
    """Metadata, failures and the plan outlive an erasure. Seen to fail with error details in the failure text."""
    world = World.local(tmp_path)
    writes = events("acme")
    world.write("acme", writes)
    world.run(["segments"], DAYS[0])

    async def lose(plane: Plane) -> bytes:
        await delete_below(plane, "tenants/acme/entities/")
        store = plane.engine.store
        (plan,) = [info.key async for info in store.list(plans_folder(DAYS[0]))]
        return await store.get(plan)

    with world.open() as opened:
        plan = opened.run(lose(opened.plane))
    result = world.run([*BEFORE_COMMIT[2:], "published"], DAYS[0])
    assert not result.success
    told = [str(m.metadata) for m in materialized(result).values()] + list(failures(result).values())
    for entity in {identity(write)[0] for write in writes}:
        assert not any(entity in text for text in told)
        assert entity.encode() not in plan
