"""A proxy that makes a near S3 server as slow as a far one: first-byte latency, stalls, bandwidth per connection.

Bytes pass unchanged in both directions, so signatures stay valid and bodiless answers need no care; only requests
are parsed, for where they end. One upstream connection per client connection; a client that aborts aborts both.
The first byte of an answer leaves `Delays.next()` after its request's last byte arrived: the server's own time is
part of the delay, not added to it. Delays are drawn in the order requests end, from one seeded generator: log-normal
through p50 and p99, and with a small probability a stall on top. A client does not pipeline; one that does is cut off.

`python -m benchmarks.proxy --upstream http://127.0.0.1:8333 --port 9000` runs one; `proxy(upstream)` does in a
process of its own. Another local port answers a JSON line of settings with one of counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from benchmarks.delays import P50_MS, P99_MS, Delays

MIB_PER_S: Final = 95.0
TIMER_S: Final = 0.0005
"""Timers tick in milliseconds; what is due within half of one is done now."""
HELD_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one answer; beyond it the server waits, so that a slow client costs no memory."""
FIRST_BYTES_MAX: Final = 200_000
"""Answers whose first byte is remembered: a thousand cold queries and more."""
START_S: Final = 20.0


@dataclass(slots=True)
class Link:
    """The link that all connections of a proxy share: where to, how slow, and what has passed."""

    host: str
    port: int
    delays: Delays | None = None
    """None: no delay at all."""
    bytes_per_s: float = MIB_PER_S * 1024 * 1024
    methods: Counter[str] = field(default_factory=Counter)
    stalls: int = 0
    aborted: int = 0
    """Requests whose client left before all that the server had sent was passed on."""
    bytes_out: int = 0
    connections: int = 0
    first_byte_s: deque[float] = field(default_factory=lambda: deque(maxlen=FIRST_BYTES_MAX))
    """Of the newest answers: from the request's last byte to the first byte that left. What a client sees."""

    def counts(self) -> dict[str, Any]:
        return {
            "methods": dict(self.methods),
            "stalls": self.stalls,
            "aborted": self.aborted,
            "bytes_out": self.bytes_out,
            "connections": self.connections,
            "first_byte_p50_ms": self._first_byte_ms(0.50),
            "first_byte_p99_ms": self._first_byte_ms(0.99),
            "cpu_s": time.process_time(),
        }

    def _first_byte_ms(self, share: float) -> float | None:
        """Nearest-rank percentile; None when nothing was answered since the delays were set."""
        ordered = sorted(self.first_byte_s)
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2) if ordered else None


class Client(asyncio.Protocol):
    """A client's connection, and the answer that is on its way to it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._transport: asyncio.Transport | None = None
        self._server: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._listing = False
        self._unsent: list[bytes] = []
        self._queue: deque[bytes] = deque()
        self._held = 0
        self._asked_s = 0.0
        self._open_at_s = 0.0
        """When the next byte may leave, on the monotonic clock."""
        self._due_s: float | None = None
        """When the head of the queue leaves; set once it is known."""
        self._timer: asyncio.TimerHandle | None = None
        self._in_request = False
        self._waiting = False
        """A request has ended, and no byte of its answer has left."""
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._dial: asyncio.Task[None] | None = None

    # --- from the client --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods alone
        self._link.connections += 1
        self._dial = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: Upstream(self), self._link.host, self._link.port)
        except OSError:
            self.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
            return
        if self._server is None:
            self._unsent.append(data)
        else:
            self._server.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._in_request or self._waiting or self._queue:
            self._link.aborted += 1
        self.close()

    def pause_writing(self) -> None:
        if self._server is not None:
            self._server.pause_reading()

    def resume_writing(self) -> None:
        if self._server is not None and self._held <= HELD_BYTES_MAX:
            self._server.resume_reading()

    # --- the parser's callbacks --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._in_request or self._waiting or self._queue:
            raise ValueError("a request before the answer to the last one")
        self._in_request = True
        self._listing = False

    def on_url(self, url: bytes) -> None:
        self._listing = b"list-type=2" in url

    def on_message_complete(self) -> None:
        link = self._link
        link.methods["LIST" if self._listing else self._parser.get_method().decode()] += 1
        self._in_request = False
        self._waiting = True
        self._asked_s = time.monotonic()
        if link.delays is not None:
            delay = link.delays.next()
            link.stalls += delay.stalled
            self._open_at_s = self._asked_s + delay.seconds

    # --- from the server ----------------------------------------------------------------------------

    def connected(self, server: asyncio.Transport) -> None:
        if self._transport is None:
            server.abort()
            return
        self._server = server
        for data in self._unsent:
            server.write(data)
        self._unsent.clear()

    def answer(self, data: bytes) -> None:
        """Bytes of an answer. `100 Continue` comes before the request's end and is never held."""
        if self._transport is None:
            return
        if self._in_request:
            self._transport.write(data)
            return
        self._queue.append(data)
        self._held += len(data)
        if self._held > HELD_BYTES_MAX and self._server is not None:
            self._server.pause_reading()
        if self._timer is None:
            self._pump()

    def server_ended(self) -> None:
        self._server = None
        self._ended = True
        if not self._queue:
            self.close()

    def _pump(self) -> None:
        """Send what is due, and come back for the next. What the loop read at once (at most 256 KiB, 2.6 ms of
        bandwidth) leaves at once, when its last byte would."""
        self._timer = None
        if self._transport is None:
            return
        now = time.monotonic()
        rate = self._link.bytes_per_s
        while self._queue:
            if self._due_s is None:
                starts = self._open_at_s if self._open_at_s > now - TIMER_S else now
                self._due_s = starts + len(self._queue[0]) / rate
            if self._due_s > now + TIMER_S:
                self._timer = self._loop.call_later(self._due_s - now, self._pump)
                break
            piece = self._queue.popleft()
            self._open_at_s, self._due_s = self._due_s, None
            self._held -= len(piece)
            if self._waiting:
                self._waiting = False
                self._link.first_byte_s.append(time.monotonic() - self._asked_s)
            self._link.bytes_out += len(piece)
            self._transport.write(piece)
        if self._server is not None and self._held <= HELD_BYTES_MAX:
            self._server.resume_reading()
        if self._ended and not self._queue:
            self.close()

    def close(self) -> None:
        """Both connections, at once: what was held is for nobody."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._queue.clear()
        if self._server is not None:
            self._server.abort()
            self._server = None
        if self._transport is not None:
            self._transport.close()  # lets what was written leave first


class Upstream(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client.connected(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self._client.answer(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._client.server_ended()


# --- the process ----------------------------------------------------------------------------------


class Control(asyncio.Protocol):
    """The port of the scenarios: a line of JSON settings (`stall`, `seed`, `p50_ms`, `p99_ms`) in, one of counts out.

    Settings begin a new sequence of delays; `{}` only asks.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._line = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._line += data
        if not self._line.endswith(b"\n"):
            return
        settings = json.loads(self._line)
        if settings:
            self._link.delays = Delays(**settings)
            self._link.first_byte_s.clear()
        self._transport.write(json.dumps(self._link.counts()).encode() + b"\n")
        self._transport.close()


async def serve(link: Link, *, port: int, control_port: int) -> None:
    """Until cancelled. Says on standard output which ports it has."""
    loop = asyncio.get_running_loop()
    data = await loop.create_server(partial(Client, link), "127.0.0.1", port, backlog=1024)
    control = await loop.create_server(partial(Control, link), "127.0.0.1", control_port)
    ports = {"port": data.sockets[0].getsockname()[1], "control": control.sockets[0].getsockname()[1]}
    print(json.dumps(ports), flush=True)
    await asyncio.gather(data.serve_forever(), control.serve_forever())


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy, as a scenario holds it."""

    endpoint: str
    control: int
    """Port of `Control`."""

    def counts(self) -> dict[str, Any]:
        """`methods` (LIST apart from GET), `stalls`, `aborted`, `bytes_out`, `connections`, `cpu_s`: since it began;
        `first_byte_p50_ms` and `_p99_ms`: since the delays were set."""
        return self._ask({})

    def set(self, *, seed: int, stall: float, p50_ms: float = P50_MS, p99_ms: float = P99_MS) -> dict[str, Any]:
        """Begin a new sequence of delays. Returns the counts so far."""
        return self._ask({"seed": seed, "stall": stall, "p50_ms": p50_ms, "p99_ms": p99_ms})

    def _ask(self, settings: dict[str, Any]) -> dict[str, Any]:
        with socket.create_connection(("127.0.0.1", self.control), timeout=START_S) as connection:
            connection.sendall(json.dumps(settings).encode() + b"\n")
            with connection.makefile("rb") as answer:
                counts: dict[str, Any] = json.loads(answer.readline())
        return counts


@contextmanager
def proxy(upstream: str, *, seed: int = 0, stall: float = 0.0, port: int = 0) -> Iterator[Proxy]:
    """A proxy in front of `upstream` (`http://host:port`) in a process of its own, ended with the block."""
    arguments = ["--upstream", upstream, "--port", str(port), "--seed", str(seed), "--stall", str(stall)]
    command = [sys.executable, "-m", "benchmarks.proxy", *arguments]
    with Popen(command, stdout=PIPE, cwd=Path(__file__).resolve().parent.parent) as process:
        try:
            assert process.stdout is not None
            ports = json.loads(process.stdout.readline())
            yield Proxy(f"http://127.0.0.1:{ports['port']}", ports["control"])
        finally:
            process.kill()  # it holds nothing


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    parts = urlsplit(options.upstream)
    if parts.scheme != "http" or parts.hostname is None:
        raise SystemExit("--upstream reads http://host:port")
    delays = Delays(seed=options.seed, p50_ms=options.p50_ms, p99_ms=options.p99_ms, stall=options.stall)
    link = Link(parts.hostname, parts.port or 80, delays, options.mib_per_s * 1024 * 1024)
    try:
        uvloop.run(serve(link, port=options.port, control_port=options.control_port))
    except KeyboardInterrupt:
        print(json.dumps(link.counts()), flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy", description="a near S3 server made far")
    parser.add_argument("--upstream", required=True, help="http://host:port of the server")
    parser.add_argument("--port", type=int, default=0, help="0: a free one, printed")
    parser.add_argument("--control-port", type=int, default=0, help="settings and counts; 0: a free one, printed")
    parser.add_argument("--p50-ms", type=float, default=P50_MS, help="median first-byte delay")
    parser.add_argument("--p99-ms", type=float, default=P99_MS, help="its 99th percentile")
    parser.add_argument("--stall", type=float, default=0.0, help="probability of 2-10 s on top")
    parser.add_argument("--mib-per-s", type=float, default=MIB_PER_S, help="bandwidth of a connection")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
