"""Object stores (S3 and compatible, GCS, Azure, memory) through obstore.

Three clients on one bucket, because a retry means something else for each kind of request: reads
retry, and give up on a stalled connection; replacing writes and deletes are idempotent and retry;
creates never retry, because the retry of a create whose response was lost meets its own object and
would report a conflict for a success. The root prefix is added and removed here. What keys mean
never enters.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from context_plane.errors import Conflict, NotFound, PlaneError, Unavailable
from context_plane.store.base import Body, ByteRange, ObjectInfo
from context_plane.store.callbacks import sent, wait_for_callbacks
from context_plane.store.key import ByteOrder, check_key, check_prefix, is_past, listing_offset
from context_plane.store.ranges import RANGES_PARALLEL_MAX, cut, plan

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

T = TypeVar("T")

atexit.register(wait_for_callbacks)

LIST_PAGE: Final = 1000
"""Objects of one listing response, S3's own maximum."""
DELETE_PAGE: Final = 1000
"""Keys of one bulk delete, S3's own maximum."""
DELETES_PARALLEL_MAX: Final = 16
PUT_PART_BYTES: Final = 16 * 1024 * 1024
"""Replacing writes longer than this go up in parts, so that one part fits the request timeout on a slow uplink."""
CAUSE_CHARS_MAX: Final = 240
"""Of a client's error text: enough for status and address, not a server's page of HTML."""

on_size: ContextVar[Callable[[int], None] | None] = ContextVar("on_size", default=None)
"""Told an object's bytes when `get` has its headers, before the body has come: who hedges waits longer for more."""


@dataclass(frozen=True, slots=True)
class Clients:
    """One bucket as obstore sees it, per kind of request."""

    read: Client
    replace: Client
    create: Client


class ObjectStore:
    """`Store` over obstore. `prefix` is "" or ends with `/`; every key lives below it."""

    def __init__(self, clients: Clients, *, prefix: str = "") -> None:
        self._clients = clients
        self._prefix = prefix

    async def get(self, key: str) -> bytes:
        path = self._path(key)
        with _Mapped("get", key):
            result = await sent(obstore.get_async(self._clients.read, path))
            if (told := on_size.get()) is not None:
                told(result.meta["size"])
            return bytes(await sent(result.bytes_async()))

    async def get_range(self, key: str, byte_range: ByteRange) -> Body:
        path = self._path(key)
        with _Mapped("get_range", key):
            if byte_range.length == 0:
                await sent(obstore.head_async(self._clients.read, path))
                return b""
            try:
                return memoryview(
                    await sent(
                        obstore.get_range_async(
                            self._clients.read, path, start=byte_range.offset, length=byte_range.length
                        )
                    )
                )
            except BaseError as error:
                if _is_past_end(error):
                    return b""
                raise

    async def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> list[bytes]:
        return await read_ranges(self.get_range, key, ranges)

    async def put_new(self, key: str, data: bytes) -> None:
        """Create; `Conflict` when the key is taken, `Unavailable` when nobody can say.

        Sent once, never retried inside the client: the only create that can meet its own object is one
        the caller repeats after `Unavailable`. So a `Conflict` of a first attempt is somebody else's
        object, and the caller of a second attempt reads back and compares before it decides.
        """
        path = self._path(key)
        with _Mapped("put_new", key):
            await sent(obstore.put_async(self._clients.create, path, data, mode="create", use_multipart=False))

    async def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with _Mapped("put", key):
            multipart = len(data) > PUT_PART_BYTES
            await sent(
                obstore.put_async(self._clients.replace, path, data, use_multipart=multipart, chunk_size=PUT_PART_BYTES)
            )

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[ObjectInfo]:
        check_prefix(prefix)
        check_prefix(start_after)
        nothing_follows = start_after > prefix and not start_after.startswith(prefix)
        if nothing_follows or (limit is not None and limit <= 0):
            return
        count = 0
        with _Mapped("list", prefix):
            async for info in self._ascending(prefix, start_after):
                if info.key <= start_after:
                    continue
                yield info
                count += 1
                if count == limit:
                    return

    async def _ascending(self, prefix: str, start_after: str) -> AsyncIterator[ObjectInfo]:
        """Objects of the prefix in byte order, perhaps some before `start_after`."""
        wanted = self._prefix + prefix
        folder = wanted.rfind("/") + 1
        offset = listing_offset(wanted, self._prefix + start_after if start_after else "")
        order = ByteOrder(folder - len(self._prefix))
        stream = obstore.list(self._clients.read, wanted[:folder] or None, offset=offset, chunk_size=LIST_PAGE)
        while (page := await _following(stream)) is not None:
            for meta in page:
                path = meta["path"]
                if path.startswith(wanted):
                    modified_us = round(meta["last_modified"].timestamp() * 1_000_000)
                    for info in order.push(ObjectInfo(path[len(self._prefix) :], meta["size"], modified_us)):
                        yield info
            if page and is_past(page[-1]["path"], wanted):
                break
        for info in order.drain():
            yield info

    async def delete(self, keys: Sequence[str]) -> None:
        paths = [self._path(key) for key in keys]
        for start in range(0, len(paths), DELETE_PAGE):
            page = paths[start : start + DELETE_PAGE]
            with _Mapped("delete", keys[start]):
                try:
                    await sent(obstore.delete_async(self._clients.replace, page))
                except FileNotFoundError:
                    await self._delete_singly(page)

    async def _delete_singly(self, paths: Sequence[str]) -> None:
        """For stores whose bulk delete stops at the first absent key."""
        gate = asyncio.Semaphore(DELETES_PARALLEL_MAX)

        async def remove(path: str) -> None:
            async with gate:
                try:
                    await sent(obstore.delete_async(self._clients.replace, path))
                except FileNotFoundError:
                    return

        await asyncio.gather(*(remove(path) for path in paths))

    async def aclose(self) -> None:
        """Nothing to do: obstore closes its connections when the clients are dropped."""

    def _path(self, key: str) -> str:
        return self._prefix + check_key(key)


async def read_ranges(
    get_range: Callable[[str, ByteRange], Awaitable[Body]], key: str, ranges: Sequence[ByteRange]
) -> list[bytes]:
    """One result per range, in order, from as few parallel `get_range` as near ranges coalesce into."""
    spans = plan(ranges)
    gate = asyncio.Semaphore(RANGES_PARALLEL_MAX)

    async def fetch(byte_range: ByteRange) -> Body:
        async with gate:
            return await get_range(key, byte_range)

    bodies = await asyncio.gather(*(fetch(span.range) for span in spans))
    return cut(ranges, spans, bodies)


async def _following(stream: AsyncIterator[T]) -> T | None:
    """The next page of a listing, None behind the last."""
    try:
        return await sent(stream.__anext__())
    except StopAsyncIteration:
        return None


def _is_past_end(error: BaseError) -> bool:
    """The range starts at or after the end of the object (HTTP 416, or the memory store's own words)."""
    text = str(error)
    return "416 Range Not Satisfiable" in text or "Wanted range starting at" in text


class _Mapped:
    """Context manager: obstore's errors as the store contract's. A generator would take three times as long."""

    __slots__ = ("_key", "_operation")

    def __init__(self, operation: str, key: str) -> None:
        self._operation = operation
        self._key = key

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BaseError | OSError):
            raise _plane_error(error, self._operation, self._key) from error


def _plane_error(error: BaseError | OSError, operation: str, key: str) -> PlaneError:
    text = str(error)
    if isinstance(error, FileNotFoundError):
        if "NoSuchBucket" in text:
            return Unavailable(
                "store_unavailable", "the bucket does not exist; create it", key=key, cause=text[:CAUSE_CHARS_MAX]
            )
        return NotFound("object_not_found", "no such object", key=key)
    # AWS answers 409 to a create that raced a delete: nothing was written and nothing may be there.
    if isinstance(error, AlreadyExistsError | PreconditionError) and "ConditionalRequestConflict" not in text:
        return Conflict("already_exists", "the key is taken", key=key)
    return Unavailable(
        "store_unavailable",
        "the object store did not answer; check its address and credentials, then retry",
        operation=operation,
        key=key,
        cause=text[:CAUSE_CHARS_MAX],
    )
