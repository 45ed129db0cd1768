"""A server that is silent, absent, failing or ambiguous: bounded, and never a wrong verdict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from context_plane.errors import Conflict, PlaneError, Unavailable
from context_plane.store import ByteRange, Store, StoreOptions, open_store

BOUND_S = 30.0
"""Far above the 0.2 s timeouts times three attempts, far below obstore's minutes: not a measurement."""

CALLS: list[Callable[[Store], Awaitable[object]]] = [
    lambda store: store.get("a"),
    lambda store: store.get_range("a", ByteRange(0, 1)),
    lambda store: store.put_new("a", b"x"),
    lambda store: store.put("a", b"x"),
    lambda store: store.delete(["a"]),
]


@asynccontextmanager
async def server(answer: bytes | None) -> AsyncIterator[tuple[Store, list[bytes]]]:
    """A store at a TCP server that gives one answer to every request, or none; and the requests it saw."""
    seen: list[bytes] = []

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            seen.append(await reader.readuntil(b"\r\n"))
            if answer is not None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
                writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield _store(f"http://127.0.0.1:{port}"), seen
    finally:
        listening.close()
        for writer in writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        await listening.wait_closed()


def _store(endpoint: str) -> Store:
    options = StoreOptions(
        endpoint=endpoint,
        access_key="k",
        secret_key="s",
        allow_http=True,
        connect_timeout_s=0.2,
        read_timeout_s=0.2,
        request_timeout_s=0.3,
    )
    return open_store("s3://bucket", options=options)


def _response(status: str, body: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


@pytest.mark.parametrize("call", CALLS)
async def test_a_silent_server_is_unavailable_within_bounds(call: Callable[[Store], Awaitable[object]]) -> None:
    async with server(None) as (store, _), asyncio.timeout(BOUND_S):
        with pytest.raises(Unavailable, match="store_unavailable"):
            await call(store)


@pytest.mark.parametrize("call", CALLS)
async def test_no_server_is_unavailable(call: Callable[[Store], Awaitable[object]]) -> None:
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(Unavailable, match="store_unavailable"):
            await call(_store("http://127.0.0.1:9"))


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Slow Down"])
async def test_a_create_is_sent_once_and_a_read_is_retried(status: str) -> None:
    """Seen to fail when creates used the retrying client: a retry could meet its own object."""
    async with server(_response(status)) as (store, seen), asyncio.timeout(BOUND_S):
        with pytest.raises(Unavailable):
            await store.put_new("a", b"x")
        assert len(seen) == 1
        with pytest.raises(Unavailable):
            await store.get("a")
        assert len(seen) == 1 + 3


async def test_a_create_that_raced_a_delete_is_no_conflict() -> None:
    """AWS answers 409 `ConditionalRequestConflict`, and nothing may be there."""
    body = "<Error><Code>ConditionalRequestConflict</Code></Error>"
    async with server(_response("409 Conflict", body)) as (store, _):
        with pytest.raises(Unavailable):
            await store.put_new("a", b"x")
    async with server(_response("412 Precondition Failed")) as (store, _):
        with pytest.raises(Conflict):
            await store.put_new("a", b"x")


async def test_a_missing_bucket_is_not_an_absent_object() -> None:
    async with server(_response("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>")) as (store, _):
        with pytest.raises(Unavailable, match="create it"):
            await store.get("a")


@pytest.mark.parametrize("url", ["", "file://host/x", "ftp://x/y", "s3://", "s3://b/a//b", "s3://b?x=1", "file:rel"])
def test_an_unusable_url_is_refused(url: str) -> None:
    with pytest.raises(PlaneError, match="invalid"):
        open_store(url)


def test_secrets_stay_out_of_repr() -> None:
    assert "hidden" not in repr(StoreOptions(secret_key="hidden", session_token="hidden", azure_key="hidden"))
