"""Results as Markdown: how a row's keys are titled, its values written, and a table laid out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks.bars import number, shown
from benchmarks.scenario import Row

COLUMNS: Final = {
    "case": "case",
    "system": "system",
    "where": "where",
    "consistency": "consistency",
    "p50_ms": "p50 ms",
    "p90_ms": "p90 ms",
    "p99_ms": "p99 ms",
    "p999_ms": "p99.9 ms",
    "events_per_s": "events/s",
    "qps": "QPS",
    "saturation_qps": "saturation QPS",
    "ratio_of_bare": "of a bare app",
    "round_trips": "round trips",
    "round_trips_max": "most round trips",
    "gets": "GETs",
    "gets_max": "most GETs",
    "bytes_read": "bytes read",
    "bytes_read_max": "most bytes read",
    "recall_at_10": "recall@10",
    "peak_mb": "peak MB",
}
"""Shown first and in this order where a row has them; what else a row says follows."""
ALWAYS: Final = ("case", "system")
WHOM: Final = (*ALWAYS, "where", "consistency")
DATA: Final = "corpus"
"""The system of a row that says what was searched; it measures nothing."""
COLUMNS_MAX: Final = 12
"""A page shows no more side by side."""
EXACT_DIGITS: Final = ("recall", "agreement", "ndcg", "hit", "ratio")
"""Names of which begin fractions that are shown with four digits."""


# --- rows ---------------------------------------------------------------------------------------


def constants(rows: Sequence[Row]) -> dict[str, Any]:
    """What all rows say alike, which is then said once."""
    if len(rows) < 2:
        return {}
    return {
        key: value
        for key, value in rows[0].items()
        if key not in ALWAYS and (key in WHOM or key not in COLUMNS) and all(row.get(key, ...) == value for row in rows)
    }


def said(title: str, values: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{_title(k)} {_cell(k, v)}" for k, v in values.items() if k not in ALWAYS)
    return f"{title}: {shown}." if shown else ""


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """What every scenario measures, and folded below it what only this one says."""
    if not rows:
        return
    rows, alike = _by_case(rows), constants(rows)
    keys = dict.fromkeys(key for row in rows for key in row)
    first = [name for name in COLUMNS if name in keys and name not in alike]
    more = [name for name in keys if name not in COLUMNS and name not in alike]
    if len(first) + len(more) <= COLUMNS_MAX:
        first, more = first + more, []
    yield _rows_table(rows, first)
    if more:
        whom = [name for name in WHOM if name in first]
        told = [row for row in rows if any(name in row for name in more)]
        yield f"<details><summary>More of each row</summary>\n\n{_rows_table(told, whom + more)}\n\n</details>"


def _by_case(rows: Sequence[Row]) -> list[Row]:
    """Rows of one case together, cases in order of appearance."""
    order = list(dict.fromkeys(str(row["case"]) for row in rows))
    return sorted(rows, key=lambda row: order.index(str(row["case"])))


def _rows_table(rows: Sequence[Row], names: Sequence[str]) -> str:
    numeric = [n for n, name in enumerate(names) if any(number(row, name) is not None for row in rows)]
    cells = [[_cell(name, row.get(name)) for name in names] for row in rows]
    return table([_title(name) for name in names], cells, numeric=numeric)


def absent(rows: Iterable[Row]) -> str:
    """Who took no part, and why."""
    lines = []
    for row in rows:
        rest = "; ".join(f"{_title(k)}: {_cell(k, v)}" for k, v in row.items() if k not in WHOM)
        lines.append(f"- {row['system']}, {row['case']}: {rest or 'nothing measured'}")
    return "Took no part:\n\n" + "\n".join(lines) if lines else ""


# --- words and cells ----------------------------------------------------------------------------


def machine(machine: Mapping[str, Any]) -> str:
    """`AMD EPYC, 2 cores, Linux, Python 3.11.7`, and whatever else a result says of its machine."""
    known = {"processor": "{}", "cores": "{} cores", "system": "{}", "python": "Python {}"}
    return ", ".join(known.get(key, key + " {}").format(value) for key, value in machine.items())


def _title(name: str) -> str:
    return COLUMNS.get(name, name.replace("_", " "))


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _quantity(name, value)
    return str(value).replace("\n", " ").replace("|", "\\|")


def _quantity(name: str, value: float) -> str:
    if name.startswith(EXACT_DIGITS) and isinstance(value, float):
        return f"{value:.4f}"
    if not name.startswith("bytes"):
        return shown(value)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{shown(value)} {unit}"
        value /= 1024
    return f"{shown(value)} GiB"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Sequence[int]) -> str:
    marks = ["---:" if n in numeric else "---" for n in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, marks, *rows])
