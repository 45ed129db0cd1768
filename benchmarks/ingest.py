"""Ingest: events over HTTP until they are durable, in requests of one, a hundred and a thousand.

Closed loops of concurrent clients say how many events a second are acknowledged; requests that wait for each
other share a log object (group commit), which `puts_per_event` counts from the batch numbers of the answers.
Open loops at 40 requests a second say how long an acknowledgement takes when nothing queues; the group waits
20 ms for company by itself. Events are bulk (`visible=after_build`), so the bound of the searched tail is not
met; what a request costs until its answer is the same. Bodies repeat after 10,000 events. Each case has a store
of its own: a local folder, whose writes are synced to the disk, and SeaweedFS beside the service.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.corpus import corpus
from benchmarks.load import Request, closed_loop, open_loop, percentiles
from benchmarks.scenario import Row
from benchmarks.service import Served, service
from context_plane.model import Event
from context_plane.wire import event_json
from tests.store.servers import seaweedfs

SUMMARY: Final = "events over HTTP until durable: events/s, time to acknowledgement, PUTs per event"
CLIENTS: Final = {1: 64, 100: 16, 1_000: 8}
"""Events of a request -> clients that send them at once."""
QPS: Final = 40.0
OPEN_EVENTS: Final = (1, 100)
OPEN_REQUESTS: Final = 400


def run(*, quick: bool, seed: int) -> list[Row]:
    """A row for each store, size of request and kind of loop."""
    made, _ = corpus("text_warm", seed=seed, quick=quick, questions=1)
    seconds, requests = (1.0, 40) if quick else (5.0, OPEN_REQUESTS)
    rows: list[Row] = []
    for store in ("local",) if quick else ("local", "seaweedfs"):
        for size in CLIENTS:
            with _served(store) as served:
                starts = range(0, len(made.events), size)
                bodies = [_write(served, made.events[start : start + size]) for start in starts]
                rows.append(_closed(served, store, size, bodies, seconds))
                if size in OPEN_EVENTS:
                    rows.append(_open(served, store, size, bodies[:requests]))
    return rows


def _write(served: Served, events: Sequence[Event]) -> Request:
    lines = b"\n".join(orjson.dumps(event_json(event)) for event in events)
    headers = (("content-type", "application/x-ndjson"), *served.headers[1:])
    return Request("POST", f"/v1/tenants/{served.tenant}/events?visible=after_build", lines, headers)


def _closed(served: Served, store: str, size: int, requests: Sequence[Request], seconds: float) -> Row:
    clients = CLIENTS[size]
    done = closed_loop(served.url, requests, clients, seconds)
    rates = {
        "events_per_s": round(done.qps * size, 1),
        "qps": round(done.qps, 1),
        "clients": clients,
        "errors": done.errors,
    }
    return _row(store, size, f"{clients} clients") | percentiles(done.ms) | rates | _puts(done.bodies, size)


def _open(served: Served, store: str, size: int, requests: Sequence[Request]) -> Row:
    done = open_loop(served.url, requests, QPS, warm_up=len(requests) // 10)
    measured = {"qps": QPS, "events_per_s": QPS * size, "runs": len(done.ms), "errors": done.errors}
    return _row(store, size, "40 requests/s") | percentiles(done.ms) | measured | _puts(done.bodies, size)


def _row(store: str, size: int, load: str) -> dict[str, Any]:
    events = "1 event" if size == 1 else f"{size:,} events"
    return {"case": f"{store}, {events} a request, {load}", "system": "context-plane", "where": "http"}


def _puts(bodies: Sequence[bytes], size: int) -> dict[str, Any]:
    """Each batch number is one object of the log."""
    answers = [orjson.loads(body or b"{}") for body in bodies]
    batches = {answer["batch"] for answer in answers if "batch" in answer}
    return {"puts_per_event": round(len(batches) / max(1, len(bodies) * size), 5), "puts": len(batches)}


@contextmanager
def _served(store: str) -> Iterator[Served]:
    """A service over an empty store with the tenant in it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="context-plane-")))
        url, environment = (folder / "store").as_uri(), dict[str, str]()
        if store == "seaweedfs":
            server = stack.enter_context(seaweedfs(folder / "weed"))
            url, environment = server.url("ingest"), server.environment
        yield stack.enter_context(service(url, folder / "cache", environment=environment))
