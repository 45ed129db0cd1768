"""Ingest: validated writes become durable log batches, several requests in one object (group commit).

A request is answered only after the object that holds all of it was created. While one append of a
tenant is in flight the next requests gather, so a tenant needs some ten PUTs a second whatever its event
rate. The searched tail is bounded: past its limits a write is refused with `tail_full` until days are
built. Group commit: DeWitt et al., "Implementation techniques for main memory database systems", 1984.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache

from context_plane.audit import PROCESS, Actor
from context_plane.catalog.head import load_head
from context_plane.catalog.log import LogHead, append, list_log
from context_plane.catalog.manifest import Manifest
from context_plane.catalog.tail import (
    TAIL_BYTES_MAX,
    TAIL_OBJECTS_MAX,
    UNBUILT_OBJECTS_MAX,
    Batch,
    read_headers,
    uncovered_days,
)
from context_plane.engine import Engine
from context_plane.errors import Conflict, Unavailable
from context_plane.layout.batch import Origin, Visible, encode, lines_of
from context_plane.model import Delete, Write, identity
from context_plane.store import spans
from context_plane.tenants import refuse_erased

GATHER_S: Final = 0.02
"""How long the first request of an idle tenant waits for company: below what a writer notices."""
GAUGE_AGE_MAX_S: Final = 2.0
"""How old the view of the tail's size may be: writers overshoot the bound by what fits in it."""
WAITING_MAX: Final = 1024
"""Requests of one tenant that may wait for the log: past it the store is not keeping up."""
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
"""Decoded bytes of one tenant that may wait for the log: four of the largest requests."""
INLINE_WRITES_MAX: Final = 100
"""Requests of fewer writes are looked through in under half a millisecond, on the event loop."""
INLINE_BYTES_MAX: Final = 64 * 1024
"""Of so many writes and a body of so many bytes the lines are made there, too."""
HEADERS_BYTES_MAX: Final = 64 * 1024 * 1024
TENANTS_KNOWN: Final = 1024
"""Tenants whose manifest, tail size and log head are remembered: of any other, the next write asks the store again."""
TAIL_RETRY_AFTER_S: Final = 15.0
GROUP_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of requests as they are stored, joined: half of what a batch may decode to. One alone may be more."""
GROUP_REQUESTS_MAX: Final = WAITING_MAX // 2
"""A header names them all, and stays within half of the first range that is read of it."""
GROUP_DAYS_MAX: Final = 2048
"""Distinct days of joined requests, summed: a header counts the writes of each, beside the names of the requests."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What an acknowledged request became. `duplicates`: identities repeated in it, last one won."""

    accepted: int
    duplicates: int
    batch: int
    days: tuple[str, ...]
    manifest_version: int

    @property
    def snapshot(self) -> str:
        return f"{self.manifest_version}.{self.batch}"


def last_wins(writes: Sequence[Write]) -> list[Write]:
    """One write per identity, the last, in order of last occurrence. Pure."""
    latest: dict[tuple[str, str, str], Write] = {}
    for write in writes:
        key = identity(write)
        latest.pop(key, None)
        latest[key] = write
    return list(latest.values())


def touched_days(writes: Sequence[Write]) -> tuple[str, ...]:
    """Days of the writes, ascending."""
    return tuple(sorted({identity(write)[1] for write in writes}))


@dataclass(slots=True)
class _Request:
    writes: list[Write]
    lines: bytes
    days: int
    key_hash: str | None
    body_bytes: int
    actor: Actor
    start_by_s: float
    done: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def origin(self) -> Origin:
        deletes = sum(isinstance(write, Delete) for write in self.writes)
        return Origin(self.actor.name, self.actor.request, len(self.writes), deletes)


@dataclass(slots=True)
class _Lane:
    """The waiting requests of one tenant and visibility. It goes once none is left."""

    waiting: list[_Request] = field(default_factory=list)
    worker: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Gauge:
    """What waits for a build, as of `at_s`; own appends since are added."""

    at_s: float
    manifest: Manifest
    tail_objects: int
    tail_bytes: int
    unbuilt: int


class Ingest:
    """The write side of one process; any number of processes may share a tenant."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lanes: dict[tuple[str, Visible], _Lane] = {}
        self._heads: LRUCache[str, LogHead] = LRUCache(TENANTS_KNOWN)
        self._gauges: LRUCache[str, _Gauge] = LRUCache(TENANTS_KNOWN)
        self._gauging: dict[str, asyncio.Task[_Gauge]] = {}
        self._headers: LRUCache[tuple[str, int], Batch] = LRUCache(
            HEADERS_BYTES_MAX, getsizeof=lambda batch: batch.held_bytes
        )

    async def write(
        self,
        tenant: str,
        writes: Sequence[Write],
        *,
        body_bytes: int,
        visible: Visible = "now",
        key_hash: str | None = None,
        actor: Actor = PROCESS,
        start_by_s: float = math.inf,
    ) -> Accepted:
        """Durable when it returns. `body_bytes`: decoded size of the request the writes came in; `actor`: who sent it.
        Nothing of it is begun in the store after `start_by_s` (`monotonic_s`).

        Raises `Invalid(body_too_large)`, `Conflict(tenant_erased)`,
        `Unavailable(tail_full | rate_limited | store_unavailable | deadline_exceeded)`."""
        gauge = await self._gauge(tenant)
        _check_room(gauge, visible)
        unique, days = await sorted_out(writes)
        lines = await _lines(unique, body_bytes)
        request = _Request(unique, lines, len(days), key_hash, body_bytes, actor, start_by_s)
        number = await self._enqueue(tenant, visible, request)
        return Accepted(
            accepted=len(unique),
            duplicates=len(writes) - len(unique),
            batch=number,
            days=days,
            manifest_version=gauge.manifest.version,
        )

    async def aclose(self) -> None:
        """Wait for appends in flight."""
        workers = [lane.worker for lane in self._lanes.values() if lane.worker is not None]
        await asyncio.gather(*workers, return_exceptions=True)

    # --- group commit ---------------------------------------------------------------------------

    async def _enqueue(self, tenant: str, visible: Visible, request: _Request) -> int:
        lane = self._lanes.setdefault((tenant, visible), _Lane())
        waiting_bytes = sum(other.body_bytes for other in lane.waiting)
        if len(lane.waiting) >= WAITING_MAX or (
            lane.waiting and waiting_bytes + request.body_bytes > WAITING_BYTES_MAX
        ):
            raise Unavailable("rate_limited", "too many writes wait for the log; retry", retry_after_s=1.0)
        lane.waiting.append(request)
        if lane.worker is None or lane.worker.done():
            lane.worker = asyncio.create_task(self._drain(tenant, visible, lane))
        return await asyncio.shield(request.done)

    async def _drain(self, tenant: str, visible: Visible, lane: _Lane) -> None:
        await asyncio.sleep(GATHER_S)
        while lane.waiting:
            group = _take_group(lane.waiting)
            try:
                number = await self._append(tenant, visible, group)
            except BaseException as error:
                for request in group:
                    if not request.done.done():
                        request.done.set_exception(error)
                        request.done.exception()  # a disconnected caller never asks: not a warning
                if not isinstance(error, Exception):
                    raise
            else:
                for request in group:
                    if not request.done.done():
                        request.done.set_result(number)
            spans.enter(None)  # the trace of the request that began this ends with its own group
        del self._lanes[tenant, visible]

    async def _append(self, tenant: str, visible: Visible, group: list[_Request]) -> int:
        writer = self._engine.nonce()
        writes = [write for request in group for write in request.writes]
        keys = [request.key_hash for request in group if request.key_hash]
        created_us = self._engine.now_us()
        data = await asyncio.to_thread(
            lambda: encode(
                writes,
                writer=writer,
                created_us=created_us,
                visible=visible,
                requests=keys,
                origins=[request.origin for request in group],
                lines=[request.lines for request in group],
            )
        )
        try:
            known, start_by_s = self._heads.get(tenant), min(request.start_by_s for request in group)
            head = await append(self._engine, tenant, data, writer=writer, head=known, start_by_s=start_by_s)
        except Conflict:
            self._heads.pop(tenant, None)  # too far behind: the next append lists
            raise
        self._learn(tenant, head)
        gauge = self._gauges.get(tenant)
        if gauge is not None:
            gauge.unbuilt += 1
            if visible == "now":
                gauge.tail_objects += 1
                gauge.tail_bytes += len(data)
        return head.number

    def _learn(self, tenant: str, head: LogHead) -> None:
        known = self._heads.get(tenant)
        if known is None or head.number > known.number:
            self._heads[tenant] = head

    # --- the bound of the tail ------------------------------------------------------------------

    async def _gauge(self, tenant: str) -> _Gauge:
        gauge = self._gauges.get(tenant)
        if gauge is not None and self._engine.monotonic_s() - gauge.at_s < GAUGE_AGE_MAX_S:
            return gauge
        flight = self._gauging.get(tenant)
        if flight is None:  # a burst of requests measures once
            flight = self._gauging[tenant] = asyncio.create_task(self._measure(tenant))
            flight.add_done_callback(lambda _: self._gauging.pop(tenant, None))
        return await asyncio.shield(flight)

    async def _measure(self, tenant: str) -> _Gauge:
        now_s = self._engine.monotonic_s()
        known = self._gauges.get(tenant)
        manifest = await load_head(self._engine.store, tenant, known=known.manifest if known else None)
        if manifest.erasures:  # that of a tenant is one too: others pay no request for the question
            await refuse_erased(self._engine.store, tenant)
        objects = await list_log(self._engine.store, tenant, after=manifest.log_floor)
        batches = await read_headers(self._engine.store, tenant, objects, self._headers)
        sizes = {item.number: item.bytes for item in objects}
        pending = [batch for batch in batches if uncovered_days(manifest, batch)]
        tail = [batch for batch in pending if batch.header.visible == "now"]
        gauge = _Gauge(now_s, manifest, len(tail), sum(sizes[batch.number] for batch in tail), len(pending))
        self._gauges[tenant] = gauge
        # other processes append too: from an old number this one would have to try every number since
        self._learn(tenant, LogHead(max(objects[-1].number if objects else 0, manifest.log_floor), now_s))
        return gauge


async def sorted_out(writes: Sequence[Write]) -> tuple[list[Write], tuple[str, ...]]:
    """The last write of each identity, and the days they touch."""

    def work() -> tuple[list[Write], tuple[str, ...]]:
        unique = last_wins(writes)
        return unique, touched_days(unique)

    return work() if len(writes) <= INLINE_WRITES_MAX else await asyncio.to_thread(work)


async def _lines(writes: Sequence[Write], body_bytes: int) -> bytes:
    if len(writes) <= INLINE_WRITES_MAX and body_bytes <= INLINE_BYTES_MAX:
        return lines_of(writes)
    return await asyncio.to_thread(lines_of, writes)


def _check_room(gauge: _Gauge, visible: Visible) -> None:
    full = gauge.unbuilt >= UNBUILT_OBJECTS_MAX
    if visible == "now":
        full = full or gauge.tail_objects >= TAIL_OBJECTS_MAX or gauge.tail_bytes >= TAIL_BYTES_MAX
    if full:
        raise Unavailable(
            "tail_full",
            "too many batches wait to be built; build the dirty days or send bulk loads with visible=after_build",
            retry_after_s=TAIL_RETRY_AFTER_S,
            objects=gauge.tail_objects,
            bytes=gauge.tail_bytes,
            unbuilt=gauge.unbuilt,
        )


def _take_group(waiting: list[_Request]) -> list[_Request]:
    """Remove and return the first requests that fit into one object; always at least one."""
    group: list[_Request] = []
    size = days = 0
    while waiting and len(group) < GROUP_REQUESTS_MAX:
        size += len(waiting[0].lines)
        days += waiting[0].days
        if group and (size > GROUP_BYTES_MAX or days > GROUP_DAYS_MAX):
            break
        group.append(waiting.pop(0))
    return group
