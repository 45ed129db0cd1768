"""Plots of results as plain SVG. matplotlib comes with `pip install .[bench]`; same results, same bytes.

A plot shows a scenario: one panel per case, one line per system from its p50 to its p99 (p99.9 where known),
on a logarithmic axis, so that a system ten times slower is always equally far away. matplotlib is untyped here:
types must check where it is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from benchmarks.bars import BARS, OURS, number
from benchmarks.report import Result, cases, plot_names
from benchmarks.scenario import Row

MARKS: Final = {"p50_ms": "o", "p90_ms": "|", "p99_ms": "s", "p999_ms": ">"}
OWN_COLOUR: Final = "#0b6e4f"
OTHER_COLOUR: Final = "#7a7f87"
BAR_COLOUR: Final = "#c1121f"
SETTINGS: Final[dict[Any, Any]] = {
    "svg.hashsalt": "context-plane",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 10,
}
"""A fixed salt, since ids in the SVG are random otherwise; text stays text."""
WIDTH_IN: Final = 8.0
ROW_IN: Final = 0.26
PANEL_IN: Final = 0.8


def draw(results: Sequence[Result], folder: Path) -> list[Path]:
    """One SVG per result that has latencies; plots of results that are gone are removed. Blocking I/O."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [folder / name for result in results for name in plot_names(result)]
    for old in sorted(set(folder.glob("*.svg")) - set(drawn)):
        old.unlink()
    for result in results:
        for name in plot_names(result):
            _draw(result, folder / name)
    return drawn


def _draw(result: Result, path: Path) -> None:
    matplotlib = import_module("matplotlib")
    matplotlib.use("svg")
    pyplot = import_module("matplotlib.pyplot")
    panels = cases(result.rows)
    heights = [PANEL_IN + ROW_IN * len(rows) for _, rows in panels]
    with matplotlib.rc_context(SETTINGS):
        figure, axes = pyplot.subplots(
            len(panels),
            1,
            figsize=(WIDTH_IN, sum(heights)),
            squeeze=False,
            sharex=True,
            height_ratios=heights,
            layout="constrained",
        )
        for axis, (case, rows) in zip(axes[:, 0], panels, strict=True):
            _panel(axis, result.scenario, case, rows)
        axes[-1, 0].set_xlabel(
            "milliseconds (log): circle p50, bar p90, square p99, arrow p99.9; dashed: the bar for p99"
        )
        told = {"Date": None, "Creator": None, "Description": f"{result.scenario} at {result.commit}"}
        figure.savefig(path, format="svg", metadata=told)
        pyplot.close(figure)


def _panel(axis: Any, scenario: str, case: str, rows: Sequence[Row]) -> None:
    ticker = import_module("matplotlib.ticker")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    axis.set_title(f"{scenario}: {case}", loc="left")
    axis.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="x", which="major", color="#dddddd", linewidth=0.6)
    for place, row in enumerate(rows):
        points = [(value, mark) for name, mark in MARKS.items() if (value := number(row, name))]
        colour = OWN_COLOUR if row["system"] == OURS else OTHER_COLOUR
        values = [value for value, _ in points]
        axis.plot([min(values), max(values)], [place, place], color=colour, linewidth=1.2)
        for value, mark in points:
            axis.plot([value], [place], mark, color=colour, markersize=5)
    for bar in BARS:
        if bar.scenario == scenario and bar.speaks(case):
            axis.axvline(bar.p99_ms, color=BAR_COLOUR, linewidth=0.8, linestyle="--")


def _label(row: Row) -> str:
    said: list[Any] = [row["system"], row.get("where"), row.get("consistency")]
    return ", ".join(str(part).replace("_", " ") for part in said if part)
