"""The page of observability: its line of a log, and its way to traces, by the service as a program."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from commands.processes import await_answer, child, free_port
from tests.assets.world import DAYS, World, events
from tests.pages import NOT_HERE, ROOT, commands, examples, program
from tests.serving.test_tracing import TRACEPARENT, Collector
from tests.shell import environment, shell

PAGE: Final = "docs/observability.md"
TEXT: Final = (ROOT / PAGE).read_text()
ENTITY: Final = "acct-1"
pytestmark = pytest.mark.xdist_group("observability_page")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a built day of `acme` in `.plane/store`."""
    folder = tmp_path_factory.mktemp("observability")
    world = World.at((folder / ".plane" / "store").as_uri(), folder / "cache")
    world.write("acme", events("acme", DAYS[:1]))
    world.build(DAYS[:1])
    return folder


@contextmanager
def served(folder: Path, script: str, name: str) -> Iterator[tuple[httpx.Client, Path]]:
    """A client of the service that the script ends with, and where the service's output goes."""
    port, log = free_port(), folder / name
    command = ["bash", "-euc", f"cd {folder}; {script.strip()} --port {port}"]
    with child(command, log=log, environment=environment(folder)) as process:
        await_answer(f"http://127.0.0.1:{port}/readyz", process, log)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/v1/tenants/acme") as client:
            yield client, log


def key(folder: Path) -> dict[str, str]:
    made: dict[str, Any] = orjson.loads(shell("context-plane keys create --tenant acme --scope read --json", folder))
    return {"authorization": f"Bearer {made['token']}"}


def test_a_request_is_logged_as_the_page_shows(folder: Path) -> None:
    """Field by field: the same names in the same order, of the same types and forms; what does not vary is the same.
    Seen to fail with a field left out of the page's line."""
    [block] = examples(PAGE, "json")
    shown = orjson.loads(block.text)
    [command] = re.findall(r"`(context-plane serve --log-format json)`", TEXT)
    headers = key(folder)
    with served(folder, command, "lines.log") as (client, log):
        for _ in range(2):
            assert client.get(f"/entities/{ENTITY}/context", headers=headers).status_code == 200
    lines = [orjson.loads(line) for line in log.read_text().splitlines()]
    told = [line for line in lines if line.get("route") == shown["route"]][-1]
    assert list(told) == list(shown)
    assert form(told) == form(shown)


def form(line: Mapping[str, Any]) -> dict[str, Any]:
    """Without what each request has of its own."""
    own = {"at": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "request_id": "[0-9a-f]{16}", "key": "[0-9a-f]{16}"}
    for name, wanted in own.items():
        assert re.fullmatch(wanted, line[name]), (name, line[name])
    assert line["ms"] > 0
    return {name: value for name, value in line.items() if name not in own and name != "ms"}


def test_traces_are_sent_where_the_page_says(folder: Path) -> None:
    """A followed trace of a search, with the spans of the page's table. What is installed first is of the extra that
    tests/test_pages.py looks for. Seen to fail with a variable misspelt."""
    [block] = examples(PAGE, "sh")
    install, script = block.text.split("\n", 1)
    [words] = commands(install)
    assert program(words) in NOT_HERE
    rows = re.findall(r"^\| (`.+?`) \| ", TEXT.partition("| span |")[2], re.MULTILINE)
    request, steps = (re.findall("`([^`]+)`", row) for row in rows[:2])
    headers = key(folder) | {"traceparent": TRACEPARENT}
    with Collector() as collector:
        ours = script.replace("collector:4318", f"127.0.0.1:{collector.port}")
        with served(folder, ours, "traces.log") as (client, _):
            assert client.post("/search", json={"text": "export"}, headers=headers).status_code == 200
        names = list(names_in(collector.bodies))
    assert set(request) <= set(names)
    assert {step for step in steps if step.startswith("search.")} <= set(names)
    assert "store.get" in names


def names_in(bodies: list[bytes]) -> Iterator[str]:
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                yield from (span.name for span in scope.spans if span.trace_id.hex() == "ab" * 16)
