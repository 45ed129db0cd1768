"""What reads cost: requests, bytes and dependent round trips, per trace and in total.

Round trips of a trace are the greatest number of its requests of which no two overlap in time: the
latencies that were paid one after another. Requests gathered in parallel count one, awaited in turn
count each, and a pipeline counts its longest chain. The count is exact without keeping intervals: a
request opens a new round if some request of the current round has ended, else it joins the round
(greedy interval scheduling). It needs requests that suspend; a store that answers without suspending
runs even gathered requests in turn.

A trace is found through a context variable, so tasks started within it count to it, and concurrent
requests keep apart. Traces nest: an inner one's requests count to the outer ones too.

A store below that sends a request twice says so through `current_request`: a hedge is one more request of the
same round, since nobody waits for it after the first.

Where the caller has a span (`store.spans`), each request is a span below it, with its bytes and the folder of its key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from context_plane.store import spans
from context_plane.store.base import Body, ByteRange, ObjectInfo, Store
from context_plane.store.ranges import plan

Kind: TypeAlias = Literal["gets", "puts", "lists", "deletes"]

SPANS: Final[Mapping[Kind, str]] = {
    "gets": "store.get",
    "puts": "store.put",
    "lists": "store.list",
    "deletes": "store.delete",
}
FOLDERS: Final = frozenset(
    {"log", "entities", "indexes", "bundles", "manifests", "staging", "erasures", "landing", "control"}
)
"""Of a tenant: the words that a span may say of a key."""
LIST_PAGE: Final = 1000
"""Objects per listing response: a longer listing counts one request for each page."""


@dataclass(slots=True)
class Trace:
    """Counts of the requests made within one scope. `puts` includes creates; bytes are object bodies.

    `hedges` are included in `gets` and `lists`; of them `hedges_won` answered first.
    """

    gets: int = 0
    puts: int = 0
    lists: int = 0
    deletes: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    round_trips: int = 0
    hedges: int = 0
    hedges_won: int = 0
    _round_ended: bool = True

    def begin(self, kind: Kind, count: int = 1) -> int:
        """Counts `count` parallel requests; returns their round, to be given to `end`."""
        self._count(kind, count)
        if self._round_ended:
            self.round_trips += 1
            self._round_ended = False
        return self.round_trips

    def hedge(self, kind: Kind) -> None:
        """Counts a request that repeats one under way."""
        self.hedges += 1
        self._count(kind, 1)

    def include(self, other: Trace) -> None:
        """Count what another process spent. Its round trips ran beside these: the longer chain counts."""
        for name in ("gets", "puts", "lists", "deletes", "bytes_read", "bytes_written", "hedges", "hedges_won"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.round_trips = max(self.round_trips, other.round_trips)

    def _count(self, kind: Kind, count: int) -> None:
        match kind:
            case "gets":
                self.gets += count
            case "puts":
                self.puts += count
            case "lists":
                self.lists += count
            case "deletes":
                self.deletes += count

    def end(self, of_round: int, *, read: int, written: int) -> None:
        self.bytes_read += read
        self.bytes_written += written
        if of_round == self.round_trips:
            self._round_ended = True


_traces: ContextVar[tuple[Trace, ...]] = ContextVar("store_traces", default=())


@contextmanager
def trace() -> Iterator[Trace]:
    """Counts the requests of every `CountingStore` made by this task, and by tasks it starts, until the exit."""
    counted = Trace()
    token = _traces.set((*_traces.get(), counted))
    try:
        yield counted
    finally:
        _traces.reset(token)


def count_elsewhere(spent: Trace) -> None:
    """Counts what another process spent to the traces of this task."""
    for each in _traces.get():
        each.include(spent)


class Request:
    """One request (or several in parallel) in flight, and the bytes it moved. A context manager: its exit ends it."""

    __slots__ = ("_kind", "_rounds", "_span", "_token", "read", "written")

    def __init__(self, total: Trace, kind: Kind, count: int, key: str) -> None:
        self.read = 0
        self.written = 0
        self._kind = kind
        self._span = spans.begin(SPANS[kind])
        if self._span is not None:
            self._span.set("context_plane.store.folder", folder_of(key))
            self._span.set("context_plane.store.requests", count)
        self._token: Token[Request | None] | None = None
        self._rounds = [(each, each.begin(kind, count)) for each in (total, *_traces.get())]

    def hedged(self) -> None:
        """A second request was sent for the same answer."""
        if self._span is not None:
            self._span.set("context_plane.store.hedged", True)
        for each, _ in self._rounds:
            each.hedge(self._kind)

    def hedge_won(self) -> None:
        for each, _ in self._rounds:
            each.hedges_won += 1

    def __enter__(self) -> Request:
        self._token = _request.set(self)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._token is not None:
            _request.reset(self._token)
        for each, of_round in self._rounds:
            each.end(of_round, read=self.read, written=self.written)
        if self._span is not None:
            self._span.set("context_plane.store.bytes", self.read + self.written)
            self._span.end(error)


_request: ContextVar[Request | None] = ContextVar("store_request", default=None)


def current_request() -> Request | None:
    """The counted request that the current task makes, for stores below the counting one."""
    return _request.get()


class CountingStore:
    """`Store` that counts; some 3 us a request. `total` counts since construction.

    `get_ranges` counts the requests its ranges coalesce into.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.total = Trace()

    def trace(self) -> AbstractContextManager[Trace]:
        return trace()

    async def get(self, key: str) -> bytes:
        with self._request("gets", key) as request:
            data = await self.inner.get(key)
            request.read = len(data)
            return data

    async def get_range(self, key: str, byte_range: ByteRange) -> Body:
        with self._request("gets", key) as request:
            data = await self.inner.get_range(key, byte_range)
            request.read = len(data)
            return data

    async def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> list[bytes]:
        planned = plan(ranges)
        if not planned:
            return await self.inner.get_ranges(key, ranges)
        with self._request("gets", key, len(planned)) as request:
            parts = await self.inner.get_ranges(key, ranges)
            request.read = sum(span.range.length for span in planned)
            return parts

    async def put_new(self, key: str, data: bytes) -> None:
        with self._request("puts", key) as request:
            await self.inner.put_new(key, data)
            request.written = len(data)

    async def put(self, key: str, data: bytes) -> None:
        with self._request("puts", key) as request:
            await self.inner.put(key, data)
            request.written = len(data)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[ObjectInfo]:
        objects = self.inner.list(prefix, start_after=start_after, limit=limit)
        more = True
        while more:
            with self._request("lists", prefix):
                page, more = await next_page(objects)
            for info in page:
                yield info

    async def delete(self, keys: Sequence[str]) -> None:
        with self._request("deletes", keys[0] if keys else ""):
            await self.inner.delete(keys)

    async def aclose(self) -> None:
        await self.inner.aclose()

    def _request(self, kind: Kind, key: str, count: int = 1) -> Request:
        return Request(self.total, kind, count, key)


def folder_of(key: str) -> str:
    """What kind of object a key is of: the folder of its tenant's, or `control`, or `other`. Never a name."""
    parts = key.split("/", 3)
    if parts[0] == "tenants" and len(parts) > 2:
        return parts[2] if parts[2] in FOLDERS else "other"
    return "control" if parts[0] == "control" else "other"


async def next_page(objects: AsyncIterator[ObjectInfo]) -> tuple[Sequence[ObjectInfo], bool]:
    """Up to a page of objects, and whether more may follow."""
    page: list[ObjectInfo] = []
    async for info in objects:
        page.append(info)
        if len(page) == LIST_PAGE:
            return page, True
    return page, False
