"""Backfills: of unchanged days one writes nothing and says so; of many days one goes on whatever is killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionResolvedStatus as Status

import assets.days
from assets.build import LOGGERS, build_days
from assets.definitions import build_definitions
from assets.partitions import DAILY
from benchmarks.backfill import UNTIL, Site, load, rehearse
from context_plane.model import add_days
from resources.scope import BuildScope
from resources.workers import Processes
from tests.assets.test_build import BEFORE_COMMIT, BUNDLES, materialized, number, version_of
from tests.assets.test_gate import emptying_fold
from tests.assets.ticks import launched_by_backfill
from tests.assets.world import DAYS, World, events

WEEK = [add_days(UNTIL.isoformat(), -n) for n in reversed(range(7))]


def test_a_second_backfill_of_the_demo_writes_no_object(tmp_path: Path) -> None:
    """Every key of the store is listed before and after, whatever its kind."""
    site = Site(tmp_path / "site")
    load(site, tmp_path / "export", customers=12, days=7, seed=7)
    first = build_days(site.settings, WEEK)
    assert first.ok
    assert sum(day.objects for day in first.days) > 7
    before = site.objects()
    second = build_days(site.settings, WEEK)
    assert second.ok
    assert site.objects() == before
    assert all(day.unchanged for day in second.days)
    assert [day.objects for day in second.days] == [0] * 7
    assert all(day.objects_reused > 0 for day in second.days)
    assert [(day.events, day.rows, day.bundles) for day in second.days] == [
        (day.events, day.rows, day.bundles) for day in first.days
    ]


def test_a_second_materialization_says_what_it_left_as_it_was(tmp_path: Path) -> None:
    """One tenant of two has a late event. Seen to fail with counts of what is named in place of what is written."""
    world = World.local(tmp_path)
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant))
    steps = [*BEFORE_COMMIT, "published", BUNDLES]
    first = materialized(world.run(steps, DAYS[0]))
    second = materialized(world.run(steps, DAYS[0]))
    for name in steps[1:]:
        told = second[name].metadata
        assert (number(told, "tenants"), number(told, "tenants_unchanged")) == (2, 2), name
        assert (number(told, "objects"), number(told, "rows_rebuilt")) == (0, 0), name
        assert number(told, "bytes") == number(first[name].metadata, "bytes") > 0, name
        assert (number(told, "objects_reused") > 0) == (name != "published"), name
        assert number(first[name].metadata, "tenants_unchanged") == 0, name
        assert version_of(first[name]) == version_of(second[name]), name
        assert number(told, "rows") == number(first[name].metadata, "rows") > 0
    world.write("beta", events("late", DAYS[:1])[:1])
    third = materialized(world.run(steps, DAYS[0]))
    for name in steps[1:]:
        assert number(third[name].metadata, "tenants_unchanged") == 1, name
        assert number(third[name].metadata, "objects") > 0, name


def test_a_backfill_records_checks_under_their_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs with the tags that Dagster gives them: a day that is withheld is red, one that passes green, and none
    looks at the whole store. Seen to fail with `multi_run(max_partitions_per_run=1)`: every check of every day counted
    as skipped; and with the check `fresh` beside those of `published`."""
    world = World.local(tmp_path)
    world.write("acme", events("acme"))
    withheld = dg.AssetCheckKey(dg.AssetKey("published"), "row_counts_agree")
    budgets = dg.AssetCheckKey(dg.AssetKey(BUNDLES.split("/")), "token_budgets_kept")
    with world.open() as opened, dg.DagsterInstance.ephemeral() as instance:
        resources = {"plane": opened, "workers": Processes(1), "scope": BuildScope()}
        deployment = build_definitions(world.settings, resources)
        job = deployment.resolve_implicit_global_asset_job_def()

        checked: set[str] = set()

        def launch(days: Sequence[str]) -> list[bool]:
            done = []
            for run in launched_by_backfill(deployment, days):
                part = job.get_subset(asset_selection=set(run.asset_selection or ()))
                result = part.execute_in_process(
                    run_config=LOGGERS, tags=run.tags, instance=instance, raise_on_error=False
                )
                done.append(result.success)
                checked.update(evaluation.check_name for evaluation in result.get_asset_check_evaluations())
            return done

        assert launch(DAYS[:1]) == [True]
        monkeypatch.setattr(assets.days, "fold", emptying_fold)
        assert launch(DAYS[1:]) == [False]
        found = instance.event_log_storage.get_asset_check_state([(withheld, DAILY), (budgets, DAILY)])

    def days_of(key: dg.AssetCheckKey, status: Status) -> list[str]:
        return sorted(found[key].subsets[status].subset_value.get_partition_keys())

    assert checked == {withheld.name, budgets.name, "changes_approved", "no_tenant_failed"}
    assert days_of(withheld, Status.FAILED) == DAYS[1:]
    assert days_of(withheld, Status.SUCCEEDED) == DAYS[:1]
    assert days_of(budgets, Status.SUCCEEDED) == DAYS


@pytest.mark.timeout(600)
def test_a_backfill_goes_on_after_its_daemon_and_a_run_were_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster's daemon and its code server, as `one-machine.yaml` has them: one run is retried, every day is there, and
    what is published is what a build that nothing disturbed publishes."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    found = rehearse(tmp_path, customers=10, days=7, seed=7)
    assert found.status == "COMPLETED_SUCCESS"
    assert (found.materialized, found.retried, found.runs) == (7, 1, 8)
    assert found.same_days
    assert found.same_fresh_bundles
    assert found.same_after_second
    assert found.made_by_third == 0
    assert all(day.unchanged for day in found.third.days)
