"""The proxy changes when bytes arrive, never which; its delays are the seed's."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from benchmarks.delays import Delay, Delays
from benchmarks.proxy import Client, Link, Proxy, proxy
from context_plane.errors import Conflict, NotFound
from context_plane.store import Store, open_store
from context_plane.store.base import ByteRange
from tests.store.servers import Server


@pytest.fixture(scope="module")
def near(seaweedfs: Server) -> Iterator[Proxy]:
    """SeaweedFS through a proxy of small delays, in its own process."""
    with proxy(seaweedfs.endpoint) as running:
        running.set(seed=1, stall=0.0, p50_ms=2.0, p99_ms=4.0)
        yield running


@pytest.fixture
def both(seaweedfs: Server, near: Proxy, store_name: str) -> tuple[Store, Store]:
    """One bucket, directly and through the proxy."""
    url = seaweedfs.url(store_name)
    through = dataclasses.replace(seaweedfs.options, endpoint=near.endpoint)
    return open_store(url, options=seaweedfs.options), open_store(url, options=through)


def body_of(size: int) -> bytes:
    return bytes(range(251)) * (size // 251 + 1)


@pytest.mark.parametrize("size", [0, 1, 70_000, 800_017, 9_000_000])
async def test_bytes_pass_unchanged_in_both_directions(both: tuple[Store, Store], size: int) -> None:
    """Seen to fail when what waits left newest first."""
    direct, through = both
    body = body_of(size)[:size]
    await through.put("up", body)
    await direct.put("down", body)
    assert await direct.get("up") == body
    assert await through.get("down") == body
    middle = ByteRange(size // 3, size // 2)
    assert await through.get_range("down", middle) == body[middle.offset : middle.stop]


async def test_creates_lists_deletes_and_absences_pass(both: tuple[Store, Store]) -> None:
    """409/412, 404, 204 and 416: answers without a body, or with one that is not the object."""
    direct, through = both
    await through.put_new("a/1", b"first")
    with pytest.raises(Conflict):
        await through.put_new("a/1", b"second")
    assert await direct.get("a/1") == b"first"
    await through.put("a/2", b"x")
    assert [info.key async for info in through.list("a/")] == ["a/1", "a/2"]
    assert await through.get_range("a/2", ByteRange(0, 0)) == b""  # a HEAD
    assert await through.get_range("a/2", ByteRange(5, 5)) == b""
    await through.delete(["a/1", "a/2"])
    with pytest.raises(NotFound):
        await through.get("a/1")
    assert [info.key async for info in direct.list("a/")] == []


async def test_parallel_reads_keep_apart(both: tuple[Store, Store]) -> None:
    direct, through = both
    bodies = {f"k{n}": body_of(n * 997)[n:] for n in range(64)}
    await asyncio.gather(*(direct.put(key, body) for key, body in bodies.items()))
    read = await asyncio.gather(*(through.get(key) for key in bodies))
    assert dict(zip(bodies, read, strict=True)) == bodies


async def test_requests_are_counted_by_method(both: tuple[Store, Store], near: Proxy) -> None:
    _, through = both
    before = near.counts()["methods"]
    await through.put("a", b"1")
    for _ in range(3):
        await through.get("a")
    assert [info.key async for info in through.list("")] == ["a"]
    after = near.counts()["methods"]
    assert {name: after[name] - before.get(name, 0) for name in ("PUT", "GET", "LIST")} == {
        "PUT": 1,
        "GET": 3,
        "LIST": 1,
    }


async def reaches(running: Proxy, name: str, count: int) -> None:
    while (await asyncio.to_thread(running.counts))[name] < count:  # noqa: ASYNC110  # it counts in another process
        await asyncio.sleep(0.01)


async def test_every_request_stalls_at_probability_one_and_can_be_aborted(
    both: tuple[Store, Store], near: Proxy
) -> None:
    """A client that hedges cancels: the proxy drops both connections, and serves the next request."""
    direct, through = both
    await direct.put("a", b"1")
    before = near.set(seed=1, stall=1.0)
    try:
        read = asyncio.ensure_future(through.get("a"))
        await reaches(near, "stalls", before["stalls"] + 1)
        assert not read.done()
        read.cancel()
        await reaches(near, "aborted", before["aborted"] + 1)
    finally:
        near.set(seed=1, stall=0.0, p50_ms=2.0, p99_ms=4.0)
    assert await through.get("a") == b"1"


# --- delays --------------------------------------------------------------------------------------


def test_delays_are_log_normal_through_both_percentiles() -> None:
    delays = Delays(seed=5)
    drawn = sorted(delays.next().seconds for _ in range(20_000))
    assert drawn[10_000] == pytest.approx(0.060, rel=0.01)
    assert drawn[19_800] == pytest.approx(0.080, rel=0.01)


def test_stalls_do_not_move_the_other_delays() -> None:
    """Seen to fail when the length of a stall was drawn only for stalled requests."""
    without, with_some = Delays(seed=3), Delays(seed=3, stall=0.05)
    pairs = [(without.next(), with_some.next()) for _ in range(2_000)]
    stalled = [(calm, slow) for calm, slow in pairs if slow.stalled]
    assert 60 < len(stalled) < 140
    assert all(2.0 <= slow.seconds - calm.seconds <= 10.0 for calm, slow in stalled)
    assert all(calm == slow for calm, slow in pairs if not slow.stalled)


class Given(Delays):
    """Delays that a test names; kept in the order they were asked for."""

    def __init__(self, *seconds: float) -> None:
        self._left = list(seconds)

    def next(self) -> Delay:
        return Delay(self._left.pop(0), False)


@asynccontextmanager
async def link_to(answer: bytes, delays: Delays, bytes_per_s: float = 1e9) -> AsyncIterator[tuple[Link, int]]:
    """A proxy in this process before a server that gives every request the same answer."""
    loop = asyncio.get_running_loop()
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with suppress(ConnectionError):
            while await reader.readline():
                while (await reader.readline()).strip():
                    pass
                writer.write(answer)
                if b"connection: close" in answer:
                    break
        await closed(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = Link("127.0.0.1", server.sockets[0].getsockname()[1], delays, bytes_per_s)
    front = await loop.create_server(lambda: Client(link), "127.0.0.1", 0)
    async with server, front:
        yield link, front.sockets[0].getsockname()[1]
        await asyncio.gather(*(task for task in serving if task is not None))
        await asyncio.sleep(0.01)  # transports close in the loop's next turns


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


REQUEST = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"


def answer_of(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def ask(port: int, done: list[str], name: str, *, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    await reader.readexactly(size)
    done.append(name)
    await closed(writer)


async def test_answers_arrive_in_the_order_of_their_delays() -> None:
    """The first to ask has the longest delay and is answered last."""
    done: list[str] = []
    answer = answer_of(b"ok")
    async with link_to(answer, Given(0.4, 0.2, 0.0)) as (link, port):
        asked = []
        for number, name in enumerate(["slow", "middle", "fast"], start=1):
            asked.append(asyncio.ensure_future(ask(port, done, name, size=len(answer))))
            while link.methods["GET"] < number:  # noqa: ASYNC110  # the delays are drawn as requests end
                await asyncio.sleep(0)
        await asyncio.gather(*asked)
        assert list(link.first_byte_s) == sorted(link.first_byte_s)
        assert all(took_s > due_s - 0.001 for took_s, due_s in zip(link.first_byte_s, (0, 0.2, 0.4), strict=True))
    assert done == ["fast", "middle", "slow"]


async def test_no_byte_leaves_before_its_time() -> None:
    """A lower bound: what else the machine does can only make it later."""
    body = body_of(1_000_000)
    answer = answer_of(body)
    async with link_to(answer, Given(0.05), bytes_per_s=len(answer) / 0.2) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        started_s = time.monotonic()
        writer.write(REQUEST)
        assert await reader.readexactly(len(answer)) == answer
        assert time.monotonic() - started_s > 0.24
        await closed(writer)


async def test_a_client_that_pipelines_is_cut_off() -> None:
    async with link_to(answer_of(b"ok"), Given(0.05, 0.05)) as (link, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST + REQUEST)
        assert await reader.read() == b""
        await closed(writer)
        assert link.methods["GET"] <= 1


async def test_a_server_that_closes_is_passed_on_after_its_last_byte() -> None:
    answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body_of(10_000)
    async with link_to(answer, Given(0.02, 0.02)) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        assert await reader.read() == answer
        await closed(writer)
