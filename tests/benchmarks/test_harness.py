"""The harness measures what it says: latencies from the intended start, corpora by seed, answers against exact ones."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest

from benchmarks.awake import awake
from benchmarks.cold import in_turns, recall
from benchmarks.corpus import Corpus, Question, corpus, exact, index_of
from benchmarks.load import Latencies, Request, closed_loop, open_loop, percentiles
from benchmarks.scenario import REPOSITORY, keep
from benchmarks.service import Served, build_store, embedder_of, service
from benchmarks.texts import joined, pieces_of
from context_plane.index.chunker import chunk
from context_plane.retrieval.fuse import Mode

STALL_MS = 400.0
QPS = 100.0
Answer = Callable[[str], Awaitable[None]]


async def served(answer: Answer, ask: Callable[[str], Latencies]) -> Latencies:
    """What `ask(url)` measures of a server that awaits `answer(path)` before each answer."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await answer(head.split()[1].decode())
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        return await asyncio.to_thread(ask, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


def requests(count: int, slow: int) -> list[Request]:
    return [Request("GET", "/slow" if n == slow else f"/{n}") for n in range(count)]


async def test_a_stall_is_charged_to_everything_that_should_have_started_meanwhile() -> None:
    """A server that blocks once makes the requests after it late by what is left of the stall.

    Seen to fail with latencies taken from the actual start.
    """

    async def answer(path: str) -> None:
        if path == "/slow":
            time.sleep(STALL_MS / 1000)  # noqa: ASYNC251 -- a server that does nothing meanwhile

    found = await served(
        answer, lambda url: open_loop(url, requests(40, slow=5), QPS, connections=1, connections_max=1)
    )
    assert found.statuses == [200] * 40
    for after in range(10):
        assert found.ms[5 + after] >= STALL_MS - after * 1000 / QPS


async def test_a_slow_answer_does_not_hold_up_the_requests_after_it() -> None:
    """One answer waits until all the others are given: with one connection for all it would never come.

    Seen to fail with `connections_max` 1: the slow request ran into the timeout.
    """
    others, given = asyncio.Event(), 0

    async def answer(path: str) -> None:
        nonlocal given
        if path == "/slow":
            await others.wait()
        else:
            given += 1
            if given == 19:
                others.set()

    found = await served(answer, lambda url: open_loop(url, requests(20, slow=3), QPS, connections=1))
    assert found.statuses == [200] * 20
    assert found.bodies == [b"ok"] * 20


async def test_warm_up_is_left_out_and_refusals_are_counted() -> None:
    async def answer(path: str) -> None:
        if path == "/slow":
            raise asyncio.IncompleteReadError(b"", 1)  # the server hangs up

    found = await served(answer, lambda url: open_loop(url, requests(20, slow=12), QPS, warm_up=5, arrivals="poisson"))
    assert len(found.ms) == len(found.statuses) == len(found.bodies) == 15
    assert found.errors == 1
    assert found.statuses[7] == 0
    found = await served(answer, lambda url: open_loop(url, requests(8, slow=1), QPS, warm_up=5))
    assert found.errors == 0


async def test_preparations_come_before_their_requests() -> None:
    seen: list[str] = []

    async def answer(path: str) -> None:
        seen.append(path)

    asked = [Request("GET", f"/{n}", prepare=Request("POST", f"/prepare-{n}")) for n in range(4)]
    found = await served(answer, lambda url: open_loop(url, asked, QPS))
    assert seen == [f"/{what}{n}" for n in range(4) for what in ("prepare-", "")]
    assert len(found.ms) == 4


def test_percentiles_are_nearest_rank() -> None:
    shuffled = np.random.default_rng(0).permutation(np.arange(1.0, 1001.0))
    assert percentiles(shuffled) == {"p50_ms": 500, "p90_ms": 900, "p99_ms": 990, "p999_ms": 999}
    assert set(percentiles([7.0]).values()) == {7.0}


@pytest.mark.parametrize("shape", ["vector_warm", "hybrid_warm", "hybrid_filters", "hybrid_cold", "entity_cold_365"])
def test_a_corpus_is_its_seed(shape: str) -> None:
    """Same seed, same events, vectors and questions; another seed, others. Questions are distinct and in scope."""
    made, asked = corpus(shape, seed=3, quick=True, questions=50)
    again, asked_again = corpus(shape, seed=3, quick=True, questions=50)
    assert fingerprint(made, asked) == fingerprint(again, asked_again)
    other, asked_other = corpus(shape, seed=4, quick=True, questions=50)
    assert fingerprint(made, asked) != fingerprint(other, asked_other)
    assert len({question.text for question in asked}) == 50
    assert len(made.events) == len(made.vectors) == len({event.id for event in made.events})
    assert [index_of(event.id) for event in made.events] == list(range(len(made.events)))
    assert np.allclose(np.linalg.norm(made.vectors, axis=1), 1, atol=1e-5)
    for question, found in zip(asked, exact(made, asked, leg="vector"), strict=True):
        for event in (made.events[n] for n in found):
            assert question.entities is None or event.entity in question.entities
            assert question.since_us is None or question.since_us <= event.ts_us < (question.until_us or 0)


def fingerprint(made: Corpus, asked: list[Question]) -> tuple[object, ...]:
    events = [(e.entity, e.ts_us, e.id, e.source, e.kind, e.text, e.attrs) for e in made.events]
    questions = [
        (q.text, q.entities, q.since_us, q.until_us, None if q.vector is None else q.vector.tobytes()) for q in asked
    ]
    return events, made.vectors.tobytes(), questions


def test_an_event_is_one_row() -> None:
    """Of the pieces and of the texts joined from them. Seen to fail with joined texts not cut to a chunk."""
    made, _ = corpus("text_warm", seed=0, quick=True, questions=1)
    pieces, _ = pieces_of(0)
    texts = [event.text or "" for event in made.events]
    assert all(event.thread is None for event in made.events)
    assert {len(chunk(text)) for text in [*texts, *islice(joined(Random(0), pieces), 3_000)] if text} == {1}


def test_the_product_gives_the_exact_answers(tmp_path: Path) -> None:
    """Over HTTP, from the process the benchmarks start: each leg's brute force, caches emptied, memory told.

    Seen to fail with `exact` taking its statistics from the whole corpus.
    """
    made, asked = corpus("hybrid_filters", seed=1, quick=True, questions=12)
    made = replace(made, events=made.events[::10], vectors=np.ascontiguousarray(made.vectors[::10]))
    store = (tmp_path / "store").as_uri()
    asyncio.run(build_store(store, tmp_path / "cache", made))
    place = {event.id: n for n, event in enumerate(made.events)}
    with service(store, tmp_path / "served", embedder=embedder_of(made), cache_memory_bytes=1 << 26) as running:
        for mode in ("text", "vector", "hybrid"):
            answers = answered(running, asked, mode)
            found = [[place[hit["id"]] for hit in answer["hits"]] for answer in answers]
            assert found == exact(made, asked, leg=mode)
        assert answered(running, asked[-1:], "hybrid")[0]["stats"]["cache"] == "memory"
        running.empty_caches(access=True)
        assert answered(running, asked[-1:], "hybrid")[0]["stats"]["cache"] == "cold"
        assert running.peak_mb() > 50
        assert closed_loop(running.url, [running.search(asked[0])], 2, 0.5, warm_up_s=0.1).qps > 0


def answered(running: Served, asked: list[Question], mode: Mode) -> list[dict[str, Any]]:
    found = open_loop(running.url, [running.search(question, mode=mode, deadline_ms=30_000) for question in asked], 20)
    assert found.errors == 0, found.bodies
    return [orjson.loads(body) for body in found.bodies]


def test_a_result_is_kept_and_the_one_before_stays(tmp_path: Path) -> None:
    """Seen to fail with the newer one written over the older."""
    for commit in ("aaa", "bbb+", "ccc"):
        keep({"scenario": "ann", "commit": commit, "rows": []}, tmp_path)
    found = {
        path.relative_to(tmp_path).as_posix(): orjson.loads(path.read_bytes()) for path in tmp_path.rglob("*.json")
    }
    assert {name: result["commit"] for name, result in found.items()} == {
        "ann.json": "ccc",
        "history/ann-aaa.json": "aaa",
        "history/ann-bbb-changed.json": "bbb+",
    }


def test_what_ties_with_the_last_is_as_right() -> None:
    """Each event written twice: of eleven best, the last two share a score. Seen to fail without the ties."""
    made, asked = corpus("hybrid_warm", seed=3, quick=True, questions=20)
    twice = replace(made, events=[*made.events, *made.events], vectors=np.concatenate([made.vectors] * 2))
    for cut, whole in zip(
        exact(twice, asked, leg="vector", k=9), exact(twice, asked, leg="vector", k=9, tied=True), strict=True
    ):
        assert len(cut) == 9
        assert len(whole) >= 10
        assert whole[:9] == cut
        assert {n % len(made.events) for n in whole} == {n % len(made.events) for n in cut}


def test_what_services_answered_is_held_against_the_right_questions() -> None:
    """Fails when the answers of one service come before those of the other, or those beyond the known ones count."""
    dealt = ["a", "b", "c", "d", "e"]
    assert in_turns([dealt[0::2], dealt[1::2]]) == dealt
    answers = [{"hits": [{"id": f"e{n}"}, {"id": "e99"}]} for n in range(4)]
    assert recall(answers, [[0, 1], [1]]) == {"recall_at_10": 0.6667, "recall_questions": 2}


IDLE_S = 20.0


def until(holds: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + IDLE_S
    while not holds():
        assert time.monotonic() < give_up_s
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="schedules as Linux does")
def test_processors_are_kept_awake_by_what_gives_way_to_everybody() -> None:
    """One loop on each processor, of idle priority, until the block ends. Seen to fail without the priority."""
    processors = sorted(os.sched_getaffinity(0))
    with awake() as pids:
        until(lambda: all(os.sched_getscheduler(pid) == os.SCHED_IDLE for pid in pids))
        assert [os.sched_getaffinity(pid) for pid in pids] == [{each} for each in processors]
    assert not any(runs(pid) for pid in pids)


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="schedules as Linux does")
def test_what_keeps_processors_awake_ends_with_a_benchmark_that_is_killed() -> None:
    """Seen to fail with a loop that never looks."""
    command = (
        "import os; from benchmarks.awake import awake\nwith awake() as pids: print(*pids, flush=True); os._exit(1)"
    )
    said = subprocess.run([sys.executable, "-c", command], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True).stdout
    pids = [int(pid) for pid in said.split()]
    assert pids
    until(lambda: not any(runs(pid) for pid in pids))
