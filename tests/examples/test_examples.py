"""The examples, with the real libraries and the real service; no network beyond loopback."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from mcp import Client as McpClient
from mcp import StdioServerParameters

from context_plane.client import AsyncClient, Client
from context_plane.settings import Settings
from tests.client.live import Live, Lose, serving

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DAY = "2026-03-04"
pytestmark = pytest.mark.xdist_group("examples")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Open mode over a folder; `acme` has a built day."""
    folder = tmp_path_factory.mktemp("examples")
    settings = Settings(store=(folder / "store").as_uri(), cache_dir=folder / "cache", cache_memory_bytes=64 << 20)
    with serving(settings) as running:
        with Client(running.url, "acme") as client:
            client.put_tenant()
            client.write([event("acct-1", "e1", "the export fails"), event("acct-2", "e2", "the price is too high")])
        running.build("acme", DAY)
        yield running


def event(entity: str, event_id: str, text: str) -> dict[str, Any]:
    named = {"entity": entity, "id": event_id, "ts": f"{DAY}T09:00:00Z"}
    return {**named, "source": "zendesk", "kind": "ticket", "text": text}


@pytest.fixture
def tenant(live: Live) -> str:
    name = f"t-{uuid.uuid4().hex[:12]}"
    with Client(live.url, name) as client:
        client.put_tenant()
    live.door.seen.clear()
    return name


def program(live: Live, folder: Path, tenant: str, *words: str) -> str:
    """Standard output of an example run as a program."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    environment |= {"CONTEXT_PLANE_URL": live.url, "CONTEXT_PLANE_TENANT": tenant}
    environment |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / words[0]), *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_on_the_page(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 80
    assert f"(../examples/{path.name})" in (ROOT / "docs" / "agents.md").read_text()


# --- LangChain ----------------------------------------------------------------------------------


def test_a_langchain_retriever_gives_cited_documents(live: Live, tmp_path: Path) -> None:
    """Seen to fail with the search's arguments left out."""
    from examples.langchain_retriever import PlaneRetriever, context_tool

    with Client(live.url, "acme") as client:
        [document] = PlaneRetriever(client=client, search={"entities": ["acct-2"]}).invoke("price")
        assert (document.id, document.page_content) == ("e2", "the price is too high")
        assert document.metadata["entity"] == "acct-2"
        assert f"segments/{DAY.replace('-', '/')}/" in document.metadata["segment"]
        assert document.metadata["line"] > 0
        tool = context_tool(client)
        assert (tool.name, list(tool.args)) == ("customer_context", ["entity"])
        assert "acct-1 as of" in tool.invoke({"entity": "acct-1"})
        assert tool.invoke({"entity": "nobody"}).startswith("entity_not_found")
    shown = program(live, tmp_path, "acme", "langchain_retriever.py", "the price is too high")
    assert shown.startswith("acct-2\n")
    assert "acct-2 as of" in shown


# --- OpenAI Agents SDK --------------------------------------------------------------------------


async def test_an_agent_reads_before_it_answers(live: Live) -> None:
    """The SDK's own runner, with a model that asks for both tools and then repeats what it read."""
    from agents import ModelResponse, RunConfig, Runner, Usage
    from agents.models.interface import Model
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

    from examples.openai_agent import agent

    def asks(name: str, **arguments: Any) -> ResponseFunctionToolCall:
        given = orjson.dumps(arguments).decode()
        return ResponseFunctionToolCall(call_id=name, name=name, arguments=given, type="function_call")

    def says(text: str) -> ResponseOutputMessage:
        content = ResponseOutputText(text=text, type="output_text", annotations=[])
        return ResponseOutputMessage(id="m", content=[content], role="assistant", status="completed", type="message")

    class Scripted(Model):
        """No network: the first turn asks, the second answers with the tools' outputs."""

        async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> ModelResponse:
            outputs = [item["output"] for item in input if isinstance(item, dict) and "output" in item]
            if not outputs:
                called = [asks("customer_context", entity="acct-1"), asks("search_events", query="price", entity=None)]
                return ModelResponse([*called], Usage(), None)
            return ModelResponse([says("\n".join(outputs))], Usage(), None)

        def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
            raise AssertionError("Runner.run asks for whole answers")

    async with AsyncClient(live.url, "acme") as client:
        asked = RunConfig(model=Scripted(), tracing_disabled=True)
        done = await Runner.run(agent(client), "Why might acct-1 leave?", run_config=asked)
    assert "acct-1 as of" in done.final_output
    assert f"(acct-2, {DAY}, e2) the price is too high" in done.final_output


# --- Claude -------------------------------------------------------------------------------------


async def test_the_entry_for_claude_starts_a_server_with_five_tools(live: Live, tmp_path: Path) -> None:
    """As it stands, but for the store, the tenant's name and where the program is."""
    entry = orjson.loads((EXAMPLES / "claude_mcp.json").read_bytes())["mcpServers"]["context-plane"]
    assert entry.keys() == {"command", "args", "env"}
    assert entry["env"].keys() == {"CONTEXT_PLANE_STORE"}
    command = shutil.which(entry["command"], path=str(Path(sys.executable).parent))
    assert command is not None
    settings: Settings = live.app.state.service.plane.settings
    environment = {"CONTEXT_PLANE_STORE": settings.store_url, "CONTEXT_PLANE_CACHE_DIR": str(tmp_path)}
    arguments = [word.replace("demo", "acme") for word in entry["args"]]
    server = StdioServerParameters(
        command=command, args=arguments, env={**environment, "PYTHONPATH": str(ROOT)}, cwd=ROOT
    )
    async with McpClient(server) as client:
        assert len((await client.list_tools()).tools) == 5


# --- dlt ----------------------------------------------------------------------------------------


def test_a_dlt_pipeline_loads_the_plane(
    live: Live, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch whose answer was lost is written once; a changed row replaces itself, and so does one changed back.

    Seen to fail with ids left to the service, and with one name for all loads of a table."""
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    import dlt

    from examples.dlt_destination import context_plane

    rows: list[dict[str, Any]] = [
        {"id": n, "account": f"acct-{n % 2}", "opened": dt.datetime(2026, 3, 4, 9, n, tzinfo=dt.UTC), "body": text}
        for n, text in enumerate(("export fails", "price too high", "all is well"))
    ]
    extra = {"seats": 40, "spend": Decimal("12.50"), "since": dt.date(2025, 1, 1), "lost": None}
    columns = {"tickets": {"entity": "account", "ts": "opened", "text": "body"}}

    def load(changed: dict[int, str]) -> None:
        @dlt.resource(name="tickets", primary_key="id")
        def tickets() -> Iterator[dict[str, Any]]:
            yield from ({**row, **extra, "body": changed.get(int(row["id"]), row["body"])} for row in rows)

        target = context_plane(url=live.url, tenant=tenant, event_columns=columns)
        pipeline = dlt.pipeline("tickets", destination=target, pipelines_dir=str(tmp_path))
        pipeline.run(tickets()).raise_on_failed_jobs()

    with Client(live.url, tenant) as client:
        live.door.faults += [Lose()]
        load({})
        assert [found.id for found in client.timeline("acct-0", order="asc")] == ["0", "2"]
        first = next(client.timeline("acct-0", order="asc"))
        assert (first.source, first.text, first.ts) == ("tickets", "export fails", rows[0]["opened"])
        assert first.attrs == {"seats": 40, "spend": 12.5, "since": "2025-01-01T00:00:00Z"}
        assert client.snapshot().pending_log_objects == 1
        load({0: "export works"})
        assert [found.text for found in client.timeline("acct-0", order="asc")] == ["export works", "all is well"]
        load({})
        assert [found.text for found in client.timeline("acct-0", order="asc")] == ["export fails", "all is well"]


def test_a_row_that_cannot_be_an_event_fails_the_job_at_once(
    live: Live, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    import dlt
    from dlt.pipeline.exceptions import PipelineStepFailed

    from examples.dlt_destination import context_plane

    target = context_plane(url=live.url, tenant=tenant)
    pipeline = dlt.pipeline("notes", destination=target, pipelines_dir=str(tmp_path))
    with pytest.raises(PipelineStepFailed, match="malformed_event"):
        pipeline.run([{"id": "n1", "text": "of nobody"}], table_name="notes")
    assert len(live.door.seen) == 1


def test_the_dlt_example_runs_as_a_program(live: Live, tenant: str, tmp_path: Path) -> None:
    assert "contains no failed jobs" in program(live, tmp_path, tenant, "dlt_destination.py")
    with Client(live.url, tenant) as client:
        [found] = client.timeline("acct-0042")
    assert (found.id, found.attrs) == ("zd-1", {"seats": 40})
