"""`context-plane bench`: the benchmarks of a checkout. They are no part of the installed package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from commands import show
from commands.options import EVERYWHERE
from commands.outcome import OK, USAGE
from context_plane.errors import Invalid, Unavailable

CHECKOUT: Final = Path(__file__).resolve().parents[1]


def bench(
    scenario: Annotated[
        str | None, typer.Argument(metavar="SCENARIO", help="what to measure; without one they are listed")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="a small run, to see that it works; its figures say nothing")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="of everything random")] = 0,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="the result on standard output, kept nowhere", rich_help_panel=EVERYWHERE),
    ] = False,
) -> None:
    """Measure a scenario, or list what can be measured. Needs a checkout.

    Scenarios make stores of their own. Without --quick and --json the result is kept in benchmarks/results."""
    check_checkout(CHECKOUT)
    if scenario is None:
        _list(as_json=as_json)
        return
    words = [scenario, "--seed", str(seed), *(["--quick"] if quick else []), *(["--json", "-"] if as_json else [])]
    code = _run(words).returncode
    if code == USAGE:  # it said why
        raise SystemExit(USAGE)
    if code != OK:
        detail = "the scenario ended early; what it printed says why"
        raise Unavailable("internal", detail, scenario=scenario, status=code)


def check_checkout(folder: Path) -> None:
    """Raises `Invalid(settings_invalid)` where the benchmarks are not beside the package."""
    if not (folder / "benchmarks" / "__main__.py").exists():
        detail = (
            "benchmarks come with the source, not with the package: unpack the release's source, `make setup-bench` in "
            "it, and run `.venv/bin/context-plane bench` there"
        )
        raise Invalid("settings_invalid", detail, looked_in=str(folder))


def _list(*, as_json: bool) -> None:
    said = _run(["--list"], capture=True).stdout
    scenarios = [(name, told.strip()) for name, _, told in (line.partition(" ") for line in said.splitlines())]
    if as_json:
        show.json({"scenarios": [{"scenario": name, "measures": told} for name, told in scenarios]})
        return
    show.console().print(show.table(["scenario", "measures"], scenarios))


def _run(words: list[str], *, capture: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE if capture else None, text=True, check=capture)
