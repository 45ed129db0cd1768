"""No example without a test: every block of README and pages is claimed, and what stands in their text exists."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from typer.main import get_command

from commands.main import app
from commands.reference import walk
from tests.pages import INDENTED, NO_EXAMPLE, PAGES, ROOT, RUN_BY, Block, blocks, commands, examples, program, tokens

CLAIMED: Final = RUN_BY.keys() | NO_EXAMPLE.keys()


def test_every_block_of_every_page_is_run_by_a_test() -> None:
    """Seen to fail with a block of a new page, and with one of another language."""
    unclaimed = [block for page in PAGES for block in blocks(page) if key(block) not in CLAIMED]
    assert [f"{block.page}:{block.line} {block.language}" for block in unclaimed] == []


def test_no_claim_is_of_a_block_that_is_gone() -> None:
    found = {key(block) for page in PAGES for block in blocks(page)}
    assert found >= CLAIMED


def key(block: Block) -> tuple[str, str]:
    return block.page, block.language


@pytest.mark.parametrize("module", sorted(set(RUN_BY.values())))
def test_the_test_that_claims_a_block_takes_it(module: str) -> None:
    """Seen to fail with a page taken out of a module's list."""
    nodes = list(ast.walk(ast.parse((ROOT / module).read_text())))
    calls = [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]
    assert "examples" in calls
    constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    for page, language in (claim for claim, by in RUN_BY.items() if by == module):
        assert page in constants, page
        assert language in constants or (language == INDENTED and "INDENTED" in names), (page, language)


# --- make -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/quickstart.md"])
def test_what_a_page_has_made_can_be_made(page: str) -> None:
    """`make` says what it would do; `.ci/run` does `check`, `test` and `demo`, and then what README shows.
    Seen to fail with a target misspelt."""
    found = [words for block in examples(page, INDENTED) for words in commands(block.text)]
    assert found
    for words in found:
        if program(words) == "make":
            dry_run(words)
        else:
            assert words == [".ci/run"]
            subprocess.run(["bash", "-n", ROOT / words[0]], check=True)


def dry_run(words: list[str]) -> None:
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)


# --- pictures -------------------------------------------------------------------------------------


def test_every_picture_is_on_a_page() -> None:
    """Seen to fail with `explorer-tenant.png` on none."""
    pictures = {path.name for path in (ROOT / "docs" / "images").iterdir()}
    assert pictures
    shown = {name for page in PAGES for name in re.findall(r"images/([\w.-]+)", (ROOT / page).read_text())}
    assert pictures == shown


def test_the_readme_shows_what_is_built_how_it_went_and_what_to_do_when_it_fails() -> None:
    """In Dagster's UI. Seen to fail with the day alone."""
    shown = set(re.findall(r"images/(dagster-[\w-]+)", (ROOT / "README.md").read_text()))
    assert {"dagster-graph", "dagster-day", "dagster-check"} <= shown


# --- in running text ------------------------------------------------------------------------------

COMMANDS: Final[dict[str, Any]] = {"": get_command(app), **dict(walk())}
BIN: Final = str(Path(sys.executable).parent)


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_exist_with_their_options(page: str) -> None:
    """Seen to fail with an option that a command does not have, and with a target, a module and a folder that are not
    there."""
    for token in tokens(page):
        match token.content.split() if token.type == "code_inline" else []:
            case ["context-plane", _, *_]:
                takes(shlex.split(token.content)[1:])
            case ["make", *_] as words:
                dry_run(words)
            case ["python", "-m", module, *_]:
                assert find_spec(module) is not None, token.content
            case ["pytest", path, *_]:
                assert (ROOT / path).exists(), token.content
            case ["dagster-webserver" | "dagster-daemon" as name, *_]:
                assert shutil.which(name, path=BIN), token.content


def test_extras_that_pages_install_exist_and_are_here() -> None:
    """All but those of benchmarks and deployments. Seen to fail with an extra that is not in pyproject.toml."""
    shown = [token.content for page in PAGES for token in tokens(page) if token.type in ("code_inline", "fence")]
    lines = [line for text in shown for line in text.splitlines() if "pip install" in line]
    named = {name for line in lines for name in re.findall(r"\[(\w+)\]", line)}
    assert named
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for needed in (Requirement(text) for name in named for text in extras[name]):
        assert needed.specifier.contains(version(needed.name)), needed


def takes(words: list[str]) -> None:
    """The command is there, with each of these options."""
    named = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    [name] = [found for end in range(2, -1, -1) if (found := " ".join(named[:end])) in COMMANDS][:1]
    assert name or not named, f"no command {' '.join(words)}"
    known = {option for param in COMMANDS[name].params for option in param.opts} | {"--help"}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, words
