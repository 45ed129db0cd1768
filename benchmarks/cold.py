"""Cold reads: the product's service, a far object store, and no cache that remembers anything.

A SeaweedFS holds the store; `benchmarks.proxy` stands between it and the services, and makes it far. Each service
is asked one question after another by a client of its own, and every cache is emptied before each. How many
services ask side by side, and how long they rest in between, is chosen so that at most half of the processors'
time is used (`cpu_busy`: of the whole machine, server and proxy included; `service_cpu_ms`: of the services, a
query, the emptying included; `proxy_cpu_us`: of the proxy, a request).

Counts are the answers' own (`stats`); `store_p50_ms` and `store_p99_ms` are the first bytes that the proxy truly
sent: they show a machine too busy to keep the delays. API keys and tenant records are remembered, as they are for
five seconds in any process that serves; what they cost is part of no cold read.
"""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import numpy as np

from benchmarks.corpus import Question, index_of
from benchmarks.far import World
from benchmarks.load import Request, percentiles
from benchmarks.scenario import Row
from benchmarks.service import Served, embedder_of, service

T = TypeVar("T")
QUERIES: Final = 1_000
QUICK_QUERIES: Final = 8
HITS: Final = 10
"""Of an answer whose recall is measured."""
WARM_UP: Final = 3
"""Of each service: its connections are open and its code is loaded when the first question counts."""
STALL: Final = 0.0005
REST_S: Final = 0.1
SETTLE_STEP_S: Final = 1.0
SETTLE_STEPS_MAX: Final = 30
QUIET: Final = 0.03
"""Of a processor: what a service that is only waiting may use."""


@dataclass(frozen=True, slots=True)
class Case:
    """What one row measures. `asks`: the requests, made for a service."""

    name: str
    stall: float
    asks: Callable[[Served], Sequence[Request]]
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further keys of the row."""
    best: Sequence[Sequence[int]] = ()
    """Brute force's ten for the first of the requests: the row says what share of them was found."""


@dataclass(frozen=True, slots=True)
class Sample:
    ms: float
    status: int
    answer: bytes


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
        _settle(served)
        rows: list[Row] = []
        for case in cases:
            before = found.far.set(seed=seed, stall=case.stall)
            started_s, busy, used_s = time.monotonic(), _Busy(), sum(_cpu_s(each.pid) for each in served)
            samples = _ask(served, case, rest_s)
            seconds, share = time.monotonic() - started_s, busy.share()
            cpu_ms = (sum(_cpu_s(each.pid) for each in served) - used_s) * 1000 / len(samples)
            own = {"service_cpu_ms": round(cpu_ms, 1), "cpu_busy": share, "services": services}
            rows.append(_row(found, case, samples, before, seconds) | own)
    return rows


def _ask(served: Sequence[Served], case: Case, rest_s: float) -> list[Sample]:
    """Every request once, dealt out to the services; each service has one at a time. Samples in the requests' order."""
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
    return in_turns(samples)


def in_turns(samples: Sequence[Sequence[T]]) -> list[T]:
    """What was dealt out one by one, in its first order."""
    return [sample for turn in itertools.zip_longest(*samples) for sample in turn if sample is not None]


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
    answers = [json.loads(sample.answer) for sample in samples]
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
        **_stats(answers),
        **recall(answers, case.best),
        "store_p50_ms": after["first_byte_p50_ms"],
        "store_p99_ms": after["first_byte_p99_ms"],
        "stalls": after["stalls"] - before["stalls"],
        "aborted": after["aborted"] - before["aborted"],
        "requests_sent": sum(sent.values()),
        "proxy_cpu_us": round((after["cpu_s"] - before["cpu_s"]) * 1e6 / sum(sent.values())),
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


def recall(answers: Sequence[Mapping[str, Any]], best: Sequence[Sequence[int]]) -> dict[str, float]:
    """Share of brute force's ten best, and of what ties with the last of them, among the hits of the first answers;
    nothing where nothing is known."""
    asked = sum(min(HITS, len(own)) for own in best)
    pairs = zip(answers, best, strict=False)
    right = sum(len({index_of(hit["id"]) for hit in answer["hits"][:HITS]} & set(own)) for answer, own in pairs)
    return {"recall_at_10": round(right / asked, 4), "recall_questions": len(best)} if asked else {}


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


def _settle(served: Sequence[Served]) -> None:
    """Wait until no service is busy with its start: a ready one still loads libraries beside its first requests."""
    for _ in range(SETTLE_STEPS_MAX):
        before_s = sum(_cpu_s(each.pid) for each in served)
        time.sleep(SETTLE_STEP_S)
        if sum(_cpu_s(each.pid) for each in served) - before_s < SETTLE_STEP_S * QUIET:
            return


def _cpu_s(pid: int) -> float:
    """Processor seconds of a process so far; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def queries(quick: bool) -> int:
    return QUICK_QUERIES if quick else QUERIES
