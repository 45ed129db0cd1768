"""What commands print: tables and lines for people, JSON for programs. Standard output carries results alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

WIDTH_PIPED: Final = 160
"""Columns when standard output is no terminal: tables stay tables in a file."""
ACCENT: Final = "cyan"


def console(*, stderr: bool = False) -> Console:
    """A console that prints strings as they are; without a terminal it is wide enough that nothing is cut.

    Ids, notes and file names may look like markup: styles are given, never written into text."""
    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = WIDTH_PIPED
    return made


def json(value: Any) -> None:
    """One JSON document, indented; with the reader at once, whatever the command does next."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    print(orjson.dumps(value, option=options).decode(), end="", flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, title: str | None = None) -> Table:
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        right = name.startswith(">")
        made.add_column(name.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def progress() -> Progress:
    """A bar on standard error, gone when done; nothing at all without a terminal."""
    out = console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )


def size(number: int) -> str:
    """`512 B`, `1.5 MiB`, `12 GiB`: three digits at most, but for bytes."""
    value, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"


def dollars(value: float) -> str:
    """`$1,234.50`, `$0.0041`, `<$0.0001`, `$0`."""
    if value == 0:
        return "$0"
    return f"${value:,.2f}" if value >= 1 else f"${value:.4f}" if value >= 1e-4 else "<$0.0001"


def count(number: int, noun: str, nouns: str | None = None) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"
