"""What a scenario is, and what a result says about its origin.

A scenario is a module with a one-line `SUMMARY` and `run(quick, seed) -> rows`; a row is a flat JSON
object with at least `case` and `system`. It raises `Skipped` where what it needs is not on the machine.
A result carries commit, machine and seed: a number without its parents says nothing.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import orjson

Row: TypeAlias = Mapping[str, Any]
REPOSITORY: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = REPOSITORY / "benchmarks" / "results"


class Skipped(Exception):
    """The scenario cannot run here; the message says what is missing."""


class Scenario(Protocol):
    SUMMARY: str

    def run(self, *, quick: bool, seed: int) -> Sequence[Row]: ...


def result_of(scenario: str, seed: int, rows: Sequence[Row]) -> dict[str, Any]:
    """The committed form of a run."""
    return {"scenario": scenario, "commit": commit(), "machine": machine(), "seed": seed, "rows": list(rows)}


def keep(result: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write a result as the newest of its scenario; the one before stays, under its commit, in `history`."""
    path = folder / f"{result['scenario']}.json"
    if path.exists():
        before = orjson.loads(path.read_bytes())["commit"].replace("+", "-changed")
        past = folder / "history" / f"{result['scenario']}-{before}.json"
        past.parent.mkdir(parents=True, exist_ok=True)
        path.replace(past)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(result))
    return path


def encoded(result: Mapping[str, Any]) -> bytes:
    return orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def commit() -> str:
    """Short hash of the checked-out commit, `+` where files but results differ from it; `unknown` outside of git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
        return head + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict[str, Any]:
    """Processor, cores and versions; nothing that names the machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.strip()
