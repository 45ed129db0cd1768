"""The examples of README and of every page, and the test that runs each.

An example is a fenced or indented block. A test takes those of a page through `examples`, which knows of none that
`RUN_BY` does not give to a test; `tests/test_pages.py` fails for a block that neither `RUN_BY` nor `NO_EXAMPLE` names.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = tuple(
    path.relative_to(ROOT).as_posix()
    for folder in ("*.md", "docs/**/*.md", "deploy/**/*.md", "benchmarks/*.md", "examples/**/*.md")
    for path in sorted(ROOT.glob(folder))
)
INDENTED: Final = "indented"
"""The language of a block without a fence."""

RUN_BY: Final[Mapping[tuple[str, str], str]] = {
    ("README.md", INDENTED): "tests/test_pages.py",
    ("README.md", "json"): "tests/test_readme.py",
    ("README.md", "python"): "tests/test_readme.py",
    ("README.md", "sh"): "tests/test_readme.py",
    ("CONTRIBUTING.md", INDENTED): "tests/test_pages.py",
    ("deploy/README.md", "sh"): "tests/deploy/test_commands.py",
    ("docs/api.md", INDENTED): "tests/test_docs.py",
    ("docs/api.md", "bash"): "tests/test_docs.py",
    ("docs/cli.md", INDENTED): "tests/commands/test_manual.py",
    ("docs/cli.md", "sh"): "tests/test_readme.py",
    ("docs/client.md", "python"): "tests/client/test_docs.py",
    ("docs/observability.md", "json"): "tests/serving/test_docs.py",
    ("docs/observability.md", "sh"): "tests/serving/test_docs.py",
    ("docs/operations.md", "sh"): "tests/commands/test_docs.py",
    ("docs/operations.md", "yaml"): "tests/commands/test_docs.py",
    ("docs/quickstart.md", INDENTED): "tests/test_pages.py",
    ("docs/quickstart.md", "sh"): "tests/test_readme.py",
    ("docs/search.md", "sh"): "tests/test_readme.py",
    ("docs/security.md", "sh"): "tests/test_readme.py",
    ("docs/sources.md", "csv"): "tests/test_readme.py",
    ("docs/sources.md", "sh"): "tests/test_readme.py",
    ("docs/sources.md", "yaml"): "tests/test_readme.py",
    ("docs/specs.md", "python"): "tests/bundle/test_docs.py",
    ("docs/specs.md", "yaml"): "tests/bundle/test_docs.py",
}
"""(page, language) and the module that runs those blocks."""
NO_EXAMPLE: Final[Mapping[tuple[str, str], str]] = {
    ("ARCHITECTURE.md", INDENTED): "drawings of what follows what, and of folders",
    ("README.md", "mermaid"): "a drawing",
    ("docs/explorer.md", INDENTED): "forms of links, which tests/browser/test_explorer.py follows",
}
NOT_HERE: Final[Mapping[str, str]] = {
    "docker": "needs its daemon, and bases from a registry",
    "helm": "needs a cluster, and a chart from elsewhere",
    "kubectl": "needs a cluster",
    "uv": "chooses releases of an index",
    "pip": "installs from elsewhere; its packages are in the environment of the tests",
}
"""Programs that tests do not run, and why. What they are given is checked in their place."""


@dataclass(frozen=True, slots=True)
class Block:
    """`line` counts from 1; `mark` is what follows the language."""

    page: str
    line: int
    language: str
    mark: str
    text: str


def tokens(page: str) -> Iterator[Token]:
    """Of Markdown, those inside of paragraphs and tables, too."""
    for token in MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text()):
        yield token
        yield from token.children or ()


def blocks(page: str) -> list[Block]:
    """Every block of code, in order."""
    found = []
    for token in tokens(page):
        if token.type in ("fence", "code_block"):
            language, _, mark = token.info.strip().partition(" ")
            assert token.map is not None
            found.append(Block(page, token.map[0] + 1, language or INDENTED, mark.strip(), token.content))
    return found


def examples(page: str, language: str) -> list[Block]:
    """The blocks that a test runs."""
    assert (page, language) in RUN_BY, f"name the test that runs {language} of {page} in tests/pages.py"
    found = [block for block in blocks(page) if block.language == language]
    assert found, f"{page} has no {language} any more: take it out of tests/pages.py"
    return found


def commands(text: str) -> list[list[str]]:
    """Words of each line of a script whose quotes end on their line; continued lines joined, comments left out."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def program(words: list[str]) -> str:
    """The program that a command runs, without its folder."""
    return Path(words[0]).name
