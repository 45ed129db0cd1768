"""Warming: fetching into the cache, ahead of the reads, what they are going to want.

Two occasions. A *hint* names entities or days. A *publish* is learned by a read that confirms its cut: for a tenant
that was read in the last HOT_S, what the new manifest brings is fetched for the entities, bundles and tenant-wide
reads seen in that time. One job runs at a time, in the background, in a context of its own: no request waits for it
or counts its reads, and bytes are bounded per job. A job that the store fails is over; the reads fetch for
themselves. *Pins* are the names in memory that a hint asked to keep; a publish moves them to the new shards. Names
of entities that an erasure hides are kept neither as pins nor as what is read.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, TypeAlias, TypeVar

import numpy as np

from context_plane.cache.tiers import track_lookups
from context_plane.catalog.erasures import Erasures
from context_plane.catalog.manifest import Manifest
from context_plane.engine import Engine
from context_plane.errors import Invalid, NotFound, PlaneError, Unavailable
from context_plane.model import check_each, check_entity, day_end_us, day_start_us
from context_plane.recall.bundles import Bundles
from context_plane.recall.periods import Period, periods_of
from context_plane.recall.plan import block_bytes, read_of
from context_plane.recall.search import Searcher
from context_plane.recall.tail_view import OF_TAIL
from context_plane.recall.values import DEADLINE_MS_MAX, SearchRequest
from context_plane.retrieval.reader import Reader
from context_plane.retrieval.snapshots import Snapshots
from context_plane.store.counting import Trace, trace

K = TypeVar("K")
T = TypeVar("T")

log = logging.getLogger("context_plane.warm")

HOT_S: Final = 300.0
"""What was read within it is fetched after a publish: an agent's session, and several publishes of a busy tenant."""
TENANTS_HOT_MAX: Final = 256
ENTITIES_HOT_MAX: Final = 256
"""Per tenant, entities and bundles each; those read last. Some 20 MB of blocks at most for a day that is published."""
FOCUS_MAX: Final = 64
"""A read of more entities than this is a sweep, and says nothing about which of them are read again."""
PREFETCH_BYTES_MAX: Final = 64 * 1024 * 1024
"""Stored bytes fetched after one publish."""
HINT_BYTES_MAX: Final = 256 * 1024 * 1024
"""Stored bytes fetched for one hint: the default memory, and a second or three of one S3 client."""
HINTS_MAX: Final = 64
"""Hints that wait; more are refused, to come again."""
HINT_ENTITIES_MAX: Final = 5_000
HINT_DAYS_MAX: Final = 366
PINS_MAX: Final = 10_000
"""Entities and days pinned at a time, of all tenants: two full hints. A publish reads all of its tenant again."""
CHUNK: Final = 64
"""Subjects fetched, and then pinned, together: those of a hint that the store fails are pinned up to there."""
PARALLEL: Final = 8
"""Reads in flight for all warming of a process: a fraction of what one answer may have."""

Subject: TypeAlias = tuple[str, str]
"""("entity", name) or ("day", day)."""


@dataclass(slots=True)
class _Hot:
    """When what of a tenant was read last, monotonic seconds. `wide_s`: tenant-wide; `vectors`: with vectors."""

    read_s: float = -math.inf
    wide_s: float = -math.inf
    vectors_s: float = -math.inf
    entities: OrderedDict[str, float] = field(default_factory=OrderedDict)
    bundles: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True)
class _Unit:
    """One read: an entity's block in a period, or with `vectors` not None what a tenant-wide read takes of it."""

    subject: Subject
    period: Period
    vectors: bool | None = None

    @property
    def bytes_expected(self) -> int:
        """As far as the manifest tells."""
        shards = self.period.shards
        if self.vectors is None:
            return block_bytes(shards.entity, shards.entities)
        return read_of(self.period, None, vectors=self.vectors).bytes


@dataclass(slots=True)
class _Found:
    """What reads of a subject came to: names in the cache, newest first. `rows`: some were found; `whole`: all read."""

    names: dict[str, None] = field(default_factory=dict)
    rows: bool = False
    whole: bool = True


class Warmer:
    """The warming of one process. Not for several threads."""

    def __init__(
        self, engine: Engine, reader: Reader, snapshots: Snapshots, searcher: Searcher, bundles: Bundles
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._cache = reader.cache
        self._snapshots = snapshots
        self._searcher = searcher
        self._bundles = bundles
        self._hot: OrderedDict[str, _Hot] = OrderedDict()
        self._hints: list[Callable[[], Awaitable[None]]] = []
        self._published: OrderedDict[str, tuple[Manifest, Manifest]] = OrderedDict()
        self._pins: dict[tuple[str, Subject], frozenset[str]] = {}
        self._holders: Counter[str] = Counter()
        self._worker: asyncio.Task[None] | None = None

    # --- what is read ---------------------------------------------------------------------------

    def note(self, tenant: str, entities: Sequence[str] | None, *, vectors: bool = False) -> None:
        """A read of entities, or of the whole tenant (None). Microseconds."""
        hot, now_s = self._touch(tenant)
        if entities is None:
            hot.wide_s = now_s
            if vectors:
                hot.vectors_s = now_s
        elif len(entities) <= FOCUS_MAX:
            for name in entities:
                _push(hot.entities, name, now_s)

    def note_bundle(self, tenant: str, entity: str, spec: str) -> None:
        """A read of a built bundle."""
        hot, now_s = self._touch(tenant)
        _push(hot.bundles, (entity, spec), now_s)

    def _touch(self, tenant: str) -> tuple[_Hot, float]:
        now_s = self._engine.monotonic_s()
        hot = self._hot.get(tenant)
        if hot is None:
            hot = self._hot[tenant] = _Hot()
            if len(self._hot) > TENANTS_HOT_MAX:
                self._hot.popitem(last=False)
        else:
            self._hot.move_to_end(tenant)
        hot.read_s = now_s
        return hot, now_s

    # --- asking ---------------------------------------------------------------------------------

    def warm(
        self,
        tenant: str,
        *,
        entities: Sequence[str] | None = None,
        days: Sequence[str] | None = None,
        pin: bool | None = None,
    ) -> None:
        """Fetch, in the background, the blocks of entities, or the columns and vectors of days' shards.

        `pin` True keeps them in memory, within the share of pins, through publishes and until False lets them go;
        None changes no pin. Kept are subjects that something is built of, PINS_MAX in a process: a hint past it
        fetches and pins nothing more. Raises `Invalid(query_invalid | entity_invalid)`, `Unavailable(rate_limited)`.
        """
        if (entities is None) == (days is None):
            raise Invalid("query_invalid", "name entities or days, one of the two").located()
        check_each("entities", entities or (), check_entity)
        check_each("days", days or (), day_start_us)
        subjects: list[Subject] = [("entity", name) for name in dict.fromkeys(entities or ())]
        subjects += [("day", day) for day in dict.fromkeys(days or ())]
        if len(entities or ()) > HINT_ENTITIES_MAX or len(days or ()) > HINT_DAYS_MAX:
            raise Invalid("query_invalid", "too many in one hint", entities=HINT_ENTITIES_MAX, days=HINT_DAYS_MAX)
        if pin is False:
            self._let_go(tenant, subjects)
        if len(self._hints) >= HINTS_MAX:
            raise Unavailable("rate_limited", "too many hints wait to be followed; retry", retry_after_s=1.0)
        self._hints.append(lambda: self._follow(tenant, subjects, pin is True))
        self._wake()

    def published(self, previous: Manifest, manifest: Manifest) -> None:
        """A newer manifest is known: fetch what it brings, where the tenant is hot or has pins. Returns at once."""
        tenant = manifest.tenant
        hot = self._hot.get(tenant)
        if hot is not None and manifest.erasures > previous.erasures:
            # Which names were erased, retired tombstones no longer tell; the reads bring the others back.
            hot.entities.clear()
            hot.bundles.clear()
        recent = hot is not None and self._engine.monotonic_s() - hot.read_s <= HOT_S
        if recent or any(pinned == tenant for pinned, _ in self._pins):
            first, _ = self._published.get(tenant, (previous, manifest))
            self._published[tenant] = (first, manifest)
            self._wake()

    def forget(self) -> None:
        """Nothing is pinned or hot any more; what waits is dropped."""
        self._hot.clear()
        self._hints.clear()
        self._published.clear()
        self._pins.clear()
        self._holders.clear()

    async def settled(self) -> None:
        """Return when nothing waits and nothing is under way."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    async def aclose(self) -> None:
        self.forget()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])

    # --- working --------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._worker is None:
            # A context of its own: no request's trace, deadline or temperature counts these reads.
            self._worker = asyncio.create_task(self._work(), context=contextvars.Context())
            self._worker.add_done_callback(self._rested)

    def _rested(self, worker: asyncio.Task[None]) -> None:
        self._worker = None
        if worker.cancelled():
            return  # the loop ends: nobody starts anything any more
        if worker.exception() is not None:
            log.error("warming failed", exc_info=worker.exception())
        if self._hints or self._published:
            self._wake()

    async def _work(self) -> None:
        while self._hints or self._published:
            try:
                if self._published:
                    _, (previous, manifest) = self._published.popitem(last=False)
                    await self._after_publish(previous, manifest)
                else:
                    await self._hints.pop(0)()
            except PlaneError as error:
                log.debug("warming ends early: %s", error)

    async def _follow(self, tenant: str, subjects: Sequence[Subject], pin: bool) -> None:
        cut = await self._snapshots.outline(tenant, "eventual")
        with self._counted() as spent:
            await self._take(cut.manifest, subjects, spent, HINT_BYTES_MAX, lambda _: pin)

    async def _after_publish(self, previous: Manifest, manifest: Manifest) -> None:
        tenant, since_s = manifest.tenant, self._engine.monotonic_s() - HOT_S
        if manifest.erasures > previous.erasures:
            await self._drop_erased(previous, manifest)
        pinned = [subject for owner, subject in self._pins if owner == tenant]
        with self._counted() as spent:
            # What is let go meanwhile stays let go.
            await self._take(manifest, pinned, spent, PREFETCH_BYTES_MAX, lambda each: (tenant, each) in self._pins)
            hot = self._hot.get(tenant)
            if hot is None:
                return
            known = {period.shards.entity.key for period in periods_of(previous, None, None)}
            new = [p for p in reversed(periods_of(manifest, None, None)) if p.shards.entity.key not in known]
            names = [name for name, at_s in reversed(hot.entities.items()) if at_s >= since_s]
            units = (_Unit(("entity", name), period) for name in names for period in new)
            vectors = hot.vectors_s >= since_s
            wide = (_Unit(("day", p.name), p, vectors) for p in new if hot.wide_s >= since_s)
            await self._fetch(manifest, chain(units, wide), spent, PREFETCH_BYTES_MAX)
            built = [
                (entity, spec)
                for (entity, spec), at_s in reversed(hot.bundles.items())
                if at_s >= since_s and manifest.bundles.get(spec) != previous.bundles.get(spec)
            ]
            await _each(lambda each: self._bundle(tenant, *each), built)

    async def _take(
        self,
        manifest: Manifest,
        subjects: Sequence[Subject],
        spent: Trace,
        bytes_max: int,
        keep: Callable[[Subject], bool],
    ) -> None:
        """Read what the manifest holds of the subjects, and pin it for those to keep."""
        for start in range(0, len(subjects), CHUNK):
            chunk = subjects[start : start + CHUNK]
            found = await self._fetch(manifest, _units(manifest, chunk), spent, bytes_max)
            for subject in chunk:
                if keep(subject):
                    self._hold(manifest.tenant, subject, found.get(subject, _Found()))
                    await asyncio.sleep(0)

    async def _fetch(
        self, manifest: Manifest, units: Iterable[_Unit], spent: Trace, bytes_max: int
    ) -> dict[Subject, _Found]:
        """Read the units while the bytes last; what they came to, by subject."""
        results: dict[Subject, _Found] = {}

        async def one(unit: _Unit) -> None:
            found = results.setdefault(unit.subject, _Found())
            if spent.bytes_read + unit.bytes_expected > bytes_max:
                found.whole = False
                return
            lookups = track_lookups(names=True)
            if unit.vectors is None:
                block = await self._reader.block(manifest.tenant, unit.period.name, unit.period.shards, unit.subject[1])
                found.rows |= block is not None
            else:
                await self._wide(manifest.tenant, unit.period, unit.vectors)
                found.rows = True
            found.names.update(dict.fromkeys(name for name in lookups.names or () if not name.startswith(OF_TAIL)))

        await _each(one, units)
        return results

    async def _wide(self, tenant: str, period: Period, vectors: bool) -> None:
        """What tenant-wide reads take of a period, fetched by being one: whatever they open is then open."""
        dim = self._engine.embedder.dim
        request = SearchRequest(
            text="warm up",
            vector=np.full(dim, dim**-0.5, np.float32) if vectors else None,
            mode="hybrid" if vectors else "text",
            since_us=period.shards.first_ts_us,
            until_us=period.shards.last_ts_us + 1,
            limit=1,
            consistency="eventual",
            deadline_ms=DEADLINE_MS_MAX,
        )
        await self._searcher.search(tenant, request)

    async def _bundle(self, tenant: str, entity: str, spec: str) -> None:
        try:
            await self._bundles.bundle(tenant, entity, spec=spec, as_of=None, snapshot=None)
        except NotFound as error:
            log.debug("a bundle is gone: %s", error)

    @contextmanager
    def _counted(self) -> Iterator[Trace]:
        with trace() as spent:
            try:
                yield spent
            finally:
                self._cache.stats.prefetched += spent.gets
                self._cache.stats.prefetched_bytes += spent.bytes_read

    # --- pins -----------------------------------------------------------------------------------

    def _hold(self, tenant: str, subject: Subject, found: _Found) -> None:
        """Pin what was read of a subject instead of what it held before; the latter stays if not all was read.

        A subject is kept only while something is pinned for it.
        """
        before = self._pins.get((tenant, subject), frozenset())
        if (before and not found.whole) or (not before and len(self._pins) >= PINS_MAX):
            return
        self._let_go(tenant, [subject])  # first, for the room in the share
        if found.rows:
            wanted = sorted(found.names, key=before.__contains__, reverse=True)  # what it held has its room
            kept = frozenset(name for name in wanted if self._cache.pin((name,)))
            if kept:
                self._pins[tenant, subject] = kept
                self._holders.update(kept)

    def _let_go(self, tenant: str, subjects: Iterable[Subject]) -> None:
        """Unpin what no other subject holds: entities share pages."""
        for subject in subjects:
            for name in self._pins.pop((tenant, subject), frozenset()):
                self._holders[name] -= 1
                if not self._holders[name]:
                    del self._holders[name]
                    self._cache.unpin((name,))

    async def _drop_erased(self, previous: Manifest, manifest: Manifest) -> None:
        """Let go the entities that tombstones since `previous` hide. Those of retired ones are in no shard."""
        erasures = Erasures.of(manifest)
        names = [name for owner, (kind, name) in self._pins if owner == manifest.tenant and kind == "entity"]

        def hidden() -> list[Subject]:
            return [("entity", name) for name in names if erasures.hides_built(name, previous.erasures)]

        self._let_go(manifest.tenant, await asyncio.to_thread(hidden))


def _units(manifest: Manifest, subjects: Iterable[Subject]) -> Iterator[_Unit]:
    """What the subjects have in the manifest, the newest first: a budget that ends short ends with the oldest."""
    everything = periods_of(manifest, None, None)[::-1]
    for kind, name in subjects:
        if kind == "entity":
            for period in everything:
                yield _Unit((kind, name), period)
        else:
            for period in periods_of(manifest, day_start_us(name), day_end_us(name)):
                yield _Unit((kind, name), period, vectors=True)


def _push(seen: OrderedDict[K, float], key: K, now_s: float) -> None:
    seen[key] = now_s
    seen.move_to_end(key)
    if len(seen) > ENTITIES_HOT_MAX:
        seen.popitem(last=False)


async def _each(make: Callable[[T], Awaitable[object]], items: Iterable[T]) -> None:
    """`make` of every item, PARALLEL of them at a time; what it waits for or not, others run between them.

    Raises the first error, when all under way have ended.
    """
    waiting = iter(items)

    async def lane() -> None:
        for item in waiting:
            await make(item)
            await asyncio.sleep(0)

    for outcome in await asyncio.gather(*(lane() for _ in range(PARALLEL)), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
