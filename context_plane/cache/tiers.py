"""Reading objects through the cache: memory (decoded values), then disk (bytes), then the store.

What memory keeps is decided by `admission`. A hit there is a look-up in a dict: no task, no await. Concurrent
misses of one entry share one fetch (single-flight). Where an answer came from travels in a context variable, so
that every request can report its own temperature. The disk hears now and then what memory answers, so that it
does not take for forgotten what nobody asks it for.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import itertools
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeVar

from context_plane.cache.admission import Memory
from context_plane.cache.disk import DiskCache
from context_plane.cache.stats import CacheStats
from context_plane.errors import Corrupt
from context_plane.store import deadline
from context_plane.store.base import Body, ByteRange, Store
from context_plane.store.pieces import Pieces
from context_plane.store.ranges import PARTS_MAX, parts

T = TypeVar("T")
Temperature: TypeAlias = Literal["memory", "disk", "cold"]

DECODE_INLINE_BYTES: Final = 16 * 1024
"""Stored bytes of values that decode on the event loop: what compresses ten times still takes half a millisecond."""
WRITE_BEHIND_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes that wait to be written to disk: a second of a slow disk."""
PARTS_PARALLEL: Final = 2 * PARTS_MAX
"""Parts of long ranges in flight in one process: all that a search reads of the longest shard and of its index, so that
both take one round trip."""
ENTRY_OVERHEAD_BYTES: Final = 512
DECODED_FACTOR: Final = 4
"""Decoded values are charged this many times their stored bytes: what compression and Python objects cost."""
TOUCHES_MAX: Final = 10_000
"""Disk entries behind proven values that are touched at a time: about 0.1 s in a thread."""


@dataclass(slots=True)
class Lookups:
    """Where reads were answered from: those of one request, or those behind one value.

    `names`: of values read, where they are asked for. `sources`: of the disk entries behind a value.
    """

    memory: int = 0
    disk: int = 0
    cold: int = 0
    bytes_fetched: int = 0
    names: list[str] | None = None
    sources: list[str] | None = None

    @property
    def temperature(self) -> Temperature:
        """The coldest tier touched."""
        return "cold" if self.cold else "disk" if self.disk else "memory"

    def add(self, other: Lookups) -> None:
        """Count the reads behind a value that was waited for."""
        self.memory += other.memory
        self.disk += other.disk
        self.cold += other.cold
        self.bytes_fetched += other.bytes_fetched
        if self.sources is not None:
            self.sources += other.sources or ()


_lookups: contextvars.ContextVar[Lookups | None] = contextvars.ContextVar("lookups", default=None)


def track_lookups(*, names: bool = False) -> Lookups:
    """Start counting for the current task and the tasks it starts. An outer count's names go on."""
    outer = _lookups.get()
    lookups = Lookups(names=[] if names else outer.names if outer is not None else None)
    _lookups.set(lookups)
    return lookups


def temperature() -> Temperature | None:
    """Of what was read since the current task last began to count; None where it never did."""
    lookups = _lookups.get()
    return None if lookups is None else lookups.temperature


@dataclass(slots=True)
class Cache:
    """`disk` may be None. Values handed out are shared: they must not be changed. For one event loop."""

    store: Store
    memory_bytes: int
    disk: DiskCache | None
    stats: CacheStats = field(init=False)
    _memory: Memory = field(init=False)
    _flights: dict[str, asyncio.Task[tuple[Any, Lookups]]] = field(default_factory=dict)
    _behind: dict[str, Body] = field(default_factory=dict)
    _behind_bytes: int = 0
    _writer: asyncio.Task[None] | None = None
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PARTS_PARALLEL))

    def __post_init__(self) -> None:
        self._memory = Memory(self.memory_bytes)
        self.stats = CacheStats(self._memory, self.disk)

    async def value(
        self,
        key: str,
        decode: Callable[[bytes], T],
        *,
        byte_range: ByteRange | None = None,
        form: str = "",
        size_of: Callable[[T], int] | None = None,
    ) -> T:
        """The decoded object or range. `form` tells apart different decodings of the same bytes; `size_of`: bytes of
        what was decoded, where that is known better than by what was stored.

        `decode` raises `Corrupt` for damaged bytes: those from disk are then fetched again, once.
        """

        async def load() -> tuple[T, int]:
            decoded, size = await self._checked(key, byte_range, lambda body: decode(bytes(body)))
            return decoded, size * DECODED_FACTOR if size_of is None else size_of(decoded)

        return await self.derived(entry_name(key, byte_range, form), load)

    async def value_of_parts(
        self,
        key: str,
        decode: Callable[[Pieces], T],
        byte_range: ByteRange,
        *,
        form: str = "",
        size_of: Callable[[T], int] | None = None,
    ) -> T:
        """As `value`, of a range that may be long: it is fetched by several requests, and each part kept on disk by
        itself. `decode` gets it in these pieces."""

        async def load() -> tuple[T, int]:
            decoded = await self._of_parts(key, byte_range, decode)
            return decoded, byte_range.length * DECODED_FACTOR if size_of is None else size_of(decoded)

        return await self.derived(entry_name(key, byte_range, form), load)

    async def derived(self, name: str, load: Callable[[], Awaitable[tuple[T, int]]]) -> T:
        """A value made by `load`, which returns it with its size in bytes; kept in memory only. Never None."""
        held: T | None = self.held(name)
        return await self._fill(name, load) if held is None else held

    def held(self, name: str) -> Any | None:
        """A derived value when it is in memory, counted as the read it is; else None, and nothing is counted."""
        entry = self._memory.get(name)
        if entry is None:
            return None
        self.stats.memory_hits += 1
        lookups = _lookups.get()
        if lookups is not None:
            lookups.memory += 1
            if lookups.names is not None:
                lookups.names.append(name)
        return entry.value

    def held_value(self, key: str, byte_range: ByteRange | None = None, form: str = "") -> Any | None:
        """What `value` gives for these arguments when it is in memory, as `held` counts it; else None."""
        return self.held(entry_name(key, byte_range, form))

    async def _fill(self, name: str, load: Callable[[], Awaitable[tuple[T, int]]]) -> T:
        async def fly() -> T:
            value, size = await load()
            behind = _lookups.get()
            assert behind is not None, "flights count their own reads"
            self._keep(name, value, size, tuple(behind.sources or ()))
            return value

        self.stats.memory_misses += 1
        value = await self._once(name, fly)
        lookups = _lookups.get()
        if lookups is not None and lookups.names is not None:
            lookups.names.append(name)
        return value

    async def raw(
        self, key: str, *, byte_range: ByteRange | None = None, sha256: str | None = None, in_parts: bool = False
    ) -> bytes:
        """The raw object or range, through disk; not kept in memory.

        `sha256`: hex, of the bytes as the manifest names them. Raises `Corrupt(corrupt_object)` on others.
        """

        def verified(pieces: Pieces) -> bytes:
            return _verified(key, bytes(pieces.joined()), sha256)

        async def fly() -> bytes:
            if in_parts and byte_range is not None:
                return await self._of_parts(key, byte_range, verified)
            data, _ = await self._checked(key, byte_range, lambda body: verified(Pieces([body])))
            return data

        return await self._once(f"{_name(key, byte_range)}|bytes|{sha256}", fly)

    def holds(self, key: str, byte_range: ByteRange | None = None, form: str = "") -> bool:
        return entry_name(key, byte_range, form) in self._memory

    def keep(self, key: str, byte_range: ByteRange, form: str, value: object) -> None:
        """Remember in memory what a longer read held of the object: a later `value` of that range finds it."""
        name = entry_name(key, byte_range, form)
        if name not in self._memory:
            self._keep(name, value, byte_range.length * DECODED_FACTOR, ())
        lookups = _lookups.get()
        if lookups is not None and lookups.names is not None:
            lookups.names.append(name)

    def has(self, name: str) -> bool:
        """Whether a derived value is in memory."""
        return name in self._memory

    def pin(self, names: Iterable[str]) -> int:
        """Keep these in memory until `unpin`: how many of them are kept. The rest is not here, or over the share."""
        return sum(self._memory.pin(name) for name in set(names))

    def unpin(self, names: Iterable[str]) -> None:
        for name in names:
            self._memory.unpin(name)

    async def clear(self) -> None:
        """Forget everything, on disk too."""
        self._memory.clear()
        if self.disk is not None:
            self._behind, self._behind_bytes = {}, 0
            await self.settled()
            await asyncio.to_thread(self.disk.clear)

    async def _checked(self, key: str, byte_range: ByteRange | None, decode: Callable[[Body], T]) -> tuple[T, int]:
        """The decoded bytes and their number. Only bytes that decode are kept on disk."""
        name = _name(key, byte_range)
        held = await self._on_disk(name)
        if self.disk is not None and held is not None:
            try:
                decoded = await _decoded(held, decode)
            except Corrupt:
                await asyncio.to_thread(self.disk.delete, name)
            else:
                self._disk_hit(name)
                return decoded, len(held)
        body = await self._fetched(name, key, byte_range)
        decoded = await _decoded(body, decode)
        self._write_behind(name, body)
        return decoded, len(body)

    async def _of_parts(self, key: str, byte_range: ByteRange, decode: Callable[[Pieces], T]) -> T:
        """As `_checked`, a long range by parts: those that arrive before a deadline are there for the next read."""
        spans = parts(byte_range)
        if len(spans) < 2:
            return (await self._checked(key, byte_range, lambda body: decode(Pieces([body]))))[0]
        behind = _lookups.get()
        assert behind is not None, "flights count their own reads"
        held = behind.disk
        pieces = Pieces(await _all([self._part(key, span) for span in spans]))
        try:
            return await asyncio.to_thread(decode, pieces)
        except Corrupt:
            if self.disk is None or behind.disk == held:
                raise
        del pieces  # or two of them are held at a time
        for span in spans:
            await asyncio.to_thread(self.disk.delete, _name(key, span))
        pieces = Pieces(await _all([self._part(key, span) for span in spans]))
        return await asyncio.to_thread(decode, pieces)

    async def _part(self, key: str, span: ByteRange) -> Body:
        name = _name(key, span)

        async def fly() -> Body:
            held = await self._on_disk(name)
            if held is not None:
                self._disk_hit(name)
                return held
            body = await self._fetched(name, key, span)
            self._write_behind(name, body)
            return body

        async with self._gate:
            return await self._once(f"{name}|part", fly)

    async def _on_disk(self, name: str) -> Body | None:
        if self.disk is None or not self.disk.has(name):
            return None
        return await asyncio.to_thread(self.disk.get, name)

    async def _fetched(self, name: str, key: str, byte_range: ByteRange | None) -> Body:
        body = await (self.store.get(key) if byte_range is None else self.store.get_range(key, byte_range))
        self.stats.misses += 1
        self.stats.bytes_fetched += len(body)
        _count(name, "cold", len(body))
        return body

    def _disk_hit(self, name: str) -> None:
        self.stats.disk_hits += 1
        _count(name, "disk", 0)

    # --- disk, behind the reads -----------------------------------------------------------------

    def _write_behind(self, name: str, data: Body) -> None:
        """Keep bytes on disk, later: no read waits for a disk to be written. What is too much at once is not kept."""
        if self.disk is None:
            return
        if self._behind_bytes + len(data) > WRITE_BEHIND_BYTES_MAX:
            self.disk.refused += 1
            return
        self._behind[name] = data
        self._behind_bytes += len(data)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(self.disk), context=contextvars.Context())

    async def _write(self, disk: DiskCache) -> None:
        try:
            while self._behind:
                batch, self._behind, self._behind_bytes = self._behind, {}, 0
                await asyncio.to_thread(_put_all, disk, batch)
                if disk.touch_due():
                    proven = list(itertools.islice(self._memory.proven(), TOUCHES_MAX))
                    await asyncio.to_thread(disk.touch, proven)
        finally:
            self._writer = None

    async def settled(self) -> None:
        """Returns when everything fetched so far is on disk."""
        while self._writer is not None:
            await asyncio.shield(self._writer)

    async def _once(self, name: str, make: Callable[[], Awaitable[T]]) -> T:
        """Join the flight under way for `name`, or start one; a cancelled caller does not end it.

        A flight counts its reads itself, and everyone who waited for it adds them to his own.
        """

        async def fly() -> tuple[T, Lookups]:
            behind = Lookups(sources=[])
            _lookups.set(behind)  # in the flight's own context
            return await make(), behind

        flight = self._flights.get(name)
        if flight is None:
            flight = deadline.fly(fly())
            self._flights[name] = flight
            flight.add_done_callback(lambda done: self._landed(name, done))
        value, behind = await deadline.joined(flight)
        lookups = _lookups.get()
        if lookups is not None:
            lookups.add(behind)
        result: T = value
        return result

    def _landed(self, name: str, flight: asyncio.Task[Any]) -> None:
        self._flights.pop(name, None)
        if not flight.cancelled():
            flight.exception()  # every caller may have gone: then nobody else asks

    def _keep(self, name: str, value: object, size: int, sources: tuple[str, ...]) -> None:
        self._memory.put(name, value, size + sys.getsizeof(name) + ENTRY_OVERHEAD_BYTES, sources)


async def _all(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order; when one fails, the others end."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _put_all(disk: DiskCache, batch: Mapping[str, Body]) -> None:
    for name, data in batch.items():
        disk.put(name, data)


async def _decoded(data: Body, decode: Callable[[Body], T]) -> T:
    if len(data) <= DECODE_INLINE_BYTES:
        return decode(data)
    return await asyncio.to_thread(decode, data)


def _verified(key: str, data: bytes, sha256: str | None) -> bytes:
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise Corrupt("corrupt_object", "an object does not match the digest its manifest records", key=key)
    return data


def entry_name(key: str, byte_range: ByteRange | None, form: str) -> str:
    """Under which `Cache.value` keeps the decoded object or range."""
    return f"{_name(key, byte_range)}|{form}"


def _name(key: str, byte_range: ByteRange | None) -> str:
    return key if byte_range is None else f"{key}#{byte_range.offset}+{byte_range.length}"


def _count(name: str, tier: Literal["disk", "cold"], fetched: int) -> None:
    lookups = _lookups.get()
    assert lookups is not None, "flights count their own reads"
    if tier == "disk":
        lookups.disk += 1
    else:
        lookups.cold += 1
        lookups.bytes_fetched += fetched
    if lookups.sources is not None:
        lookups.sources.append(name)
