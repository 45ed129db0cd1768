"""`python -m benchmarks SCENARIO [--quick] [--seed N] [--json FILE]`, `python -m benchmarks --list`, `… report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

from rich.console import Console
from rich.table import Table

from benchmarks.scenario import Row, Scenario, Skipped, encoded, keep, result_of

SCENARIOS: Final = {
    "quality": "benchmarks.quality",
    "startup": "benchmarks.startup",
    "vector_warm": "benchmarks.vector_warm",
    "text_warm": "benchmarks.text_warm",
    "hybrid_warm": "benchmarks.hybrid_warm",
    "bundle_warm": "benchmarks.bundle_warm",
    "vector_100k": "benchmarks.vector_100k",
    "hybrid_filters": "benchmarks.hybrid_filters",
    "ingest": "benchmarks.ingest",
    "build": "benchmarks.build",
    "tenants": "benchmarks.tenants",
    "backfill": "benchmarks.backfill",
    "ann": "benchmarks.ann",
    "hybrid_cold": "benchmarks.hybrid_cold",
    "entity_cold": "benchmarks.entity_cold",
    "tenant_cold": "benchmarks.tenant_cold",
    "bundle_cold": "benchmarks.bundle_cold",
    "fleet": "benchmarks.fleet",
    "tenant_1m": "benchmarks.tenant_1m",
}
"""Name -> module, imported when it runs: a scenario's libraries are needed by nobody else."""

COLUMNS_MAX: Final = 10
"""A terminal shows no more; of wider results it shows what the report puts first."""
REPORT: Final = "report"
"""Measures nothing: renders what was measured."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 wrong arguments or the scenario's data is missing."""
    options = _options(arguments)
    if options.list:
        for name in SCENARIOS:
            print(f"{name:12} {_scenario(name).SUMMARY}")
        return 0
    if options.scenario == REPORT:
        from benchmarks.report import write

        written = write()
        print(*(path.relative_to(Path(__file__).parent) for path in written), sep="\n")
        if len(written) == 1:
            print("the plots are as they were: drawing them needs make setup-bench", file=sys.stderr)
        return 0
    try:
        rows = _scenario(options.scenario).run(quick=options.quick, seed=options.seed)
    except Skipped as reason:
        print(f"{options.scenario}: {reason}", file=sys.stderr)
        return 2
    result = result_of(options.scenario, options.seed, rows) | ({"quick": True} if options.quick else {})
    if options.json == "-":
        sys.stdout.write(encoded(result).decode())
        return 0
    if options.json:
        Path(options.json).write_bytes(encoded(result))
    elif not options.quick:
        print(keep(result))
    _show(options.scenario, rows)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("scenario", nargs="?", choices=[*sorted(SCENARIOS), REPORT], metavar="SCENARIO")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("--quick", action="store_true", help="a small run, to see that it works")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the result there, - for standard output alone; default: benchmarks/results, or nowhere if quick",
    )
    options = parser.parse_args(arguments)
    if not options.list and options.scenario is None:
        parser.error("name a scenario, or --list")
    return options


def _scenario(name: str) -> Scenario:
    return cast(Scenario, import_module(SCENARIOS[name]))


def _show(title: str, rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if len(columns) > COLUMNS_MAX:
        from benchmarks.markdown import COLUMNS

        columns = [name for name in COLUMNS if name in columns]
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for key in columns))
    Console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
