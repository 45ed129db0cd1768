"""Assembling the parts of a read: built rows and tail rows of a scope, fetched within a deadline.

Entity-scoped reads take entity blocks; tenant-wide ones take each shard's columns, and its vectors when the
vector leg runs. What does not arrive in time, or not at all, is named and left out, never silently.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from context_plane.engine import Engine
from context_plane.errors import Unavailable
from context_plane.index.blocks import with_vectors
from context_plane.recall.periods import Period, live_mask, periods_of
from context_plane.recall.tail_view import TailRows, TailView
from context_plane.reindex import read_vectors
from context_plane.retrieval.columns import Columns
from context_plane.retrieval.reader import Reader
from context_plane.retrieval.scope import Part
from context_plane.retrieval.snapshots import Snapshot


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
    """`sources[n]` belongs to `parts[n]`. `missing`: days (or months) left out."""

    parts: tuple[Part, ...]
    sources: tuple[Source, ...]
    missing: tuple[str, ...]
    periods: tuple[Period, ...]

    def whole(self) -> Assembled:
        """This, when nothing is missing. Raises `Unavailable(deadline_exceeded)`."""
        if self.missing:
            raise Unavailable("deadline_exceeded", "the store did not answer in time; retry", missing=self.missing)
        return self


class Assembler:
    """Fetches parts through one reader."""

    def __init__(self, engine: Engine, reader: Reader) -> None:
        self._engine = engine
        self._reader = reader
        self._tail = TailRows(engine.embedder, reader.cache)

    async def parts(self, view: TailView, scope: Scope) -> Assembled:
        snapshot = view.snapshot
        periods = periods_of(snapshot.manifest, scope.since_us, scope.until_us)
        tail_work = asyncio.ensure_future(self._tail_parts(view, scope))
        found, missing = await self._within(
            [self._period_columns(snapshot, period, scope) for period in periods], periods, scope.until_s
        )
        parts, sources = [], []
        for period, columns in found:
            for one in columns:
                parts.append(Part(one, live_mask(one, period, snapshot.erasures, view.rewritten)))
                sources.append(Source(period))
        for one in await tail_work:
            parts.append(Part(one))
            sources.append(Source(None))
        return Assembled(tuple(parts), tuple(sources), tuple(missing), tuple(periods))

    async def _tail_parts(self, view: TailView, scope: Scope) -> list[Columns]:
        if scope.entities is None:
            whole = await self._tail.of_tenant(view)
            return [] if whole is None else [whole]
        return await self._tail.of_entities(view, [name for name in scope.entities if name in view.latest])

    async def _period_columns(self, snapshot: Snapshot, period: Period, scope: Scope) -> list[Columns]:
        if scope.entities is not None:
            blocks = await self._reader.blocks(snapshot.tenant, period.name, period.shards, scope.entities)
            return list(blocks.values())
        if not scope.vectors:
            return [await self._reader.columns(period.shards)]
        return [await self._with_vectors(period)]

    async def _with_vectors(self, period: Period) -> Columns:
        async def load() -> tuple[Columns, int]:
            columns, stored = await asyncio.gather(
                self._reader.columns(period.shards), read_vectors(self._engine, period.shards.vector)
            )
            rows = await asyncio.to_thread(with_vectors, columns.rows, stored.vectors)
            return Columns(rows), rows.vectors.nbytes + rows.scales.nbytes

        return await self._reader.cache.derived(f"{period.shards.vector.key}|vectors", load)

    async def _within(
        self, work: Sequence[Awaitable[list[Columns]]], periods: Sequence[Period], until_s: float
    ) -> tuple[list[tuple[Period, list[Columns]]], list[str]]:
        """Results by period, ascending, and the names of periods that did not make it."""
        tasks = [asyncio.ensure_future(one) for one in work]
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, until_s - self._engine.monotonic_s()))
        found, missing = [], []
        for period, task in zip(periods, tasks, strict=True):
            if not task.done():
                task.cancel()
                missing.append(period.name)
                continue
            error = task.exception()
            if isinstance(error, Unavailable):
                missing.append(period.name)
            elif error is not None:
                raise error
            else:
                found.append((period, task.result()))
        return found, missing
