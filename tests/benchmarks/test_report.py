"""The report says what the results say: misses first, the same bytes every time, and what is committed is current."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks import bars, report
from benchmarks.scenario import Row

OURS = "context-plane"
MACHINE = {"processor": "some processor", "cores": 2, "system": "Linux", "python": "3.11.7"}


def row(case: str, system: str, p50_ms: float, p99_ms: float, **more: Any) -> Row:
    return {"case": case, "system": system, "p50_ms": p50_ms, "p99_ms": p99_ms, **more}


WARM = [
    {"case": "corpus", "system": "corpus", "events": 10_000, "text": "herb"},
    row("vector", OURS, 1.2, 6.5, where="http", consistency="eventual", recall_at_10=1.0),
    row("vector", OURS, 9.0, 90.0, where="http", consistency="strong"),
    row("vector", OURS, 0.4, 0.9, where="in_process"),
    row("vector", "lancedb", 1.0, 3.0, where="in_process", recall_at_10=0.99),
    row("vector", "chroma", 4.0, 5.0, where="in_process", recall_at_10=0.97),
    row("vector", "hasty", 0.1, 0.2, where="in_process", recall_at_10=0.5),
    {"case": "vector", "system": "absent", "reason": "no | wheel"},
]
COLD = [
    row("30 days", OURS, 300.0, 400.0, round_trips=4, gets=40, bytes_read=2_500_000),
    row("30 days, stalls", OURS, 300.0, 650.0, round_trips=4, gets=41, bytes_read=2_500_000),
]


def put(folder: Path, scenario: str, rows: Sequence[Row], *, commit: str = "0a1b2c3d4e5f") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    held = {"scenario": scenario, "commit": commit, "machine": MACHINE, "seed": 7, "rows": rows}
    (folder / f"{scenario}.json").write_bytes(orjson.dumps(held))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path / "results", "vector_warm", WARM)
    put(tmp_path / "results", "hybrid_cold", COLD)
    put(tmp_path / "results" / "history", "vector_warm", [row("vector", OURS, 2.9, 17.0)], commit="older0")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "vector_warm.md").write_text("The interpreter is most of it.")
    return tmp_path


def states(rows: dict[str, Sequence[Row]], scenario: str) -> dict[str, str]:
    return {verdict.what: verdict.state for verdict in bars.judge(rows) if verdict.scenario == scenario}


def test_each_bar_is_met_missed_or_not_measured() -> None:
    """Fails when strong reads are held against the warm bar, or a peer counts that finds half of its own ranking."""
    assert states({"vector_warm": WARM}, "vector_warm") == {
        "vector": "missed",
        "vector, peers": "met",
        "vector, lancedb": "missed",
        "vector, chroma": "met",
        "vector, recall": "met",
    }
    assert states({"hybrid_cold": COLD}, "hybrid_cold") == {"30 days": "met", "30 days, stalls": "met"}
    assert set(states({}, "vector_warm").values()) == {"not measured"}


@pytest.mark.parametrize(
    ("changed", "state"),
    [({"gets": 65}, "missed"), ({"round_trips": 5}, "missed"), ({"gets_max": 65}, "missed"), ({"gets_max": 64}, "met")],
)
def test_more_requests_than_asked_are_a_miss(changed: dict[str, int], state: str) -> None:
    """Fails when only the times are compared: a store further away would then break the promise unseen."""
    assert states({"hybrid_cold": [{**COLD[0], **changed}]}, "hybrid_cold")["30 days"] == state


def test_a_bar_on_what_was_not_counted_is_not_met() -> None:
    """Fails when a missing count reads as zero."""
    uncounted = {key: value for key, value in COLD[0].items() if key != "gets"}
    assert states({"hybrid_cold": [uncounted]}, "hybrid_cold")["30 days"] == "not measured"
    slow = {**uncounted, "p99_ms": 5_000.0}
    assert states({"hybrid_cold": [slow]}, "hybrid_cold")["30 days"] == "missed"


def test_entity_windows_have_their_own_bars() -> None:
    rows = [row(f"{days} days", OURS, 340.0, 490.0, round_trips=4, gets=60) for days in (30, 365)]
    rows.append(row("1 day", OURS, 200.0, 300.0, round_trips=4, gets=5))
    found = {name: state for name, state in states({"entity_cold": rows}, "entity_cold").items() if "stall" not in name}
    assert found == {"1 day": "met", "30 days": "missed", "365 days": "met"}


def test_bundles_and_builds_are_held_against_their_neighbours() -> None:
    bundle = [
        {"case": "bundle", "system": OURS, "saturation_qps": 6_500.0},
        {"case": "bundle", "system": "bare-asgi", "saturation_qps": 10_000.0},
        {"case": "as text", "system": OURS, "saturation_qps": 6_500.0},
        {"case": "as text", "system": "bare-asgi", "saturation_qps": 12_000.0},
    ]
    assert states({"bundle_warm": bundle}, "bundle_warm") == {"bundle": "met", "as text": "missed"}


def test_a_build_is_held_against_a_peer_of_the_same_rows() -> None:
    """As a whole, under the names that the scenario gives its cases, and its memory beside that of few entities.
    Fails when cases of two names are never compared."""
    build = [
        {
            "case": "build: ingest, shards, bundles, 10 entities",
            "system": OURS,
            "entities": 10,
            "events_per_s": 1_100.0,
        },
        {"case": "artefact: fold, 10 entities", "system": OURS, "entities": 10, "events_per_s": 900.0},
        {"case": "indexes: rows, text", "system": "lancedb", "entities": 10, "events_per_s": 1_000.0},
        {"case": "build: ingest, shards, bundles, 100 entities", "system": OURS, "entities": 100, "events_per_s": 80.0},
        {"case": "peak memory", "system": OURS, "ratio_of_peak": 1.3},
    ]
    assert states({"build": build}, "build") == {"10 entities": "met", "peak memory": "missed"}
    committed = {result.scenario: result.rows for result in report.load(report.FOLDER / "results")}
    assert "not measured" not in states(committed, "build").values()


@pytest.mark.parametrize(
    ("ndcg", "recall", "state"), [(0.451, 1.0, "met"), (0.444, 1.0, "missed"), (0.45, 0.99, "missed")]
)
def test_answers_are_held_against_brute_force(ndcg: float, recall: float, state: str) -> None:
    """Fails when a leg that loses a hundredth of its quality passes, or one that finds others as good."""
    rows = [
        {"case": "all", "system": "text", "ndcg_at_10": ndcg, "recall_at_10": recall},
        {"case": "all", "system": "text_brute_force", "ndcg_at_10": 0.45},
        {"case": "held_out", "system": "text", "ndcg_at_10": 0.1},
    ]
    assert states({"quality": rows}, "quality") == {"text": state, "vector": "not measured"}


def test_a_store_that_stalls_may_cost_half_as_much_again() -> None:
    """Fails when rows with stalls are held against nothing, or against the bar without."""
    rows = [row(f"30 days{stalls}", OURS, 300.0, 600.0, round_trips=4, gets=70) for stalls in ("", ", stalls")]
    assert states({"entity_cold": rows}, "entity_cold") == {
        "30 days": "missed",
        "30 days, stalls": "met",
        **dict.fromkeys(("1 day", "1 day, stalls", "365 days", "365 days, stalls"), "not measured"),
    }


def test_many_tenants_are_held_against_few() -> None:
    rows = [
        {"case": "memory", "system": OURS, "ratio_of_peak": 1.01, "ratio_of_worker_peak": 1.3},
        {"case": "a unit", "system": OURS, "ms_per_unit": 0.3},
    ]
    found = [verdict.state for verdict in bars.judge({"tenants": rows}) if verdict.scenario == "tenants"]
    assert found == ["met", "missed", "met"]


def test_misses_come_first_with_their_reason(folder: Path) -> None:
    text = report.render(folder)
    places = [text.index(part) for part in ("## Missed", "The interpreter is most of it.", "## Met", "## vector_warm")]
    assert places == sorted(places)
    assert "| `vector_warm` | vector | 1.50 / 5 ms | **1.20 / 6.50 ms** | 2.80 / 15.2 |" in text
    assert "Took no part:\n\n- absent, vector: reason: no \\| wheel" in text
    assert "Commit `0a1b2c3d4e5f`, seed 7, some processor, 2 cores, Linux, Python 3.11.7" in text
    assert "2.38 MiB" in text
    assert "Data: events 10,000, text herb." in text
    assert "| `vector_warm` | `older0` | vector | 2.90 | 17 |" in text


def test_every_number_of_a_result_is_shown(folder: Path) -> None:
    text = report.render(folder)
    for each in [*WARM, *COLD]:
        numbers = [value for name, value in each.items() if name.endswith("_ms")]
        shown = "".join(f".*{bars.shown(value)} \\|" for value in numbers)
        assert not numbers or re.search(rf"\| {each['case']} \| {each['system']} \|{shown}", text)


def test_a_quick_run_is_held_against_nothing(folder: Path) -> None:
    """Fails when a quick run's result, committed by mistake, meets a bar."""
    held = orjson.loads((folder / "results" / "hybrid_cold.json").read_bytes())
    (folder / "results" / "hybrid_cold.json").write_bytes(orjson.dumps(held | {"quick": True}))
    text = report.render(folder)
    assert "- `hybrid_cold`, all: 320 / 450 ms" in text
    assert "**A quick run" in text


def test_same_results_same_bytes(folder: Path) -> None:
    """Fails for SVG without the fixed salt and without its date removed."""
    drawn = report.write(folder)
    first = {path: path.read_bytes() for path in drawn}
    (folder / "plots").mkdir(exist_ok=True)
    (folder / "plots" / "gone.svg").write_text("of a result that is no more")
    assert {path: path.read_bytes() for path in report.write(folder)} == first
    if find_spec("matplotlib"):
        assert {path.name for path in drawn} == {"REPORT.md", "vector_warm.svg", "hybrid_cold.svg"}
        assert sorted(path.name for path in (folder / "plots").iterdir()) == ["hybrid_cold.svg", "vector_warm.svg"]


def test_the_committed_report_is_what_the_committed_results_make() -> None:
    """Fails when a result is committed without rendering anew, or without plots: after `make setup-bench` run
    `.venv/bin/python -m benchmarks report`."""
    assert (report.FOLDER / "REPORT.md").read_text(encoding="utf-8") == report.render()
    for result in report.load(report.FOLDER / "results"):
        for name in report.plot_names(result):
            plot = (report.FOLDER / "plots" / name).read_text(encoding="utf-8")
            assert f"{result.scenario} at {result.commit}" in plot, name
