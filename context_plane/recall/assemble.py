"""Assembling the parts of a read: built rows and tail rows of a scope, fetched within a deadline.

What is read of each period is the plan's choice. Parts that are all in memory are taken without a task or a wait.
Else fetching starts as soon as a manifest is known, while the cut is still being confirmed; only periods of the
confirmed one are answered from. What does not arrive in time, or not at all, is named and left out, never silently.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Generic, NamedTuple, Self, TypeAlias, TypeVar

import numpy as np
from cachetools import LRUCache

from context_plane.cache.admission import ENTRY_SHARE_MAX
from context_plane.catalog.manifest import Manifest, Shards
from context_plane.engine import Engine
from context_plane.errors import Unavailable
from context_plane.index.blocks import with_vectors
from context_plane.recall.periods import Period, live_mask
from context_plane.recall.plan import EXACT_ROWS_MAX, Plan, Read, plan
from context_plane.recall.tail_view import TailRows, TailView
from context_plane.retrieval.columns import Columns, Mask
from context_plane.retrieval.joined import Joined, join
from context_plane.retrieval.reader import ABSENT, WHOLE, Reader
from context_plane.retrieval.scope import Part
from context_plane.retrieval.where import Bounds
from context_plane.shards import read_vectors

K = TypeVar("K")
T = TypeVar("T")

LEAST_WAIT_S: Final = 0.02
"""Given to a step whose deadline has passed: what is at hand is taken, only what must be fetched is late."""
PLANS_KNOWN: Final = 4_096
"""Recent plans; fewer where they read many periods, some hundred bytes each."""
PLAN_READS: Final = 32
"""Of a plan that counts as one."""
HELD_READS_MAX: Final = 4_096
"""Blocks looked for one by one in memory: some microseconds each. A longer read is fetched as if nothing were known."""
JOIN_ROWS_MAX: Final = 250_000
"""More rows are joined in seconds, and their copy would fill a memory cache of the default size."""
JOIN_PARTS_MIN: Final = 2
JOINS_ASKED: Final = 4_096
VIEWS_KNOWN: Final = 64
"""Masks of joined parts under recent cuts: a byte an event at most, some 16 MiB."""
PLAN_ENTITIES_MAX: Final = 64
"""Plans of longer lists, a filter's included, are not remembered: the next list is another one."""


@dataclass(frozen=True, slots=True)
class Scope:
    """`entities` None: the whole tenant. `until_s`: monotonic deadline. `hits`: events the answer may hold."""

    entities: tuple[str, ...] | None
    since_us: int | None
    until_us: int | None
    vectors: bool
    until_s: float
    hits: int = 0
    bounds: Bounds | None = None
    """What a filter demands of every hit; given only where no statistics are taken over the scope."""
    text: bool = False
    """Whether the text leg will rank, as `vectors` says of the other."""
    exact_rows_max: int = EXACT_ROWS_MAX
    embeds_tail: bool = True
    """Whether the tail's rows need vectors: what ranks by them, and bundles. Others do not wait for an embedder."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a part's rows come from; `period` None: the tail."""

    period: Period | None


class Origin(NamedTuple):
    """Where an event of an assembled part was read; `period` None: the tail. `first`: the first event of `columns`
    that was read with it, so that its place in its entity's block can be told."""

    columns: Columns
    period: Period | None
    event: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Assembled:
    """`sources[n]` belongs to `parts[n]`. `missing`: days left out, ascending.

    With `joined` the first part holds its rows, and `joined_sources[n]` belongs to its part n."""

    parts: tuple[Part, ...]
    sources: tuple[Source, ...]
    missing: tuple[str, ...]
    plan: Plan
    joined: Joined | None = None
    joined_sources: tuple[Source, ...] = ()

    def origin(self, part: int, event: int) -> Origin:
        if self.joined is None or part:
            return Origin(self.parts[part].columns, self.sources[part].period, event)
        own = self.joined.part_of(event)
        return Origin(self.joined.columns, self.joined_sources[own].period, event, self.joined.first_event[own])

    def without(self, gone: Collection[int]) -> Assembled:
        """Without the parts of these numbers, whose days are then missing."""
        kept = [n for n in range(len(self.parts)) if n not in gone]
        periods = [self.sources[n].period for n in gone]
        days = {day for period in periods if period is not None for day in period.days}
        return replace(
            self,
            parts=tuple(self.parts[n] for n in kept),
            sources=tuple(self.sources[n] for n in kept),
            missing=tuple(sorted({*self.missing, *days})),
        )

    def whole(self) -> Assembled:
        """This, when nothing is missing. Raises `Unavailable(deadline_exceeded)`."""
        if self.missing:
            raise Unavailable("deadline_exceeded", "the store did not answer in time; retry", missing=self.missing)
        return self


Planner: TypeAlias = Callable[[Manifest, Scope], Plan]


class Started(Generic[K, T]):
    """Tasks of one read, each started once. Close it: what nobody waits for ends. A cut may come later than that, so
    whoever starts ahead looks whether it is `closed`."""

    def __init__(self) -> None:
        self.closed = False
        self._tasks: dict[K, asyncio.Task[T]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True
        for task in self._tasks.values():
            abandon(task)

    def once(self, name: K, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = asyncio.ensure_future(work())
        return task


class Fetches(Started[str, list[Columns]]):
    """The period reads of one scope."""

    def __init__(self, reader: Reader, planned: Planner, scope: Scope) -> None:
        super().__init__()
        self._reader = reader
        self._planned = planned
        self._scope = scope

    def start(self, manifest: Manifest) -> Plan:
        """Start what is not under way, unless closed; returns the manifest's plan."""
        found = self._planned(manifest, self._scope)
        for read in () if self.closed else found.reads:
            work = partial(fetch, self._reader, manifest.tenant, read, found.entities)
            self.once(read.period.shards.entity.key, work)
        return found

    def of(self, read: Read) -> asyncio.Task[list[Columns]]:
        return self._tasks[read.period.shards.entity.key]


async def fetch(reader: Reader, tenant: str, read: Read, entities: Collection[str] | None) -> list[Columns]:
    """What a plan reads of one period; `entities` of its blocks."""
    shards = read.period.shards
    if read.form == "blocks":
        assert entities is not None
        blocks = (reader.block(tenant, read.period.name, shards, name) for name in sorted(entities))
        return [block for block in await asyncio.gather(*blocks) if block is not None]
    held = reader.held_columns(shards, vectors=read.vectors)
    if held is not None:
        return [held]
    if read.form == "vectors":
        return [await reader.columns(shards, vectors=True)]
    if read.form == "pack":
        return [await reader.whole(shards)]
    return [await (_with_vectors(reader, shards) if read.vectors else reader.columns(shards))]


async def _with_vectors(reader: Reader, shards: Shards) -> Columns:
    async def load() -> tuple[Columns, int]:
        columns, stored = await asyncio.gather(reader.columns(shards), read_vectors(shards.vector, reader.file))
        rows = await asyncio.to_thread(with_vectors, columns.rows, stored.vectors)
        return Columns(rows), rows.vectors.nbytes * 3 // 2 + rows.scales.nbytes

    return await reader.cache.derived(f"{shards.vector.key}|{WHOLE}", load)


class Assembler:
    """Fetches parts through one reader."""

    def __init__(self, engine: Engine, reader: Reader) -> None:
        self._engine = engine
        self._reader = reader
        self._tail = TailRows(engine.embedder, reader.cache)
        self._plans: LRUCache[tuple[Any, ...], Plan] = LRUCache(
            PLANS_KNOWN * PLAN_READS, lambda plan: max(PLAN_READS, len(plan.reads))
        )
        self._versions: LRUCache[str, int] = LRUCache(PLANS_KNOWN)
        self._asked: LRUCache[str, bool] = LRUCache(JOINS_ASKED)
        self._joining: set[asyncio.Task[Joined]] = set()
        self._views: LRUCache[tuple[str, str, int], tuple[Mask | None, tuple[Source, ...]]] = LRUCache(VIEWS_KNOWN)

    def fetches(self, scope: Scope) -> Fetches:
        return Fetches(self._reader, self.plan, scope)

    def plan(self, manifest: Manifest, scope: Scope) -> Plan:
        """The plan of a scope, remembered for the next read of the same."""
        window = scope.entities, scope.since_us, scope.until_us, scope.bounds
        key = (manifest.tenant, manifest.version, manifest.commit_id, *window, scope.vectors, scope.text, scope.hits)
        found = self._plans.get(key)
        if found is None:
            found = plan(
                manifest,
                scope.entities,
                scope.since_us,
                scope.until_us,
                vectors=scope.vectors,
                hits=scope.hits,
                text=scope.text,
                bounds=scope.bounds,
                exact_rows_max=scope.exact_rows_max,
            )
            if max(len(scope.entities or ()), _named(scope.bounds)) <= PLAN_ENTITIES_MAX:
                self._forget_older(manifest)
                self._plans[key] = found
        return found

    def _forget_older(self, manifest: Manifest) -> None:
        """Plans of the versions before the newest of a tenant: nobody but a pinned read asks for them again."""
        if manifest.version > self._versions.get(manifest.tenant, -1):
            self._versions[manifest.tenant] = manifest.version
            for key in [each for each in self._plans if each[0] == manifest.tenant and each[1] < manifest.version]:
                del self._plans[key]

    def clear(self) -> None:
        """Forget what is known beside the cache."""
        for known in (self._plans, self._versions, self._asked, self._views):
            known.clear()

    async def parts(self, view: TailView, scope: Scope, fetches: Fetches) -> Assembled:
        """Every part of the scope that arrives before its deadline. Raises what is worse than `Unavailable`."""
        found = fetches.start(view.snapshot.manifest)
        tail = asyncio.ensure_future(self._tail_parts(view, scope))
        try:
            wait_s = max(LEAST_WAIT_S, scope.until_s - self._engine.monotonic_s())
            await asyncio.wait([tail, *(fetches.of(read) for read in found.reads)], timeout=wait_s)
            missing: list[str] = []
            built: list[tuple[Period, Columns]] = []
            for read in found.reads:
                columns = arrived(fetches.of(read))
                if columns is None:
                    missing += read.period.days
                built += ((read.period, one) for one in columns or ())
            rows, late = self._arrived_tail(view, scope, tail)
        finally:
            abandon(tail)
        return _assembled(view, found, built, rows, [*missing, *late])

    async def held(self, view: TailView, scope: Scope, found: Plan) -> Assembled | None:
        """The parts of the scope where the built ones are all in memory; else None. Waits for the tail's rows alone."""
        built = self._held_parts(found)
        if built is None:
            return None
        rows, late = await self._tail_in_time(view, scope)
        return _assembled(view, found, built, rows, late)

    def _held_parts(self, found: Plan) -> list[tuple[Period, Columns]] | None:
        names = sorted(found.entities or ())
        if len(names) * len(found.reads) > HELD_READS_MAX and any(read.form == "blocks" for read in found.reads):
            return None
        built: list[tuple[Period, Columns]] = []
        for read in found.reads:
            shards = read.period.shards
            if read.form != "blocks":
                columns = self._reader.held_columns(shards, vectors=found.vectors)
                if columns is None:
                    return None
                built.append((read.period, columns))
                continue
            for name in names:
                block = self._reader.held_block(shards, name)
                if block is None:
                    return None
                if block is not ABSENT:
                    built.append((read.period, block))
        return built

    # --- joining --------------------------------------------------------------------------------

    async def held_joined(self, view: TailView, scope: Scope, found: Plan) -> Assembled | None:
        """As `held`, with the built parts as one, where they were joined before."""
        joined: Joined | None = self._reader.cache.held(_joined_name(found))
        if joined is None:
            return None
        built = self._joined_parts(view, found, joined)
        rows, late = await self._tail_in_time(view, scope)
        if not rows and not late:
            return built
        parts = (*built.parts, *map(Part, rows))
        return replace(built, parts=parts, sources=(Source(None),) * len(parts), missing=tuple(sorted(late)))

    def _joined_parts(self, view: TailView, found: Plan, joined: Joined) -> Assembled:
        """The joined part under what the cut hides of it."""
        snapshot = view.snapshot
        key = (found.name, snapshot.id, snapshot.erasures.newest)
        held = self._views.get(key)
        if held is None:
            periods = {read.period.name: read.period for read in found.reads}
            sources = tuple(Source(periods[name]) for name in joined.names)
            held = self._views[key] = self._joined_live(view, joined, periods), sources
        return Assembled((Part(joined.columns, held[0]),), (Source(None),), (), found, joined, held[1])

    def _joined_live(self, view: TailView, joined: Joined, periods: Mapping[str, Period]) -> Mask | None:
        """What `live_mask` gives of each part, as one."""
        erasures, live = view.snapshot.erasures, None
        for n, name in enumerate(joined.names):
            period = periods[name]
            if not view.rewritten and not period.masked and period.erasures >= erasures.newest:
                continue
            mask = live_mask(joined.events_of(n), period, erasures, view.rewritten)
            if mask is not None:
                live = np.ones(joined.first_event[-1], np.bool_) if live is None else live
                live[joined.first_event[n] : joined.first_event[n + 1]] = mask
        return live

    def offer(self, found: Assembled) -> None:
        """Join these parts in the background when they are asked for a second time."""
        name = _joined_name(found.plan)
        built = [
            (part.columns if found.plan.vectors else Columns(part.rows.without_payload()), source.period.name)
            for part, source in zip(found.parts, found.sources, strict=True)
            if source.period is not None
        ]
        rows = sum(columns.rows.row_count for columns, _ in built)
        if found.missing or found.joined or len(built) < JOIN_PARTS_MIN or rows > JOIN_ROWS_MAX:
            return
        if sum(columns.nbytes for columns, _ in built) > self._reader.cache.memory_bytes * ENTRY_SHARE_MAX:
            return
        if name not in self._asked:
            self._asked[name] = True
            return

        async def load() -> tuple[Joined, int]:
            joined = await asyncio.to_thread(join, [part for part, _ in built], [period for _, period in built])
            return joined, joined.nbytes

        task = asyncio.ensure_future(self._reader.cache.derived(name, load))
        self._joining.add(task)
        task.add_done_callback(self._joined)

    def _joined(self, task: asyncio.Task[Joined]) -> None:
        self._joining.discard(task)
        abandon(task)

    # --- tail -----------------------------------------------------------------------------------

    async def _tail_in_time(self, view: TailView, scope: Scope) -> tuple[Sequence[Columns], Collection[str]]:
        """The tail's rows, and its days where they are late."""
        if not view.touches(scope.entities):
            return (), ()
        tail = asyncio.ensure_future(self._tail_parts(view, scope))
        try:
            await asyncio.wait([tail], timeout=max(LEAST_WAIT_S, scope.until_s - self._engine.monotonic_s()))
            return self._arrived_tail(view, scope, tail)
        finally:
            abandon(tail)

    def _arrived_tail(
        self, view: TailView, scope: Scope, tail: asyncio.Task[list[Columns]]
    ) -> tuple[Sequence[Columns], Collection[str]]:
        rows: list[Columns] | None = arrived(tail)
        return ((), self._tail_days(view, scope)) if rows is None else (rows, ())

    async def _tail_parts(self, view: TailView, scope: Scope) -> list[Columns]:
        if scope.entities is None:
            return list(await self._tail.of_tenant(view, vectors=scope.embeds_tail))
        names = [name for name in scope.entities if name in view.latest]
        return await self._tail.of_entities(view, names, vectors=scope.embeds_tail)

    def _tail_days(self, view: TailView, scope: Scope) -> set[str]:
        names: Iterable[str] = view.latest if scope.entities is None else scope.entities
        held: Mapping[str, Mapping[str, object]] = view.latest
        return {day for name in names for day in held.get(name, ())}


def _named(bounds: Bounds | None) -> int:
    return 0 if bounds is None else len(bounds.entities or ())


def _joined_name(found: Plan) -> str:
    return f"{found.name}|joined"


def _assembled(
    view: TailView,
    found: Plan,
    built: Sequence[tuple[Period, Columns]],
    tail: Sequence[Columns],
    missing: Collection[str],
) -> Assembled:
    erasures, rewritten = view.snapshot.erasures, view.rewritten
    parts = [Part(columns, live_mask(columns, period, erasures, rewritten)) for period, columns in built]
    sources = [Source(period) for period, _ in built]
    return Assembled(
        (*parts, *map(Part, tail)),
        (*sources, *(Source(None) for _ in tail)),
        tuple(sorted(set(missing))),
        found,
    )


def arrived(task: asyncio.Task[Any]) -> Any | None:
    """The result; None when it is late or the store failed it. Raises any other error: damage is not absence."""
    if not task.done():
        return None
    error = task.exception()
    if isinstance(error, Unavailable):
        return None
    if error is not None:
        raise error
    return task.result()


def abandon(task: asyncio.Future[Any]) -> None:
    """End a task nobody waits for; an error it may have met is nobody's."""
    if task.done():
        if not task.cancelled():
            task.exception()
    else:
        task.cancel()


async def within(tasks: Sequence[asyncio.Task[Any]], wait_s: float) -> list[Any | None]:
    """Results in order, None for what is late or what the store failed."""
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks, timeout=max(LEAST_WAIT_S, wait_s))
        return [arrived(task) for task in tasks]
    finally:
        for task in tasks:
            abandon(task)
