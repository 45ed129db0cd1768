"""Streams of lines (NDJSON): joined into chunks on their way, closed when the client goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final, TypeVar

import orjson

from context_plane.errors import PlaneError
from serving.problems import body_of

T = TypeVar("T")

NDJSON: Final = "application/x-ndjson"
CHUNK_BYTES: Final = 64 * 1024
"""Lines that travel together: a send per line costs more than the line."""
CHUNK_S: Final = 0.05
"""A line waits no longer for company."""


async def lines(
    items: AsyncGenerator[T, None], line: Callable[[T], bytes], request_id: str
) -> AsyncGenerator[bytes, None]:
    """A line for each item. Where they break off the status is sent: a last line with `error` says so."""
    try:
        async with aclosing(items):
            async for item in items:
                yield line(item)
    except PlaneError as error:
        yield orjson.dumps({"error": body_of(error, request_id)}, option=orjson.OPT_APPEND_NEWLINE)


async def chunks(lines: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """The lines, several at a time."""
    held: list[bytes] = []
    size, since_s = 0, time.monotonic()
    async with aclosing(lines):
        async for line in lines:
            held.append(line)
            size += len(line)
            if size >= CHUNK_BYTES or time.monotonic() - since_s >= CHUNK_S:
                yield b"".join(held)
                await asyncio.sleep(0)  # lines that are all in memory wait for nothing: others have their turn here
                held, size, since_s = [], 0, time.monotonic()
    if held:
        yield b"".join(held)
