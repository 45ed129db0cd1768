"""Bundles from memory over HTTP, beside a bare ASGI app that the same server runs and that sends the same bytes.

A tenant of 1,000 entities with a bundle each. The bare app sends a body of the middle length and two headers, ours
has eight (key, tenant, rate, cut, directory, tag and metrics are what it leaves out). Both are asked by the cheapest
client there is (`benchmarks.flood`), for the servers are what is compared, and in turns, so that what else the
machine does meets both. Bundles are read at a cut at most a second old; they know no `strong`.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx

from benchmarks.corpus import corpus
from benchmarks.flood import Flooded, flood
from benchmarks.load import Request, open_loop, percentiles
from benchmarks.scenario import Row
from benchmarks.service import Served, bare_process, build_store, embedder_of, service
from benchmarks.stores import bench_folder

SUMMARY: Final = "one entity's bundle from memory over HTTP, beside a bare ASGI app with the same bytes"
SHAPE: Final = "bundle_warm"
SPEC: Final = "customer_context_v0"
QPS: Final = 40.0
CONNECTIONS: Final = 16
TURNS: Final = 3
"""Of each app; the medians are compared."""
CASES: Final = {"bundle": "", "bundle as text": "?format=text"}


def run(*, quick: bool, seed: int) -> list[Row]:
    """Rows of the service and of the bare app, for each form a bundle is read in."""
    made, _ = corpus(SHAPE, seed=seed, quick=quick, questions=1)
    rows: list[Row] = [{"case": "corpus", "system": "corpus", **made.described}]
    with bench_folder() as folder, tempfile.TemporaryDirectory(prefix="context-plane-", dir=folder) as home:
        store = (Path(home) / "store").as_uri()
        asyncio.run(build_store(store, Path(home) / "build", made, specs=[SPEC]))
        names = sorted({event.entity for event in made.events})
        with service(store, Path(home) / "cache", embedder=embedder_of(made)) as served:
            for case, query in CASES.items():
                rows += _case(served, case, names, query, quick=quick)
    return rows


def _case(served: Served, case: str, names: Sequence[str], query: str, *, quick: bool) -> list[Row]:
    paths = [f"entities/{quote(name, safe='')}/context{query}" for name in names]
    asked, body = _readable(served, [served.get(path) for path in paths])
    seconds, runs = (0.5, 100) if quick else (5.0, 2_000)
    cycle = [asked[n % len(asked)] for n in range(runs + 100)]
    with bare_process(body) as (url, pid):
        measured = open_loop(served.url, cycle, QPS, warm_up=100)
        beside = open_loop(url, cycle[: runs // 2 + 50], QPS, warm_up=50)
        ours, theirs = list[Flooded](), list[Flooded]()
        for _ in range(1 if quick else TURNS):
            ours.append(flood(served.url, served.pid, asked, CONNECTIONS, seconds))
            theirs.append(flood(url, pid, asked, CONNECTIONS, seconds))
    rate, most = _rates(ours), _rates(theirs)
    common: dict[str, Any] = {"where": "http", "qps": QPS, "connections": CONNECTIONS, "body_bytes": len(body)}
    own = {
        **percentiles(measured.ms),
        "late_p99_ms": percentiles(measured.late_ms)["p99_ms"],
        "errors": measured.errors,
        **rate,
        "ratio_of_bare": round(rate["saturation_qps"] / most["saturation_qps"], 3),
        "runs": len(measured.ms),
        "entities": len(asked),
        "peak_mb": served.peak_mb(),
    }
    bare_row = {**percentiles(beside.ms), **most, "runs": len(beside.ms)}
    return [
        {"case": case, "system": "context-plane", "consistency": "eventual", **common, **own},
        {"case": case, "system": "bare-asgi", **common, **bare_row},
    ]


def _rates(found: Sequence[Flooded]) -> dict[str, float]:
    """Medians of the turns. `server_us`: what the ratio would be on a machine that does something else besides."""
    return {
        "saturation_qps": round(statistics.median(each.qps for each in found), 1),
        "server_us": round(statistics.median(each.server_us for each in found), 1),
    }


def _readable(served: Served, asked: Sequence[Request]) -> tuple[list[Request], bytes]:
    """The requests of entities that have a bundle, each sent once, and the answer of the middle length."""
    with httpx.Client(base_url=served.url, headers=dict(served.headers)) as client:
        answers = [(request, client.get(request.path)) for request in asked]
    whole = [(request, answer.content) for request, answer in answers if answer.status_code == httpx.codes.OK]
    bodies = sorted((body for _, body in whole), key=len)
    return [request for request, _ in whole], bodies[len(bodies) // 2]
