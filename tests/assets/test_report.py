"""What a materialization tells: names that stay, costs, plots, and freshness as the store has it."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import dagster as dg
import pytest

from assets import plots, report
from assets.build import LOGGERS
from assets.cost import Prices, requests_usd, storage_usd_month
from assets.definitions import build_definitions
from assets.dirt import BUNDLES_JOB, DAY_JOB, ROLLUPS_JOB, Dirt
from assets.external import READ_VARIABLE
from assets.freshness import FAILED_US, LATE_US, verdict, waiting
from assets.report import Made
from context_plane.model import Put, Write
from context_plane.store.counting import Trace
from resources.scope import BuildScope
from resources.workers import Processes
from tests.assets.world import DAYS, SPEC, World, events

NAMES = {
    "dagster/row_count",
    "rows",
    "bytes",
    "rows_rebuilt",
    "objects",
    "objects_reused",
    "seconds",
    "tenants",
    "tenants_unchanged",
    "failed",
    "gets",
    "puts",
    "lists",
    "bytes_read",
    "bytes_written",
    "requests_usd",
    "storage_usd_month",
    "tenant_days",
}
"""The UI draws a series of each: a name that changes begins a new one."""
NOW_US = 1_800_000_000_000_000
AGES = (LATE_US, LATE_US + 1, FAILED_US + 1)


def drawn(markdown: str) -> ElementTree.Element:
    found = re.fullmatch(r"!\[[^\]]+\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", markdown)
    assert found is not None, markdown[:80]
    return ElementTree.fromstring(base64.b64decode(found[1]))


def texts(markdown: str) -> list[str]:
    return [element.text or "" for element in drawn(markdown).iter() if element.tag.endswith("text")]


def test_metadata_names_stay() -> None:
    assert set(report.metadata({"acme": Made("d", rows=3)}, (), Trace(), 1.0)) == NAMES


OWN = {
    "landing": {"events", "rows_rejected"},
    "segments": {"events", "entities", "entities_changed", "oldest_unbuilt_s"},
    "vector_shards": {"texts_embedded"},
    "entity_shards": {"events", "entities", "newest_event"},
    "fulltext_shards": set(),
    "published": {"events", "entities", "newest_event"},
    f"bundles/{SPEC}": {"entities", "tokens"},
}
"""What each step tells beside `NAMES`: counts of what it knows alone."""
REPLACED = {
    "bundles_added",
    "bundles_removed",
    "bundles_changed",
    "bundles_unchanged",
    "bundles_changed_share",
    "bundles_waiting",
    "citations_added",
    "citations_removed",
    "bundle_changes",
}
"""What bundles tell beside these where they replace others."""


def test_every_step_tells_its_names_and_no_others(tmp_path: Path) -> None:
    """Seen to fail with a name that the list lacks, with one that no step tells, and with counts of events that a step
    does not know, as 0."""
    world = World.local(tmp_path)
    world.write("acme", events("acme"))
    ran = world.run(list(OWN), DAYS[0])
    assert ran.success
    made = [event.step_materialization_data.materialization for event in ran.get_asset_materialization_events()]
    told = {one.asset_key.to_user_string(): {*one.metadata} - {"rows_by_tenant", "rows_by_partition"} for one in made}
    assert told == {name: NAMES | {"units", "workers_lost"} | own for name, own in OWN.items()}
    values = {one.asset_key.to_user_string(): one.metadata for one in made}
    [again] = world.run([f"bundles/{SPEC}"], DAYS[0]).get_asset_materialization_events()
    assert {*again.materialization.metadata} >= REPLACED
    newest_us = max(identity_us(write) for write in events("acme", DAYS[:1]))
    assert values["published"]["newest_event"].value == newest_us / 1e6
    assert 0 < float(str(values["segments"]["oldest_unbuilt_s"].value)) < 600
    assert all(one["requests_usd"].value for one in values.values())
    priced = {name for name, one in values.items() if one["storage_usd_month"].value}
    assert priced == {*values} - {"landing"}, "the bytes that are there, not those written; no file landed"


def test_every_request_of_a_run_is_told(tmp_path: Path) -> None:
    """Also of a run that finds nothing to build: it looks at every tenant. Seen to fail with the planning, and with the
    plan that each step saves, left out."""
    world = World.local(tmp_path)
    for tenant in ("acme", "beta", "gamma"):
        world.write(tenant, events(tenant, DAYS[:1], per_day=4))
    world.build(DAYS[:1])
    with world.open() as opened, dg.DagsterInstance.ephemeral() as instance:
        before = replace(opened.plane.store.total)
        resources = {"plane": opened, "workers": Processes(1), "scope": BuildScope(only_dirty=True)}
        job = build_definitions(world.settings, resources).resolve_job_def(DAY_JOB)
        done = job.execute_in_process(run_config=LOGGERS, instance=instance, partition_key=DAYS[0])
        after = opened.plane.store.total
    made = [event.step_materialization_data.materialization for event in done.get_asset_materialization_events()]
    for name in ("gets", "puts", "lists", "bytes_read", "bytes_written"):
        metadata = [*(one.metadata for one in made), *(one.metadata for one in done.get_asset_check_evaluations())]
        told = sum(int(str(each[name].value)) for each in metadata if name in each)
        assert told == getattr(after, name) - getattr(before, name), name
    (planned,) = [one for one in made if one.asset_key == dg.AssetKey("segments")]
    assert int(str(planned.metadata["lists"].value)) >= 2 * 3


def identity_us(write: Write) -> int:
    assert isinstance(write, Put)
    return write.event.ts_us


def test_freshness_is_that_of_the_newest_event_and_of_who_waited_the_longest() -> None:
    made = {"a": Made("d", newest_us=5_000_000, waited_us=0), "b": Made("d", newest_us=3_000_000, waited_us=1_500_000)}
    told = report.metadata(made, (), Trace(), 1.0)
    assert told["newest_event"] == dg.MetadataValue.timestamp(5.0)
    assert told["oldest_unbuilt_s"] == 1.5
    assert report.metadata({"a": Made("d", waited_us=0)}, (), Trace(), 1.0)["oldest_unbuilt_s"] == 0


def test_a_partition_is_told_whole_and_beside_it_what_the_run_wrote() -> None:
    """Seen to fail with sums over what was made alone."""
    made = {"acme": Made("d", rows=3, events=2, entities=1, bytes=50, objects=2), "beta": Made("d", rows=5, reused=4)}
    kept = {"gamma": Made("d", rows=7, events=7, entities=7, bytes=70, newest_us=5_000_000)}
    told = report.metadata(made, (), Trace(), 1.0, kept=kept)
    assert [told[name] for name in ("dagster/row_count", "rows", "events", "entities", "bytes")] == [15, 15, 9, 8, 120]
    assert [told[name] for name in ("rows_rebuilt", "objects", "objects_reused")] == [3, 2, 4]
    assert [told[name] for name in ("tenants", "tenants_unchanged")] == [3, 2]
    assert told["newest_event"] == dg.MetadataValue.timestamp(5.0)
    states = {record.data["tenant"]: record.data["state"] for record in told["tenant_days"].records}
    assert states == {"acme": "ok", "beta": "unchanged", "gamma": "kept"}


def test_requests_and_bytes_have_prices() -> None:
    prices = Prices(puts_1000=5, gets_1000=1, gb_month=2)
    assert requests_usd(Trace(gets=500, puts=100, lists=100, deletes=9), prices) == pytest.approx(1.5)
    assert storage_usd_month(500_000_000, prices) == pytest.approx(1.0)


def test_prices_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTEXT_PLANE_PRICE_GETS_1000", "7")
    told = report.metadata({}, (), Trace(gets=1000), 1.0)
    assert told["requests_usd"] == pytest.approx(7)


def test_bars_show_the_largest_and_sum_up_the_rest() -> None:
    found = texts(plots.bars({f"t{n:02}": float(n) for n in range(40)}, unit="rows"))
    assert found[:2] == ["t39", "39"]
    assert found[-2:] == ["26 others", f"{sum(range(26)):,}"]


def test_bundles_lead_to_the_explorer_of_the_service_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tenant by tenant, in the form that docs/explorer.md promises. Seen to fail with the day left out."""
    world = World.local(tmp_path)
    for tenant, count in (("acme", 4), ("beta", 8)):
        world.write(tenant, events(tenant, DAYS[:1], per_day=count))
    world.build(DAYS[:1])
    [without] = world.run([f"bundles/{SPEC}"], DAYS[0]).get_asset_materialization_events()
    assert "explorer" not in without.materialization.metadata
    monkeypatch.setenv(READ_VARIABLE, "https://plane.example.com/")
    [made] = world.run([f"bundles/{SPEC}"], DAYS[0]).get_asset_materialization_events()
    asked = f"spec={SPEC}&as_of={DAYS[0]}"
    links = [f"[{name}](https://plane.example.com/#/{name}?{asked})" for name in ("beta", "acme")]
    assert made.materialization.metadata["explorer"].value == " · ".join(links)


def test_names_are_no_markup() -> None:
    """Seen to fail without escaping."""
    assert texts(plots.bars({"<script>": 1.0}, unit="rows"))[0] == "<script>"


def test_a_long_name_is_cut_beside_its_bar() -> None:
    assert texts(plots.bars({"a" * 21: 1.0}, unit="rows"))[0] == "a" * 19 + "…"
    assert texts(plots.bars({"a" * 20: 1.0}, unit="rows"))[0] == "a" * 20


def test_a_line_has_a_point_for_each_partition() -> None:
    found = drawn(plots.line([(f"2026-03-{n:02}", float(n)) for n in range(1, 11)], unit="rows"))
    (path,) = [element for element in found.iter() if element.tag.endswith("polyline")]
    assert len(path.attrib["points"].split()) == 10
    assert plots.line([("2026-03-01", 1.0)], unit="rows") == ""
    assert plots.line([("2026-03-01", 0.0), ("2026-03-02", 0.0)], unit="rows") == "", "nothing to see"


def test_plots_join_earlier_partitions_in_order() -> None:
    before = {f"2026-03-{n:02}": 1.0 for n in range(1, 32)}
    found = report.plot({"acme": Made("d", rows=9)}, before, "2026-02-28")
    assert set(found) == {"rows_by_tenant", "rows_by_partition"}
    labels = texts(str(found["rows_by_partition"].value))
    assert labels[-2:] == ["2026-03-02", "2026-03-31"]  # thirty of thirty-two
    assert report.plot({}, {}, "2026-02-28") == {}


def test_a_second_day_is_drawn_beside_the_first(tmp_path: Path) -> None:
    world = World.local(tmp_path)
    world.write("acme", events("acme"))
    with dg.DagsterInstance.ephemeral() as instance:
        assert all(day.ok for day in world.build(instance=instance))
        made = instance.get_latest_materialization_event(dg.AssetKey("published"))
    assert made is not None
    assert made.asset_materialization is not None
    told = made.asset_materialization.metadata
    assert {*NAMES, "units", "workers_lost", "rows_by_tenant", "rows_by_partition"} <= {*told}
    assert [label[:10] for label in texts(str(told["rows_by_partition"].value))[-2:]] == DAYS


# --- freshness ----------------------------------------------------------------------------------


def dirt(day: str, age_us: int, *, job: str = DAY_JOB, tenant: str = "acme") -> Dirt:
    return Dirt(job, tenant, day, "d", NOW_US - age_us)


def test_what_waits_is_told_by_day_the_oldest_first() -> None:
    found = waiting(
        [
            dirt("2026-03-03", 5),
            dirt("2026-03-03", 9, tenant="globex"),
            dirt("2026-03-01", 7, job=BUNDLES_JOB),
            dirt("2026-03-01", 10**12, job=ROLLUPS_JOB),
        ],
        NOW_US,
    )
    assert [(x.day, x.what, x.tenants, x.oldest_us) for x in found] == [
        ("2026-03-03", "events", 2, 9),
        ("2026-03-01", "bundles", 1, 7),
    ]


@pytest.mark.parametrize(
    ("age_us", "passed", "severity"),
    [
        (LATE_US, True, None),
        (LATE_US + 1, False, dg.AssetCheckSeverity.WARN),
        (FAILED_US + 1, False, dg.AssetCheckSeverity.ERROR),
    ],
)
def test_lateness_warns_then_fails(age_us: int, passed: bool, severity: dg.AssetCheckSeverity | None) -> None:
    found = verdict(waiting([dirt("2026-03-03", age_us)], NOW_US), 0)
    assert found.passed == passed
    if severity is not None:
        assert found.severity == severity
        assert "2026-03-03 (events" in str(found.description)
        assert "sensor `dirt`" in str(found.description)


def test_every_partition_that_waits_has_a_verdict_of_its_own() -> None:
    """Seen to fail with days that are not told apart."""
    found = verdict(waiting([dirt(day, age) for day, age in zip(("a", "b", "c"), AGES, strict=True)], NOW_US), 0)
    table = found.metadata["waiting"]
    assert isinstance(table, dg.TableMetadataValue)
    states = [(record.data["partition"], record.data["state"]) for record in table.records]
    assert states == [("c", "failed"), ("b", "late"), ("a", "rests")]
    assert found.metadata["partitions_late"] == dg.MetadataValue.json(["b", "c"])


def test_an_unreadable_tenant_is_an_error() -> None:
    """Whatever else waits: nobody knows since when its writes do. Seen to fail (a warning for ever)."""
    for waits in ([], waiting([dirt("2026-03-03", LATE_US + 1)], NOW_US)):
        found = verdict(waits, 1)
        assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
        assert "1 tenants cannot be read" in str(found.description)


def test_the_check_asks_the_store(tmp_path: Path) -> None:
    """A batch that was just written waits, but is not late; and the check runs by its job."""
    world = World.local(tmp_path)
    world.write("acme", events("acme"))
    found = world.check("check_freshness")
    assert found.passed
    assert found.metadata["days_waiting"].value == len(DAYS)
    world.build()
    assert world.check("check_freshness").metadata["days_waiting"].value == 0
