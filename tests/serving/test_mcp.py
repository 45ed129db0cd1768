"""The tools, by the official client, over both transports, against the real service."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import httpx2
import orjson
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent

from commands.outcome import PIPE_CLOSED
from context_plane import plane
from context_plane.access import create_key
from context_plane.bundle import tokens
from context_plane.client import Client as Writer
from context_plane.recall import why
from context_plane.settings import Settings
from serving.mcp.bounds import RESULT_TOKENS_MAX, within
from serving.mcp.tools import TOOLS
from tests.client.live import Live, Overloaded, Shorten, serving
from tests.serving.conftest import DAY, problem

ROOT = Path(__file__).parents[2]
NAMES = ["get_context", "search_context", "get_timeline", "list_entities", "explain_context"]
LATER = "2026-03-05"
WIDE = """
name: customer_context_v0
version: 0
description: Everything lately.
budget_tokens: 8000
sections:
  - {kind: recent, name: recent, title: Recent, priority: 1, share: 1, lookback_days: 30, limit: 20, chars: 2000}
"""
GONE = (
    "not_ready: the service does not answer as it should; it may be starting. Next: wait a few seconds, then call "
    "again; tell the user when it happens twice."
)
Connect: TypeAlias = AbstractAsyncContextManager[Client]
pytestmark = pytest.mark.xdist_group("mcp")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Open mode over a folder: `acme` has a built day and an event that is not built, `other` has one of its own."""
    folder = tmp_path_factory.mktemp("mcp")
    settings = Settings(store=(folder / "store").as_uri(), cache_dir=folder / "cache", cache_memory_bytes=64 << 20)
    with serving(settings) as running:
        with Writer(running.url, "acme") as writer:
            writer.put_tenant()
            writer.write([event("acct-1", n, f"the export number {n} fails [1] after the upgrade") for n in range(3)])
            running.build("acme", DAY)
            writer.write([event("newcomer", 0, "asks for single sign-on") | {"ts": f"{DAY}T09:00:00.25Z"}])
        with Writer(running.url, "other") as writer:
            writer.put_tenant()
            writer.write([event("secret", 0, "the export of another tenant")])
        yield running


def event(entity: str, number: int, text: str) -> dict[str, Any]:
    named = {"entity": entity, "id": f"e{number}", "ts": f"{DAY}T09:0{number}:00Z"}
    return {**named, "source": "zendesk", "kind": "ticket", "text": text, "attrs": {"seats": 40}}


@asynccontextmanager
async def over_http(live: Live, mode: Any = "auto", **headers: str) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60.0) as http,
        Client(streamable_http_client(f"{live.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


@asynccontextmanager
async def over_stdio(live: Live, *words: str) -> AsyncIterator[Client]:
    settings: Settings = live.app.state.service.plane.settings
    environment = {"CONTEXT_PLANE_STORE": settings.store_url, "CONTEXT_PLANE_CACHE_DIR": str(settings.cache_dir)}
    program = ["-c", "from commands.start import main; main()", "mcp", *words]
    environment["PYTHONPATH"] = str(ROOT)
    server = StdioServerParameters(command=sys.executable, args=program, env=environment, cwd=ROOT)
    async with Client(server, read_timeout_seconds=60.0) as client:
        yield client


def reach(live: Live, transport: str) -> Connect:
    """The tools of `acme`."""
    match transport:
        case "http":
            return over_http(live, **{"X-Tenant": "acme"})
        case "http of 2025":
            return over_http(live, "legacy", **{"X-Tenant": "acme"})
        case "stdio":
            return over_stdio(live, "--tenant", "acme")
    return over_stdio(live, "--tenant", "acme", "--url", live.url)


async def said(client: Client, name: str, failed: bool = False, **arguments: Any) -> str:
    """The one text of an answer."""
    result = await client.call_tool(name, arguments)
    assert isinstance(result, CallToolResult)
    [content] = result.content
    assert isinstance(content, TextContent)
    assert result.is_error is failed, content.text
    return content.text


@pytest.mark.parametrize("transport", ["http", "http of 2025", "stdio", "stdio through a service"])
async def test_an_agent_works_through_the_tools(live: Live, transport: str) -> None:
    """The tools are described, read-only, and answer with citations."""
    async with reach(live, transport) as agent:
        await _described(agent)
        await _used(agent)


async def _described(agent: Client) -> None:
    listed = (await agent.list_tools()).tools
    assert [tool.name for tool in listed] == NAMES
    for tool in listed:
        assert tool.annotations is not None
        assert (tool.annotations.read_only_hint, tool.annotations.destructive_hint) == (True, False)
        assert all(word in (tool.description or "") for word in ("Use it", "Returns", "Example: {"))
        assert tool.input_schema["type"] == "object"


async def _used(agent: Client) -> None:
    context = await said(agent, "get_context", entity="acct-1")
    assert f"acct-1 as of {DAY}" in context
    assert "Sources:\n[1] " in context
    named = orjson.loads(context.splitlines()[-1].removeprefix("For explain_context: "))
    assert "segments/2026/03/04/" in await said(agent, "explain_context", **named)
    assert "segments/2026/03/04/" in await said(agent, "explain_context", bundle_digest=named["bundle_digest"])
    found = await said(agent, "search_context", query="export fails", entities=["acct-1"], limit=2)
    assert found.splitlines()[1:3] == [
        f"acct-1 | {DAY}T09:00:00Z | zendesk ticket | e0", "  the export number 0 fails (1) after the upgrade",
    ]  # fmt: skip
    assert "newcomer" in await said(agent, "search_context", query="single sign-on")
    assert "newcomer | 1 events" in await said(agent, "list_entities", prefix="new")
    assert "e2" in (await said(agent, "get_timeline", entity="acct-1", limit=1)).splitlines()[1]
    assert "call list_entities" in await said(agent, "get_timeline", entity="acct-9", failed=True)


async def test_full_answers_add_scores_attributes_and_lines(live: Live) -> None:
    """Seen to fail with `detail` left out of a tool, and with everything said to whoever asks for little."""
    async with reach(live, "http") as acme:
        cases: tuple[tuple[str, dict[str, Any]], ...] = (
            ("search_context", {"query": "export fails"}),
            ("get_timeline", {"entity": "acct-1"}),
        )
        for name, asked in cases:
            concise = await said(acme, name, **asked)
            assert [added for added in ("score ", "seats=40", "segments/", "digest ") if added in concise] == []
            full = await said(acme, name, detail="full", **asked)
            assert "seats=40" in full
            assert ".jsonl.zst line " in full
            assert ("score 0." in full or "score 1." in full) is (name == "search_context")
        await _more_of_a_bundle(acme)
        concise = await said(acme, "list_entities", prefix="newcomer")
        assert concise == f"1 entities:\nnewcomer | 1 events | last {DAY}T09:00:00Z"
        full = await said(acme, "list_entities", prefix="newcomer", detail="full")
        last = rf"newcomer \| 1 events \| last {DAY}T09:00:00\.250000Z"
        assert re.fullmatch(rf"1 entities at snapshot \d+\.\d+:\n{last}", full)


async def _more_of_a_bundle(acme: Client) -> None:
    """Of it, and of what it was made from."""
    concise = (await said(acme, "get_context", entity="acct-1")).splitlines()
    full = (await said(acme, "get_context", entity="acct-1", detail="full")).splitlines()
    assert full[:-1] == concise
    assert "snapshot" in full[-1]
    named = orjson.loads(concise[-1].removeprefix("For explain_context: "))
    concise = (await said(acme, "explain_context", **named)).splitlines()
    told = "\n".join(concise)
    assert [added for added in ("the export number", "seats=40", "digest ", ".pack") if added in told] == []
    full = (await said(acme, "explain_context", **named, detail="full")).splitlines()
    assert full[0] == concise[0]
    assert re.search(r"spec fingerprint \w+, built \S+Z into \S+\.pack, snapshot \d+\.\d+", full[1])
    told = "\n".join(full)
    for line in concise[1:]:
        number, place = line.split(" ")[0], line.rpartition(" | ")[2]
        assert f"{number} acct-1 | " in told
        assert f"{place}, digest " in told
    assert told.count("seats=40") == told.count("the export number") == len(concise) - 1


def test_the_page_names_what_each_tool_takes() -> None:
    """Seen to fail with `detail` left out of a row."""
    page = (ROOT / "docs" / "agents.md").read_text()
    for tool in TOOLS:
        taken = [f"`{name}{'' if field.is_required() else '?'}`" for name, field in tool.arguments.model_fields.items()]
        assert re.search(rf"^\| `{tool.name}` \| {re.escape(' '.join(taken))}[ ,]", page, re.MULTILINE), tool.name


async def test_windows_are_days_or_times(live: Live) -> None:
    """Seen to fail with the last day left out."""
    async with reach(live, "http") as acme:
        assert "3 events" in await said(acme, "get_timeline", entity="acct-1", since=DAY, until=DAY)
        assert "1 events" in await said(acme, "get_timeline", entity="acct-1", since=f"{DAY}T09:02:00Z")
        older = await said(acme, "get_timeline", entity="acct-1", limit=2)
        assert older.splitlines()[-1].startswith("Older: the same with cursor=")
        assert "No events" in await said(acme, "get_timeline", entity="acct-1", until="2026-03-03")
        where = {"gt": ["attrs.seats", 50]}
        assert "Nothing found" in await said(acme, "search_context", query="export", where=where)


@pytest.mark.parametrize("detail", ["concise", "full"])
async def test_an_agent_that_follows_the_cursor_sees_every_event_once(live: Live, detail: str) -> None:
    """However few of a page fit, and whatever shares a time. Seen to fail with the end of the page fetched named
    instead of the last event shown, and with a time named that is excluded."""
    entity = f"rows-{detail}"
    asked: dict[str, Any] = {"limit": 50, "detail": detail}
    with Writer(live.url, "acme") as writer:
        rows = ({**event(entity, 0, "price objection, " * 200), "id": f"row-{n:02}"} for n in range(60))
        writer.ingest({**row, "ts": f"{DAY}T00:00:00Z"} for row in rows)
    async with reach(live, "http") as acme:
        seen: list[str] = []
        while True:
            text = await said(acme, "get_timeline", entity=entity, **asked)
            assert tokens.count(text) <= RESULT_TOKENS_MAX
            seen += re.findall(r" \| (row-\d\d)$", text, re.MULTILINE)
            last, found, cursor = text.splitlines()[-1].partition("Older: the same with cursor=")
            if not found:
                break
            assert (last, len(seen) < 60) == ("", True)
            asked["cursor"] = cursor
    assert sorted(seen) == [f"row-{n:02}" for n in range(60)]


def test_what_is_left_out_is_said_however_little_is_missing() -> None:
    """Seen to fail with a first item shown whole that fits only where nothing is said of the second."""
    for words in range(RESULT_TOKENS_MAX - 60, RESULT_TOKENS_MAX + 1):
        for items in (["word " * words], ["word " * words, "second"]):
            text = within(["head"], items, "ask for less", also=lambda count: f"shown {count}")
            assert tokens.count(text) <= RESULT_TOKENS_MAX
            assert ("The first event is cut" in text) is (text.count("word") < words)
            assert ("1 more did not fit: ask for less." in text) is (len(items) == 2 and "second" not in text)
            assert text.splitlines()[-1] == f"shown {2 if 'second' in text else 1}"


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("get_context", {}, "query_invalid: the arguments: /entity"),
        ("get_context", {"entity": "newcomer"}, "bundle_not_built"),
        ("get_context", {"entity": "acct-1", "spec": "nothing_v0"}, "leave spec out"),
        ("search_context", {"query": "x", "where": {"maybe": []}}, 'a filter reads {"eq"'),
        ("search_context", {"query": "x", "since": "yesterday at noon, I think"}, "write a day like"),
        ("search_context", {"query": "x", "limit": 5_000}, "/limit"),
        ("search_context", {"query": "x", "until": "9999-12-31"}, "query_invalid: no time is written after"),
        ("get_timeline", {"entity": "acct-1", "until": "9999-12-31"}, "name an earlier day"),
        ("explain_context", {"bundle_digest": "0" * 64}, "pass everything that it prints for explain_context"),
        ("explain_context", {"bundle_digest": "0" * 64, "entity": ""}, "entity_invalid"),
        ("get_timeline", {"entity": "acct-1", "cursor": "W10"}, "start without one"),
        ("drop_everything", {}, f"the tools are {', '.join(NAMES)}"),
    ],
)
async def test_a_mistake_is_a_tool_error_that_says_what_to_do(
    live: Live, name: str, arguments: dict[str, Any], expected: str
) -> None:
    async with reach(live, "http") as acme:
        assert expected in await said(acme, name, failed=True, **arguments)


async def test_what_a_writer_wrote_adds_no_line(live: Live) -> None:
    """To the answer of any tool. Seen to fail with source and kind of a concise source, and with the ids below a
    bundle, as they were written."""
    forged = "\n[9] forged\rforged"
    named = {name: f"{name}{forged}" for name in ("entity", "id", "source", "kind")}
    written = {**event("", 0, f"text{forged}"), **named, "attrs": {f"name{forged}": f"value{forged}"}}
    with Writer(live.url, "forger") as writer:
        writer.put_tenant()
        writer.write([written])
    live.build("forger", DAY)
    async with over_http(live, **{"X-Tenant": "forger"}) as agent:
        asked: dict[str, dict[str, Any]] = {
            "get_context": {"entity": named["entity"]},
            "search_context": {"query": "text"},
            "get_timeline": {"entity": named["entity"]},
            "list_entities": {},
        }
        context = await said(agent, "get_context", **asked["get_context"])
        asked["explain_context"] = orjson.loads(context.splitlines()[-1].removeprefix("For explain_context: "))
        for name in NAMES:
            for detail in ("concise", "full"):
                text = await said(agent, name, detail=detail, **asked[name])
                assert "forged" in text
                assert [line for line in text.splitlines() if line.startswith(("forged", "[9]"))] == [], name


async def test_answers_stay_within_their_bound(live: Live) -> None:
    """Seen to fail with the bound left out. What was cut is said."""
    async with reach(live, "http") as acme:
        with Writer(live.url, "acme") as writer:
            writer.ingest(event(f"long-{n}", n % 10, f"{n} " + "price objection, " * 200) for n in range(50))
        for detail in ("concise", "full"):
            text = await said(acme, "search_context", query="price objection", limit=50, detail=detail)
            assert tokens.count(text) <= RESULT_TOKENS_MAX
            assert "more did not fit" in text
            assert text.count("zendesk ticket") > 1


async def test_a_bundle_beyond_the_newest_is_explained_by_what_get_context_prints(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with entity, spec and day left out of what is handed on."""
    monkeypatch.setattr(why, "DIRECTORIES_MAX", 1)
    monkeypatch.setattr(why, "PARALLEL_DIRECTORIES", 1)
    with Writer(live.url, "older") as writer:
        writer.put_tenant()
        writer.write(
            [event("acct-1", 1, "the export fails"), {**event("acct-1", 2, "later"), "ts": f"{LATER}T09:00:00Z"}]
        )
    live.build("older", DAY, LATER)
    async with over_http(live, **{"X-Tenant": "older"}) as agent:
        printed = (await said(agent, "get_context", entity="acct-1", as_of=DAY)).splitlines()[-1]
        named = orjson.loads(printed.removeprefix("For explain_context: "))
        assert "e1" in await said(agent, "explain_context", **named)
        text = await said(agent, "explain_context", failed=True, bundle_digest=named["bundle_digest"])
        assert "pass everything that it prints" in text


async def test_one_long_item_stays_within_the_bound(live: Live, tmp_path: Path) -> None:
    """A bundle of a large spec, and an event with every attribute, are cut.

    Seen to fail with each let through."""
    (tmp_path / "customer_context_v0.yaml").write_text(WIDE)
    settings = Settings(store=(tmp_path / "store").as_uri(), cache_dir=tmp_path / "cache", specs_dir=tmp_path)
    attrs = {f"{n}" + " ?" * 50: "! " * 60 for n in range(64)}
    with serving(settings) as wide, Writer(wide.url, "acme") as writer:
        writer.put_tenant()
        writer.write([event("acct-1", n % 10, f"{n} " + "price objection, " * 99) | {"id": f"n{n}"} for n in range(50)])
        writer.write(
            [event("acct-2", 0, "") | {"text": None, "attrs": attrs}, event("acct-2", 1, "short") | {"attrs": attrs}]
        )
        wide.build("acme", DAY)
        assert tokens.count(writer.context("acct-1").content) > 2 * RESULT_TOKENS_MAX
        async with over_http(wide, **{"X-Tenant": "acme"}) as agent:
            text = await said(agent, "get_context", entity="acct-1")
            _cut(text, "The bundle is cut")
            named = orjson.loads(text.splitlines()[-1].removeprefix("For explain_context: "))
            assert tokens.count(await said(agent, "explain_context", **named)) <= RESULT_TOKENS_MAX
            for detail in ("concise", "full"):
                _cut(
                    await said(agent, "get_timeline", entity="acct-2", limit=1, until=f"{DAY}T09:00:30Z", detail=detail)
                )
            text = await said(agent, "get_timeline", entity="acct-2", detail="full")
            _cut(text)
            assert "1 more did not fit" in text


def _cut(text: str, said: str = "The first event is cut") -> None:
    assert said in text
    assert RESULT_TOKENS_MAX * 0.9 < tokens.count(text) <= RESULT_TOKENS_MAX


async def test_the_key_decides_the_tenant(live: Live, tmp_path: Path) -> None:
    """A tenant's key reaches its own, whatever the header says; an operator key names one; without a key nothing.
    Seen to fail with another scope asked for."""
    folder = tmp_path / "keys"
    settings = Settings(store=(folder / "store").as_uri(), cache_dir=folder / "cache", cache_memory_bytes=64 << 20)
    async with plane.open(settings) as opened:
        made = {
            "own": await create_key(opened.engine, tenant="acme", scopes=["read"]),
            "operator": await create_key(opened.engine, tenant=None, scopes=["read", "write", "admin"]),
            "writer": await create_key(opened.engine, tenant="acme", scopes=["write"]),
        }
    with serving(settings) as locked:
        for tenant in ("acme", "other"):
            with Writer(locked.url, tenant, made["operator"].token) as writer:
                writer.put_tenant({"requests_per_s": 50})
                writer.write([event(f"{tenant}-1", 0, "the export fails")])
        bearer = {name: {"Authorization": f"Bearer {key.token}"} for name, key in made.items()}
        async with over_http(locked, **bearer["own"]) as client:
            assert "acme-1" in await said(client, "list_entities")
        async with over_http(locked, **bearer["operator"], **{"X-Tenant": "other"}) as client:
            assert "other-1" in await said(client, "list_entities")
        async with httpx.AsyncClient(base_url=locked.url) as http:
            for headers, status, code in (
                ({}, 401, "key_missing"),
                (bearer["operator"], 422, "tenant_invalid"),
                (bearer["writer"], 403, "scope_missing"),
                ({**bearer["own"], "X-Tenant": "other"}, 404, "tenant_not_found"),
                ({**bearer["own"], "X-Tenant": "nobody"}, 404, "tenant_not_found"),
            ):
                refusal(await http.post("/mcp", json={}, headers=headers), status, code)
            answers = [await http.post("/mcp", json={}, headers=bearer["own"]) for _ in range(200)]
            refused = next(answer for answer in answers if answer.status_code == 429)
            refusal(refused, 429, "rate_limited")
            assert int(refused.headers["retry-after"]) >= 1


def refusal(response: httpx.Response, status: int, code: str) -> None:
    """A JSON-RPC error that holds the problem."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), response.text
    assert (status == 401) is ("www-authenticate" in response.headers)
    body = response.json()
    assert (body["jsonrpc"], body["id"], body["error"]["data"]["code"]) == ("2.0", None, code)
    assert body["error"]["message"].startswith(f"{code}: ")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_who_is_not_let_in_is_told_what_to_do(tmp_path: Path, mode: str) -> None:
    """The model, that a rate is used up; whoever calls, what a key lacks. In both eras of the protocol. Seen to fail
    with problems for answers, with calls answered as all else, and with refusals that are paid."""
    settings = Settings(store=(tmp_path / "store").as_uri(), cache_dir=tmp_path / "cache", cache_memory_bytes=64 << 20)
    async with plane.open(settings) as opened:
        operator = await create_key(opened.engine, tenant=None, scopes=["read", "admin"])
        reader = await create_key(opened.engine, tenant="acme", scopes=["read"])
        slow = await create_key(opened.engine, tenant="acme", scopes=["read"], bytes_per_s=10.0)
        writer = await create_key(opened.engine, tenant="acme", scopes=["write"])
    async with (
        _running(settings) as locked,
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {operator.token}", "X-Tenant": "acme"}) as http,
    ):
        with Writer(locked.url, "acme", operator.token) as made:
            made.put_tenant()
        async with Client(streamable_http_client(f"{locked.url}/mcp", http_client=http), mode=mode) as agent:
            for key in (operator, reader, slow):
                http.headers["Authorization"] = f"Bearer {key.token}"
                assert "No entity" in await said(agent, "list_entities")
            waits = [await _told_to_wait(agent) for _ in range(20)]
            assert 1 < waits[-1] <= waits[0]
            assert not locked.app.state.service.ledger.of_tenant, "a refused call leaves its place"
            for token, code in ((writer.token, "scope_missing"), ("cp_nobody", "key_invalid")):
                http.headers["Authorization"] = f"Bearer {token}"
                with pytest.raises(MCPError, match=rf"^{code}: .* Next: tell the user"):
                    await agent.call_tool("list_entities")
            http.headers.update({"Authorization": f"Bearer {operator.token}", "X-Tenant": "nobody"})
            assert "Next: tell the user" in await said(agent, "list_entities", failed=True)
        with pytest.raises(MCPError) as refused, _first_of_a_group():
            async with over_http(locked, mode, **{"X-Tenant": "acme"}):
                pass
        assert "send an API key" in refused.value.message


@asynccontextmanager
async def _running(settings: Settings) -> AsyncIterator[Live]:
    with serving(settings) as running:
        yield running


async def _told_to_wait(agent: Client) -> int:
    text = await said(agent, "list_entities", failed=True)
    found = re.fullmatch(r"rate_limited: .* Next: wait (\d+) seconds, then call again\.", text)
    assert found, text
    return int(found[1])


@contextmanager
def _first_of_a_group() -> Iterator[None]:
    """What the task groups of the client wrap."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from group


async def test_only_post_is_taken_and_metrics_name_the_route(live: Live) -> None:
    async with httpx.AsyncClient(base_url=live.url) as http:
        problem(await http.get("/mcp", headers={"accept": "text/event-stream"}), 405, "method_not_allowed")
        refusal(await http.post("/mcp", json={}), 422, "tenant_invalid")
        shown = (await http.get("/metrics")).text
    assert 'route="/mcp"' in shown


async def test_a_program_outlives_its_service(tmp_path: Path) -> None:
    """One that stops and starts again, and answers that break off or are another's: each is told to the model, and what
    the service says in its own words. A message is one request. Seen to fail with one client for the life of the
    program, and with a client that asks for the version each time."""
    settings = Settings(store=(tmp_path / "store").as_uri(), cache_dir=tmp_path / "cache", cache_memory_bytes=64 << 20)
    with ExitStack() as running:
        first = running.enter_context(serving(settings))
        with Writer(first.url, "acme") as writer:
            writer.put_tenant()
            writer.write([event("acct-1", 0, "the export fails")])
        async with over_stdio(first, "--tenant", "acme", "--url", first.url) as agent:
            assert "acct-1" in await said(agent, "list_entities")
            running.close()
            assert await said(agent, "list_entities", failed=True) == GONE
            with pytest.raises(MCPError, match="not_ready"):
                await agent.list_tools(cache_mode="bypass")
            second = running.enter_context(serving(settings, int(first.url.rpartition(":")[2])))
            assert "acct-1" in await said(agent, "list_entities")
            assert len(second.door.seen) == 1
            for fault in (Shorten(5), Overloaded(502)):
                second.door.faults.append(fault)
                assert await said(agent, "list_entities", failed=True) == GONE
            with Writer(second.url, "acme") as writer:
                writer.put_tenant({"requests_per_s": 0.01})
            assert "acct-1" in await said(agent, "list_entities")
            assert "rate_limited" in await said(agent, "list_entities", failed=True)
            with pytest.raises(MCPError, match=r"^rate_limited: .* Next: wait"):
                await agent.list_tools(cache_mode="bypass")


def test_the_protocol_is_loaded_by_the_first_agent() -> None:
    """The SDK takes longer to import than all else of the service. Seen to fail with it imported at the top."""
    code = "import sys, serving.app, commands.main; sys.exit(bool({'mcp', 'mcp_types'} & sys.modules.keys()))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


@pytest.mark.parametrize("words", [("--url", "http://127.0.0.1:1"), ("--tenant", "nobody")])
def test_a_program_that_cannot_serve_says_why(live: Live, words: tuple[str, str], tmp_path: Path) -> None:
    settings: Settings = live.app.state.service.plane.settings
    environment = {**os.environ, "CONTEXT_PLANE_STORE": settings.store_url, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", "from commands.start import main; main()", "mcp", *words]
    done = subprocess.run(
        program, env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode in (3, 4), done.stderr
    [line] = done.stderr.decode().splitlines()
    assert "check the URL" in line or "no such tenant" in line
    assert done.stdout == b""


def test_a_program_at_rest_ends_at_an_interrupt(live: Live) -> None:
    """While a thread waits for input. Seen to fail (went on) with Python's handler."""
    with _program(live) as program:
        program.send_signal(signal.SIGINT)
        assert program.wait(10) == -signal.SIGINT
        assert program.stderr is not None
        assert program.stderr.read() == b""


def test_a_program_whose_agent_was_killed_ends_without_a_word(live: Live) -> None:
    """With calls under way. Seen to fail (1, and a group of exceptions) with what the SDK raises."""
    with _program(live) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        with suppress(BrokenPipeError):
            program.stdin.write(b"".join(_message("tools/call", n, name="list_entities") for n in (1, 2)))
            program.stdin.close()
        assert program.wait(30) == PIPE_CLOSED
        assert program.stderr.read() == b""


@contextmanager
def _program(live: Live) -> Iterator[subprocess.Popen[bytes]]:
    """One that has answered the handshake, and waits for more. Its agent is this test."""
    settings: Settings = live.app.state.service.plane.settings
    environment = {**os.environ, "CONTEXT_PLANE_STORE": settings.store_url, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", "from commands.start import main; main()", "mcp", "--tenant", "acme"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env=environment, stdin=pipe, stdout=pipe, stderr=pipe) as program:
        try:
            assert program.stdin is not None
            assert program.stdout is not None
            about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            program.stdin.write(_message("initialize", 0, **about) + _message("notifications/initialized"))
            program.stdin.flush()
            assert b'"id":0' in program.stdout.readline()
            yield program
        finally:
            program.kill()


def _message(method: str, number: int | None = None, **params: Any) -> bytes:
    numbered = {} if number is None else {"id": number}
    return orjson.dumps({"jsonrpc": "2.0", **numbered, "method": method, "params": params}) + b"\n"
