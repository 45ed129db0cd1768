"""The cheapest closed loop: how many answers a second a server gives when the client costs next to nothing.

A bare ASGI app answers in some 60 µs, about what `benchmarks.load` spends on a request of its own: measured with it, a
server at half the speed would look as good. Here a connection writes its next request in the callback that found the
last answer whole; nothing is parsed but the status and `content-length`, nothing is kept but the count.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.load import Request

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Flooded:
    """Answers a second, and the processor time that the server took for each, microseconds."""

    qps: float
    server_us: float


def flood(
    url: str, pid: int, requests: Sequence[Request], connections: int, seconds: float, *, warm_up_s: float = 1.0
) -> Flooded:
    """Ask the server of process `pid` over `connections` for `seconds`, each with its share of the requests in turn.

    Raises `RuntimeError` for an answer that is not a 200, or has no `content-length`."""
    parts = urlsplit(url)
    assert parts.hostname, url
    encoded = [request.encoded(parts.hostname) for request in requests]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        args = (parts.hostname, parts.port or 80, pid, encoded, connections, seconds, warm_up_s)
        return child.submit(_in_child, *args).result()


def _in_child(
    host: str, port: int, pid: int, encoded: Sequence[bytes], connections: int, seconds: float, warm_up_s: float
) -> Flooded:
    gc.disable()  # a collection of the client is no pause of the server
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(host, port, pid, encoded, connections, seconds, warm_up_s))


async def _run(
    host: str, port: int, pid: int, encoded: Sequence[bytes], connections: int, seconds: float, warm_up_s: float
) -> Flooded:
    loop = asyncio.get_running_loop()
    open_ = [_Connection(encoded[n % len(encoded) :: connections]) for n in range(connections)]
    for one in open_:
        await loop.create_connection(partial(_same, one), host, port)
    try:
        await asyncio.sleep(warm_up_s)
        first, first_s, first_cpu_s = sum(one.answers for one in open_), time.perf_counter(), _cpu_s(pid)
        await asyncio.sleep(seconds)
        last, last_s, last_cpu_s = sum(one.answers for one in open_), time.perf_counter(), _cpu_s(pid)
    finally:
        for one in open_:
            one.close()
    failed = next((one.failed for one in open_ if one.failed is not None), None)
    if failed is not None:
        raise RuntimeError(f"not a whole 200: {failed[:300]!r}")
    return Flooded((last - first) / (last_s - first_s), (last_cpu_s - first_cpu_s) / max(1, last - first) * 1e6)


def _cpu_s(pid: int) -> float:
    """Processor time of a process so far, user and system (Linux, proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _same(connection: _Connection) -> _Connection:
    return connection


class _Connection(asyncio.Protocol):
    def __init__(self, encoded: Sequence[bytes]) -> None:
        self.answers = 0
        self.failed: bytes | None = None
        self._encoded = encoded
        self._held = b""
        self._missing = 0
        """Bytes of the answer under way that have not come; 0 while its head has not."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # of uvloop, which registers no base class
        self._transport.write(self._encoded[0])

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            data = self._held + data
            end = data.find(_END)
            if end < 0:
                self._held = data
                return
            self._held = b""
            found = _LENGTH.search(data, 0, end)
            if found is None or not data.startswith(b"HTTP/1.1 200"):
                self.failed = data
                self.close()
                return
            self._missing = end + len(_END) + int(found[1])
        self._missing -= len(data)
        if not self._missing:
            self.answers += 1
            self._transport.write(self._encoded[self.answers % len(self._encoded)])

    def connection_lost(self, error: Exception | None) -> None:
        if self.failed is None and error is not None:
            self.failed = str(error).encode()

    def close(self) -> None:
        self._transport.close()
