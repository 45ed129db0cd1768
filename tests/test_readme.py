"""The commands of README and pages, in their order, over a store that a small demo made."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path
from string import Template
from typing import Any, Final

import httpx
import httpx2
import orjson
import pytest
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from commands.manual import ENTRIES
from commands.processes import ALL_STOP_S, await_answer, child, free_port
from tests.commands.cli import MAPPING
from tests.pages import ROOT, Block, examples
from tests.shell import environment, shell

README: Final = (ROOT / "README.md").read_text()
PORT: Final = "8080"
UI_PORT: Final = "3000"
PAGES: Final = ("docs/quickstart.md", "docs/sources.md", "docs/search.md", "docs/security.md")
"""Pages whose commands run as they stand, beside a service."""
FILES: Final = {"docs/sources.md": {"yaml": "calls.yaml", "csv": "calls.csv"}}
"""Blocks that a page's commands read as files."""
AFTER_DEMO: Final = "CONTEXT_PLANE_AFTER_DEMO"
"""Names the checkout in which `make demo` ran: `.ci/run` has the README's examples run there, too."""
ENTER: Final = "source .venv/bin/activate\n"
"""Where a reader enters the environment, these tests run in it."""
TICKETS: Final = """id,account,at,text,seats
t1,acct-0042,2026-03-01T09:00:00Z,the export fails,5
t2,acct-0007,2026-03-02T09:00:00Z,the price is too high,6
"""
EVENT: Final = (
    '{"entity": "acct-0042", "ts": "2026-03-02T09:15:00Z", "source": "agent", "kind": "note", '
    '"text": "asked for SSO"}\n'
)
pytestmark = pytest.mark.xdist_group("readme")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout in which the demo ran."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("examples", "docs", "specs", "workspace.yaml"):
        (folder / name).symlink_to(ROOT / name)
    out = shell("context-plane demo --customers 60 --days 7", folder)
    assert "Worth contacting" in out
    assert "Fresh without waiting" in out
    return folder


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest) -> Path:
    """Where the README's reader stands: in such a folder, or in the checkout that `make demo` left."""
    left = os.environ.get(AFTER_DEMO)
    return Path(left) if left else Path(request.getfixturevalue("demo"))


@pytest.mark.timeout(280)
def test_every_example_of_the_readme_works(place: Path) -> None:
    """In their order: commands, curl, the client in Python; then an agent's entry for MCP. Seen to fail with a route, a
    method and an address of the README misspelt."""
    port = str(free_port())
    shown = sorted([*examples("README.md", "sh"), *examples("README.md", "python")], key=lambda block: block.line)
    [service] = [block for block in shown if block.mark == "service"]
    script = "\n".join(as_script(block) for block in shown if block is not service and not too_long(block))
    [entry] = examples("README.md", "json")
    serve = ["bash", "-c", f"cd {place} && exec {service.text.strip()} --port {port}"]
    log = place / ".plane" / "readme-service.log"
    with child(serve, log=log, environment=environment(place)) as process:
        await_answer(f"http://127.0.0.1:{port}/readyz", process, log)
        out = shell(script.replace(PORT, port), place)
        key = (place / ".plane/demo/demo/key").read_text().strip()
        told = asyncio.run(asked(Template(entry.text.replace(PORT, port)).substitute(KEY=key)))
    assert out.count("acct-0042 as of ") == 4, "by command, by curl twice, by the client"
    assert "asked for a demo of SSO" in out, "found once it is written"
    assert "acct-0042 as of " in told


def as_script(block: Block) -> str:
    """As bash runs it. In the checkout the environment is entered, too."""
    if block.language == "python":
        return f"python - <<'END'\n{block.text}END"
    return block.text if AFTER_DEMO in os.environ else block.text.replace(ENTER, "")


def too_long(block: Block) -> bool:
    """After `make demo` no second tenant is built: it has as many days, and the same lines ran over a week."""
    return block.mark == "builds" and AFTER_DEMO in os.environ


async def asked(entry: str) -> str:
    """What an agent with this entry is told of a customer."""
    server: dict[str, Any] = orjson.loads(entry)["mcpServers"]["context-plane"]
    assert server["type"] == "http"
    async with (
        httpx2.AsyncClient(headers=server["headers"], timeout=60.0) as http,
        McpClient(streamable_http_client(server["url"], http_client=http)) as agent,
    ):
        result = await agent.call_tool("get_context", {"entity": "acct-0042"})
    assert isinstance(result, CallToolResult)
    [content] = result.content
    assert isinstance(content, TextContent)
    assert not result.is_error, content.text
    return content.text


def test_continuous_integration_runs_the_examples_after_the_demo() -> None:
    """Seen to fail with the test misspelt there."""
    steps = (ROOT / ".ci" / "run").read_text()
    demo, after = steps.index('make "$target"'), steps.index(f"{AFTER_DEMO}=$PWD")
    assert demo < after
    assert f"tests/test_readme.py::{test_every_example_of_the_readme_works.__name__}" in steps[after:]


@pytest.mark.timeout(200)
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_works(demo: Path, page: str) -> None:
    """Seen to fail with a misspelled option in a page."""
    for language, name in FILES.get(page, {}).items():
        [content] = examples(page, language)
        (demo / name).write_text(content.text)
    port = str(free_port())
    script = "\n".join(block.text for block in examples(page, "sh"))
    log = demo / f"{Path(page).stem}.log"
    serve = ["bash", "-c", f"cd {demo} && exec context-plane serve --port {port}"]
    with child(serve, log=log, environment=environment(demo)) as process:
        await_answer(f"http://127.0.0.1:{port}/readyz", process, log)
        shell(f"{CHOSEN}\n" + script.replace(ENTER, "").replace(PORT, port), demo)


@pytest.mark.timeout(200)
def test_the_demo_runs_again_on_what_it_made(demo: Path) -> None:
    out = shell("context-plane demo --customers 60 --days 7", demo)
    assert "the store holds these events already" in out
    assert "Worth contacting" in out


STAY: Final = {
    "context-plane up --port 8080 --ui-port 3000": "starts and stops below",
    "context-plane serve --workers 2": "the same",
    "context-plane mcp --tenant demo": "tests/examples and tests/serving/test_mcp.py speak with it",
    "context-plane mcp --url http://127.0.0.1:8080": "tests/serving/test_mcp.py does",
    "context-plane bench startup --quick": "tests/benchmarks runs scenarios",
}
"""Examples of the manual that do not end by themselves, or measure, and who runs them."""
CHOSEN: Final = "export CONTEXT_PLANE_TENANT=demo"
"""The examples are made for a store of one tenant; the README's own commands left two."""


@pytest.mark.timeout(290)
def test_every_example_of_the_manual_works_and_its_json_has_the_fields_told(demo: Path) -> None:
    """In the manual's order. Seen to fail with a field that is not told."""
    (demo / "desk.yaml").write_text(MAPPING)
    (demo / "tickets.csv").write_text(TICKETS)
    (demo / "events.jsonl").write_text(EVENT)
    shown = [line for block in examples("docs/cli.md", "sh") for line in block.text.splitlines()]
    assert sorted(shown) == sorted(example for entry in ENTRIES.values() for example in entry.examples)
    made = orjson.loads(shell("context-plane keys create --tenant demo --json", demo))
    (demo / "key_id").write_text(made["id"])
    for name, entry in ENTRIES.items():
        runnable = [example for example in entry.examples if example not in STAY]
        for example in runnable:
            shell(f"{CHOSEN}; KEY_ID=$(cat key_id); {example}", demo)
        if runnable and entry.json:
            fields = set(orjson.loads(shell(f"{CHOSEN}; KEY_ID=$(cat key_id); {runnable[-1]} --json", demo)))
            told = set(entry.json)
            as_the_api = entry.inner.startswith("as `")  # which may answer more: its own page tells all
            assert told <= fields if as_the_api else told == fields, (name, fields ^ told)


@pytest.mark.timeout(100)
@pytest.mark.parametrize("example", [example for example in STAY if " serve " in example or " up " in example])
def test_what_stays_tells_a_program_where_it_listens(demo: Path, example: str) -> None:
    """And answers there until it is interrupted."""
    ports = {PORT: str(free_port()), UI_PORT: str(free_port())}
    command = re.sub(f"{PORT}|{UI_PORT}", lambda found: ports[found[0]], example)
    command += "" if "--port" in command else f" --port {ports[PORT]}"
    log, out = (demo / f"{example.split()[1]}.{kind}" for kind in ("log", "json"))
    script = ["bash", "-c", f"cd {demo} && exec {command} --json > {out}"]
    with child(script, log=log, environment=environment(demo), stop_s=ALL_STOP_S) as process:
        while not out.exists() or not out.read_bytes().endswith(b"}\n"):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        told = orjson.loads(out.read_bytes())
        await_answer(f"http://127.0.0.1:{ports[PORT]}/readyz", process, log)
        if "dagster" in told:
            assert httpx.get(f"http://127.0.0.1:{ports[UI_PORT]}/server_info").status_code == 200
    assert orjson.loads(out.read_bytes()) == told, "and nothing else"
    assert set(told) == set(ENTRIES[example.split()[1]].json)
    assert told["url"] == f"http://127.0.0.1:{ports[PORT]}"
    if "dagster" in told:
        assert told["dagster"] == f"http://127.0.0.1:{ports[UI_PORT]}"
    else:
        assert (told["workers"], told["keys"]) == (2, True)


def test_the_files_that_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
