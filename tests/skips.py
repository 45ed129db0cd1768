"""`--strict-skips`: a skip whose reason is not listed in `tests/allowed_skips.txt` fails the run.

A line of the list is the beginning of a reason; `#` starts a comment. The run's exit status becomes 1, and
every such skip is named, so that a test that quietly stopped running is seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

ALLOWED: Final = Path(__file__).with_name("allowed_skips.txt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-skips", action="store_true", help=f"fail on skips not listed in {ALLOWED.name}")


def allowed_reasons(text: str) -> tuple[str, ...]:
    """The beginnings of allowed reasons."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a skipped test or module was skipped, as it said."""
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return said.removeprefix("Skipped: ")


def unexpected(config: pytest.Config) -> list[str]:
    """`where: why` of every skip that is not allowed."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or not config.getoption("--strict-skips"):
        return []
    reasons = allowed_reasons(ALLOWED.read_text())
    skipped = [report for report in terminal.stats.get("skipped", []) if not reason_of(report).startswith(reasons)]
    return [f"{report.nodeid}: {reason_of(report)}" for report in skipped]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
    if unexpected(session.config) and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in unexpected(config):
        terminalreporter.write_line(f"skip not in {ALLOWED.name}: {line}", red=True)
