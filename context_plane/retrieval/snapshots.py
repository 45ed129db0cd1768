"""Snapshots: one consistent cut of a tenant, `{manifest version}.{log number}`, tail included.

A process keeps the newest cut it knows per tenant. An *eventual* read uses it while it is at most
EVENTUAL_AGE_MAX_S old; a *strong* read confirms it in one round trip: list the newest manifest and the log above
the floor, together. A pinned cut names its manifest and log number; tombstones made since apply to it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeVar

from cachetools import LRUCache

from context_plane.catalog.erasures import Erasures
from context_plane.catalog.head import load_hint, load_version, newest_version
from context_plane.catalog.log import LogObject, list_log
from context_plane.catalog.manifest import Manifest
from context_plane.catalog.tail import Batch, Tail, load_tail
from context_plane.engine import Engine
from context_plane.errors import Invalid, NotFound
from context_plane.model import Write

T = TypeVar("T")
Consistency: TypeAlias = Literal["strong", "eventual"]

EVENTUAL_AGE_MAX_S: Final = 1.0
SNAPSHOT_TTL_US: Final = 24 * 3600 * 1_000_000
"""How long a replaced cut stays readable."""
BATCHES_CACHED: Final = 8192
BODIES_CACHED: Final = 256
PINNED_CACHED: Final = 64
_SNAPSHOT = re.compile(r"(\d{1,18})\.(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cut: built state under `manifest`, and the visible uncovered writes up to `tail.log_number`."""

    manifest: Manifest
    tail: Tail
    erasures: Erasures

    @property
    def id(self) -> str:
        return f"{self.manifest.version}.{self.tail.log_number}"

    @property
    def tenant(self) -> str:
        return self.manifest.tenant


@dataclass(slots=True)
class _Known:
    snapshot: Snapshot
    at_s: float


@dataclass(slots=True)
class Snapshots:
    """The cuts one process knows. `snapshot_ttl_us`: age at which a replaced manifest answers 410."""

    engine: Engine
    snapshot_ttl_us: int = SNAPSHOT_TTL_US
    _known: dict[str, _Known] = field(default_factory=dict)
    _flights: dict[str, asyncio.Task[Snapshot]] = field(default_factory=dict)
    _batches: LRUCache[tuple[str, int], Batch] = field(default_factory=lambda: LRUCache(BATCHES_CACHED))
    _bodies: LRUCache[tuple[str, int], list[Write]] = field(default_factory=lambda: LRUCache(BODIES_CACHED))
    _derived: LRUCache[tuple[str, str, int], Any] = field(default_factory=lambda: LRUCache(PINNED_CACHED))
    _pinned: LRUCache[tuple[str, str], Snapshot] = field(default_factory=lambda: LRUCache(PINNED_CACHED))

    async def current(self, tenant: str, consistency: Consistency) -> Snapshot:
        """The newest cut; for `eventual`, one that is at most a second old."""
        known = self._known.get(tenant)
        fresh = known is not None and self.engine.monotonic_s() - known.at_s <= EVENTUAL_AGE_MAX_S
        if consistency == "eventual":
            if known is not None and fresh:
                return known.snapshot
            return await self._joined(tenant)
        return await self._refresh(tenant)

    async def pinned(self, tenant: str, snapshot_id: str) -> Snapshot:
        """The cut of that id. Raises `Invalid(snapshot_invalid)`, `NotFound(snapshot_expired | snapshot_erased)`."""
        found = _SNAPSHOT.fullmatch(snapshot_id)
        if found is None:
            raise Invalid("snapshot_invalid", "a snapshot reads {manifest}.{log}, as in 17.41", snapshot=snapshot_id)
        version, log_number = int(found[1]), int(found[2])
        head = (await self.current(tenant, "strong")).manifest
        if version > head.version:
            raise NotFound("snapshot_not_found", "that snapshot was never made", snapshot=snapshot_id)
        if version < head.snapshots_from:
            raise NotFound("snapshot_erased", "an erasure ended that snapshot; start a new run", snapshot=snapshot_id)
        held = self._pinned.get((tenant, snapshot_id))
        if held is not None and held.erasures.newest == head.erasures:
            return held
        manifest = head if version == head.version else await self._retained(tenant, version, snapshot_id)
        tail = await self._tail(manifest, log_number)
        snapshot = Snapshot(manifest, tail, Erasures.of(head))
        self._pinned[tenant, snapshot_id] = snapshot
        return snapshot

    def derived(self, snapshot: Snapshot, make: Callable[[Snapshot], T]) -> T:
        """What `make` gives for a cut, computed once per cut while it is among the recent ones."""
        key = (snapshot.tenant, snapshot.id, snapshot.erasures.newest)
        held: T | None = self._derived.get(key)
        if held is None:
            held = self._derived[key] = make(snapshot)
        return held

    def forget(self, tenant: str) -> None:
        """Drop what is known, so that the next read asks the store."""
        self._known.pop(tenant, None)

    async def _retained(self, tenant: str, version: int, snapshot_id: str) -> Manifest:
        try:
            manifest, successor = await asyncio.gather(
                load_version(self.engine.store, tenant, version), load_version(self.engine.store, tenant, version + 1)
            )
        except NotFound as error:
            raise _expired(snapshot_id) from error
        if self.engine.now_us() - successor.committed_us > self.snapshot_ttl_us:
            raise _expired(snapshot_id)
        return manifest

    async def _joined(self, tenant: str) -> Snapshot:
        """Join a refresh under way: many eventual readers cost one."""
        flight = self._flights.get(tenant)
        if flight is None:
            flight = asyncio.ensure_future(self._refresh(tenant))
            self._flights[tenant] = flight
            flight.add_done_callback(lambda _: self._flights.pop(tenant, None))
        return await asyncio.shield(flight)

    async def _refresh(self, tenant: str) -> Snapshot:
        at_s = self.engine.monotonic_s()
        known = self._known.get(tenant)
        manifest, objects = await self._read_head(tenant, known.snapshot.manifest if known else None)
        newest = objects[-1].number if objects else manifest.log_floor
        if (
            known is not None
            and known.snapshot.manifest.version == manifest.version
            and known.snapshot.tail.log_number == max(newest, manifest.log_floor)
        ):
            known.at_s = max(known.at_s, at_s)
            return known.snapshot
        tail = await self._tail(manifest, None, objects)
        snapshot = Snapshot(manifest, tail, Erasures.of(manifest))
        held = self._known.get(tenant)
        if held is None or held.at_s <= at_s:
            self._known[tenant] = _Known(snapshot, at_s)
        return snapshot

    async def _read_head(self, tenant: str, known: Manifest | None) -> tuple[Manifest, list[LogObject]]:
        """The newest manifest and the log above its floor: one round when `known` is still the newest."""
        store = self.engine.store
        if known is None:
            known = await load_hint(store, tenant)
        floor = known.log_floor if known else 0
        version, objects = await _both(
            lambda: newest_version(store, tenant), lambda: list_log(store, tenant, after=floor)
        )
        if known is None or known.version != version:
            known = await load_version(store, tenant, version)
        return known, [item for item in objects if item.number > known.log_floor]

    async def _tail(self, manifest: Manifest, log_number: int | None, objects: list[LogObject] | None = None) -> Tail:
        return await load_tail(
            self.engine.store,
            manifest,
            log_number=log_number,
            batch_cache=self._batches,
            writes_cache=self._bodies,
            objects=objects,
        )


async def _both(
    first: Callable[[], Awaitable[int]], second: Callable[[], Awaitable[list[LogObject]]]
) -> tuple[int, list[LogObject]]:
    one, two = await asyncio.gather(first(), second())
    return one, two


def _expired(snapshot_id: str) -> NotFound:
    return NotFound(
        "snapshot_expired", "the snapshot is older than its retention; start a new run", snapshot=snapshot_id
    )
