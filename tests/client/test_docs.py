"""The page of the client, run as it stands."""

from __future__ import annotations

from pathlib import Path

from tests.client.live import Live
from tests.pages import examples

PAGE = Path(__file__).parents[2] / "docs" / "client.md"


def test_every_example_of_the_page_runs(live: Live) -> None:
    """Top to bottom, in one namespace. Seen to fail with a method misspelt on the page."""
    names: dict[str, object] = {}
    for block in examples("docs/client.md", "python"):
        if block.mark == "build":
            live.build("acme", "2026-03-04")
        source = block.text.replace("http://127.0.0.1:8080", live.url)
        exec(compile(source, str(PAGE), "exec"), names)


def test_every_method_is_on_the_page() -> None:
    from context_plane.client import Client

    methods = {name for name in dir(Client) if not name.startswith("_")} - {"close", "send", "iterate"}
    assert {name for name in methods if f"{name}(" not in PAGE.read_text()} == set()
