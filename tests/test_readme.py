"""The commands of README and pages, in their order, over a store that a small demo made."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import orjson
import pytest

from commands.manual import ENTRIES
from commands.processes import await_answer, child, free_port
from tests.commands.cli import MAPPING

ROOT: Final = Path(__file__).parents[1]
README: Final = (ROOT / "README.md").read_text()
BLOCK: Final = re.compile(r"^```sh( service)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT: Final = "8080"
PAGES: Final = ("quickstart", "sources", "search", "security")
"""Pages of `docs/` whose commands run here; `api.md` and `cli.md` have tests of their own."""
FILES: Final = {"yaml": "calls.yaml", "csv": "calls.csv"}
"""Blocks of `docs/sources.md` that its commands read as files."""
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


def environment(folder: Path) -> dict[str, str]:
    """This interpreter's programs first; everything that is written goes below `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONTEXT_PLANE_", "DAGSTER_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "CONTEXT_PLANE_CACHE_DIR": str(folder / "cache"), "DO_NOT_TRACK": "1"}


def shell(script: str, folder: Path) -> str:
    """Standard output of a script that must succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout in which the demo ran."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("examples", "docs", "specs"):
        (folder / name).symlink_to(ROOT / name)
    out = shell("context-plane demo --customers 60 --days 7", folder)
    assert "Worth contacting" in out
    assert "Fresh without waiting" in out
    return folder


@pytest.mark.timeout(280)
def test_every_command_of_the_readme_works(demo: Path) -> None:
    """Seen to fail with a misspelled route in the README."""
    port = str(free_port())
    blocks = [(bool(service), script.replace(PORT, port)) for service, script in BLOCK.findall(README)]
    services = [script for service, script in blocks if service]
    assert len(services) == 1
    serve = ["bash", "-c", f"cd {demo} && exec {services[0].strip()} --port {port}"]
    log = demo / "service.log"
    with child(serve, log=log, environment=environment(demo)) as process:
        await_answer(f"http://127.0.0.1:{port}/readyz", process, log)
        shell("\n".join(script.replace(ENTER, "") for service, script in blocks if not service), demo)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_works(demo: Path, page: str) -> None:
    """Seen to fail with a misspelled option in a page."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for language, name in FILES.items():
        for content in re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            (demo / name).write_text(content)
    port = str(free_port())
    scripts = [script.replace(ENTER, "").replace(PORT, port) for _, script in BLOCK.findall(text)]
    assert scripts
    log = demo / f"{page}.log"
    serve = ["bash", "-c", f"cd {demo} && exec context-plane serve --port {port}"]
    with child(serve, log=log, environment=environment(demo)) as process:
        await_answer(f"http://127.0.0.1:{port}/readyz", process, log)
        shell("export CONTEXT_PLANE_TENANT=demo\n" + "\n".join(scripts), demo)


@pytest.mark.timeout(200)
def test_the_demo_runs_again_on_what_it_made(demo: Path) -> None:
    out = shell("context-plane demo --customers 60 --days 7", demo)
    assert "the store holds these events already" in out
    assert "Worth contacting" in out


LONG: Final = {
    "context-plane up --port 8080 --ui-port 3000": "until Ctrl-C",
    "context-plane serve --workers 2": "until Ctrl-C; the README's own runs",
    "context-plane mcp --tenant demo": "until its client goes; docs/agents.md has a test",
    "context-plane mcp --url http://127.0.0.1:8080": "the same",
    "context-plane bench startup --quick": "tests/benchmarks runs scenarios",
}
"""Examples of the manual that are not run, and why."""
CHOSEN: Final = "export CONTEXT_PLANE_TENANT=demo"
"""The examples are made for a store of one tenant; the README's own commands left two."""


@pytest.mark.timeout(290)
def test_every_example_of_the_manual_works_and_its_json_has_the_fields_told(demo: Path) -> None:
    """In the manual's order. Seen to fail with a field that is not told."""
    (demo / "desk.yaml").write_text(MAPPING)
    (demo / "tickets.csv").write_text(TICKETS)
    (demo / "events.jsonl").write_text(EVENT)
    made = orjson.loads(shell("context-plane keys create --tenant demo --json", demo))
    (demo / "key_id").write_text(made["id"])
    for name, entry in ENTRIES.items():
        runnable = [example for example in entry.examples if example not in LONG]
        for example in runnable:
            shell(f"{CHOSEN}; KEY_ID=$(cat key_id); {example}", demo)
        if runnable and entry.json:
            fields = set(orjson.loads(shell(f"{CHOSEN}; KEY_ID=$(cat key_id); {runnable[-1]} --json", demo)))
            told = set(entry.json)
            as_the_api = entry.inner.startswith("as `")  # which may answer more: its own page tells all
            assert told <= fields if as_the_api else told == fields, (name, fields ^ told)


@pytest.mark.timeout(100)
def test_serve_tells_a_program_where_it_listens(demo: Path) -> None:
    port = free_port()
    with subprocess.Popen(
        ["context-plane", "serve", "--port", str(port), "--json"],
        cwd=demo,
        env=environment(demo),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"}\n")
        told = orjson.loads(b"".join(lines) + b"}")
        process.terminate()
        assert process.stdout.read() == b""
    assert set(told) == set(ENTRIES["serve"].json)
    assert (told["url"], told["workers"], told["keys"]) == (f"http://127.0.0.1:{port}", 1, True)


def test_the_files_that_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
