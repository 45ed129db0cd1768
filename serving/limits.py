"""What one process takes on at a time: sizes of bodies, bytes in memory, requests in flight.

A body is decoded under a bound while it is decompressed, so a small bomb costs no more than an honest
body of the limit. Every byte held for a request is charged to one ledger of the process.
Formats: RFC 1952 (gzip), RFC 8878 (zstd).
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import zstandard
from fastapi import Request
from starlette.requests import ClientDisconnect

from context_plane.errors import Invalid, Unavailable
from serving.headers import header_text

T = TypeVar("T")

EVENTS_BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""Decoded events of one request: half of what one log object is made of."""
QUERY_BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""A batch of 50,000 entities of the longest names fits."""
EVENTS_MAX: Final = 10_000
BATCH_ENTITIES_MAX: Final = 50_000
"""Longer lists are `"*"` or several requests: the answer streams, but the list is held."""
DECODED_BYTES: Final = 64 * 1024
DECODED_FACTOR: Final = 16
"""Compressed JSON comes to less than this, or so many times its size; what does not is decoded a second time."""
BODIES_BYTES_MAX: Final = 256 * 1024 * 1024
"""Request bodies held by one process, compressed and decoded: sixteen of the largest."""
IN_FLIGHT_MAX: Final = 1_024
"""Requests under way in one process: a task and a socket each, and more than that many are not being served."""
IN_FLIGHT_TENANT_MAX: Final = 512
"""Of one tenant: who does not read what it asked for, or sends its bodies slowly, leaves the others half."""
INLINE_BYTES: Final = 4 * 1024
"""Events of smaller bodies are checked in well under half a millisecond, on the event loop."""
INLINE_QUERY_BYTES: Final = 32 * 1024
"""The same of queries: a vector of a thousand numbers, or a thousand names."""

_FRAMES_MAX: Final = 256
"""Frames of one zstd or gzip body: parallel compressors write some dozens; millions of empty ones are an attack."""
_SLICE_BYTES: Final = 512
"""zstd input at a time. A block takes at least 4 bytes and yields at most 128 KiB: the overshoot is 16 MiB."""
_WINDOW_BYTES_MAX: Final = 32 * 1024 * 1024
"""Memory a zstd frame may ask for; level 19 asks for 8 MiB."""
_GZIP_WBITS: Final = 31


@dataclass(slots=True)
class Ledger:
    """Bytes and requests that the process holds at this moment."""

    bytes_max: int = BODIES_BYTES_MAX
    requests_max: int = IN_FLIGHT_MAX
    of_tenant_max: int = IN_FLIGHT_TENANT_MAX
    bytes_held: int = 0
    requests: int = 0
    of_tenant: Counter[str] = field(default_factory=Counter)
    """Requests by the tenant that they were let in for."""

    def enter(self) -> None:
        """One more request. Raises `Unavailable(rate_limited)`; pair with `leave`."""
        if self.requests >= self.requests_max:
            raise Unavailable("rate_limited", "the process serves all it can; retry", retry_after_s=1.0)
        self.requests += 1

    def leave(self) -> None:
        self.requests -= 1

    def enter_tenant(self, tenant: str) -> None:
        """A request was let in. Raises `Unavailable(rate_limited)`; pair with `leave_tenant`."""
        if self.of_tenant[tenant] >= self.of_tenant_max:
            detail = "the tenant has all the requests under way that it may; read the answers, or ask less at once"
            raise Unavailable("rate_limited", detail, retry_after_s=1.0)
        self.of_tenant[tenant] += 1

    def leave_tenant(self, tenant: str) -> None:
        self.of_tenant[tenant] -= 1
        if not self.of_tenant[tenant]:
            del self.of_tenant[tenant]

    def charge(self, count: int) -> None:
        if self.bytes_held + count > self.bytes_max:
            raise Unavailable("rate_limited", "the process holds all the bodies it can; retry", retry_after_s=1.0)
        self.bytes_held += count

    def release(self, count: int) -> None:
        self.bytes_held -= count


class body:
    """`async with body(request, ledger, bytes_max=n) as raw`: the decoded body, charged until the block ends.

    Raises `Invalid(body_too_large | encoding_invalid)`, `Unavailable(rate_limited)`, `ClientDisconnect`."""

    __slots__ = ("_bytes_max", "_charged", "_ledger", "_request")

    def __init__(self, request: Request, ledger: Ledger, *, bytes_max: int) -> None:
        self._request = request
        self._ledger = ledger
        self._bytes_max = bytes_max
        self._charged = 0

    async def __aenter__(self) -> bytes:
        try:
            sent = await self._sent()
            encoding = header_text(self._request.scope, b"content-encoding", "identity").strip().lower()
            return sent if encoding in ("", "identity") else await self._decoded(sent, encoding)
        except BaseException:
            self._release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    async def _sent(self) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part: bytes = message.get("body", b"")
            if self._charged + len(part) > self._bytes_max:
                raise _too_large(self._bytes_max)
            self._charge(len(part))
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _decoded(self, sent: bytes, encoding: str) -> bytes:
        # The decoded size is unknown until it is decoded: what bodies usually come to is charged first, then the limit.
        usual = min(self._bytes_max, max(DECODED_BYTES, DECODED_FACTOR * len(sent)))
        try:
            return await self._decoded_within(usual, sent, encoding)
        except Invalid as error:
            if error.code != "body_too_large" or usual == self._bytes_max:
                raise
        return await self._decoded_within(self._bytes_max, sent, encoding)

    async def _decoded_within(self, bytes_max: int, sent: bytes, encoding: str) -> bytes:
        self._charge(bytes_max)
        try:
            decoded = await asyncio.to_thread(decode, sent, encoding, bytes_max=bytes_max)
        except BaseException:
            self._charge(-bytes_max)
            raise
        self._charge(len(decoded) - bytes_max)
        return decoded

    def _charge(self, count: int) -> None:
        self._ledger.charge(count)
        self._charged += count

    def _release(self) -> None:
        self._ledger.release(self._charged)
        self._charged = 0


def decode(data: bytes, encoding: str, *, bytes_max: int) -> bytes:
    """Undo a content encoding. Raises `Invalid(encoding_invalid)` for truncated, damaged or unknown input,
    `Invalid(body_too_large)` as soon as more than `bytes_max` bytes come out."""
    try:
        match encoding:
            case "zstd":
                return _decode_zstd(data, bytes_max)
            case "gzip" | "x-gzip":
                return _decode_gzip(data, bytes_max)
    except (zstandard.ZstdError, zlib.error) as error:
        raise Invalid("encoding_invalid", f"the {encoding} body does not decode: {error}") from error
    raise Invalid("encoding_invalid", "Content-Encoding is zstd or gzip", got=encoding[:40])


def _decode_zstd(data: bytes, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    size = offset = 0
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
    for _ in range(_FRAMES_MAX):
        frame = decompressor.decompressobj()
        while not frame.eof and offset < len(data):
            taken = data[offset : offset + _SLICE_BYTES]
            part = frame.decompress(taken)
            offset += len(taken) - len(frame.unused_data)
            size += len(part)
            if size > bytes_max:
                raise _too_large(bytes_max)
            parts.append(part)
        if not frame.eof:
            raise Invalid("encoding_invalid", "the zstd body ends before its frame does; send all of it")
        if offset == len(data):
            return b"".join(parts)
    raise Invalid("encoding_invalid", f"a zstd body has at most {_FRAMES_MAX} frames")


def _decode_gzip(data: bytes, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for _ in range(_FRAMES_MAX):
        member = zlib.decompressobj(_GZIP_WBITS)
        part = member.decompress(data, bytes_max - size + 1)
        size += len(part)
        if size > bytes_max:
            raise _too_large(bytes_max)
        parts.append(part)
        if not member.eof:
            raise Invalid("encoding_invalid", "the gzip body ends before its member does; send all of it")
        data = member.unused_data
        if not data:
            return b"".join(parts)
    raise Invalid("encoding_invalid", f"a gzip body has at most {_FRAMES_MAX} members")


def _too_large(bytes_max: int) -> Invalid:
    return Invalid("body_too_large", "split the request", limit_bytes=bytes_max)


def check_media_type(request: Request, *allowed: str) -> str:
    """The body's media type, one of `allowed`. Raises `Invalid(content_type_invalid)`.

    Being strict here also keeps web pages of other origins out: they cannot send these without a preflight.
    """
    sent = header_text(request.scope, b"content-type").partition(";")[0].strip().lower()
    if sent not in allowed:
        raise Invalid("content_type_invalid", f"send Content-Type: {' or '.join(allowed)}", got=sent[:80])
    return sent


async def off_loop(size: int, work: Callable[[], T], inline_bytes: int = INLINE_BYTES) -> T:
    """Run CPU work over `size` bytes of input: here when that is little, else in a thread."""
    return work() if size <= inline_bytes else await asyncio.to_thread(work)
