"""The part of docs/cli.md that lists every command, from the program itself: `python -m commands.reference`.

What stands above the mark is written by hand. A test compares the rest with what this makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from typer.main import get_command

from commands.main import NAME, app
from commands.manual import ENTRIES
from commands.options import EVERYWHERE

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
MARK: Final = "<!-- What follows is made by `python -m commands.reference`. -->\n"


def walk(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(`keys create`, command) of every command, in the order of the help."""
    command = get_command(app) if command is None else command
    parts = getattr(command, "commands", None)
    if parts is None:
        yield " ".join(path), command
        return
    for name, part in parts.items():
        yield from walk(part, (*path, name))


def reference() -> str:
    """Markdown: an overview, and a section for each command: examples, options, what `--json` holds."""
    commands = list(walk())
    rows = [f"| [`{name}`](#{_anchor(name)}) | {_first(command)} |" for name, command in commands]
    overview = "\n".join(["| command | does |", "|---|---|", *rows])
    return "\n".join([f"{overview}\n", *(_section(name, command) for name, command in commands)])


def page(text: str) -> str:
    """The page with its made part made anew."""
    head, mark, _ = text.partition(MARK)
    assert mark, "the page has lost its mark"
    return f"{head}{mark}\n{reference()}"


def _section(name: str, command: Any) -> str:
    entry = ENTRIES.get(name)
    shared: list[Any] = []
    own: list[Any] = []
    for param in command.params:
        (shared if getattr(param, "rich_help_panel", None) == EVERYWHERE else own).append(param)
    parts = [f"### {NAME} {name}", command.help or ""]
    if entry is not None:
        parts.append("\n".join(["```sh", *entry.examples, "```"]))
    rows = [f"| {_shown(param)} | {_told(param)} |" for param in own if param.name != "help"]
    if rows:
        parts.append("\n".join(["| option | |", "|---|---|", *rows]))
    last = [", ".join(f"`{param.opts[0]}`" for param in shared)] if shared else []
    if entry is not None and (entry.json or entry.inner):
        fields = ", ".join(f"`{field}`" for field in entry.json)
        last.append(f"JSON: {'; '.join(part for part in (fields, entry.inner) if part)}")
    if last:
        parts.append(". ".join(last) + ".")
    return "\n\n".join(parts) + "\n"


def _anchor(name: str) -> str:
    return f"{NAME} {name}".replace(" ", "-")


def _first(command: Any) -> str:
    """The first paragraph of the help."""
    return str(command.help or "").partition("\n\n")[0].replace("|", "\\|")


def _is_option(param: Any) -> bool:
    return bool(param.param_type_name == "option")


def _shown(param: Any) -> str:
    if not _is_option(param):
        return f"`{param.metavar or param.name.upper()}`"
    value = "" if param.is_flag else f" {param.metavar or 'VALUE'}"
    return f"`{', '.join(param.opts)}{value}`"


def _told(param: Any) -> str:
    """Help, bounds, variable and default, in words."""
    told = [(param.help or "").replace("|", "\\|")]
    choices = param.type_descriptor.choices if param.type_descriptor.is_choice else None
    if choices:
        told.append(f"one of {', '.join(f'`{choice}`' for choice in choices)}")
    if param.envvar:
        told.append(f"or `{param.envvar}`")
    if param.required:
        told.append("required")
    elif isinstance(param.show_default, str):
        told.append(f"default {param.show_default}")
    elif param.default not in (None, "", False) and param.default != []:
        told.append(f"default {param.default}")
    return "; ".join(part for part in told if part)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
