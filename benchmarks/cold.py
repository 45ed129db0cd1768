"""Cold reads: the product's service, a far object store, and no cache that remembers anything.

A SeaweedFS holds the store; `benchmarks.proxy` stands between it and the services, and makes it far. Each service
is asked one question after another by a client of its own, and every cache is emptied before each. How many
services ask side by side, and how long they rest in between, is chosen so that at most half of the processors'
time is used (`cpu_busy`: of the whole machine, server and proxy included).

Counts are the answers' own (`stats`); `store_p50_ms` and `store_p99_ms` are the first bytes that the proxy truly
sent: they show a machine too busy to keep the delays. API keys and tenant records are remembered, as they are for
five seconds in any process that serves; what they cost is part of no cold read.

Stores are built once, straight into SeaweedFS, and kept in `CONTEXT_PLANE_BENCH_DIR` (default: a folder of the
system's temporary one) under the digest of the code that decides their bytes: another code builds anew.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch
from urllib.parse import urlsplit

import numpy as np

from benchmarks.corpus import Corpus, Question, corpus
from benchmarks.load import Request, percentiles
from benchmarks.proxy import Proxy, proxy
from benchmarks.scenario import REPOSITORY, Row
from benchmarks.service import TENANT, Served, build_store, embedder_of, service
from context_plane import plane
from context_plane.settings import Settings
from tests.store.servers import Server, seaweedfs

QUERIES: Final = 1_000
QUICK_QUERIES: Final = 8
WARM_UP: Final = 3
"""Of each service: its connections are open and its code is loaded when the first question counts."""
STALL: Final = 0.0005
REST_S: Final = 0.1
PREFIX: Final = "cold"
OPEN_MONTHS: Final = 1
"""The newest months of a year stay day shards, as the running month always is."""
BUNDLE_DAYS: Final = 7
SPEC: Final = "customer_context_v0"
FORMATS: Final = (
    "context_plane/layout/*.py",
    "context_plane/index/rows.py",
    "context_plane/index/*_shard.py",
    "context_plane/index/blocks.py",
    "context_plane/index/chunker.py",
    "context_plane/index/analyzer.py",
    "context_plane/catalog/manifest.py",
    "specs/*.yaml",
    "benchmarks/corpus.py",
)
"""What decides a store's bytes."""


@dataclass(frozen=True, slots=True)
class World:
    """A built store behind a proxy. `url` is the same for both; the environment says through which."""

    corpus: Corpus
    questions: Sequence[Question]
    server: Server
    far: Proxy
    folder: Path

    @property
    def url(self) -> str:
        return self.server.url(PREFIX)

    @property
    def environment(self) -> dict[str, str]:
        """Of the processes that read through the proxy."""
        return self.server.environment | {"AWS_ENDPOINT_URL": self.far.endpoint}


@dataclass(frozen=True, slots=True)
class Case:
    """What one row measures. `asks`: the requests, made for a service."""

    name: str
    stall: float
    asks: Callable[[Served], Sequence[Request]]
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further keys of the row."""


@dataclass(frozen=True, slots=True)
class Sample:
    ms: float
    status: int
    answer: bytes


# --- the world ------------------------------------------------------------------------------------


@contextmanager
def world(
    shape: str, *, seed: int, quick: bool, bundles: bool = False, open_months: int = OPEN_MONTHS
) -> Iterator[World]:
    """The shape's store, built where it is not kept, behind a proxy that has no stalls yet.

    Of a shape that is rolled up, the newest `open_months` stay day shards.
    """
    made, questions = corpus(shape, seed=seed, quick=quick)
    name = f"{shape}{'-bundles' if bundles else ''}{'-quick' if quick else ''}-{seed}"
    with ExitStack() as stack:
        folder = stack.enter_context(_kept(name, f"{_format()}-{made.text}"))
        server = stack.enter_context(seaweedfs(folder))
        stack.enter_context(patch.dict(os.environ, server.environment))  # what builds in this process reads it
        done = folder / "built.json"
        if not done.exists():
            started_s = time.monotonic()
            asyncio.run(_build(server.url(PREFIX), folder / "cache", made, bundles, open_months))
            shutil.rmtree(folder / "cache", ignore_errors=True)
            done.write_text(json.dumps({"build_s": round(time.monotonic() - started_s, 1)}))
        far = stack.enter_context(proxy(server.endpoint, seed=seed))
        caches = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="context-plane-")))
        yield World(made, questions, server, far, caches)


@contextmanager
def _kept(name: str, version: str) -> Iterator[Path]:
    """The folder of a kept store: nobody else's meanwhile, and empty unless it was finished under this version."""
    default = Path(tempfile.gettempdir()) / "context-plane-bench"
    root = Path(os.environ.get("CONTEXT_PLANE_BENCH_DIR", default))
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = root / f"{name}-{version}"
        for other in root.glob(f"{name}-*"):
            finished = (other / "built.json").exists()
            if other.is_dir() and not (other == folder and finished):
                shutil.rmtree(other)
        yield folder


def _format() -> str:
    digest = hashlib.sha256()
    for path in sorted(path for pattern in FORMATS for path in REPOSITORY.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


async def _build(url: str, cache: Path, made: Corpus, bundles: bool, open_months: int) -> None:
    """Days, then what is merged of them: every month but the newest ones; then bundles."""
    days_only = dataclasses.replace(made, shape=dataclasses.replace(made.shape, rolled=False))
    await build_store(url, cache, days_only)
    days = made.days
    months = sorted({day[:7] for day in days})
    async with plane.open(
        Settings(store=url, cache_dir=cache, embedder=embedder_of(made)), probe_store=False
    ) as opened:
        if made.shape.rolled:
            for month in months[: len(months) - open_months]:
                await opened.roll_up(TENANT, month)
        if bundles:
            for day in days[-BUNDLE_DAYS:]:
                await opened.materialize(TENANT, SPEC, day)


# --- measuring ------------------------------------------------------------------------------------


def searches(questions: Sequence[Question], *, vector: bool = True, **more: Any) -> Callable[[Served], list[Request]]:
    """Hybrid searches; `vector` False: from the text alone. `more`: further fields of each body."""
    return lambda served: [served.search(question, vector=vector, **more) for question in questions]


def measure(found: World, cases: Sequence[Case], *, seed: int, services: int, rest_s: float = REST_S) -> list[Row]:
    """A row for each case, over `services` processes that are started once."""
    with ExitStack() as stack:
        served = [
            stack.enter_context(
                service(
                    found.url,
                    found.folder / f"cache-{n}",
                    embedder=embedder_of(found.corpus),
                    environment=found.environment,
                )
            )
            for n in range(services)
        ]
        rows: list[Row] = []
        for case in cases:
            before = found.far.set(seed=seed, stall=case.stall)
            started_s, busy = time.monotonic(), _Busy()
            samples = _ask(served, case, rest_s)
            seconds, share = time.monotonic() - started_s, busy.share()
            rows.append(_row(found, case, samples, before, seconds) | {"cpu_busy": share, "services": services})
    return rows


def _ask(served: Sequence[Served], case: Case, rest_s: float) -> list[Sample]:
    """Every request once, dealt out to the services; each service has one at a time."""
    samples: list[list[Sample]] = [[] for _ in served]
    failures: list[BaseException] = []

    def run(n: int) -> None:
        try:
            requests = case.asks(served[n])
            asked = [*requests[-WARM_UP:], *requests[n :: len(served)]]
            samples[n] = list(_in_turn(served[n], asked, rest_s))[WARM_UP:]
        except BaseException as error:  # raised below, in the caller's thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(served))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        raise failure
    return [sample for own in samples for sample in own]


def _in_turn(served: Served, requests: Sequence[Request], rest_s: float) -> Iterator[Sample]:
    parts = urlsplit(served.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    empty = served.emptying()
    for request in requests:
        _send(connection, empty)
        time.sleep(rest_s)
        started_s = time.perf_counter()
        status, answer = _send(connection, request)
        yield Sample((time.perf_counter() - started_s) * 1000, status, answer)
    connection.close()


def _send(connection: http.client.HTTPConnection, request: Request) -> tuple[int, bytes]:
    connection.request(request.method, request.path, request.body or None, dict(request.headers))
    answer = connection.getresponse()
    return answer.status, answer.read()


def _row(
    found: World, case: Case, samples: Sequence[Sample], before: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    failed = [sample for sample in samples if sample.status != 200]
    if failed:
        raise RuntimeError(f"{len(failed)} requests failed: {failed[0].status} {failed[0].answer[:300]!r}")
    ms = [sample.ms for sample in samples]
    after = found.far.counts()
    sent = {name: after["methods"][name] - before["methods"].get(name, 0) for name in after["methods"]}
    return {
        "case": case.name,
        "system": "context-plane",
        "where": "http",
        "consistency": "eventual",
        **percentiles(ms),
        "max_ms": round(max(ms), 1),
        "queries": len(samples),
        **_stats([json.loads(sample.answer) for sample in samples]),
        "store_p50_ms": after["first_byte_p50_ms"],
        "store_p99_ms": after["first_byte_p99_ms"],
        "stalls": after["stalls"] - before["stalls"],
        "aborted": after["aborted"] - before["aborted"],
        "requests_sent": sum(sent.values()),
        "seconds": round(seconds, 1),
        **found.corpus.described,
        **case.more,
    }


def _stats(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means and maxima of what the answers say they cost; nothing where they do not say."""
    stats = [answer["stats"] for answer in answers if "stats" in answer]
    if not stats:
        return {}
    cold = sum(each["cache"] == "cold" for each in stats)
    assert cold == len(stats), f"{len(stats) - cold} answers came from a cache"
    shown: dict[str, Any] = {}
    for name in ("gets", "round_trips", "bytes_read", "rows_scored", "hedges"):
        values = [each[name] for each in stats if name in each]
        if values:
            shown |= {name: round(float(np.mean(values)), 2), f"{name}_max": max(values)}
    partial = [answer["missing_days"] for answer in answers if answer["partial"]]
    shown["partial"] = len(partial)
    if partial:
        shown["missing_days"] = sorted({day for days in partial for day in days})
    for step in stats[0]["ms"]:
        shown[f"{step}_p50_ms"] = round(float(np.median([each["ms"][step] for each in stats])), 2)
    return shown


class _Busy:
    """Share of the machine's processor time that was used since it was made; None where the system does not say."""

    def __init__(self) -> None:
        self._before = self._read()

    def share(self) -> float | None:
        after = self._read()
        if self._before is None or after is None:
            return None
        used, whole = (now - then for now, then in zip(after, self._before, strict=True))
        return round(used / whole, 3) if whole else None

    def _read(self) -> tuple[int, int] | None:
        """(ticks used, ticks in all) of all processors."""
        try:
            ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        except OSError:
            return None
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def queries(quick: bool) -> int:
    return QUICK_QUERIES if quick else QUERIES
