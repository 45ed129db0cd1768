"""A fleet read: the bundles of ten thousand entities in one answer, from memory and from a far store.

One service, one request at a time. `first_ms` is when the first line was here: an answer streams. `peak_mb` is the
peak of the service's memory while it answered; the rows of a tenth of the entities tell whether it grows with them.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import orjson

from benchmarks.far import SPEC, World, world
from benchmarks.load import Request, percentiles
from benchmarks.scenario import Row
from benchmarks.service import Served, embedder_of, service

SUMMARY: Final = "10,000 bundles in one streamed answer, warm, and cold at 60 ms a request"
BUNDLES: Final = 10_000
SHARE: Final = 10
"""The smaller answer has that fraction (1/n)."""
REPEATS: Final = 20
QUICK_REPEATS: Final = 2
WARM_UP: Final = 2
REST_S: Final = 0.3


def run(*, quick: bool, seed: int) -> Sequence[Row]:
    with world("fleet", seed=seed, quick=quick, bundles=True) as found:
        names = sorted({event.entity for event in found.corpus.events})[:BUNDLES]
        Random(seed).shuffle(names)
        repeats = QUICK_REPEATS if quick else REPEATS
        with service(
            found.url, found.folder / "cache", embedder=embedder_of(found.corpus), environment=found.environment
        ) as served:
            found.far.set(seed=seed, stall=0.0)
            return [
                _row(found, served, temperature, asked, repeats)
                for temperature in ("cold", "warm")
                for asked in (names[: len(names) // SHARE], names, "*")
            ]


def _row(found: World, served: Served, temperature: str, asked: Sequence[str], repeats: int) -> Row:
    request = served.post("context:batch", {"spec": SPEC, "entities": asked})
    empty = served.emptying() if temperature == "cold" else None
    for _ in range(WARM_UP):
        _take(served, request)
    served.peak_mb()
    before = found.far.counts()["methods"]
    samples = list(_samples(served, request, empty, repeats))
    after = found.far.counts()["methods"]
    lines, size = samples[0][2:]
    what = "every entity" if asked == "*" else f"{len(asked):,} entities"
    return {
        "case": f"{what}, {temperature}",
        "system": "context-plane",
        "where": "http",
        "consistency": "eventual",
        **percentiles([sample[0] for sample in samples]),
        "max_ms": round(max(sample[0] for sample in samples), 1),
        "first_ms": round(float(np.median([sample[1] for sample in samples])), 1),
        "queries": repeats,
        "bundles": lines,
        "bundle_bytes": round(size / lines),
        "requests_sent": round((sum(after.values()) - sum(before.values())) / repeats, 1),
        "peak_mb": served.peak_mb(),
        **found.corpus.described,
    }


def _samples(
    served: Served, request: Request, empty: Request | None, repeats: int
) -> Iterator[tuple[float, float, int, int]]:
    for _ in range(repeats):
        if empty is not None:
            _take(served, empty)
        time.sleep(REST_S)
        yield _take(served, request)


def _take(served: Served, request: Request) -> tuple[float, float, int, int]:
    """Milliseconds to the end and to the first bytes, lines, and bytes of their bundles."""
    parts = urlsplit(served.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    started_s = time.perf_counter()
    connection.request(request.method, request.path, request.body or None, dict(request.headers))
    answer = connection.getresponse()
    first, first_s = answer.readline(), time.perf_counter()
    body = first + answer.read()
    ended_s = time.perf_counter()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"a batch failed: {answer.status} {body[:300]!r}")
    lines = body.splitlines()
    sizes = _sizes(lines) if "context:batch" in request.path else 0
    return (ended_s - started_s) * 1000, (first_s - started_s) * 1000, len(lines), sizes


def _sizes(lines: Sequence[bytes]) -> int:
    """Bytes of the bundles. Every line must hold one."""
    found: list[dict[str, Any]] = [orjson.loads(line) for line in lines]
    missing = [line["entity"] for line in found if "bundle" not in line]
    if missing:
        raise RuntimeError(f"{len(missing)} entities have no bundle, such as {missing[0]}")
    return sum(len(orjson.dumps(line["bundle"])) for line in found)
