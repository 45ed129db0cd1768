"""Snapshots: one consistent cut of a tenant, `{manifest version}.{log number}`, tail included.

A cut is learned in two steps. Its *outline* (manifest, and which log batches it does not cover) is all that a
bundle needs; the *snapshot* adds the tail's writes. A process keeps the newest outline it knows per tenant:
an *eventual* read uses it while it is at most EVENTUAL_AGE_MAX_S old; a *strong* read confirms it in one
round trip, by listing the newest manifest and the log above the floor together. Who reads may start on the
manifest the moment it is known, while the log is still being listed. A pinned cut names its manifest and log
number; tombstones made since apply to it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeVar

from cachetools import LRUCache

from context_plane.cache.recent import Held, Latest
from context_plane.catalog.erasures import Erasures
from context_plane.catalog.head import load_head, load_version
from context_plane.catalog.log import LogObject, list_log
from context_plane.catalog.manifest import Manifest
from context_plane.catalog.tail import Batch, Tail, check_dense, check_whole, load_tail, read_headers, uncovered_days
from context_plane.engine import Engine
from context_plane.errors import Invalid, NotFound
from context_plane.model import Put, Write
from context_plane.store import deadline

T = TypeVar("T")
Consistency: TypeAlias = Literal["strong", "eventual"]
Started: TypeAlias = Callable[[Manifest], object]
"""Told the manifest as soon as one is known or confirmed; may be told another one later."""

EVENTUAL_AGE_MAX_S: Final = 1.0
CONFIRM_AFTER_S: Final = 0.75
"""A cut in use is confirmed beside the read that finds it this old: a busy tenant's reads never wait for the store,
and a store with a p99 of 80 ms answers twice over before the cut is too old. A third more listings for it."""
CONFIRMING: Final = "confirming"
"""Of a flight that no read waits for, so that it outlives the one that began it: see `store/deadline.py`."""
SNAPSHOT_TTL_US: Final = 24 * 3600 * 1_000_000
"""How long a replaced cut stays readable."""
CUT_READS_MAX: Final = 3
"""Each further read of the newest cut means an erasure ended the one before while it was read."""
TENANTS_KNOWN: Final = 1024
SNAPSHOTS_KNOWN: Final = 64
HEADERS_BYTES_MAX: Final = 64 * 1024 * 1024
BODIES_BYTES_MAX: Final = 256 * 1024 * 1024
"""Log batches kept, decoded: the full tails of a few tenants."""
WRITE_BYTES: Final = 400
"""What a decoded write takes beside its text, its vector and its attributes."""
ATTR_BYTES: Final = 128
CUT_WRITES_MAX: Final = 1_000_000
"""Of the tails of recent cuts together: some 300 MB of places, beside the writes themselves. Each write of a busy
tenant makes a cut of its own, with the whole tail."""
INLINE_WRITES_MAX: Final = 100
"""A tail of fewer writes is looked through in under half a millisecond, on the event loop."""
_SNAPSHOT = re.compile(r"(\d{1,18})\.(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Outline:
    """A cut without the writes of its tail. `objects`: the log above the floor; `pending`: what is uncovered."""

    manifest: Manifest
    log_number: int
    objects: tuple[LogObject, ...]
    pending: tuple[Batch, ...]
    erasures: Erasures

    @property
    def id(self) -> str:
        return f"{self.manifest.version}.{self.log_number}"

    @property
    def tenant(self) -> str:
        return self.manifest.tenant


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


def without_tail(outline: Outline) -> Snapshot:
    """The built state of a cut alone; all of it where the pending batches hold nothing visible."""
    return Snapshot(outline.manifest, Tail(outline.log_number, outline.pending, ()), outline.erasures)


def _body_bytes(writes: list[Write]) -> int:
    events = [write.event for write in writes if isinstance(write, Put)]
    texts = sum(len(event.text or "") for event in events)
    vectors = sum(event.vector.nbytes for event in events if event.vector is not None)
    attrs = ATTR_BYTES * sum(len(event.attrs or ()) for event in events)
    return min(texts + vectors + attrs + WRITE_BYTES * len(writes), BODIES_BYTES_MAX)


def _cut_writes(tail: Tail) -> int:
    """What a cut counts: its writes, and never so few that more than `SNAPSHOTS_KNOWN` cuts, each with its manifest,
    are kept."""
    return min(max(len(tail.writes), -(-CUT_WRITES_MAX // SNAPSHOTS_KNOWN)), CUT_WRITES_MAX)


@dataclass(slots=True)
class Snapshots:
    """The cuts one process knows. `snapshot_ttl_us`: age at which a replaced manifest answers 410."""

    engine: Engine
    snapshot_ttl_us: int = SNAPSHOT_TTL_US
    newer: Callable[[Manifest, Manifest], object] | None = None
    """Told the manifest known before and a newer one, when a read learns of it. Returns at once."""
    _known: Latest[Outline] = field(default_factory=lambda: Latest(TENANTS_KNOWN))
    _forgotten: int = 0
    """How often any tenant was forgotten: a cut whose reading began before is kept for no later read."""
    _heads: LRUCache[str, Manifest] = field(default_factory=lambda: LRUCache(TENANTS_KNOWN))
    _flights: dict[tuple[str, ...], asyncio.Task[Any]] = field(default_factory=dict)
    _batches: LRUCache[tuple[str, int], Batch] = field(
        default_factory=lambda: LRUCache(HEADERS_BYTES_MAX, getsizeof=lambda batch: batch.held_bytes)
    )
    _bodies: LRUCache[tuple[str, int], list[Write]] = field(
        default_factory=lambda: LRUCache(BODIES_BYTES_MAX, getsizeof=_body_bytes)
    )
    _pinned: LRUCache[tuple[str, str], Outline] = field(default_factory=lambda: LRUCache(SNAPSHOTS_KNOWN))
    _replaced: LRUCache[tuple[str, int], int] = field(default_factory=lambda: LRUCache(TENANTS_KNOWN))
    """When a version got its successor, microseconds since 1970."""
    _complete: LRUCache[tuple[str, str, int], Snapshot] = field(
        default_factory=lambda: LRUCache(CUT_WRITES_MAX, getsizeof=lambda snapshot: _cut_writes(snapshot.tail))
    )
    _derived: LRUCache[tuple[str, str, int], tuple[int, Any]] = field(
        default_factory=lambda: LRUCache(CUT_WRITES_MAX, getsizeof=lambda held: held[0])
    )
    """What a cut was made into, after the writes of its tail."""

    async def current(self, tenant: str, consistency: Consistency, started: Started | None = None) -> Snapshot:
        """The newest cut; for `eventual`, one that is at most a second old."""
        for attempt in range(CUT_READS_MAX):
            try:
                return await self.complete(await self.outline(tenant, consistency, started))
            except NotFound as error:
                if error.code not in ("snapshot_erased", "snapshot_expired") or attempt == CUT_READS_MAX - 1:
                    raise
            self.forget(tenant)
        raise AssertionError("the last attempt returns or raises")

    async def pinned(self, tenant: str, snapshot_id: str, started: Started | None = None) -> Snapshot:
        """The cut of that id; raises as `pinned_outline` does."""
        return await self.complete(await self.pinned_outline(tenant, snapshot_id, started))

    async def outline(self, tenant: str, consistency: Consistency, started: Started | None = None) -> Outline:
        """The newest cut without its tail's writes."""
        if consistency == "strong":
            return await self._refresh(tenant, started)
        known = self.known(tenant)
        if known is not None:
            return known
        return await self._joined((tenant,), lambda: self._refresh(tenant, started))

    def known(self, tenant: str) -> Outline | None:
        """The cut that an eventual read answers from, where one is known that is young enough. Waits for nothing."""
        known = self._known.get(tenant)
        if known is None:
            return None
        age_s = self.engine.monotonic_s() - known.at_s
        if age_s > EVENTUAL_AGE_MAX_S:
            return None
        if age_s > CONFIRM_AFTER_S:
            with deadline.unbounded():  # nobody waits for it, and the next read needs it
                self._flight((tenant, CONFIRMING), lambda: self._refresh(tenant, None))
        return known.value

    def look(self, tenant: str) -> Held[Outline] | None:
        """The newest cut known, however old. Waits for nothing, starts nothing."""
        return self._known.get(tenant)

    async def pinned_outline(self, tenant: str, snapshot_id: str, started: Started | None = None) -> Outline:
        """Raises `Invalid(snapshot_invalid)`, `NotFound(snapshot_not_found | snapshot_expired | snapshot_erased)`."""
        found = _SNAPSHOT.fullmatch(snapshot_id)
        if found is None or snapshot_id != f"{int(found[1])}.{int(found[2])}":
            raise Invalid("snapshot_invalid", "a snapshot reads {manifest}.{log}, as in 17.41", snapshot=snapshot_id)
        version, log_number = int(found[1]), int(found[2])
        head = await load_head(self.engine.store, tenant, known=self._heads.get(tenant))
        self._learned(head)
        if version > head.version:
            raise _never_made(snapshot_id)
        if version < head.snapshots_from:
            raise NotFound("snapshot_erased", "an erasure ended that snapshot; start a new run", snapshot=snapshot_id)
        held = self._pinned.get((tenant, snapshot_id))
        known = None if held is None else held.manifest
        manifest = head if version == head.version else await self._retained(tenant, version, snapshot_id, known)
        if held is not None and held.erasures.newest == head.erasures:
            return held
        if started is not None:
            started(manifest)
        objects = await list_log(self.engine.store, tenant, after=manifest.log_floor)
        newest = _newest(objects, manifest)
        if log_number < min(newest, manifest.covered_max()) or log_number > max(newest, head.log_floor):
            raise _never_made(snapshot_id)  # a cut of the log below what is built would show half a batch
        wanted = [item for item in objects if item.number <= log_number]
        outline = await self._outlined(manifest, wanted, log_number, Erasures.of(head))
        self._pinned[tenant, snapshot_id] = outline
        return outline

    async def complete(self, outline: Outline) -> Snapshot:
        """The cut with its tail's writes. Concurrent readers of one cut read it once."""
        key = (outline.tenant, outline.id, outline.erasures.newest)
        held = self._complete.get(key)
        if held is not None:
            return held

        if not any(batch.header.visible == "now" for batch in outline.pending):
            return without_tail(outline)

        async def read() -> Snapshot:
            tail = await load_tail(
                self.engine.store,
                outline.manifest,
                log_number=outline.log_number,
                batch_cache=self._batches,
                writes_cache=self._bodies,
                objects=list(outline.objects),
            )
            made = self._complete[key] = Snapshot(outline.manifest, tail, outline.erasures)
            return made

        return await self._joined((*key[:2], str(key[2])), read)

    async def derived(self, snapshot: Snapshot, make: Callable[[Snapshot], T]) -> T:
        """What `make` gives for a cut, computed once per cut while it is among the recent ones."""
        key = (snapshot.tenant, snapshot.id, snapshot.erasures.newest)
        held = self._derived.get(key)
        if held is None:
            inline = len(snapshot.tail.writes) <= INLINE_WRITES_MAX
            made = make(snapshot) if inline else await asyncio.to_thread(make, snapshot)
            held = self._derived[key] = _cut_writes(snapshot.tail), made
        found: T = held[1]
        return found

    def known_derived(self, tenant: str, make: Callable[[Snapshot], T]) -> T | None:
        """The same of the cut that an eventual read answers from, where the cut and its tail are known or the tail is
        empty. Waits for nothing."""
        known = self.known(tenant)
        if known is None:
            return None
        key = (tenant, known.id, known.erasures.newest)
        held = self._derived.get(key)
        if held is None and not known.pending:
            empty = without_tail(known)
            held = self._derived[key] = _cut_writes(empty.tail), make(empty)
        found: T | None = None if held is None else held[1]
        return found

    def waiting(self, *, age_max_s: float) -> tuple[float, int]:
        """What waits for a build in cuts confirmed within `age_max_s`: how long the oldest write of all has waited, in
        seconds, and the most batches of one tenant. (0.0, 0) when nothing does. Some 0.1 us a tenant."""
        now_s, now_us = self.engine.monotonic_s(), self.engine.now_us()
        cuts = [held.value for held in self._known.untouched() if now_s - held.at_s <= age_max_s]
        pending = [cut.pending for cut in cuts if cut.pending]
        oldest_us = min((batches[0].header.created_us for batches in pending), default=now_us)
        return max(0.0, (now_us - oldest_us) / 1e6), max(map(len, pending), default=0)

    def forget(self, tenant: str) -> None:
        """Drop what is known, a read under way included, so that the next read asks the store."""
        self._known.pop(tenant, None)
        for name in ((tenant,), (tenant, CONFIRMING)):
            self._flights.pop(name, None)
        self._forgotten += 1

    def clear(self) -> None:
        """Forget every tenant's cuts, log batches and tails, so that the next read asks the store for all of them."""
        for known in (
            self._known, self._heads, self._batches, self._bodies,
            self._pinned, self._replaced, self._complete, self._derived,
        ):  # fmt: skip
            known.clear()

    # --- reading cuts ---------------------------------------------------------------------------

    async def _refresh(self, tenant: str, started: Started | None) -> Outline:
        at_s, forgotten = self.engine.monotonic_s(), self._forgotten
        known = self._known.get(tenant)
        manifest, objects = await self._read_head(tenant, known.value.manifest if known else None, started)
        self._learned(manifest)
        if _newest(objects, manifest) < manifest.covered_max():
            # listed before that manifest was committed: it would show a batch on some of its days only
            objects = await list_log(self.engine.store, tenant, after=manifest.log_floor)
        newest = _newest(objects, manifest)
        if known is not None and known.value.id == f"{manifest.version}.{newest}":
            if not known.ended:  # replaced or forgotten meanwhile
                known.at_s = max(known.at_s, at_s)
            return known.value
        outline = await self._outlined(manifest, objects, newest, Erasures.of(manifest))
        held = self._known.get(tenant)
        if self._forgotten == forgotten and (held is None or held.at_s <= at_s):
            self._known[tenant] = Held(outline, at_s, CONFIRM_AFTER_S)
        return outline

    def _learned(self, manifest: Manifest) -> None:
        previous = self._heads.get(manifest.tenant)
        self._heads[manifest.tenant] = manifest
        if self.newer is not None and previous is not None and manifest.version > previous.version:
            self.newer(previous, manifest)

    async def _read_head(
        self, tenant: str, known: Manifest | None, started: Started | None
    ) -> tuple[Manifest, list[LogObject]]:
        """The newest manifest and the log above its floor: one round when `known` is still the newest, else two."""
        store = self.engine.store
        if known is None:
            manifest = await load_head(store, tenant)
            if started is not None:
                started(manifest)
            return manifest, await list_log(store, tenant, after=manifest.log_floor)
        if started is not None:
            started(known)
        manifest, objects = await asyncio.gather(
            load_head(store, tenant, known=known), list_log(store, tenant, after=known.log_floor)
        )
        if started is not None and manifest is not known:
            started(manifest)
        return manifest, [item for item in objects if item.number > manifest.log_floor]

    async def _outlined(
        self, manifest: Manifest, objects: list[LogObject], log_number: int, erasures: Erasures
    ) -> Outline:
        check_dense(objects, manifest.log_floor, log_number)
        batches = await read_headers(self.engine.store, manifest.tenant, objects, self._batches)
        check_whole(batches)
        pending = tuple(batch for batch in batches if uncovered_days(manifest, batch))
        return Outline(manifest, log_number, tuple(objects), pending, erasures)

    async def _retained(self, tenant: str, version: int, snapshot_id: str, known: Manifest | None) -> Manifest:
        """A replaced manifest while it is retained. Its age counts from the commit of its successor."""
        replaced_us = self._replaced.get((tenant, version))
        if known is not None and replaced_us is not None:
            manifest = known
        else:
            try:
                manifest, successor = await asyncio.gather(
                    load_version(self.engine.store, tenant, version),
                    load_version(self.engine.store, tenant, version + 1),
                )
            except NotFound as error:
                raise _expired(snapshot_id) from error
            replaced_us = successor.committed_us
            self._replaced[tenant, version] = replaced_us
        if self.engine.now_us() - replaced_us > self.snapshot_ttl_us:
            raise _expired(snapshot_id)
        return manifest

    async def _joined(self, name: tuple[str, ...], read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Join the read under way, or start it; a cancelled reader does not end it for the others."""
        return await deadline.joined(self._flight(name, read))

    def _flight(self, name: tuple[str, ...], read: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        flight = self._flights.get(name)
        if flight is None:
            flight = self._flights[name] = deadline.fly(read())
            flight.add_done_callback(lambda done: self._landed(name, done))
        return flight

    def _landed(self, name: tuple[str, ...], flight: asyncio.Task[Any]) -> None:
        if self._flights.get(name) is flight:  # else it was forgotten, and another one may be under way
            del self._flights[name]
        if not flight.cancelled():
            flight.exception()  # every reader may have gone: then nobody else asks


def _newest(objects: list[LogObject], manifest: Manifest) -> int:
    return objects[-1].number if objects else manifest.log_floor


def _never_made(snapshot_id: str) -> NotFound:
    return NotFound("snapshot_not_found", "that snapshot was never made", snapshot=snapshot_id)


def _expired(snapshot_id: str) -> NotFound:
    return NotFound(
        "snapshot_expired", "the snapshot is older than its retention; start a new run", snapshot=snapshot_id
    )
