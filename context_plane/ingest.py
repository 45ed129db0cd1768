"""Ingest: validated writes become durable log batches, several requests in one object (group commit).

A request is answered only after the object that holds all of it was created. While one append of a
tenant is in flight the next requests gather, so a tenant needs some ten PUTs a second whatever its event
rate. The searched tail is bounded: past its limits a write is refused with `tail_full` until days are
built. Group commit: DeWitt et al., "Implementation techniques for main memory database systems", 1984.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

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
from context_plane.errors import Unavailable
from context_plane.layout.batch import Visible, encode
from context_plane.model import Write, identity

GATHER_S: Final = 0.02
"""How long the first request of an idle tenant waits for company: below what a writer notices."""
GAUGE_AGE_MAX_S: Final = 2.0
"""How old the view of the tail's size may be: writers overshoot the bound by what fits in it."""
WAITING_MAX: Final = 1024
"""Requests of one tenant that may wait for the log: past it the store is not keeping up."""
TAIL_RETRY_AFTER_S: Final = 15.0
GROUP_BYTES_MAX: Final = 32 * 1024 * 1024
"""Two of the largest requests: an object stays below half of what a batch may decode to."""


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


@dataclass(slots=True)
class _Request:
    writes: list[Write]
    key_hash: str | None
    body_bytes: int
    done: asyncio.Future[int]

    @classmethod
    def of(cls, writes: list[Write], key_hash: str | None, body_bytes: int) -> _Request:
        return cls(writes, key_hash, body_bytes, asyncio.get_running_loop().create_future())


@dataclass(slots=True)
class _Lane:
    """The waiting requests of one tenant and visibility."""

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
        self._heads: dict[str, LogHead] = {}
        self._gauges: dict[str, _Gauge] = {}
        self._headers: dict[tuple[str, int], Batch] = {}

    async def write(
        self,
        tenant: str,
        writes: Sequence[Write],
        *,
        body_bytes: int,
        visible: Visible = "now",
        key_hash: str | None = None,
    ) -> Accepted:
        """Durable when it returns. `body_bytes`: decoded size of the request the writes came in.

        Raises `Unavailable(tail_full)`, `Unavailable(store_unavailable)`."""
        gauge = await self._gauge(tenant)
        _check_room(gauge, visible)
        unique = last_wins(writes)
        number = await self._enqueue(tenant, visible, _Request.of(unique, key_hash, body_bytes))
        return Accepted(
            accepted=len(unique),
            duplicates=len(writes) - len(unique),
            batch=number,
            days=tuple(sorted({identity(write)[1] for write in unique})),
            manifest_version=gauge.manifest.version,
        )

    async def aclose(self) -> None:
        """Wait for appends in flight."""
        workers = [lane.worker for lane in self._lanes.values() if lane.worker is not None]
        await asyncio.gather(*workers, return_exceptions=True)

    # --- group commit ---------------------------------------------------------------------------

    async def _enqueue(self, tenant: str, visible: Visible, request: _Request) -> int:
        lane = self._lanes.setdefault((tenant, visible), _Lane())
        if len(lane.waiting) >= WAITING_MAX:
            raise Unavailable("store_unavailable", "too many writes wait for the log; retry", retry_after_s=1.0)
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

    async def _append(self, tenant: str, visible: Visible, group: list[_Request]) -> int:
        writer = self._engine.nonce()
        writes = [write for request in group for write in request.writes]
        keys = [request.key_hash for request in group if request.key_hash]
        created_us = self._engine.now_us()
        data = await asyncio.to_thread(
            encode, writes, writer=writer, created_us=created_us, visible=visible, requests=keys
        )
        head = await append(self._engine, tenant, data, writer=writer, head=self._heads.get(tenant))
        known = self._heads.get(tenant)
        self._heads[tenant] = head if known is None or head.number > known.number else known
        gauge = self._gauges.get(tenant)
        if gauge is not None:
            gauge.unbuilt += 1
            if visible == "now":
                gauge.tail_objects += 1
                gauge.tail_bytes += len(data)
        return head.number

    # --- the bound of the tail ------------------------------------------------------------------

    async def _gauge(self, tenant: str) -> _Gauge:
        now_s = self._engine.monotonic_s()
        gauge = self._gauges.get(tenant)
        if gauge is not None and now_s - gauge.at_s < GAUGE_AGE_MAX_S:
            return gauge
        manifest = await load_head(self._engine.store, tenant, known=gauge.manifest if gauge else None)
        objects = await list_log(self._engine.store, tenant, after=manifest.log_floor)
        self._forget(tenant, manifest.log_floor)
        batches = await read_headers(self._engine.store, tenant, objects, self._headers)
        sizes = {item.number: item.bytes for item in objects}
        pending = [batch for batch in batches if uncovered_days(manifest, batch)]
        tail = [batch for batch in pending if batch.header.visible == "now"]
        gauge = _Gauge(now_s, manifest, len(tail), sum(sizes[batch.number] for batch in tail), len(pending))
        self._gauges[tenant] = gauge
        return gauge

    def _forget(self, tenant: str, floor: int) -> None:
        for key in [key for key in self._headers if key[0] == tenant and key[1] <= floor]:
            del self._headers[key]


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
    size = 0
    while waiting and (not group or size + waiting[0].body_bytes <= GROUP_BYTES_MAX):
        request = waiting.pop(0)
        group.append(request)
        size += request.body_bytes
    return group
