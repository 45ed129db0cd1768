"""The warm scenarios' shared runner: ours over HTTP, ours in process, then every peer, on one corpus.

Over HTTP, open loop at 40 requests a second in fixed steps, hits with texts and attributes as the product
answers by default; then as fast as answers come, over eight connections; once more with processors that do not
sleep between two requests. In process, one question after another
through `Plane.search`, ids alone as peers answer, and once more with texts. Every phase has questions of its own
and a warm-up that is not reported, every case a service of its own: nothing answers from a memory of queries.

Recall is the share of the exact ten that were found. For peers it is held against their own exact ranking:
vectors are ranked alike by everybody; a text index is exhaustive, so it is 1 by construction; hybrid reports
that of its vector leg. `agreement_at_10` says how much of our exact answer a peer gives, which is no fault.

A store is built once per shape in `CONTEXT_PLANE_BENCH_DIR`, else in a folder that goes with the run.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import uvloop

from benchmarks.awake import awake
from benchmarks.corpus import Corpus, Leg, Question, corpus, exact, index_of
from benchmarks.load import Latencies, Request, open_loop, percentiles, saturate
from benchmarks.peers import Peer, Unsupported, open_peers
from benchmarks.scenario import Row
from benchmarks.service import (
    JSON,
    TENANT,
    WHOLE,
    Served,
    bare,
    embedder_of,
    search_request,
    service,
)
from benchmarks.stores import bench_folder, prepared
from context_plane import plane
from context_plane.recall.values import DEADLINE_MS_DEFAULT, Include
from context_plane.retrieval.snapshots import Consistency
from context_plane.settings import Settings

OURS: Final = "context-plane"
QPS: Final = 40.0
CONNECTIONS: Final = 8
CONSISTENCIES: Final[tuple[Consistency, ...]] = ("eventual", "strong")
AWAKE: Final = "http, processors awake"
"""Beside the bars, which hold on a machine as it is."""
OPEN_LOOPS: Final = len(CONSISTENCIES) + 1
PRIMING: Final = "what happened"
PRIMING_QPS: Final = 200.0
PRIMING_MS: Final = 30_000
CACHE_MEMORY_BYTES: Final = 2 * 1024**3
"""Of ours, four times the default: warm means that columns, vectors and every text are in memory, as the peers' are."""
TUNING: Final = 100
"""Questions beyond those of the phases, by which the peers' approximate searches are widened before they are asked."""
ASKED_S_MAX: Final = 20.0
"""Whoever is asked in process is asked no longer than this: who is slow answers fewer of the questions, and `runs`
says how many."""


@dataclass(frozen=True, slots=True)
class Case:
    """`embedded`: the question's text alone is sent, and the service makes its vector."""

    name: str
    mode: Leg
    embedded: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """Questions of each phase. `saturation_s`: seconds of a closed loop."""

    open: int
    warm_up: int
    in_process: int
    peer: int
    recall: int
    saturation_s: float
    closed: int

    @property
    def all(self) -> int:
        return OPEN_LOOPS * (self.open + self.warm_up) + 2 * self.closed


FULL: Final = Sizes(open=1_000, warm_up=100, in_process=1_000, peer=500, recall=300, saturation_s=5.0, closed=4_000)
QUICK: Final = Sizes(open=50, warm_up=10, in_process=50, peer=30, recall=30, saturation_s=0.5, closed=200)


@dataclass(frozen=True, slots=True)
class _World:
    corpus: Corpus
    questions: Sequence[Question]
    tuning: Sequence[Question]
    store: str
    folder: Path
    sizes: Sizes

    def take(self, phase: int) -> Sequence[Question]:
        """The questions of an open loop."""
        one = self.sizes.open + self.sizes.warm_up
        return self.questions[phase * one : (phase + 1) * one]

    def take_closed(self, phase: int) -> Sequence[Question]:
        """The questions of a closed loop."""
        first = OPEN_LOOPS * (self.sizes.open + self.sizes.warm_up) + phase * self.sizes.closed
        return self.questions[first : first + self.sizes.closed]


def measure(shape: str, cases: Sequence[Case], *, quick: bool, seed: int) -> list[Row]:
    """Rows of every case: ours over HTTP and in process, the bare app beside them, each leg's recall, the peers."""
    os.environ.setdefault("LANCEDB_LOG", "error")  # or it prints a warning in every timed call
    sizes = QUICK if quick else FULL
    made, questions = corpus(shape, seed=seed, quick=quick, questions=sizes.all + TUNING)
    with bench_folder() as folder:
        store = prepared(folder, made, seed=seed)
        world = _World(made, questions[: sizes.all], questions[sizes.all :], store.as_uri(), folder, sizes)
        gc.collect()
        gc.freeze()  # a corpus is a million objects, which no collection between two searches shall walk through
        found: list[Row] = [{"case": "corpus", "system": "corpus", **made.described}]
        for case in cases:
            found += _over_http(world, case, bare_too=case is cases[0])
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the loop of the service
                found += runner.run(_in_process(world, case))
        return found + _peers(world, [case for case in cases if not case.embedded])


# --- ours over HTTP -----------------------------------------------------------------------------


def _over_http(world: _World, case: Case, *, bare_too: bool) -> list[Row]:
    found: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="context-plane-") as cache,
        service(
            world.store,
            Path(cache),
            embedder=embedder_of(world.corpus),
            cache_memory_bytes=CACHE_MEMORY_BYTES,
        ) as served,
    ):
        _prime(served, world, case)
        for phase, consistency in enumerate(CONSISTENCIES):
            asked = world.take(phase)
            requests = [_request(served, case, question, consistency) for question in asked]
            answered = open_loop(served.url, requests, QPS, warm_up=world.sizes.warm_up)
            closed = [_request(served, case, question, consistency) for question in world.take_closed(phase)]
            rate = saturate(served.url, closed, CONNECTIONS, world.sizes.saturation_s)
            measured = http_row(answered) | {"saturation_qps": round(rate, 1), "peak_mb": served.peak_mb()}
            recall = _recall_of_answers(world, case, asked[world.sizes.warm_up :], answered)
            found.append(_ours(case, "http", consistency) | measured | recall)
        requests = [_request(served, case, question, "eventual") for question in world.take(len(CONSISTENCIES))]
        with awake():
            answered = open_loop(served.url, requests, QPS, warm_up=world.sizes.warm_up)
        found.append(_ours(case, AWAKE, "eventual") | http_row(answered))
    return [*found, *_bare(world, case, answered)] if bare_too else found


def _prime(served: Served, world: _World, case: Case) -> None:
    """Read everything once: a search over each entity holds its texts, one over the tenant the columns and vectors."""
    asked = [Question(PRIMING, question.vector, (name,)) for name, question in _primers(world)]
    asked.append(Question(PRIMING, world.questions[0].vector))
    open_loop(served.url, [_request(served, case, question, "strong", PRIMING_MS) for question in asked], PRIMING_QPS)


def _primers(world: _World) -> Iterable[tuple[str, Question]]:
    names = sorted({event.entity for event in world.corpus.events})
    return zip(names, itertools.cycle(world.questions), strict=False)


def _request(
    served: Served, case: Case, question: Question, consistency: Consistency, deadline_ms: int = DEADLINE_MS_DEFAULT
) -> Request:
    given = not case.embedded
    return served.search(question, mode=case.mode, consistency=consistency, vector=given, deadline_ms=deadline_ms)


def http_row(answered: Latencies) -> dict[str, Any]:
    """What an open loop of searches measured; reads are means of what the answers state."""
    answers = [orjson.loads(body) for body, status in zip(answered.bodies, answered.statuses, strict=True) if status]
    stats = [answer["stats"] for answer in answers if "stats" in answer]
    means = {name: round(statistics.fmean(each[name] for each in stats), 2) for name in READS} if stats else {}
    inside = {"server_p50_ms": statistics.median(each["ms"]["total"] for each in stats)} if stats else {}
    late: dict[str, Any] = {"late_p99_ms": percentiles(answered.late_ms)["p99_ms"], "errors": answered.errors}
    late["partial"] = sum(answer.get("partial", False) for answer in answers)
    codes = sorted({answer["code"] for answer in answers if "code" in answer})
    late |= {"error_codes": ", ".join(codes)} if codes else {}
    return {**percentiles(answered.ms), "qps": QPS, "runs": len(answered.ms), **means, **inside, **late}


READS: Final = ("gets", "round_trips", "bytes_read")


def _recall_of_answers(world: _World, case: Case, asked: Sequence[Question], answered: Latencies) -> dict[str, Any]:
    count = world.sizes.recall
    answers = [orjson.loads(body or b"{}") for body in answered.bodies[:count]]
    found = [[index_of(hit["id"]) for hit in answer.get("hits", ())] for answer in answers]
    wanted = exact(world.corpus, asked[:count], leg=case.mode)
    return {"recall_at_10": recall(found, wanted), "recall_questions": len(wanted)}


def _bare(world: _World, case: Case, answered: Latencies) -> Iterable[Row]:
    """What the server and the client cost alone: the middle one of our answers, sent by a bare ASGI app."""
    body = sorted(answered.bodies, key=len)[len(answered.bodies) // 2]
    with bare(body) as url:
        requests = [Request("POST", "/", b"{}", JSON)] * (world.sizes.open // 5 + world.sizes.warm_up)
        measured = open_loop(url, requests, QPS, warm_up=world.sizes.warm_up)
        rate = saturate(url, requests, CONNECTIONS, world.sizes.saturation_s)
        with awake():
            kept_awake = open_loop(url, requests, QPS, warm_up=world.sizes.warm_up)
    for where, each, more in (("http", measured, {"saturation_qps": round(rate, 1)}), (AWAKE, kept_awake, {})):
        row = {"case": case.name, "system": "bare-asgi", "where": where, **percentiles(each.ms), "qps": QPS, **more}
        yield {**row, "body_bytes": len(body), "runs": len(each.ms)}


# --- ours in process ----------------------------------------------------------------------------


async def _in_process(world: _World, case: Case) -> list[Row]:
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="context-plane-") as cache:
        settings = Settings(
            store=world.store,
            cache_dir=Path(cache),
            embedder=embedder_of(world.corpus),
            cache_memory_bytes=CACHE_MEMORY_BYTES,
        )
        async with plane.open(settings, probe_store=False) as opened:
            primers = [Question(PRIMING, question.vector, (name,)) for name, question in _primers(world)]
            await _timed(opened, case, primers, WHOLE)
            for phase, (where, include) in enumerate(_IN_PROCESS):
                asked = world.take(phase)[: world.sizes.warm_up + world.sizes.in_process]
                ms, hits = await _timed(opened, case, asked, include)
                counted = ms[min(world.sizes.warm_up, len(ms) // 2) :]
                measured = percentiles(counted) | {"runs": len(counted)}
                found.append(_ours(case, where, "eventual") | measured)
            chosen = world.questions[: world.sizes.recall]
            for leg in LEGS if case.mode == "hybrid" and not case.embedded else ():
                _, hits = await _timed(opened, Case(leg, leg), chosen, ())
                reached = recall(hits, await asyncio.to_thread(exact, world.corpus, chosen[: len(hits)], leg=leg))
                found.append({"case": f"{case.name}: {leg} leg", "system": OURS, "recall_at_10": reached})
    return found


LEGS: Final[tuple[Leg, ...]] = ("text", "vector")
_IN_PROCESS: Final[tuple[tuple[str, tuple[Include, ...]], ...]] = (
    ("in_process", ()),
    ("in_process, texts and attributes", WHOLE),
)


async def _timed(
    opened: plane.Plane, case: Case, asked: Sequence[Question], include: Sequence[Include]
) -> tuple[list[float], list[list[int]]]:
    """Milliseconds and hits of each search, one after another, until they or the time are used up."""
    requests = [search_request(q, mode=case.mode, vector=not case.embedded, include=include) for q in asked]
    ms, hits, last_s = [], [], time.perf_counter() + ASKED_S_MAX
    for request in requests:
        started_s = time.perf_counter()
        answer = await opened.search(TENANT, request)
        ms.append((time.perf_counter() - started_s) * 1000)
        hits.append([index_of(hit.id) for hit in answer.hits])
        if time.perf_counter() > last_s:
            break
    return ms, hits


# --- peers --------------------------------------------------------------------------------------


def _peers(world: _World, cases: Sequence[Case]) -> list[Row]:
    found: list[Row] = []
    chosen = os.environ.get("CONTEXT_PLANE_BENCH_PEERS")
    for peer in open_peers(None if chosen is None else [name for name in chosen.split(",") if name]):
        if isinstance(peer, tuple):
            name, reason = peer
            found += [{"case": case.name, "system": name, "reason": reason} for case in cases]
            continue
        with tempfile.TemporaryDirectory(prefix="context-plane-") as name:
            try:
                peer.load(Path(name), world.corpus, world.tuning)
                found += [_peer_row(world, peer, case) for case in cases]
            finally:
                peer.close()
    return found


def _peer_row(world: _World, peer: Peer, case: Case) -> Row:
    row: dict[str, Any] = {"case": case.name, "system": peer.NAME, "where": "in_process"}
    asked = world.take(0)[: world.sizes.warm_up + world.sizes.peer]
    ask: Callable[[Question, int], list[int]] = getattr(peer, case.mode)
    try:
        ms, hits = _asked(ask, asked, world.sizes.warm_up)
        counted = asked[world.sizes.warm_up :][: min(len(hits), world.sizes.recall)]
        if case.mode != "vector":
            vectors = [] if case.mode == "text" else [peer.vector(question, 10) for question in counted]
        else:
            vectors = hits
    except Unsupported as reason:
        return {**row, "reason": str(reason)}
    wanted = exact(world.corpus, counted, leg=case.mode)
    built = {"build_s": round(peer.built.total_s, 2), "settings": settings_of(peer)}
    row |= built | percentiles(ms) | {"runs": len(ms), "agreement_at_10": recall(hits[: len(counted)], wanted)}
    if case.mode == "text":
        return row | {"recall_at_10": 1.0, "recall_of": "text, exhaustive"}
    nearest = wanted if case.mode == "vector" else exact(world.corpus, counted, leg="vector")
    return row | {"recall_at_10": recall(vectors[: len(counted)], nearest), "recall_of": "vector leg"}


def settings_of(peer: Peer) -> str:
    return ", ".join(f"{name} {value}" for name, value in peer.built.settings.items())


def _asked(
    ask: Callable[[Question, int], list[int]], asked: Sequence[Question], warm_up: int
) -> tuple[list[float], list[list[int]]]:
    """Milliseconds and rows of each question after the warm-up, until they or the time are used up."""
    for question in asked[:warm_up]:
        ask(question, 10)
    ms, hits, last_s = [], [], time.perf_counter() + ASKED_S_MAX
    for question in asked[warm_up:]:
        started_s = time.perf_counter()
        hits.append(ask(question, 10))
        ms.append((time.perf_counter() - started_s) * 1000)
        if time.perf_counter() > last_s:
            break
    return ms, hits


# --- rows ---------------------------------------------------------------------------------------


def _ours(case: Case, where: str, consistency: Consistency) -> dict[str, Any]:
    return {"case": case.name, "system": OURS, "where": where, "consistency": consistency}


def recall(found: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> float:
    """Share of the wanted that were found, over all questions."""
    hits = sum(len(set(some) & set(every)) for some, every in zip(found, wanted, strict=True))
    return round(hits / max(1, sum(map(len, wanted))), 4)
