"""A million events of one tenant in 384 dimensions, one merged month: searches over all of them, over HTTP.

The store is built once, straight into SeaweedFS, which takes long, and kept (`benchmarks.far`). Warm reads go to
SeaweedFS directly, at ten requests a second, not forty: every search ranks the whole tenant, and at forty half of
the processor would not be idle; `saturation_qps` says what there is beyond. Cold ones, hybrid, go through the proxy
that makes the store far, every cache emptied before each, one after another. Recall is against brute force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, Final

import httpx
import orjson

from benchmarks.cold import Case, measure, recall
from benchmarks.corpus import Leg, Question, exact
from benchmarks.far import World, world
from benchmarks.load import Request, open_loop, percentiles, saturate
from benchmarks.scenario import Row
from benchmarks.service import Served, embedder_of, service

SUMMARY: Final = "a million events of one tenant: tenant-wide searches, warm and cold, over HTTP"
LEGS: Final[tuple[Leg, ...]] = ("hybrid", "vector", "text")
WARM_QUESTIONS: Final = 1_000
WARM_UP: Final = 50
WARM_QPS: Final = 10.0
COLD_LEGS: Final[tuple[Leg, ...]] = ("hybrid",)
"""It reads what both others read; a thousand cold searches of a million rows take an hour."""
COLD_QUESTIONS: Final = 1_000
REST_S: Final = 0.75
"""A cold search keeps both processors busy, the emptying included: half the time is rest."""
QUICK_QUESTIONS: Final = 20
RECALL_QUESTIONS: Final = 200
"""Brute force over a million rows takes a third of a second for each leg."""
DEADLINE_MS: Final = 30_000
"""A partial answer would be faster, and another one."""
LOADS: Final = 3
LOADS_MAX: Final = 10
SATURATION_S: Final = 10.0
CONNECTIONS: Final = 4
CACHE_MEMORY_BYTES: Final = 4 * 1024**3
CACHE_DISK_BYTES: Final = 16 * 1024**3
"""All columns and vectors are in memory, all texts on disk: those of a million events do not fit beside them."""


def run(*, quick: bool, seed: int) -> Sequence[Row]:
    """One row a leg, warm, and one of the hybrid search, cold."""
    warm, cold = (QUICK_QUESTIONS, QUICK_QUESTIONS) if quick else (WARM_QUESTIONS, COLD_QUESTIONS)
    with world("tenant_1m", seed=seed, quick=quick, open_months=0) as found:
        some = found.questions[: min(warm, RECALL_QUESTIONS)]
        best = {leg: exact(found.corpus, some, leg=leg, tied=True) for leg in LEGS}
        rows = _warm(found, warm, best)
        cases = [
            Case(f"{leg}, cold", 0.0, partial(_requests, leg, found.questions[:cold]), best=best[leg])
            for leg in COLD_LEGS
        ]
        return [*rows, *measure(found, cases, seed=seed, services=1, rest_s=REST_S)]


def _requests(leg: Leg, questions: Sequence[Question], served: Served) -> list[Request]:
    return [served.search(question, mode=leg, deadline_ms=DEADLINE_MS) for question in questions]


def _warm(found: World, count: int, best: Mapping[Leg, Sequence[Sequence[int]]]) -> list[Row]:
    made, asked = found.corpus, found.questions[: count + WARM_UP]
    with service(
        found.url,
        found.folder / "cache-warm",
        embedder=embedder_of(made),
        environment=found.server.environment,
        cache_memory_bytes=CACHE_MEMORY_BYTES,
        cache_disk_bytes=CACHE_DISK_BYTES,
    ) as served:
        return [_leg(served, leg, asked) | _recall(served, leg, asked, best[leg]) | made.described for leg in LEGS]


def _leg(served: Served, leg: Leg, asked: Sequence[Question]) -> dict[str, Any]:
    """A row of one leg. Raises `RuntimeError` when a request fails."""
    requests = _requests(leg, asked, served)
    _load(served, requests[0])
    measured = open_loop(served.url, requests, WARM_QPS, warm_up=WARM_UP)
    if measured.errors:
        raise RuntimeError(f"{leg}: {measured.errors} of {len(measured.statuses)} requests failed")
    rate = saturate(served.url, requests, CONNECTIONS, SATURATION_S)
    answers = [orjson.loads(body) for body in measured.bodies]
    stats = [answer["stats"] for answer in answers]
    return {
        "case": f"{leg}, warm",
        "system": "context-plane",
        "where": "http",
        "consistency": "eventual",
        **percentiles(measured.ms),
        "qps": WARM_QPS,
        "saturation_qps": round(rate, 1),
        "queries": len(answers),
        "exact": all(each["exact"] for each in stats),
        "partial": sum(bool(answer["partial"]) for answer in answers),
        "score_p50_ms": round(median(each["ms"]["score"] for each in stats), 2),
        "peak_mb": served.peak_mb(),
    }


def _load(served: Served, request: Request) -> None:
    """Requests that load what the others need, as long as they take: planes are made for what is asked again."""
    loaded = 0
    for _ in range(LOADS_MAX):
        answer = httpx.post(
            served.url + request.path,
            content=request.body,
            headers=dict(request.headers),
            timeout=2 * DEADLINE_MS / 1000,
        )
        loaded += answer.status_code == 200 and not answer.json()["partial"]
        if loaded == LOADS:
            return
    raise RuntimeError(f"a million rows did not load: {answer.status_code} {answer.text[:300]}")


def _recall(served: Served, leg: Leg, asked: Sequence[Question], best: Sequence[Sequence[int]]) -> dict[str, float]:
    answers = []
    for request in _requests(leg, asked[: len(best)], served):
        answer = httpx.post(
            served.url + request.path, content=request.body, headers=dict(request.headers), timeout=60.0
        )
        answer.raise_for_status()
        answers.append(answer.json())
    return recall(answers, best)
