"""The examples, with the real libraries and the real service; no network beyond loopback."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
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
    assert len(path.read_text().splitlines()) <= 130  # docs/decisions/0022
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
        assert [found.id for found in client.timeline("acct-0", order="asc")] == ["tickets/0", "tickets/2"]
        first = next(client.timeline("acct-0", order="asc"))
        assert (first.source, first.text, first.ts) == ("tickets", "export fails", rows[0]["opened"])
        assert first.attrs == {"id": 0, "seats": 40, "spend": 12.5, "since": "2025-01-01T00:00:00Z"}
        assert client.snapshot().pending_log_objects == 1
        load({0: "export works"})
        assert [found.text for found in client.timeline("acct-0", order="asc")] == ["export works", "all is well"]
        load({})
        assert [found.text for found in client.timeline("acct-0", order="asc")] == ["export fails", "all is well"]


SAME: dict[str, Any] = {"id": 1, "entity": "acct-1", "ts": dt.datetime(2026, 3, 4, 9, tzinfo=dt.UTC)}
"""A row that any table may hold: its events have one entity, one day and one key."""


@pytest.fixture
def load(live: Live, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Loads rows into a table of the tenant, by a pipeline of the test's own."""
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    import dlt

    from examples.dlt_destination import context_plane

    def loads(rows: Any, table: str = "tickets", fields: dict[str, str] | None = None, **hints: Any) -> None:
        target = context_plane(url=live.url, tenant=tenant, event_columns={table: fields or {}})
        pipeline = dlt.pipeline("anything", destination=target, pipelines_dir=str(tmp_path))
        pipeline.run(dlt.resource(rows, name=table, **hints)).raise_on_failed_jobs()

    return loads


def test_rows_of_two_tables_with_one_key_are_two_events(live: Live, tenant: str, load: Callable[..., None]) -> None:
    """And so are those of composite keys that look alike. Seen to fail with the bare key, and with parts that are only
    joined."""
    for table in ("tickets", "invoices"):
        load([SAME], table, primary_key="id")
    load([{**SAME, "a": "x/y", "b": "z"}, {**SAME, "a": "x", "b": "y/z"}], "pairs", primary_key=["a", "b"])
    load([{**SAME, "number": 7}], "named", {"id": "number"})
    load([SAME], "without_a_hint")
    load([{"entity": "acct-1", "ts": SAME["ts"]}], "without_a_key")
    with Client(live.url, tenant) as client:
        found = {event.source: event.id for event in client.timeline("acct-1") if event.source != "pairs"}
        pairs = {event.id for event in client.timeline("acct-1", kind=["pairs"])}
    assert pairs == {"pairs/x%2Fy/z", "pairs/x/y%2Fz"}
    assert len(found.pop("without_a_key")) == 32
    assert found == {name: f"{name}/{7 if name == 'named' else 1}" for name in found}
    assert found.keys() == {"tickets", "invoices", "named", "without_a_hint"}


def test_every_value_of_a_row_reaches_its_event(live: Live, tenant: str, load: Callable[..., None]) -> None:
    """Lists of strings as they are, what is nested as JSON. Seen to fail with `str` of a list."""
    row = {
        **SAME,
        "entity": Decimal(12345678901234567890),
        "text": {"subject": "it fails"},
        "tags": ["export", "it's late"],
        "none": [],
        "mixed": ["a", 1, None],
        "nested": {"b": [1, {"c": Decimal("1.50")}], "a": dt.datetime(2026, 3, 4, tzinfo=dt.UTC)},
        "raw": b"\x00\xff",
        "open": True,
    }
    load([row], primary_key="id")
    with Client(live.url, tenant) as client:
        [found] = client.timeline("12345678901234567890")
        [hit] = client.search("fails", where={"contains": ["attrs.tags", "it's late"]}).hits
    assert (hit.id, orjson.loads(found.text or "")) == (found.id, row["text"])
    attrs = dict(found.attrs or {})
    nested = orjson.loads(attrs.pop("nested"))
    assert list(nested) == ["a", "b"]
    assert nested["b"] == [1, {"c": "1.50"}]
    assert nested["a"].startswith("2026-03-04T00:00:00")
    assert attrs == {
        "id": 1, "tags": ["export", "it's late"], "none": [], "mixed": '["a",1,null]', "raw": "AP8=", "open": True
    }  # fmt: skip


def test_a_merge_replaces_by_key_and_deletes_what_is_marked(live: Live, tenant: str, load: Callable[..., None]) -> None:
    """A mark is of a merge: other loads have it as an attribute. Seen to fail with the mark not looked at."""
    hints: dict[str, Any] = {"primary_key": "id", "columns": {"gone": {"hard_delete": True, "data_type": "bool"}}}

    def texts() -> list[str | None]:
        with Client(live.url, tenant) as client:
            return [event.text for event in client.timeline("acct-1")]

    merge = {**hints, "write_disposition": "merge"}
    load([{**SAME, "text": "first", "gone": False}, {**SAME, "id": 2, "text": "stays"}], **merge)
    assert texts() == ["stays", "first"]
    load([{**SAME, "text": "second", "gone": None}], **merge)
    assert texts() == ["stays", "second"]
    load([{**SAME, "gone": True}], **merge)
    assert texts() == ["stays"]
    load([{**SAME, "text": "third", "gone": True}], **hints)
    assert texts() == ["stays", "third"]


@pytest.mark.parametrize(
    "hints",
    [
        {"write_disposition": "replace", "primary_key": "id"},
        {"write_disposition": "merge"},
        {"write_disposition": "merge", "primary_key": "id", "merge_key": "entity"},
        {"write_disposition": {"disposition": "merge", "strategy": "scd2"}},
        {"write_disposition": {"disposition": "merge", "strategy": "insert-only"}, "primary_key": "id"},
    ],
    ids=["replace", "without a key", "by a merge key", "history", "first of a key"],
)
def test_what_is_no_upsert_by_key_is_refused_and_writes_nothing(
    live: Live, load: Callable[..., None], hints: dict[str, Any]
) -> None:
    """Seen to fail with each let through: rows that should go stayed."""
    from dlt.pipeline.exceptions import PipelineStepFailed

    with pytest.raises(PipelineStepFailed, match="use 'append', or 'merge' with a primary_key and no merge_key"):
        load([SAME], **hints)
    assert live.door.seen == []


def test_tables_of_arrow_are_loaded_as_rows(live: Live, tenant: str, load: Callable[..., None]) -> None:
    """Seen to fail with batches of columns taken for rows."""
    load(pa.Table.from_pylist([{**SAME, "tags": ["a", "b"]}, {**SAME, "id": 2, "tags": None}]), primary_key="id")
    with Client(live.url, tenant) as client:
        found = {event.id: (event.attrs or {}).get("tags") for event in client.timeline("acct-1")}
    assert found == {"tickets/1": ["a", "b"], "tickets/2": None}


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
    assert (found.id, found.attrs) == ("tickets/zd-1", {"id": "zd-1", "seats": 40})
