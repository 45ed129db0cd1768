"""Bad input: each kind has a stable code and a line or pointer, and nothing is lost by it."""

from __future__ import annotations

import gzip
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import pytest_asyncio
import zstandard

from context_plane.errors import Invalid
from context_plane.model import VECTOR_DIM_MAX
from context_plane.recall.values import ENTITIES_MAX
from context_plane.settings import Settings
from context_plane.warm import HINT_DAYS_MAX, HINT_ENTITIES_MAX
from serving import problems, wire
from serving.limits import BATCH_ENTITIES_MAX, EVENTS_BODY_BYTES_MAX, EVENTS_MAX
from tests.serving.conftest import JSON, NDJSON, Served, event, in_days, ndjson, problem, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")

DIM = 256
CONTEXT = "/entities/acct-0042/context"
ODD_IDS = [
    "a/b",
    "..",
    ".",
    "../../etc/passwd",
    "%2e%2e",
    "%2F",
    "a\0b",
    "\0",
    "🦊 zoë",
    "a?b#c",
    " ",
    "a+b",
    "context",
    "x/timeline",
    "~" + "f" * 64,
    "é" * 128,
    "events:delete",
    "\\",
    'q"uote',
    "line\nbreak",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """One service for the module."""
    settings = Settings(store=f"memory://bad-{uuid.uuid4().hex}", cache_dir=tmp_path_factory.mktemp("cache"))
    async with serve(settings) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def served(running: Served) -> Served:
    """A tenant of its own for each test."""
    own = replace(running, tenant=f"t-{uuid.uuid4().hex}")
    await own.create()
    return own


def bad(**fields: Any) -> bytes:
    return ndjson([event(**fields)])


def without(*names: str) -> bytes:
    return ndjson([{name: value for name, value in event().items() if name not in names}])


LINES = {
    "malformed": (b'{"entity": \n', 400, "malformed_json"),
    "not an object": (b"[1, 2]\n", 422, "malformed_event"),
    "not utf-8": (b'{"entity": "\xff"}\n', 400, "malformed_json"),
    "lone surrogate": (rb'{"entity": "\ud800"}' + b"\n", 400, "malformed_json"),
    "NaN": (
        b'{"entity":"a","ts":"2026-03-04T09:15:00Z","source":"s","kind":"k","attrs":{"x":NaN}}\n',
        422,
        "number_not_finite",
    ),
    "Infinity in a vector": (
        b'{"entity":"a","ts":"2026-03-04T09:15:00Z","source":"s","kind":"k","vector":[-Infinity]}\n',
        422,
        "number_not_finite",
    ),
    "overflowing vector": (bad(vector=[1e39] * DIM), 422, "number_not_finite"),
    "wrong dimension": (bad(vector=[0.5, 0.5]), 422, "vector_invalid"),
    "vector of strings": (bad(vector=["1"] * DIM), 422, "vector_invalid"),
    "300 KiB of text": (bad(text="x" * 300 * 1024), 422, "text_too_long"),
    "before 1970": (bad(ts="1969-12-31T23:59:59Z"), 422, "ts_out_of_range"),
    "beyond the horizon": (bad(ts=in_days(3)), 422, "ts_out_of_range"),
    "no offset": (bad(ts="2026-03-04T09:15:00"), 422, "ts_invalid"),
    "no such day": (bad(ts="2026-02-30T09:15:00Z"), 422, "ts_invalid"),
    "unknown field": (bad(colour="red"), 422, "malformed_event"),
    "no entity": (without("entity"), 422, "malformed_event"),
    "no kind": (without("kind"), 422, "malformed_event"),
    "empty entity": (bad(entity=""), 422, "malformed_event"),
    "entity of 257 bytes": (bad(entity="x" * 257), 422, "entity_invalid"),
    "id of 257 bytes": (bad(id="é" * 129), 422, "id_invalid"),
    "nested attrs": (bad(attrs={"a": {"b": 1}}), 422, "attrs_invalid"),
    "65 attrs": (bad(attrs={f"a{n}": n for n in range(65)}), 422, "attrs_invalid"),
    "integer beyond 2^53": (bad(attrs={"n": 2**53}), 422, "attrs_invalid"),
    "unknown op": (bad(op="upsert"), 422, "malformed_event"),
    "delete without id": (bad(op="delete"), 422, "malformed_event"),
}


@pytest.mark.parametrize("name", LINES)
async def test_one_bad_line_refuses_the_request_by_its_number_and_loses_nothing(served: Served, name: str) -> None:
    """Seen to fail with the faults of `parse_ndjson` swallowed: the good lines around were accepted."""
    line, status, code = LINES[name]
    await served.write(event(id="before"))
    body = (
        ndjson([event(id="same-request-1"), event(id="same-request-2")]) + line + ndjson([event(id="same-request-3")])
    )
    response = await served.client.post(f"{served.base}/events", content=body, headers=NDJSON)
    found = problem(response, status, code)
    assert [fault["line"] for fault in found["errors"]] == [3]
    assert found["errors"][0]["code"] == code
    assert "line 3" in found["detail"]
    await served.write(event(id="zz-after"))
    assert await served.ids("acct-0042") == ["before", "zz-after"]


async def test_every_bad_line_is_named_up_to_a_bound(served: Served) -> None:
    body = ndjson([event(), event(ts="x"), event(), event(entity="x" * 300)]) + b"{\n" * 50
    found = problem(await served.client.post(f"{served.base}/events", content=body, headers=NDJSON), 422, "ts_invalid")
    assert [fault["line"] for fault in found["errors"]][:4] == [2, 4, 5, 6]
    assert len(found["errors"]) == 20


async def test_the_json_form_points_at_the_event(served: Served) -> None:
    found = problem(await served.post("/events", {"events": [event(), event(ts=7)]}), 422, "malformed_event")
    assert [fault["pointer"] for fault in found["errors"]] == ["/events/1/ts"]
    for body in ([event()], {"events": event()}, {"events": [], "more": 1}, {}, None):
        problem(await served.post("/events", body), 422, "malformed_event")
    problem(await served.client.post(f"{served.base}/events", content=b"{", headers=JSON), 400, "malformed_json")
    problem(await served.post("/events:delete", {"events": [event()]}), 422, "malformed_event")


def _compressed() -> dict[str, tuple[str, bytes, int, str]]:
    honest = ndjson([event()] * 50)
    bomb = b" " * (EVENTS_BODY_BYTES_MAX + 1)
    frame = zstandard.ZstdCompressor().compress(honest)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bomb)
    return {
        "truncated zstd": ("zstd", frame[:-3], 400, "encoding_invalid"),
        "empty zstd": ("zstd", b"", 400, "encoding_invalid"),
        "damaged zstd": ("zstd", frame[:20] + b"\0\0\0\0" + frame[24:], 400, "encoding_invalid"),
        "not zstd": ("zstd", honest, 400, "encoding_invalid"),
        "bomb zstd": ("zstd", zstandard.ZstdCompressor().compress(bomb), 413, "body_too_large"),
        "bomb zstd that hides its size": ("zstd", unsized, 413, "body_too_large"),
        "bomb of many zstd frames": ("zstd", frame * 255 + unsized, 413, "body_too_large"),
        "too many zstd frames": ("zstd", zstandard.ZstdCompressor().compress(b"") * 300, 400, "encoding_invalid"),
        "truncated gzip": ("gzip", gzip.compress(honest)[:-3], 400, "encoding_invalid"),
        "bomb gzip": ("gzip", gzip.compress(bomb), 413, "body_too_large"),
        "not gzip": ("gzip", honest, 400, "encoding_invalid"),
        "unknown encoding": ("br", honest, 400, "encoding_invalid"),
        "two encodings": ("gzip, zstd", honest, 400, "encoding_invalid"),
    }


COMPRESSED = _compressed()


@pytest.mark.parametrize("name", COMPRESSED)
async def test_compressed_bodies_that_lie_are_refused(served: Served, name: str) -> None:
    """Seen to fail without the end-of-frame check: the truncated body was taken for a shorter one."""
    encoding, body, status, code = COMPRESSED[name]
    headers = NDJSON | {"content-encoding": encoding}
    problem(await served.client.post(f"{served.base}/events", content=body, headers=headers), status, code)
    assert served.service.ledger.bytes_held == 0
    assert await served.ids("acct-0042") == []


async def test_bodies_over_the_limits_are_refused(served: Served) -> None:
    line = ndjson([event(text=None)])
    post = served.client.post
    problem(
        await post(f"{served.base}/events", content=line * (EVENTS_MAX + 1), headers=NDJSON), 413, "too_many_events"
    )
    large = b" " * (EVENTS_BODY_BYTES_MAX + 1)
    problem(await post(f"{served.base}/events", content=large, headers=NDJSON), 413, "body_too_large")
    problem(await post(f"{served.base}/events", content=b"\n\n", headers=NDJSON), 422, "malformed_event")
    problem(await post(f"{served.base}/events", content=line), 415, "content_type_invalid")
    problem(await post(f"{served.base}/search", content=b"{}", headers=NDJSON), 415, "content_type_invalid")
    assert served.service.ledger.bytes_held == 0


MANY = 100_000
MISTAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "components": ("search", {"vector": ["x"] * VECTOR_DIM_MAX}),
    "components beyond all vectors": ("search", {"vector": ["x"] * MANY}),
    "fields": ("search", {f"a{n}": n for n in range(MANY)}),
    "fields within": ("search", {"text": "x", "fusion": {f"a{n}": n for n in range(MANY)}}),
    "components of a question": ("entities/acct-1/context", {"vector": ["x"] * VECTOR_DIM_MAX}),
    "entities": ("search", {"text": "x", "entities": [1] * ENTITIES_MAX}),
    "entities of a batch": ("context:batch", {"entities": [1] * BATCH_ENTITIES_MAX}),
    "entities of a hint": ("warm", {"entities": [1] * HINT_ENTITIES_MAX}),
    "days of a hint": ("warm", {"days": [1] * HINT_DAYS_MAX}),
}


@pytest.mark.parametrize("what", MISTAKEN)
async def test_a_body_of_many_mistakes_finds_few(served: Served, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A finding takes a kilobyte, and a compressed body holds millions. Seen to fail without each of the bounds."""
    found: list[int] = []
    original = problems.of_validation

    def noted(errors: list[Any], *, where: str) -> Invalid:
        found.append(len(errors))
        return original(errors, where=where)

    monkeypatch.setattr(wire, "of_validation", noted)
    path, body = MISTAKEN[what]
    problem(await served.post(f"/{path}", body), 422, "query_invalid")
    assert sum(found) <= 2


async def test_a_compressed_body_holds_what_it_comes_to(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small ones at once are not all the bodies there can be; what comes to much more than usual is charged the
    limit. Seen to fail with the limit charged first."""
    headers = NDJSON | {"content-encoding": "zstd"}

    async def post(text: str) -> httpx.Response:
        body = zstandard.compress(ndjson([event("compressed", text=text)]))
        return await served.client.post(f"{served.base}/events", content=body, headers=headers)

    monkeypatch.setattr(served.service.ledger, "bytes_max", 1024 * 1024)
    assert (await post("short")).status_code == 201
    problem(await post("x" * 200_000), 429, "rate_limited")
    monkeypatch.undo()
    assert (await post("x" * 200_000)).status_code == 201
    assert served.service.ledger.bytes_held == 0


async def test_a_full_house_is_told_to_wait(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.service.ledger, "bytes_max", 10)
    response = await served.client.post(f"{served.base}/events", content=ndjson([event()]), headers=NDJSON)
    problem(response, 429, "rate_limited")
    assert response.headers["retry-after"] == "1"
    monkeypatch.setattr(served.service.ledger, "requests_max", 0)
    problem(await served.client.get(f"{served.base}/snapshot"), 429, "rate_limited")
    assert (await served.client.get("/healthz")).status_code == 200, "probes are not refused"


@pytest.mark.parametrize("name", ODD_IDS)
async def test_any_characters_make_an_id(served: Served, name: str) -> None:
    """Entity and event ids round-trip through bodies and paths. Seen to fail when routes match the decoded path:
    `a/b` and `x/timeline` were other routes."""
    await served.write(event(entity=name, id=name), event(entity="bystander", id="b"))
    assert await served.ids(name) == [name]
    found = await served.post("/search", {"text": "export", "entities": [name]})
    assert [(hit["entity"], hit["id"]) for hit in found.json()["hits"]] == [(name, name)]
    problem(await served.client.get(served.of(name, "context")), 404, "bundle_not_built")
    on_demand = await served.post(served.of(name, "context").removeprefix(served.base), {"text": "export"})
    assert on_demand.json()["entity"] == name
    await served.post("/events:delete", {"events": [{"entity": name, "ts": event()["ts"], "id": name}]})
    assert await served.ids(name) == []
    assert await served.ids("bystander") == ["b"]


async def test_paths_that_name_no_entity(served: Served) -> None:
    problem(await served.client.get(f"{served.base}/entities/%ff/timeline"), 422, "entity_invalid")
    problem(await served.client.get(served.of("x" * 257, "timeline")), 422, "entity_invalid")
    problem(await served.client.get(f"{served.base}/entities//timeline"), 404, "route_not_found")
    problem(await served.client.get(f"{served.base}/entities/a/b/timeline"), 404, "route_not_found")
    problem(await served.client.get("/v1/tenants/A_B/snapshot"), 422, "tenant_invalid")
    problem(await served.client.get("/v1/tenants/..%2Facme/snapshot"), 422, "tenant_invalid")


def _nested(levels: int) -> object:
    where: object = {"eq": ["source", "z"]}
    for _ in range(levels - 1):
        where = {"not": where}
    return where


SEARCHES: dict[str, tuple[object, int, str]] = {
    "neither text nor vector": ({}, 422, "query_invalid"),
    "unknown field": ({"text": "a", "txet": "b"}, 422, "query_invalid"),
    "a number as text": ({"text": 7}, 422, "query_invalid"),
    "text of 9 KiB": ({"text": "x" * 9000}, 422, "query_invalid"),
    "limit 0": ({"text": "a", "limit": 0}, 422, "query_invalid"),
    "limit 1001": ({"text": "a", "limit": 1001}, 422, "query_invalid"),
    "limit as string": ({"text": "a", "limit": "10"}, 422, "query_invalid"),
    "5001 entities": ({"text": "a", "entities": ["e"] * 5001}, 422, "query_invalid"),
    "no entities": ({"text": "a", "entities": []}, 422, "query_invalid"),
    "empty entity": ({"text": "a", "entities": [""]}, 422, "entity_invalid"),
    "unknown mode": ({"text": "a", "mode": "magic"}, 422, "query_invalid"),
    "vector of 2": ({"vector": [1, 2]}, 422, "vector_invalid"),
    "vector beyond float32": ({"vector": [1e39] * DIM}, 422, "number_not_finite"),
    "since without offset": ({"text": "a", "since": "2026-01-01"}, 422, "ts_invalid"),
    "unknown operator": ({"text": "a", "where": {"like": ["source", "z"]}}, 422, "where_invalid"),
    "two operators": ({"text": "a", "where": {"eq": ["source", "z"], "ne": ["kind", "k"]}}, 422, "where_invalid"),
    "unknown where field": ({"text": "a", "where": {"eq": ["colour", "z"]}}, 422, "where_invalid"),
    "where of 17 levels": ({"text": "a", "where": _nested(17)}, 422, "where_invalid"),
    "snapshot of words": ({"text": "a", "snapshot": "yesterday"}, 400, "snapshot_invalid"),
    "snapshot of tomorrow": ({"text": "a", "snapshot": "99.1"}, 404, "snapshot_not_found"),
    "group by kind": ({"text": "a", "group_by": "kind"}, 422, "query_invalid"),
    "k of another method": ({"text": "a", "fusion": {"k": 5, "method": "relative_score"}}, 422, "query_invalid"),
    "negative weight": ({"text": "a", "fusion": {"weights": {"text": -1}}}, 422, "query_invalid"),
    "now": ({"text": "a", "resolve_time": True, "now": "today"}, 422, "ts_invalid"),
    "deadline of a day": ({"text": "a", "deadline_ms": 86_400_000}, 422, "query_invalid"),
    "a list": ([], 422, "query_invalid"),
}


@pytest.mark.parametrize("name", SEARCHES)
async def test_searches_that_cannot_succeed_say_why(served: Served, name: str) -> None:
    body, status, code = SEARCHES[name]
    await served.write(event())
    problem(await served.post("/search", body), status, code)


async def test_a_whole_number_is_an_integer_however_it_is_written(served: Served) -> None:
    """As the document's schemas say. Seen to fail (422) with integers alone taken for them."""
    await served.write(event())
    for field in ("limit", "per_group", "deadline_ms"):
        assert (await served.post("/search", {"text": "a", field: 7.0e1})).status_code == 200
        problem(await served.post("/search", {"text": "a", field: 7.5}), 422, "query_invalid")
    assert (await served.post(CONTEXT, {"budget_tokens": 7.0e1})).json()["budget_tokens"] == 70


async def test_dates_are_looked_for_in_texts_within_the_limit_alone(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the event loop. Seen to fail with the text read before its length was asked."""
    monkeypatch.setattr(wire, "window_of", lambda *_: pytest.fail("a text over the limit was looked through"))
    body = {"text": "in may " * 5000, "resolve_time": True}
    problem(await served.post("/search", body), 422, "query_invalid")


async def test_a_window_that_ends_before_all_time_is_an_answer(served: Served) -> None:
    """Seen to fail (500) with the end taken as it came."""
    await served.write(event())
    context = served.of("acct-0042", "context").removeprefix(served.base)
    for until in ("0001-01-01T00:00:00Z", "0001-02-01T00:00:00Z"):
        assert (await served.post(context, {"until": until})).status_code < 500


async def test_a_filter_error_points_into_the_body(served: Served) -> None:
    body = {"text": "a", "where": {"and": [{"eq": ["source", "z"]}, {"like": ["kind", "k"]}]}}
    found = problem(await served.post("/search", body), 422, "where_invalid")
    assert found["errors"][0]["pointer"] == "/where/and/1/like"
    found = problem(await served.post("/search", {"text": "a", "fusion": {"k": "ten"}}), 422, "query_invalid")
    assert found["errors"][0]["pointer"] == "/fusion/k"


def _event(**fields: Any) -> dict[str, Any]:
    return {"events": [event(), event(**fields)]}


REST = [0.5] * (DIM - 2)
WRONG: dict[str, tuple[str, object, list[str]]] = {
    "a time": ("/events", _event(ts="noon"), ["/events/1/ts"]),
    "a time before 1970": ("/events", _event(ts="1969-12-31T23:59:59Z"), ["/events/1/ts"]),
    "an entity": ("/events", _event(entity="x" * 257), ["/events/1/entity"]),
    "an id": ("/events", _event(id="x" * 257), ["/events/1/id"]),
    "a source": ("/events", _event(source="x" * 129), ["/events/1/source"]),
    "a thread": ("/events", _event(thread="x" * 257), ["/events/1/thread"]),
    "a text": ("/events", _event(text="x" * 300 * 1024), ["/events/1/text"]),
    "an operation": ("/events", _event(op="upsert"), ["/events/1/op"]),
    "an unknown field": ("/events", _event(**{"a/b~c": 1}), ["/events/1/a~1b~0c"]),
    "an attribute": ("/events", _event(attrs={"x": 1, "a.b": {"c": 1}}), ["/events/1/attrs/a.b"]),
    "an element of an attribute": ("/events", _event(attrs={"tags": ["a", 7]}), ["/events/1/attrs/tags/1"]),
    "the name of an attribute": ("/events", _event(attrs={"x" * 129: 1}), ["/events/1/attrs"]),
    "a vector": ("/events", _event(vector=[0.5, 0.5]), ["/events/1/vector"]),
    "a number of a vector": ("/events", _event(vector=[0.5, "0.5"]), ["/events/1/vector/1"]),
    "a component beyond float32": ("/events", _event(vector=[0.5, 1e39, *REST]), ["/events/1/vector/1"]),
    "two events": ("/events", {"events": [7, event(), event(kind="")]}, ["/events/0", "/events/2/kind"]),
    "no list of events": ("/events", [], [""]),
    "an event to delete": (
        "/events:delete",
        {"events": [{"entity": "a", "ts": "x", "id": "1"}, {"entity": "a", "ts": event()["ts"], "id": 1}]},
        ["/events/0/ts", "/events/1/id"],
    ),
    "one name of many": ("/search", {"text": "a", "entities": [*["a"] * 4_000, "", "b"]}, ["/entities/4000"]),
    "the text of a search": ("/search", {"text": "x" * 9000}, ["/text"]),
    "no text": ("/search", {"mode": "text", "vector": [0.5] * DIM}, ["/text"]),
    "nothing to search for": ("/search", {}, ["/text"]),
    "the vector of a search": ("/search", {"vector": [1, 2]}, ["/vector"]),
    "a component of it": ("/search", {"vector": [0.5, -1e39, *REST]}, ["/vector/1"]),
    "since": ("/search", {"text": "a", "since": "2026-01-01"}, ["/since"]),
    "now": ("/search", {"text": "a", "now": "today"}, ["/now"]),
    "k": ("/search", {"text": "a", "fusion": {"k": 5, "method": "relative_score"}}, ["/fusion/k"]),
    "a filter": ("/search", {"text": "a", "where": {"and": [{"eq": ["source", 1]}]}}, ["/where/and/0/eq/1"]),
    "the text of a question": (CONTEXT, {"text": ""}, ["/text"]),
    "until": (CONTEXT, {"until": "soon"}, ["/until"]),
    "the filter of a question": (CONTEXT, {"where": {"not": {"eq": ["colour", "red"]}}}, ["/where/not/eq/0"]),
    "a day": ("/context:batch", {"entities": "*", "as_of": "2026-02-30"}, ["/as_of"]),
    "a name to warm": ("/warm", {"entities": ["a", "a", ""]}, ["/entities/2"]),
    "a day to warm": ("/warm", {"days": ["2026-03-04", "4 March"]}, ["/days/1"]),
    "names and days": ("/warm", {"entities": ["a"], "days": ["2026-03-04"]}, [""]),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_wrong_in_a_body_is_pointed_at(served: Served, what: str) -> None:
    """RFC 6901, an index for each list. Seen to fail with the places of names, times, texts and vectors left out."""
    path, body, pointers = WRONG[what]
    response = await served.post(path, body)
    assert response.status_code == 422, response.text
    assert [fault["pointer"] for fault in response.json()["errors"]] == pointers
    assert {fault["code"] for fault in response.json()["errors"]} >= {response.json()["code"]}


async def test_a_spec_that_settings_name_is_pointed_at(served: Served) -> None:
    body = {"settings": {"specs": ["customer_context_v0", "nope_v0"]}}
    found = problem(await served.client.put(served.base, json=body), 404, "spec_not_found")
    assert [fault["pointer"] for fault in found["errors"]] == ["/settings/specs/1"]


async def test_reads_that_cannot_succeed_say_why(served: Served) -> None:
    await served.write(event())
    get, context = served.client.get, served.of("acct-0042", "context")
    timeline = served.of("acct-0042", "timeline")
    problem(await get(context, params={"spec": "nope_v0"}), 404, "spec_not_found")
    found = problem(await get(context, params={"as_of": "4 March"}), 422, "query_invalid")
    assert [fault["pointer"] for fault in found["errors"]] == ["/query/as_of"]
    problem(await get(context, params={"format": "pdf"}), 422, "query_invalid")
    problem(await get(context, params={"colour": "red"}), 422, "query_invalid")
    problem(await served.post("/context:batch", {"spec": "nope_v0", "entities": "*"}), 404, "spec_not_found")
    problem(await served.post("/context:batch", {"entities": "all"}), 422, "query_invalid")
    problem(await get(served.of("nobody", "timeline")), 404, "entity_not_found")
    problem(await get(timeline, params={"limit": 0}), 422, "query_invalid")
    problem(await get(timeline, params={"order": "up"}), 422, "query_invalid")
    problem(await get(timeline, params={"since": "March"}), 422, "ts_invalid")
    for cursor in ("", "x", "!!!", "bnVsbA", "é", "e" * 5000, "W10"):
        problem(await get(timeline, params={"cursor": cursor}), 400, "cursor_invalid")
        problem(await get(f"{served.base}/entities", params={"cursor": cursor}), 400, "cursor_invalid")
    problem(await served.post(context.removeprefix(served.base), {"spec": "nope_v0"}), 404, "spec_not_found")
    problem(await served.post(context.removeprefix(served.base), {"budget_tokens": 1}), 422, "query_invalid")


async def test_an_idempotency_key_belongs_to_one_body(served: Served) -> None:
    async def post(key: str, *events: object) -> httpx.Response:
        headers = NDJSON | {"idempotency-key": key}
        return await served.client.post(f"{served.base}/events", content=ndjson(events), headers=headers)

    first, again = await post("k", event(id="1")), await post("k", event(id="1"))
    assert first.status_code == again.status_code == 201
    assert first.json()["batch"] == again.json()["batch"]
    problem(await post("k", event(id="2")), 422, "idempotency_key_reused")
    problem(await post("", event(id="2")), 422, "query_invalid")
    problem(await post("k" * 300, event(id="2")), 422, "query_invalid")
    assert await served.ids("acct-0042") == ["1"]


async def test_tenant_settings_are_checked(served: Served) -> None:
    bodies: tuple[object, ...] = ({"settings": {"colour": 1}}, {"settings": {"requests_per_s": 0}}, {"name": "x"}, [])
    for body in bodies:
        response = await served.client.put("/v1/tenants/other", json=body)
        problem(response, 422, "query_invalid")
    problem(await served.client.put("/v1/tenants/A_B", json={}), 422, "tenant_invalid")
    problem(await served.client.get("/v1/tenants/other"), 404, "tenant_not_found")
