"""Bundles that change much of what readers have wait, tenant by tenant; those over their budget are never committed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import context_plane.materialize
from assets.automation import look
from assets.bundle_gate import BUDGET, CHANGES, Verdict, metadata_of
from assets.dirt import BUNDLES_JOB
from assets.gate import CHECK
from context_plane.approvals import file_approval
from context_plane.bundle.materialize import Bundle, materialize
from context_plane.bundle_changes import Replacement
from context_plane.catalog.head import load_head
from context_plane.catalog.manifest import BundleChanges
from context_plane.model import Put, Write, sha256_hex
from context_plane.pending import pending_of
from context_plane.tenants import TenantSettings, put_tenant
from resources.scope import BuildScope
from tests.assets.test_build import BEFORE_COMMIT, BUNDLES, checks, materialized
from tests.assets.test_operations import run
from tests.assets.world import DAYS, SPEC, World, answers, events

DAY = DAYS[-1]
HOUR_US = 3600 * 1_000_000
ALL = [*BEFORE_COMMIT, "published", BUNDLES]


def gated(folder: Path, share: float) -> World:
    """`acme` and `beta`, built, where a build may change that share of a day's bundles unasked."""
    world = World.local(folder)
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant))
    assert all(day.ok for day in world.build())
    return World(world.settings.model_copy(update={"bundle_change_max": share}))


def late(tenant: str, entities: int) -> list[Write]:
    """A late event of each of the first entities."""
    first: dict[str, Put] = {}
    for write in events(tenant, [DAY]):
        assert isinstance(write, Put)
        first.setdefault(write.event.entity, write)
    some = [first[name] for name in sorted(first)[:entities]]
    made = [replace(w.event, id=f"late-{w.event.id}", text="the renewal is in danger") for w in some]
    return [Put(replace(each, ts_us=each.ts_us + 20 * HOUR_US)) for each in made]


def judged(result: dg.ExecuteInProcessResult) -> dict[str, int]:
    found = checks(result).items()
    return {name: int(str(check.metadata["judged"].value)) for name, check in found if "judged" in check.metadata}


def waiting(world: World, tenant: str) -> bool:
    with world.open() as opened:
        head = opened.run(load_head(opened.plane.engine.store, tenant))
    return pending_of(head, SPEC, DAY) is not None


def asked(world: World) -> set[tuple[str, str]]:
    """Bundles that the sensor would have built: tenant, day."""
    with world.open() as opened:
        return {(d.tenant, d.day) for d in opened.run(look(opened.plane)).dirt if d.job == BUNDLES_JOB}


def read(world: World, tenant: str) -> Any:
    with world.open() as opened:
        return {key: value for key, value in answers(opened, tenant).items() if not key.startswith("search")}


def test_what_changes_much_waits_and_the_others_commit(tmp_path: Path) -> None:
    """And an approval, as a job, lets it through. Seen to fail (both committed) without the gate."""
    world = gated(tmp_path, 0.5)
    before = {tenant: read(world, tenant) for tenant in ("acme", "beta")}
    world.write("acme", late("acme", 8))
    world.write("beta", late("beta", 2))
    result = world.run(ALL, DAY, BuildScope(only_dirty=True))
    assert not result.success
    check = checks(result)[CHANGES]
    assert (check.passed, check.blocking) == (False, True)
    assert check.description is not None
    assert f"acme {DAY}: 8 of 8 bundles (100.0%) would change" in check.description
    assert f"context-plane approve {SPEC} --tenant TENANT --since {DAY} --until {DAY} --expires" in check.description
    assert "beta" not in check.description
    assert checks(result)[BUDGET].passed
    told = materialized(result)[BUNDLES].metadata
    assert told["bundles_waiting"].value == 1
    assert told["bundles_changed"].value == 10
    assert told["bundles_unchanged"].value == 6
    assert told["bundles_changed_share"].value == 0.625
    assert "acct-" not in str(told), "no entity reaches Dagster"
    assert read(world, "acme") == before["acme"]
    assert read(world, "beta") != before["beta"]
    assert (waiting(world, "acme"), waiting(world, "beta")) == (True, False)
    assert asked(world) == set(), "what waits for a person is not asked for again"
    again = world.run([BUNDLES], DAY, BuildScope(only_dirty=True))
    assert not checks(again)[CHANGES].passed, "until somebody decides"

    ran = run(world, "approve")
    assert (ran.success, ran.told["waiting"]) == (True, 1)
    ran = run(world, "approve", tenants=["acme"], spec=SPEC, since=DAY, until=DAY)
    assert ran.success, ran.error
    assert (ran.told["committed"], ran.told["rebuilt"], ran.told["waiting"]) == (1, 0, 0)
    assert read(world, "acme") != before["acme"]
    done = world.run([BUNDLES], DAY, BuildScope(only_dirty=True))
    assert done.success
    assert checks(done)[CHANGES].passed


def test_what_waits_beside_fresh_bundles_keeps_the_check_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release makes other bundles of the same sources. Seen to fail (green, and still waiting) when a run of the
    sensor left such a day alone."""
    world = gated(tmp_path, 0.5)
    honest = materialize

    def reworded(*args: Any) -> Bundle | None:
        bundle = honest(*args)
        return bundle and replace(bundle, body=bundle.body + b" ", digest=sha256_hex(bundle.body + b" "))

    with monkeypatch.context() as patch:
        patch.setattr(context_plane.materialize, "materialize", reworded)
        assert not checks(world.run([BUNDLES], DAY))[CHANGES].passed
    assert waiting(world, "acme")
    again = world.run([BUNDLES], DAY, BuildScope(only_dirty=True))
    assert not checks(again)[CHANGES].passed
    assert waiting(world, "acme"), "and nothing was decided"
    for tenant in ("acme", "beta"):
        assert run(world, "approve", tenants=[tenant], spec=SPEC, since=DAY, until=DAY, reject=True).success
    assert world.run([BUNDLES], DAY, BuildScope(only_dirty=True)).success


def test_each_check_counts_what_it_judged(tmp_path: Path) -> None:
    """`beta` is left alone by the second run, and has the spec off in the last. Seen to fail (2 in each) with every
    tenant of the step counted."""
    world = World.local(tmp_path)
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant, [DAY]))
    first = judged(world.run(ALL, DAY))
    assert first == {CHECK: 2, BUDGET: 2, CHANGES: 0}, "a first build replaces nothing"
    world.write("acme", late("acme", 1))
    assert judged(world.run(ALL, DAY, BuildScope(only_dirty=True))) == {CHECK: 1, BUDGET: 1, CHANGES: 1}
    assert judged(world.run([BUNDLES], DAY, BuildScope(only_dirty=True))) == {BUDGET: 0, CHANGES: 0}
    with world.open() as opened:
        opened.run(put_tenant(opened.plane.engine, "beta", TenantSettings(specs=[])))
    assert judged(world.run([BUNDLES], DAY)) == {BUDGET: 1, CHANGES: 1}


def test_what_is_rejected_is_built_and_asked_for_again(tmp_path: Path) -> None:
    world = gated(tmp_path, 0.0)
    world.write("acme", late("acme", 1))
    world.build([DAY], only_dirty=True)
    assert waiting(world, "acme")
    ran = run(world, "approve", tenants=["acme"], spec=SPEC, since=DAY, until=DAY, reject=True)
    assert (ran.told["rejected"], ran.told["waiting"]) == (1, 0)
    assert asked(world) == {("acme", DAY)}


def test_an_approval_without_its_days_is_refused(tmp_path: Path) -> None:
    ran = run(World.local(tmp_path), "approve", spec=SPEC)
    assert not ran.success
    assert "name the days too" in ran.error


def test_an_approval_that_nobody_settled_is_honoured_by_the_next_run(tmp_path: Path) -> None:
    """As when the command was killed after it had filed it."""
    world = gated(tmp_path, 0.0)
    world.write("acme", late("acme", 1))
    world.build([DAY], only_dirty=True)
    with world.open() as opened:
        engine = opened.plane.engine
        ends = engine.now_us() + HOUR_US
        opened.run(file_approval(engine, "acme", SPEC, since=DAY, until=DAY, expires_us=ends))
    result = world.run([BUNDLES], DAY, BuildScope(only_dirty=True))
    assert result.success
    assert not waiting(world, "acme")


def test_bundles_over_their_budget_are_withheld_and_the_others_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail (committed) when the count that a bundle claims was believed."""
    world = gated(tmp_path, 1.0)
    before = {tenant: read(world, tenant) for tenant in ("acme", "beta")}
    for tenant in ("acme", "beta"):
        world.write(tenant, late(tenant, 3))
    honest, mark = materialize, late("acme", 3)[0]
    assert isinstance(mark, Put)

    def padded(*args: Any) -> Bundle | None:
        bundle = honest(*args)
        if bundle is None or mark.event.id.encode() not in bundle.body or mark.event.entity != bundle.entity:
            return bundle
        return replace(bundle, body=bundle.body.replace(b"renewal", b"renewal " * 400, 1))

    monkeypatch.setattr(context_plane.materialize, "materialize", padded)
    result = world.run(ALL, DAY, BuildScope(only_dirty=True))
    assert not result.success
    check = checks(result)[BUDGET]
    assert not check.passed
    assert check.description is not None
    assert f"acme {DAY}: a bundle of " in check.description
    assert mark.event.entity not in check.description
    assert "beta" not in check.description
    assert read(world, "acme") == before["acme"]
    assert read(world, "beta") != before["beta"]
    monkeypatch.undo()
    assert world.run([BUNDLES], DAY, BuildScope(only_dirty=True)).success
    assert read(world, "acme") != before["acme"]


def test_the_table_has_those_that_wait_first_and_sums_cover_all() -> None:
    found = {
        "a": Verdict(Replacement("d", BundleChanges(changed=1, unchanged=9, fields={"recent": 1}), "t")),
        "b": Verdict(Replacement("d", BundleChanges(changed=2, removed=1, unchanged=1), "t"), waits=True),
        "c": Verdict(Replacement("d", BundleChanges(removed=1, unchanged=1, added=3), "t")),
        "d": Verdict(),
        "e": Verdict(over_budget="x"),
    }
    told = metadata_of(found)
    records = [record.data for record in told["bundle_changes"].records]
    assert [(r["tenant"], r["state"], r["share"]) for r in records] == [
        ("b", "waits", 0.75),
        ("c", "committed", 0.5),
        ("a", "committed", 0.1),
    ]
    assert records[2]["fields"] == "recent 1"
    assert (told["bundles_added"], told["bundles_removed"], told["bundles_changed"]) == (3, 2, 3)
    assert (told["bundles_waiting"], told["bundles_changed_share"]) == (1, 0.3125)
    assert metadata_of({"d": Verdict()}) == {}, "a first build replaces nothing"
