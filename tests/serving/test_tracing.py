"""Traces, by the real SDK: from the request through its steps to the requests to the store, and of nobody by name."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import os
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

from context_plane.errors import Invalid, NotFound
from context_plane.settings import Settings
from context_plane.store import spans
from context_plane.store.counting import CountingStore, folder_of
from serving.tracing import open_provider, wanted
from tests.serving.conftest import NDJSON, Served, event, ndjson, serve
from tests.store.dictionary import DictStore

DAY = "2026-03-04"
TRACEPARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"
NAMES = re.compile(r"(http|store\.(get|put|list|delete)|[a-z_]+(\.[a-z_]+)?|(GET|PUT|POST|other) \S+)")


@pytest.fixture
def recorded() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def provider_of(recorded: InMemorySpanExporter, **options: object) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False, **options)  # type: ignore[arg-type]  # a sampler
    provider.add_span_processor(SimpleSpanProcessor(recorded))
    return provider


@asynccontextmanager
async def traced(settings: Settings, recorded: InMemorySpanExporter) -> AsyncIterator[Served]:
    """Tenant `acme` with a built day, its caches empty and no span recorded yet."""
    async with serve(settings, tracer=provider_of(recorded).get_tracer("test")) as served:
        await served.create()
        await served.write(event(id="e1"), event("other", id="e2"))
        await served.service.plane.build("acme", [DAY])
        await served.service.plane.empty_caches()
        recorded.clear()
        yield served


def name_of(span: ReadableSpan | None) -> str:
    assert span is not None
    return span.name


def above(span: ReadableSpan, known: dict[int, ReadableSpan]) -> Iterator[ReadableSpan]:
    """The spans over one, nearest first."""
    while span.parent is not None and span.parent.span_id in known:
        span = known[span.parent.span_id]
        yield span


def by_id(recorded: InMemorySpanExporter) -> dict[int, ReadableSpan]:
    found = {}
    for span in recorded.get_finished_spans():
        assert span.context is not None
        found[span.context.span_id] = span
    return found


async def test_a_cold_search_is_told_from_the_request_to_its_requests_to_the_store(
    settings: Settings, recorded: InMemorySpanExporter
) -> None:
    """Seen to fail with the steps not made current (requests under the root), with the bytes left out, and with the
    caller's trace not followed."""
    async with traced(settings, recorded) as served:
        body = {"text": "export", "entities": ["acct-0042"], "consistency": "strong"}
        sent = {"traceparent": TRACEPARENT}
        answer = await served.client.post(f"{served.base}/search", json=body, headers=sent)
        stats = answer.json()["stats"]
        known = by_id(recorded)
        (root,) = [span for span in known.values() if span.kind == SpanKind.SERVER]
        assert root.name == "POST /v1/tenants/{tenant}/search"
        assert root.parent is not None
        assert f"{root.parent.trace_id:032x}" == "ab" * 16
        attributes = dict(root.attributes or {})
        assert (attributes["http.response.status_code"], attributes["context_plane.cache"]) == (200, "cold")
        steps = [span for span in known.values() if span.name.startswith("search.")]
        assert [span.name for span in steps] == ["search.plan", "search.fetch", "search.score", "search.present"]
        assert all([name_of(each) for each in above(step, known)] == [root.name] for step in steps)
        gets = [span for span in known.values() if span.name == "store.get"]
        under = [next(above(span, known)).name for span in gets]
        assert under.count("search.plan") + under.count("search.fetch") + under.count("search.present") == stats["gets"]
        told = [dict(span.attributes or {}) for span in gets]
        counted = sum(
            int(str(each["context_plane.store.bytes"]))
            for each, step in zip(told, under, strict=True)
            if step.startswith("search.")
        )
        assert counted == stats["bytes_read"] > 0
        assert {"manifests", "indexes"} <= {each["context_plane.store.folder"] for each in told}


async def test_every_journey_is_told_and_none_names_anybody(settings: Settings, recorded: InMemorySpanExporter) -> None:
    """Names and attributes are words of this program. Seen to fail with keys as attributes, and with paths as names."""
    async with traced(settings, recorded) as served:
        client, one = served.client, f"{served.base}/entities/acct-0042"
        writes = [
            client.post(f"{served.base}/events", content=ndjson([event(id="e3")]), headers=NDJSON),
            client.put("/v1/tenants/secret-tenant", json={}),
        ]
        reads = [
            client.get(f"{one}/context"),
            client.get(f"{one}/timeline"),
            client.get(f"{served.base}/entities"),
            client.post(f"{one}/context", json={"text": "export"}),
            client.post(
                f"{served.base}/context:batch", json={"spec": "customer_context_v0", "entities": ["acct-0042"]}
            ),
            client.get(f"{served.base}/entities/nobody-known/context"),
            client.get("/no/such/route-secret"),
        ]
        for request in (*writes, *reads):
            await request
        found = recorded.get_finished_spans()
        names = {span.name for span in found}
        assert {"bundle", "timeline", "entities", "on_demand", "bundles", "store.get", "store.put"} <= names
        for span in found:
            assert NAMES.fullmatch(span.name), span.name
            said = [span.name, *map(str, (span.attributes or {}).values()), str(span.status.description)]
            assert not re.search("acme|acct|secret|nobody|tenants/[^{]", " ".join(said)), said
            assert not span.events, "an exception's message may hold anything"
        missing = next(span for span in found if dict(span.attributes or {}).get("error.type") == "entity_not_found")
        assert missing.name == "bundle"


async def test_a_kept_answer_is_told_too(settings: Settings, recorded: InMemorySpanExporter) -> None:
    """Seen to fail with spans left to the envelope."""
    async with traced(settings, recorded) as served:
        key = await served.key("acme", "read")
        for _ in range(3):
            recorded.clear()
            answer = await served.client.get(f"{served.base}/entities/acct-0042/context", headers=key)
        assert answer.headers["x-cache"] == "memory"
        (root,) = recorded.get_finished_spans()
        assert root.name == "GET /v1/tenants/{tenant}/entities/{entity}/context"
        assert len(served.app.kept) == 1  # type: ignore[attr-defined]


async def test_what_is_not_sampled_costs_no_spans(settings: Settings, recorded: InMemorySpanExporter) -> None:
    provider = provider_of(recorded, sampler=ALWAYS_OFF)
    async with serve(settings, tracer=provider.get_tracer("test")) as served:
        await served.create()
        assert recorded.get_finished_spans() == ()


async def test_without_a_tracer_nothing_is_begun(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store and the steps look at one variable. Seen to fail with steps made for every search."""

    def refused(*_: object) -> None:
        raise AssertionError("a span was begun")

    monkeypatch.setattr(spans.Span, "child", refused)
    monkeypatch.setattr(spans.Span, "__init__", refused)
    async with serve(settings) as served:
        await served.create()
        await served.write(event())
        assert (await served.post("/search", {"text": "export"})).status_code == 200


def root_of(recorded: InMemorySpanExporter) -> spans.Span:
    tracer = provider_of(recorded).get_tracer("test")
    return spans.Span.of(tracer, tracer.start_span("root"), set_span_in_context)


async def test_a_request_has_so_many_spans_at_most(
    recorded: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with the bound left out."""
    monkeypatch.setattr(spans, "SPANS_MAX", 3)
    store = CountingStore(DictStore({"tenants/a/log/1": b"12345"}))
    root = root_of(recorded)
    token = spans.enter(root)
    with spans.step("read"):
        for _ in range(5):
            await store.get("tenants/a/log/1")
    with pytest.raises(NotFound), spans.step("none"):
        await store.get("tenants/a/log/2")
    spans.leave(token)
    root.end()
    found = recorded.get_finished_spans()
    assert [span.name for span in found] == ["store.get", "store.get", "read", "root"]
    assert dict(found[-1].attributes or {}) == {"context_plane.spans_dropped": 5}
    assert all(span.status.status_code == StatusCode.UNSET for span in found)


async def test_steps_are_named_when_they_end_and_an_error_ends_the_last(recorded: InMemorySpanExporter) -> None:
    """Seen to fail with the step after the last lap told, and with the outer span not current again."""
    root = root_of(recorded)
    token = spans.enter(root)
    steps = spans.Steps("search")
    steps.lap("plan")
    steps.close()
    await asyncio.sleep(0)
    failing = spans.Steps("search")
    failing.close(Invalid("query_invalid", "names acct-0042"))
    outer = spans.begin("after")
    assert outer is not None
    outer.end()
    spans.leave(token)
    root.end()
    plan, failed, after, last = recorded.get_finished_spans()
    assert [span.name for span in (plan, failed, after, last)] == ["search.plan", "search.failed", "after", "root"]
    assert dict(failed.attributes or {}) == {"error.type": "query_invalid"}
    assert last.context is not None
    assert {span.parent.span_id for span in (plan, failed, after) if span.parent} == {last.context.span_id}


def test_a_folder_is_a_word_of_the_layout() -> None:
    """Seen to fail with the third part of a key as it is."""
    keys = {
        "tenants/acme/log/1.jsonl.zst": "log",
        "tenants/acme/entities/acct/segments/x": "entities",
        "tenants/acme": "other",
        "tenants/acme/secret/x": "other",
        "control/keys/x.json": "control",
        "": "other",
    }
    assert {key: folder_of(key) for key in keys} == keys


async def test_the_variables_alone_send_traces_to_a_collector(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not sent yet is sent when the service ends. Seen to fail with the provider never shut down."""
    with Collector() as collector:
        for name in [name for name in os.environ if name.startswith("OTEL_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        async with serve(settings) as served:
            await served.create()
        bodies = collector.bodies
    (sent,) = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    (resource,) = sent.resource_spans
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert named["service.name"] == "context-plane"
    names = [span.name for scope in resource.scope_spans for span in scope.spans]
    assert names.count("PUT /v1/tenants/{tenant}") == 1
    assert "store.put" in names


class Collector(http.server.ThreadingHTTPServer):
    """Takes what is posted to `/v1/traces`."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Posted)
        self._thread = threading.Thread(target=self.serve_forever)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Posted(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Collector)
        assert self.path == "/v1/traces"
        raw = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
        self.server.bodies.append(raw)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_traces_are_off_unless_the_variables_ask() -> None:
    """Seen to fail with `none` taken for an exporter, and with the SDK's switch left out."""
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    for environment in (
        {},
        {"OTEL_TRACES_EXPORTER": "none", **endpoint},
        {"OTEL_SDK_DISABLED": "true", **endpoint},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318"},
    ):
        assert open_provider(environment) is None
    assert wanted(endpoint)
    assert wanted({"OTEL_TRACES_EXPORTER": "otlp"})
    for wrong in ({"OTEL_TRACES_EXPORTER": "zipkin"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", **endpoint}):
        with pytest.raises(Invalid, match="settings_invalid"):
            wanted(wrong)
