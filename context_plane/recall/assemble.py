"""Assembling the parts of a read: built rows and tail rows of a scope, fetched within a deadline.

Entity-scoped reads take entity blocks; tenant-wide ones take each shard's columns, and its vectors when the
vector leg runs. Fetching starts as soon as a manifest is known, while the cut is still being confirmed; only
periods of the confirmed one are answered from. What does not arrive in time, or not at all, is named and left
out, never silently.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from context_plane.catalog.manifest import Manifest
from context_plane.engine import Engine
from context_plane.errors import Unavailable
from context_plane.index.blocks import with_vectors
from context_plane.recall.periods import Period, live_mask, periods_of
from context_plane.recall.tail_view import TailRows, TailView
from context_plane.reindex import read_vectors
from context_plane.retrieval.columns import Columns
from context_plane.retrieval.reader import Reader
from context_plane.retrieval.scope import Part

LEAST_WAIT_S: Final = 0.02
"""Given to a step whose deadline has passed: what is at hand is taken, only what must be fetched is late."""


@dataclass(frozen=True, slots=True)
class Scope:
    """`entities` None: the whole tenant. `until_s`: monotonic deadline."""

    entities: tuple[str, ...] | None
    since_us: int | None
    until_us: int | None
    vectors: bool
    until_s: float


@dataclass(frozen=True, slots=True)
class Source:
    """Where a part's rows come from; `period` None: the tail."""

    period: Period | None


@dataclass(frozen=True, slots=True)
class Assembled:
    """`sources[n]` belongs to `parts[n]`. `missing`: days left out, ascending."""

    parts: tuple[Part, ...]
    sources: tuple[Source, ...]
    missing: tuple[str, ...]
    periods: tuple[Period, ...]

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


class Fetches:
    """The period reads of one scope, each started once. Close it: what nobody waits for ends."""

    def __init__(self, reader: Reader, scope: Scope) -> None:
        self._reader = reader
        self._scope = scope
        self._tasks: dict[str, asyncio.Task[list[Columns]]] = {}

    def __enter__(self) -> Fetches:
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks.values():
            abandon(task)

    def start(self, manifest: Manifest) -> list[Period]:
        """Start what is not under way; returns the manifest's periods in scope, ascending."""
        periods = periods_of(manifest, self._scope.since_us, self._scope.until_us)
        for period in periods:
            if period.shards.entity.key not in self._tasks:
                task = asyncio.ensure_future(self._columns(manifest.tenant, period))
                self._tasks[period.shards.entity.key] = task
        return periods

    def of(self, period: Period) -> asyncio.Task[list[Columns]]:
        return self._tasks[period.shards.entity.key]

    async def _columns(self, tenant: str, period: Period) -> list[Columns]:
        if self._scope.entities is not None:
            blocks = await self._reader.blocks(tenant, period.name, period.shards, self._scope.entities)
            return list(blocks.values())
        if not self._scope.vectors:
            return [await self._reader.columns(period.shards)]
        return [await self._with_vectors(period)]

    async def _with_vectors(self, period: Period) -> Columns:
        async def load() -> tuple[Columns, int]:
            columns, stored = await asyncio.gather(
                self._reader.columns(period.shards), read_vectors(period.shards.vector, self._reader.file)
            )
            rows = await asyncio.to_thread(with_vectors, columns.rows, stored.vectors)
            return Columns(rows), rows.vectors.nbytes + rows.scales.nbytes

        return await self._reader.cache.derived(f"{period.shards.vector.key}|vectors", load)


class Assembler:
    """Fetches parts through one reader."""

    def __init__(self, engine: Engine, reader: Reader) -> None:
        self._engine = engine
        self._reader = reader
        self._tail = TailRows(engine.embedder, reader.cache)

    def fetches(self, scope: Scope) -> Fetches:
        return Fetches(self._reader, scope)

    async def parts(self, view: TailView, scope: Scope, fetches: Fetches) -> Assembled:
        """Every part of the scope that arrives before its deadline. Raises what is worse than `Unavailable`."""
        snapshot = view.snapshot
        periods = fetches.start(snapshot.manifest)
        tail = asyncio.ensure_future(self._tail_parts(view, scope))
        try:
            wait_s = max(LEAST_WAIT_S, scope.until_s - self._engine.monotonic_s())
            await asyncio.wait([tail, *(fetches.of(period) for period in periods)], timeout=wait_s)
            parts, sources = [], []
            missing: list[str] = []
            for period in periods:
                columns = arrived(fetches.of(period))
                if columns is None:
                    missing += period.days
                for one in columns or ():
                    parts.append(Part(one, live_mask(one, period, snapshot.erasures, view.rewritten)))
                    sources.append(Source(period))
            tail_columns = arrived(tail)
            if tail_columns is None:
                missing += self._tail_days(view, scope)
            for one in tail_columns or ():
                parts.append(Part(one))
                sources.append(Source(None))
        finally:
            abandon(tail)
        return Assembled(tuple(parts), tuple(sources), tuple(sorted(set(missing))), tuple(periods))

    async def _tail_parts(self, view: TailView, scope: Scope) -> list[Columns]:
        if scope.entities is None:
            whole = await self._tail.of_tenant(view)
            return [] if whole is None else [whole]
        return await self._tail.of_entities(view, [name for name in scope.entities if name in view.latest])

    def _tail_days(self, view: TailView, scope: Scope) -> set[str]:
        names: Iterable[str] = view.latest if scope.entities is None else scope.entities
        held: Mapping[str, Mapping[str, object]] = view.latest
        return {day for name in names for day in held.get(name, ())}


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
