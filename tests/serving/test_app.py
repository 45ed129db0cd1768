"""The app around the routes: problems for everything, ids of requests, paths, cursors, metrics, the document."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from context_plane.errors import CODES, Conflict, Corrupt, Denied, Invalid, NotFound, PlaneError, Unavailable
from context_plane.wire import parse_ndjson
from serving import cursors, paths, problems, write
from serving.limits import INLINE_BYTES, Ledger
from serving.metrics import MULTIPROCESS_DIR, Metrics
from tests.serving.conftest import NDJSON, Served, event, ndjson, problem

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
HEAVY = ("dagster", "assets", "resources", "lancedb", "lance", "polars", "pandas", "pyarrow", "onnxruntime", "boto3")


def test_importing_the_service_imports_nothing_heavy() -> None:
    """Importing the app and the plane takes no build stack along: readiness within 2 s depends on it.

    Seen to fail with `import lancedb` at the top of a module of the plane."""
    code = f"""
import sys
import serving.main, context_plane.plane
print(sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]", shown.stdout


async def test_unknown_routes_and_methods_are_problems(served: Served) -> None:
    problem(await served.client.get("/v2"), 404, "route_not_found")
    problem(await served.client.get(f"{served.base}/"), 404, "route_not_found")
    answer = await served.client.delete(f"{served.base}/search")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    answer = await served.client.post(served.base)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET, PUT"


async def test_a_defect_tells_its_request_id_and_nothing_else(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret detail of acct-0042")

    monkeypatch.setattr(type(served.service.plane), "snapshot_info", broken)
    with caplog.at_level(logging.ERROR):
        answer = await served.client.get(f"{served.base}/snapshot", headers={"x-request-id": "run-7.a"})
    body = problem(answer, 500, "internal")
    assert body["request_id"] == answer.headers["x-request-id"] == "run-7.a"
    assert "secret" not in answer.text
    assert "run-7.a" in caplog.text
    assert "secret detail" in caplog.text


async def test_an_answer_that_was_begun_is_cut_where_its_request_is_ended(served: Served) -> None:
    """Seen to fail (another answer begins within it) with every ended request told that the service stops."""
    sent: list[Message] = []
    begun = asyncio.Event()

    async def send(message: Message) -> None:
        sent.append(message)
        begun.set()
        await asyncio.Event().wait()

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "GET", "path": "/healthz", "query_string": b"", "headers": []}
    request = asyncio.create_task(served.app(scope, receive, send))
    await begun.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(request, 10)
    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_what_cancels_itself_is_a_defect_and_no_end_of_the_service(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail (503) with every cancelled request told that the service stops."""

    async def broken(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(type(served.service.plane), "snapshot_info", broken)
    with pytest.raises(asyncio.CancelledError):
        await served.client.get(f"{served.base}/snapshot")


async def test_errors_of_the_store_keep_their_details_to_the_log(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with hidden codes answered with their own detail."""
    errors: list[tuple[PlaneError, int]] = [
        (Unavailable("store_unavailable", "no answer", endpoint="http://secret", retry_after_s=2.0), 503),
        (NotFound("object_not_found", "gone", key="secret"), 404),
        (Conflict("already_exists", "taken", key="secret"), 409),
        (Corrupt("corrupt_object", "bad", key="secret"), 500),
    ]
    for error, status in errors:

        async def broken(*_: object, error: PlaneError = error) -> None:
            raise error

        monkeypatch.setattr(type(served.service.plane), "snapshot_info", broken)
        answer = await served.client.get(f"{served.base}/snapshot")
        problem(answer, status, error.code)
        assert "secret" not in answer.text


async def test_request_ids_are_made_when_none_or_an_odd_one_is_sent(served: Served) -> None:
    for sent in ({}, {"x-request-id": "a b"}, {"x-request-id": "x" * 65}):
        answer = await served.client.get("/healthz", headers=sent)
        assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])


def test_every_family_and_exception_to_it_has_a_status() -> None:
    assert set(problems.STATUSES) <= set(CODES)
    shown = [
        (Invalid("ts_invalid", "x"), 422),
        (Denied("key_missing", "x"), 401),
        (Denied("scope_missing", "x"), 403),
        (NotFound("entity_not_found", "x"), 404),
        (NotFound("snapshot_erased", "x"), 410),
        (Conflict("build_stale", "x"), 409),
        (Unavailable("tail_full", "x"), 429),
        (Unavailable("store_unavailable", "x"), 503),
        (Unavailable("deadline_exceeded", "x"), 504),
        (Corrupt("corrupt_object", "x"), 500),
    ]
    assert [problems.status_of(error) for error, _ in shown] == [status for _, status in shown]


async def test_probes_and_pages_need_no_key(served: Served) -> None:
    await served.key(None, "read")
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert (await served.client.get(path)).status_code == 200, path


async def test_the_page_of_the_api_brings_its_files(served: Served) -> None:
    """Seen to fail with the framework's own page, which loads them from elsewhere."""
    text = (await served.client.get("/docs")).text
    files = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(files) == 3
    for name in files:
        assert name.startswith("/"), name
        assert (await served.client.get(name)).status_code == 200, name
    problem(await served.client.get("/docs/files/none.js"), 404, "route_not_found")


async def test_metrics_name_routes_and_temperatures_but_nobody(served: Served) -> None:
    await served.write(event())
    await served.client.get(served.of("acct-0042", "timeline"))
    await served.post("/search", {"text": "export"})
    await served.client.get("/no/such/secret")
    text = (await served.client.get("/metrics")).text
    assert 'route="/v1/tenants/{tenant}/entities/{entity}/timeline"' in text
    assert re.search(r'context_plane_request_seconds_count\{cache="memory",.*search', text)
    assert "context_plane_events_accepted_total 1.0" in text
    assert not re.search("acme|acct-0042|secret", text)


def test_a_killed_worker_leaves_its_totals_and_no_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail (its requests stay under way for good) with the files of workers left as they are."""
    monkeypatch.setenv(MULTIPROCESS_DIR, str(tmp_path))
    code = "from serving.metrics import Metrics; m = Metrics(); m.in_flight.inc(); m.events.inc(7); print(); input()"
    worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        before = Metrics().text().decode()
        worker.kill()
    after = Metrics().text().decode()
    assert re.search(r"^context_plane_requests_in_flight 1\.0$", before, re.MULTILINE)
    assert "context_plane_requests_in_flight" not in after
    assert "context_plane_events_accepted_total 7.0" in after


async def test_the_document_is_whole(served: Served) -> None:
    """Every reference resolves, every operation has a summary, answers and problems."""
    document = (await served.client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    for reference in re.findall(r'"\$ref": ?"#/components/schemas/([^"]+)"', httpx.Response(200, json=document).text):
        assert reference in schemas
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert set(re.findall(r"\{(\w+)\}", path)) == {
                p["name"] for p in operation.get("parameters", []) if p["in"] == "path"
            }
            if path.startswith("/v1"):
                assert "application/problem+json" in operation["responses"]["default"]["content"]
                assert operation["security"]
            if method in ("post", "put"):
                assert operation["requestBody"]["content"]


async def test_large_bodies_are_parsed_off_the_event_loop(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with `off_loop` always working here."""
    threads: list[int] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.get_ident())
        return parse_ndjson(*args, **kwargs)

    monkeypatch.setattr(write, "parse_ndjson", watched)
    await served.write(event())
    await served.write(event(text="x" * INLINE_BYTES))
    assert threads[0] == threading.get_ident()
    assert threads[1] != threading.get_ident()


# --- pure parts ---------------------------------------------------------------------------------


@given(NAMES)
def test_any_name_survives_a_path(name: str) -> None:
    """Whatever a client chooses to escape, one segment stays one segment."""
    for sent in (quote(name, safe=""), quote(name, safe="!'()*:@&=+$,;~"), "".join(f"%{b:02x}" for b in name.encode())):
        path = paths.canonical_path(f"/a/{sent}/b".encode())
        assert path.count("/") == 3
        assert path == paths.canonical_path(f"/a/{quote(name, safe='')}/b".encode())
        assert asyncio.run(paths.entity(path.split("/")[2])) == name


@given(st.binary(max_size=200))
def test_any_path_is_handled(raw: bytes) -> None:
    path = paths.canonical_path(raw)
    assert path.isascii()
    assert paths.canonical_path(path.encode()) == path


@given(NAMES, st.integers(0, 2**53), NAMES, NAMES)
def test_cursors_come_back_and_only_to_their_listing(entity: str, ts_us: int, event_id: str, other: str) -> None:
    cursor = cursors.write(("timeline", "acme", entity), [ts_us, event_id])
    assert cursors.read(("timeline", "acme", entity), cursor, int, str) == [ts_us, event_id]
    if other != entity:
        with pytest.raises(Invalid, match="cursor_invalid"):
            cursors.read(("timeline", "acme", other), cursor, int, str)
    for types in ((str, str), (int,), (int, str, str), (bool, str)):
        with pytest.raises(Invalid, match="cursor_invalid"):
            cursors.read(("timeline", "acme", entity), cursor, *types)


def test_a_position_before_the_first_is_no_cursor() -> None:
    """Seen to fail: -1 counts from the end."""
    with pytest.raises(Invalid, match="cursor_invalid"):
        cursors.read(("changes", "acme"), cursors.write(("changes", "acme"), [-1]), int)


@given(st.text(max_size=100))
def test_no_text_breaks_the_cursor_reader(cursor: str) -> None:
    with pytest.raises(Invalid, match="cursor_invalid"):
        cursors.read(("timeline",), cursor, int, str)


def test_the_longest_names_fit_a_cursor() -> None:
    cursor = cursors.write(("entities",), ["\0" * 256])
    assert cursors.read(("entities",), cursor, str) == ["\0" * 256]


def test_the_ledger_refuses_past_its_bounds() -> None:
    ledger = Ledger(bytes_max=10, requests_max=1)
    ledger.charge(10)
    ledger.enter()
    with pytest.raises(Unavailable, match="rate_limited"):
        ledger.charge(1)
    with pytest.raises(Unavailable, match="rate_limited"):
        ledger.enter()
    ledger.release(10)
    ledger.leave()
    assert (ledger.bytes_held, ledger.requests) == (0, 0)


# --- the process --------------------------------------------------------------------------------


def test_two_workers_serve_one_store_and_one_set_of_metrics(tmp_path: Path) -> None:
    """And write lines of JSON alone, where that was asked for. Seen to fail with the configuration left to uvicorn."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    program = tmp_path / "program.py"
    program.write_text(
        "from context_plane.settings import Settings\nfrom serving.main import run\n"
        f"if __name__ == '__main__':\n    run(Settings(), port={port}, workers=2, log_format='json')\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {
        "PYTHONPATH": root,
        "CONTEXT_PLANE_STORE": (tmp_path / "store").as_uri(),
        "CONTEXT_PLANE_CACHE_DIR": str(tmp_path / "cache"),
    }
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, str(program)], env=environment, stdout=out, stderr=out)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            _await_ready(client)
            assert client.put("/v1/tenants/acme", json={}).status_code == 201
        for _ in range(10):  # connections of their own, so that both workers may answer
            answer = httpx.post(
                f"http://127.0.0.1:{port}/v1/tenants/acme/events", content=ndjson([event()]), headers=NDJSON
            )
            assert answer.status_code == 201, answer.text
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert "context_plane_events_accepted_total 10.0" in metrics
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    lines = [orjson.loads(line) for line in log.read_text().splitlines()]
    served = [line for line in lines if line.get("route") == "/v1/tenants/{tenant}/events"]
    assert [(line["method"], line["status"], len(line["request_id"])) for line in served] == [("POST", 201, 16)] * 10


def _await_ready(client: httpx.Client) -> None:
    for _ in range(600):
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the service never became ready")
