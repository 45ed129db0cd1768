"""A store with a little in it, for the tests of one file."""

from __future__ import annotations

import orjson
import pytest

from commands import outcome
from tests.commands.cli import LOAD, MAPPING, ROWS, Cli


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A store with three rows of four loaded and built."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "desk.yaml").write_text(MAPPING)
    (folder / "rows.csv").write_text(ROWS)
    made = Cli(folder)
    loaded = made.json(*LOAD, "--rejects", "rejects.jsonl", code=outcome.DEFECTS)
    assert (loaded["rows"], loaded["events"], loaded["rejects"]) == (3, 3, 1)
    assert loaded["rejected"][0]["column"] == "seats"
    assert orjson.loads((folder / "rejects.jsonl").read_bytes())["line"] == 4
    return made
