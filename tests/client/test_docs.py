"""The page of the client, run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

from tests.client.live import Live

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
BLOCK = re.compile(r"^```python( build)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_example_of_the_page_runs(live: Live) -> None:
    """Top to bottom, in one namespace. Seen to fail with a method misspelt on the page."""
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) > 5
    names: dict[str, object] = {}
    for needs_build, source in blocks:
        if needs_build:
            live.build("acme", "2026-03-04")
        exec(compile(source.replace("http://127.0.0.1:8080", live.url), str(PAGE), "exec"), names)


def test_every_method_is_on_the_page() -> None:
    from context_plane.client import Client

    methods = {name for name in dir(Client) if not name.startswith("_")} - {"close", "send", "iterate"}
    assert {name for name in methods if f"{name}(" not in PAGE.read_text()} == set()
