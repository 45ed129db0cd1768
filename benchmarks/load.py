"""The load generator: a process of its own that sends requests at a fixed rate, or as fast as answers come.

Open loop: requests start at times fixed beforehand, whatever became of the earlier ones, and a latency runs from
that intended start to the last byte of the answer; a server that stalls is charged for everything that should
have started meanwhile (Tene, "How NOT to measure latency"; Schroeder et al., NSDI 2006). Each request takes a
keep-alive connection that is free; when none is, a new one is opened, up to `connections_max`, and then it
waits. The last millisecond before a start is spun: an event loop's timers are that coarse.

Raw asyncio over httptools: what the client adds is the row of the bare ASGI app (`benchmarks.service.bare`).
"""

from __future__ import annotations

import asyncio
import gc
import pickle
import subprocess
import sys
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, Final, Literal, TypeAlias, cast
from urllib.parse import urlsplit

import httptools
import numpy as np
import uvloop
from numpy.typing import NDArray

from benchmarks.scenario import REPOSITORY

CONNECTIONS: Final = 8
"""Opened before the first request: none pays for a handshake unless nine are under way."""
CONNECTIONS_MAX: Final = 256
"""A quarter of what the service takes at once: past it there is a queue anyway."""
TIMEOUT_S: Final = 60.0
"""A request without an answer by then counts as failed; the deadline of a read is shorter."""
SPIN_S: Final = 0.0015
Arrivals: TypeAlias = Literal["fixed", "poisson"]


@dataclass(frozen=True, slots=True)
class Request:
    """`prepare` is sent and answered before the intended start, untimed, half an interval ahead: emptying caches."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    prepare: Request | None = None

    def encoded(self, host: str) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", f"host: {host}", *(f"{k}: {v}" for k, v in self.headers)]
        if self.body:
            lines.append(f"content-length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True, slots=True)
class Latencies:
    """In the order of the requests, warm-up left out. A status is 0 where no answer came."""

    ms: NDArray[np.float64]
    """From the intended start to the end of the answer."""
    late_ms: NDArray[np.float64]
    """From the intended start to the actual one: the generator's own lateness, and waits for a connection."""
    statuses: list[int]
    bodies: list[bytes]
    seconds: float
    """From the first intended start to the last answer."""

    @property
    def errors(self) -> int:
        return sum(not 200 <= status < 300 for status in self.statuses)


@dataclass(frozen=True, slots=True)
class Closed:
    """Of the answers that began and ended within `seconds`. `ms` runs from the actual start: a loop that waits for
    its answers leaves out what a stall would have delayed."""

    seconds: float
    ms: NDArray[np.float64]
    """Of answers with a status of success; others are counted as errors, and nowhere else."""
    bodies: list[bytes]
    errors: int

    @property
    def qps(self) -> float:
        return len(self.ms) / self.seconds


@dataclass(frozen=True, slots=True)
class _Job:
    url: str
    requests: Sequence[Request]
    starts_s: Sequence[float] | None
    """Intended starts, ascending from 0; None: closed loop."""
    connections: int
    connections_max: int
    seconds: float = 0.0
    warm_up_s: float = 0.0


def open_loop(
    url: str,
    requests: Sequence[Request],
    qps: float,
    *,
    warm_up: int = 0,
    arrivals: Arrivals = "fixed",
    seed: int = 0,
    connections: int = CONNECTIONS,
    connections_max: int = CONNECTIONS_MAX,
) -> Latencies:
    """Send every request once at `qps`; the first `warm_up` are sent at that rate too and not reported.

    `fixed`: every 1 / qps seconds; `poisson`: exponential gaps, seeded. Raises `RuntimeError` when the child fails.
    """
    rng, gap_s, starts, at_s = Random(seed), 1.0 / qps, list[float](), 0.0
    for _ in requests:
        starts.append(at_s)
        at_s += gap_s if arrivals == "fixed" else rng.expovariate(qps)
    made: Latencies = _in_child(_Job(url, requests, starts, connections, connections_max))
    first_s = starts[warm_up] if warm_up < len(starts) else 0.0
    return Latencies(
        ms=made.ms[warm_up:],
        late_ms=made.late_ms[warm_up:],
        statuses=made.statuses[warm_up:],
        bodies=made.bodies[warm_up:],
        seconds=made.seconds - first_s,
    )


def closed_loop(
    url: str, requests: Sequence[Request], connections: int, seconds: float, *, warm_up_s: float = 1.0
) -> Closed:
    """Keep `connections` requests under way for `warm_up_s`, which is not reported, and then `seconds`.

    Requests are taken in turn, and again from the first when they end. Raises `RuntimeError` when all failed.
    """
    made: Closed = _in_child(_Job(url, requests, None, connections, connections, seconds, warm_up_s))
    return made


def saturate(
    url: str, requests: Sequence[Request], connections: int, seconds: float, *, warm_up_s: float = 1.0
) -> float:
    """Successful answers a second of `closed_loop`."""
    return closed_loop(url, requests, connections, seconds, warm_up_s=warm_up_s).qps


def percentiles(ms: NDArray[np.float64] | Sequence[float]) -> dict[str, float]:
    """Nearest-rank percentiles of the latencies: at least that share of them is as low."""
    values = np.sort(np.asarray(ms, np.float64))
    ranks = {name: -(-len(values) * permille // 1000) for name, permille in _PERMILLE.items()}
    return {name: round(float(values[rank - 1]), 3) for name, rank in ranks.items()}


_PERMILLE: Final = {"p50_ms": 500, "p90_ms": 900, "p99_ms": 990, "p999_ms": 999}
"""Integers: 99.9 % of a thousand is 999, and not a little more."""


# --- the child ----------------------------------------------------------------------------------


def _in_child(job: _Job) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"], input=pickle.dumps(job), capture_output=True, cwd=REPOSITORY
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr.decode(errors='replace').strip()[-2000:]}")
    return pickle.loads(done.stdout)


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser: Any = None
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # of uvloop, which registers no base class

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((0, b""))

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, encoded: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """(status, body) in time; status 0 when the connection ends."""
        self._answer = asyncio.get_running_loop().create_future()
        self._parser, self._parts = httptools.HttpResponseParser(self), []
        if self._transport is None:
            self._answer.set_result((0, b""))
        else:
            self._transport.write(encoded)
        return self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        assert self._answer is not None
        if not self._parser.should_keep_alive():
            self.close()
        if not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), b"".join(self._parts)))


class _Pool:
    """Free connections, the one used last first. At most `connections_max` requests are under way."""

    def __init__(self, url: str, connections_max: int) -> None:
        parts = urlsplit(url)
        assert parts.hostname, url
        self.host, self._port = parts.hostname, parts.port or 80
        self._free: deque[_Connection] = deque()
        self._room = asyncio.Semaphore(connections_max)

    async def fill(self, connections: int) -> None:
        self._free.extend([await self._open() for _ in range(connections)])

    async def ask(self, encoded: bytes) -> tuple[float, int, bytes]:
        """(when it was sent, status, body)."""
        async with self._room:
            while self._free and not self._free[-1].usable:
                self._free.pop()
            connection = self._free.pop() if self._free else await self._open()
            sent_s = time.perf_counter()
            answer = connection.ask(encoded)
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    status, body = await answer
            except TimeoutError:
                connection.close()
                return sent_s, 0, b""
            self._free.append(connection)
            return sent_s, status, body

    async def _open(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, self.host, self._port)
        return connection


async def _open_loop(job: _Job) -> Latencies:
    assert job.starts_s is not None
    pool, total = _Pool(job.url, job.connections_max), len(job.requests)
    await pool.fill(job.connections)
    encoded = [request.encoded(pool.host) for request in job.requests]
    prepared = [None if request.prepare is None else request.prepare.encoded(pool.host) for request in job.requests]
    ms, late_ms, statuses, bodies = np.zeros(total), np.zeros(total), [0] * total, [b""] * total
    lead_s = job.starts_s[1] / 2 if total > 1 else 0.0
    zero_s = time.perf_counter() + lead_s + 0.05

    async def one(n: int, intended_s: float) -> None:
        sent_s, statuses[n], bodies[n] = await pool.ask(encoded[n])
        ms[n], late_ms[n] = (time.perf_counter() - intended_s) * 1000, (sent_s - intended_s) * 1000

    running: set[asyncio.Task[None]] = set()
    for n, start_s in enumerate(job.starts_s):
        intended_s, before = zero_s + start_s, prepared[n]
        if before is not None:
            await _until(intended_s - lead_s)
            await pool.ask(before)
        await _until(intended_s)
        task = asyncio.create_task(one(n, intended_s))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return Latencies(ms, late_ms, statuses, bodies, time.perf_counter() - zero_s)


async def _until(at_s: float) -> None:
    if (wait_s := at_s - time.perf_counter() - SPIN_S) > 0:
        await asyncio.sleep(wait_s)
    while time.perf_counter() < at_s:  # noqa: ASYNC110 -- an event could only be set by the timer that is too coarse
        await asyncio.sleep(0)


async def _closed_loop(job: _Job) -> Closed:
    pool, turn = _Pool(job.url, job.connections_max), count()
    await pool.fill(job.connections)
    encoded = [request.encoded(pool.host) for request in job.requests]
    first_s = time.perf_counter() + job.warm_up_s
    last_s, ms, bodies = first_s + job.seconds, list[float](), list[bytes]()
    failed: list[str] = []

    async def client() -> None:
        while (now_s := time.perf_counter()) < last_s:
            _, status, body = await pool.ask(encoded[next(turn) % len(encoded)])
            if not 200 <= status < 300:
                failed.append(f"status {status}: {body[:300]!r}")
                continue
            done_s = time.perf_counter()
            if first_s <= now_s and done_s < last_s:
                ms.append((done_s - now_s) * 1000)
                bodies.append(body)

    await asyncio.gather(*(client() for _ in range(job.connections)))
    if failed and not ms:
        raise RuntimeError(f"no request succeeded; the first: {failed[0]}")
    return Closed(job.seconds, np.array(ms), bodies, len(failed))


def main() -> None:
    """A pickled job on standard input; its result, pickled, on standard output."""
    job: _Job = pickle.loads(sys.stdin.buffer.read())
    gc.freeze()
    gc.disable()  # a collection of the client is no latency of the server
    work: Coroutine[Any, Any, Any] = _closed_loop(job) if job.starts_s is None else _open_loop(job)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(pickle.dumps(runner.run(work)))


if __name__ == "__main__":
    from benchmarks.load import main as run  # under its own name, which pickled values carry

    run()
