"""Help, manual and docs/cli.md say the same of every command, and fit a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from commands.main import app
from commands.manual import ENTRIES
from commands.options import EVERYWHERE
from commands.reference import PAGE, page, walk
from tests.commands.cli import PROGRAM, ROOT
from tests.pages import INDENTED, commands, examples

COMMANDS: Mapping[str, Any] = dict(walk())
NO_JSON = {"export": "it prints NDJSON", "mcp": "it speaks MCP"}
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")


def options_of(command: Any) -> set[str]:
    return {name for param in command.params for name in param.opts if name.startswith("--")}


def test_every_command_has_an_example_and_no_other() -> None:
    assert set(ENTRIES) == set(COMMANDS)
    assert [name for name, entry in ENTRIES.items() if not entry.examples] == []
    for name, entry in ENTRIES.items():
        assert [example for example in entry.examples if not example.startswith(f"context-plane {name}")] == []


def test_every_command_takes_json_and_names_a_store() -> None:
    """Seen to fail with `serve` and with `keys revoke` as they were."""
    without = {name for name, command in COMMANDS.items() if "--json" not in options_of(command)}
    assert without == set(NO_JSON)
    assert {name for name, command in COMMANDS.items() if "--store" not in options_of(command)} == {"bench"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name: str) -> None:
    for param in COMMANDS[name].params:
        assert param.help or param.metavar == "ID", param.name
    shared = {param.name for param in COMMANDS[name].params if getattr(param, "rich_help_panel", "") == EVERYWHERE}
    assert "store" in shared or name == "bench"


def test_the_page_is_that_of_the_program() -> None:
    """Fails when a command, option or example changes: run `python -m commands.reference`."""
    text = PAGE.read_text()
    assert text == page(text)
    for name, command in COMMANDS.items():
        section = text.partition(f"### context-plane {name}\n")[2].partition("\n### ")[0]
        for option in options_of(command) - {"--help"}:
            assert f"`{option}" in section, (name, option)


def test_the_page_begins_with_help_that_is_given() -> None:
    """Seen to fail with a command misspelt."""
    [block] = examples("docs/cli.md", INDENTED)
    for program, *words in commands(block.text):
        done = CliRunner().invoke(app, words, prog_name=program)
        assert done.exit_code == 0, done.output
        assert all(f"{program} {word}" in done.output for word in words if word != "--help")


@pytest.mark.parametrize("columns", ["80", "120"])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_a_terminal_and_shows_its_examples_whole(name: str, columns: str) -> None:
    """Seen to fail with an example of 80 characters."""
    environment = {"COLUMNS": columns, "TERM": "dumb"}
    done = CliRunner().invoke(app, [*name.split(), "--help"], env=environment, prog_name="context-plane")
    assert done.exit_code == 0
    lines = [line.rstrip() for line in done.output.splitlines()]
    assert max(map(len, lines)) <= int(columns)
    for example in ENTRIES[name].examples if name else ():
        assert f" $ {example}" in lines


def test_the_program_tells_its_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert re.fullmatch(r"context-plane \d+\.\d+\.\d+\n", done.output)


@pytest.mark.parametrize("words", [["--help"], ["doctor"]])
def test_colour_is_for_terminals_that_want_it(tmp_path: Path, words: list[str]) -> None:
    """Seen to fail with the terminal forced in `show.console`."""
    ours = {"CONTEXT_PLANE_STORE": tmp_path.as_uri(), "CONTEXT_PLANE_CACHE_DIR": str(tmp_path / "cache")}
    assert COLOUR.search(on_a_terminal(words, **ours))
    assert not COLOUR.search(on_a_terminal(words, **ours, NO_COLOR="1"))
    command = [*PROGRAM, *words]
    piped = subprocess.run(command, cwd=ROOT, env=plain() | ours, capture_output=True, text=True, check=True)
    assert "\x1b" not in piped.stdout + piped.stderr


def plain() -> dict[str, str]:
    """The environment without what CI systems set to force colour."""
    forced = {"FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "NO_COLOR"}
    return {name: value for name, value in os.environ.items() if name not in forced} | {"TERM": "xterm-256color"}


def on_a_terminal(words: list[str], **environment: str) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    command = [*PROGRAM, *words]
    with subprocess.Popen(command, cwd=ROOT, env=plain() | environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 65536):
                said += part
        except OSError:  # how Linux tells that the other side has closed
            pass
        finally:
            os.close(ours)
        assert process.wait() == 0
    return said.decode()


class TestCompletion:
    """As bash asks for it."""

    def complete(self, line: str, **environment: str) -> list[str]:
        asked = {"_CONTEXT_PLANE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        done = subprocess.run(
            PROGRAM, env=plain() | asked | environment, cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    def test_commands_options_and_specs(self) -> None:
        assert self.complete("context-plane ve") == ["verify"]
        assert "--explain" in self.complete("context-plane search x --ex")
        assert self.complete("context-plane context a --spec customer_") == ["customer_context_v0"]

    def test_tenants_are_those_of_the_store(self, tmp_path: Path) -> None:
        for tenant in ("acme", "apex", "beta"):
            (tmp_path / "control/tenants").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"control/tenants/{tenant}.json").write_text("{}")
        url = tmp_path.as_uri()
        assert self.complete("context-plane search x --tenant a", CONTEXT_PLANE_STORE=url) == ["acme", "apex"]
        assert self.complete(f"context-plane search x --store {url} --tenant b") == ["beta"]

    def test_a_store_that_cannot_be_asked_completes_nothing(self) -> None:
        """Seen to fail with the error let through."""
        assert self.complete("context-plane search x --store ftp://x --tenant a") == []
