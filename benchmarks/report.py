"""`python -m benchmarks report`: REPORT.md and its plots from the committed results. Same results, same bytes.

Nothing is measured here, and nothing of the moment enters: no clock, no environment, no machine. The document
puts what was missed first, with the reason as `notes/{scenario}.md` tells it, then what was met, how it was
measured, every row of every result, and the superseded runs of `results/history`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks import bars
from benchmarks.bars import Verdict, number, over_http, shown
from benchmarks.markdown import DATA, absent, constants, machine, said, table, tables
from benchmarks.scenario import Row

FOLDER: Final = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Result:
    """One committed run."""

    scenario: str
    file: str
    commit: str
    machine: Mapping[str, Any]
    seed: int
    rows: Sequence[Row]
    quick: bool


def load(folder: Path) -> list[Result]:
    """The results in `folder`, by file name; not those below it."""
    return [_result(path) for path in sorted(folder.glob("*.json"))]


def _result(path: Path) -> Result:
    held = orjson.loads(path.read_bytes())
    quick = bool(held.get("quick", False))
    return Result(held["scenario"], path.name, held["commit"], held["machine"], held["seed"], held["rows"], quick)


def write(folder: Path = FOLDER) -> list[Path]:
    """Render `folder/REPORT.md` and `folder/plots`; returns what was written. Without matplotlib, no plots."""
    results = load(folder / "results")
    report = folder / "REPORT.md"
    report.write_text(render(folder), encoding="utf-8")
    if find_spec("matplotlib") is None:
        return [report]
    from benchmarks import charts

    return [report, *charts.draw(results, folder / "plots")]


def render(folder: Path = FOLDER) -> str:
    """The text of REPORT.md."""
    results = load(folder / "results")
    verdicts = bars.judge({result.scenario: result.rows for result in results if not result.quick})
    notes = {path.stem: path.read_text(encoding="utf-8").strip() for path in sorted((folder / "notes").glob("*.md"))}
    parts = [
        _opening(verdicts, results),
        _missed(verdicts, notes),
        _unmeasured(verdicts),
        _table_of_met(verdicts),
        _side_by_side(results),
        notes.get("method", ""),
        *(_scenario(folder, result, notes) for result in results),
        _history(load(folder / "results" / "history")),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# --- bars ---------------------------------------------------------------------------------------


def _opening(verdicts: Sequence[Verdict], results: Sequence[Result]) -> str:
    count = {state: sum(v.state == state for v in verdicts) for state in ("missed", "met", "not measured")}
    machines = sorted({machine(result.machine) for result in results})
    lines = [
        "# Benchmarks",
        "",
        "How fast Context Plane answers, what that costs in requests and memory, and how it stands beside other",
        "systems that were given the same rows and the same questions on the same machine. What was missed comes",
        "first.",
        "",
        "Rendered by `python -m benchmarks report` from the result files in `benchmarks/results`: every number in a",
        "table stands in one of them, with its commit, machine and seed; notes also tell of profiles and trials.",
        "`python -m benchmarks SCENARIO` measures one again.",
        "",
        f"**{count['missed']} bars missed, {count['met']} met, {count['not measured']} not measured.**"
        " A bar counts once for every case it was measured in. Latencies are p50 / p99; *prototype* is what the one"
        " that this project answers took for the same shape.",
        "",
        "Measured on: " + "; ".join(machines) + "." if machines else "Nothing has been measured yet.",
    ]
    return "\n".join(lines)


def _missed(verdicts: Sequence[Verdict], notes: Mapping[str, str]) -> str:
    missed = [verdict for verdict in verdicts if verdict.state == "missed"]
    if not missed:
        return "## Missed\n\nNo bar that was measured was missed."
    parts = ["## Missed", _bar_table(missed)]
    for scenario in dict.fromkeys(verdict.scenario for verdict in missed):
        why = notes.get(scenario, "No explanation has been written yet.")
        parts.append(f"### Why `{scenario}`, and what next\n\n{why}")
    return "\n\n".join(parts)


def _unmeasured(verdicts: Sequence[Verdict]) -> str:
    waiting = [verdict for verdict in verdicts if verdict.state == "not measured"]
    if not waiting:
        return ""
    lines = [f"- `{v.scenario}`, {v.what}: {v.asked}{' (goal)' if v.goal else ''}" for v in waiting]
    return "## Not measured\n\n" + "\n".join(lines)


def _table_of_met(verdicts: Sequence[Verdict]) -> str:
    met = [verdict for verdict in verdicts if verdict.state == "met"]
    return "## Met\n\n" + (_bar_table(met) if met else "None yet.")


def _bar_table(verdicts: Iterable[Verdict]) -> str:
    head = ["scenario", "case", "asked", "measured", "prototype"]
    rows = [
        [f"`{v.scenario}`", v.what, v.asked + (" (goal)" if v.goal else ""), f"**{v.measured}**", v.prototype]
        for v in verdicts
    ]
    return table(head, rows, numeric=())


def _side_by_side(results: Sequence[Result]) -> str:
    """One line per case that peers took part in: ours over HTTP and in process, and every peer that counts."""
    lines = []
    for result in results:
        for case, rows in cases(result.rows) if result.scenario in bars.WARM else ():
            peers = sorted(bars.counting(rows), key=lambda row: number(row, "p50_ms") or 0)
            own = [row for row in rows if row["system"] == bars.OURS and row.get("consistency") != "strong"]
            if own and peers:
                named = [f"{row['system']} {_pair(row)}" for row in peers]
                served = [_pair(row) for row in own if row.get("where", "http") == "http"]
                within = [_pair(row) for row in own if row.get("where") == "in_process"]
                added = [_added(row) for row in own if row.get("where", "http") == "http"]
                cells = (served, added, within, named)
                line = [f"`{result.scenario}`", case, *("; ".join(cell) or "–" for cell in cells)]
                lines.append(line)
    if not lines:
        return ""
    head = ["scenario", "case", "ours over HTTP", "of it outside of the engine", "ours in process"]
    head.append("peers that count, in process, fastest first")
    text = "p50 / p99, milliseconds. What HTTP adds is the p50 less the engine's own median in the same run."
    return f"## Side by side\n\n{text}\n\n" + table(head, lines, numeric=())


def _added(row: Row) -> str:
    """What server, socket and client took beside the engine."""
    whole, engine = number(row, "p50_ms"), number(row, "server_p50_ms")
    return "–" if whole is None or engine is None else shown(round(whole - engine, 3))


def _pair(row: Row) -> str:
    return " / ".join(_percentiles(row))


# --- scenarios ----------------------------------------------------------------------------------


def _scenario(folder: Path, result: Result, notes: Mapping[str, str]) -> str:
    parts = [f"## {result.scenario}"]
    if summary := _summary(result.scenario):
        parts.append(f"*{summary}.*")
    parts.append(f"Commit `{result.commit}`, seed {result.seed}, {machine(result.machine)}; `results/{result.file}`.")
    if result.commit.endswith("+"):
        parts.append("The checkout differed from that commit when this was measured.")
    if result.quick:
        parts.append("**A quick run: it shows that the scenario works, not how fast anything is.**")
    data = [row for row in result.rows if row["system"] == DATA]
    rows = [row for row in result.rows if row["system"] != DATA]
    measured = [row for row in rows if any(number(row, key) is not None for key in row)]
    parts += [said("Data", row) for row in data]
    parts += [said("All rows", constants(measured)), *tables(measured)]
    parts.append(absent(row for row in rows if row not in measured))
    parts += [f"![{result.scenario}: latency](plots/{name})" for name in plot_names(result)]
    if notes.get(result.scenario):
        parts.append(f"Notes: see [notes/{result.scenario}.md](notes/{result.scenario}.md).")
    return "\n\n".join(part for part in parts if part)


def plot_names(result: Result) -> list[str]:
    """The plots of a result: one where latencies are in it. The document names them whether or not they are drawn."""
    timed = [row for row in result.rows if number(row, "p50_ms") is not None and number(row, "p99_ms") is not None]
    return [f"{result.scenario}.svg"] if timed else []


def _summary(scenario: str) -> str:
    """A scenario's own one line, read without importing what it needs."""
    path = FOLDER / f"{scenario}.py"
    if not path.is_file():
        return ""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == "SUMMARY" and isinstance(node, ast.AnnAssign):
            return str(ast.literal_eval(node.value)) if node.value else ""
    return ""


def _history(results: Sequence[Result]) -> str:
    """One line per superseded run and case: what was true of an older commit stays readable."""
    rows = [
        [f"`{old.scenario}`", f"`{old.commit}`", str(row["case"]), *_percentiles(row), f"`history/{old.file}`"]
        for old in results
        for row in old.rows
        if over_http(row) and number(row, "p50_ms") is not None
    ]
    if not rows:
        return ""
    head = ["scenario", "commit", "case", "p50 ms", "p99 ms", "file"]
    return "## Superseded runs\n\n" + table(head, rows, numeric=(3, 4))


def _percentiles(row: Row) -> Iterator[str]:
    return (shown(number(row, name)) for name in ("p50_ms", "p99_ms"))


def cases(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Rows with percentiles by case, cases in order of appearance."""
    timed = [row for row in rows if number(row, "p50_ms") is not None and number(row, "p99_ms") is not None]
    order = list(dict.fromkeys(str(row["case"]) for row in timed))
    ordered = sorted(timed, key=lambda row: order.index(str(row["case"])))
    return [(case, list(own)) for case, own in groupby(ordered, key=lambda row: str(row["case"]))]
