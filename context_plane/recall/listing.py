"""Timelines and entity listings: what is there, in order, without ranking.

Cursors are positions in the order, not places in storage, so they outlive publishes. An entity's counts
come from the shards' directories; only entities the tail touches need their blocks.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import Final

from context_plane.engine import Engine
from context_plane.errors import NotFound
from context_plane.index.entity_shard import BlockEntry
from context_plane.layout import pack
from context_plane.recall.assemble import Assembled, Assembler, Scope
from context_plane.recall.periods import Period, periods_of
from context_plane.recall.present import Place, Presenter
from context_plane.recall.tail_view import TailView
from context_plane.recall.values import EntitiesAnswer, EntityInfo, TimelineAnswer, TimelineRequest
from context_plane.retrieval import where
from context_plane.retrieval.reader import Reader
from context_plane.retrieval.snapshots import Consistency, Snapshot, Snapshots, Started
from context_plane.retrieval.timeline import select_events
from context_plane.store import deadline

READ_DEADLINE_S: Final = 30.0
"""Listings have no partial answer: past this they fail."""


class Listing:
    """The timeline and entity journeys of one process."""

    def __init__(self, engine: Engine, snapshots: Snapshots, reader: Reader) -> None:
        self._engine = engine
        self._snapshots = snapshots
        self._reader = reader
        self._assembler = Assembler(engine, reader)
        self._presenter = Presenter(reader)

    def clear(self) -> None:
        """Forget what is known beside the cache."""
        self._assembler.clear()

    async def timeline(self, tenant: str, request: TimelineRequest) -> TimelineAnswer:
        """Events of one entity, newest first unless asked otherwise. Raises `NotFound(entity_not_found)`."""
        with deadline.within(READ_DEADLINE_S):
            return await self._timeline(tenant, request)

    async def _timeline(self, tenant: str, request: TimelineRequest) -> TimelineAnswer:
        scope = self._scope(request.entity, request.since_us, request.until_us, vectors=False)
        with self._assembler.fetches(scope) as fetches:
            snapshot = await self._snapshot(tenant, request.snapshot, request.consistency, fetches.start)
            view = await self._snapshots.derived(snapshot, TailView.of)
            found = (await self._assembler.parts(view, scope, fetches)).whole()
        cursor = request.cursor
        refs = select_events(
            found.parts,
            since_us=request.since_us,
            until_us=request.until_us,
            where=_wanted(request.sources, request.kinds),
            newest_first=request.descending,
            after=None if cursor is None else (cursor[0], request.entity, cursor[1]),
            limit=request.limit + 1,
        )
        if not refs and cursor is None and not await self._exists(view, request.entity):
            raise NotFound("entity_not_found", "the entity has no events", entity=request.entity)
        shown = refs[: request.limit]
        events = await self._presenter.events(view, found, [Place(ref.part, ref.event) for ref in shown])
        more = len(refs) > request.limit
        next_cursor = (events[-1].ts_us, events[-1].id) if more else None
        return TimelineAnswer(tuple(events), next_cursor, snapshot.id)

    async def entity_parts(
        self, view: TailView, entity: str, since_us: int | None, until_us: int | None, *, vectors: bool = False
    ) -> Assembled:
        """Every part of one entity in a window, the tail's with `vectors` where these are asked for. Raises
        `Unavailable` when something is missing."""
        scope = self._scope(entity, since_us, until_us, vectors=vectors)
        with deadline.within(READ_DEADLINE_S), self._assembler.fetches(scope) as fetches:
            return (await self._assembler.parts(view, scope, fetches)).whole()

    def _scope(self, entity: str, since_us: int | None, until_us: int | None, *, vectors: bool) -> Scope:
        until_s = self._engine.monotonic_s() + READ_DEADLINE_S
        return Scope((entity,), since_us, until_us, vectors=True, until_s=until_s, embeds_tail=vectors)

    async def entities(
        self,
        tenant: str,
        *,
        prefix: str,
        limit: int,
        cursor: str | None,
        snapshot: str | None = None,
        consistency: Consistency = "strong",
    ) -> EntitiesAnswer:
        """Entities in key order, after `cursor`, with live event count and last event time."""
        with deadline.within(READ_DEADLINE_S):
            return await self._entities(tenant, prefix, limit, cursor, snapshot, consistency)

    async def _entities(
        self, tenant: str, prefix: str, limit: int, cursor: str | None, snapshot: str | None, consistency: Consistency
    ) -> EntitiesAnswer:
        cut = await self._snapshot(tenant, snapshot, consistency)
        view = await self._snapshots.derived(cut, TailView.of)
        periods = periods_of(cut.manifest, None, None)
        directories = await asyncio.gather(*(self._reader.directory(period.shards.entity) for period in periods))
        held = [{entry.key: entry for entry in entries} for entries in directories]
        every = _merged([[entry.key for entry in entries] for entries in directories], view.latest)
        names = (name for name in every if name.startswith(prefix) and (cursor is None or name > cursor))
        found: list[EntityInfo] = []
        while len(found) <= limit and (asked := list(islice(names, limit + 1 - len(found)))):
            infos = await asyncio.gather(*(self._info(view, periods, held, name) for name in asked))
            found += [info for info in infos if info is not None]
        shown = found[:limit]
        return EntitiesAnswer(tuple(shown), shown[-1].entity if len(found) > limit else None, cut.id)

    async def _info(
        self, view: TailView, periods: list[Period], held: list[dict[str, pack.Entry]], name: str
    ) -> EntityInfo | None:
        """From directories alone, or from the entity's rows where something hides some of them."""
        cut = view.snapshot
        erased = any(cut.erasures.hides_built(name, period.erasures) for period in periods)
        if name in view.latest or erased or any(period.masked for period in periods):
            found = await self.entity_parts(view, name, None, None)
            refs = select_events(found.parts, limit=1 << 30)
            if not refs:
                return None
            newest = refs[0]
            return EntityInfo(name, len(refs), int(found.parts[newest.part].rows.event_ts_us[newest.event]))
        entries = [BlockEntry.of(entries[name]) for entries in held if name in entries]
        if not entries:
            return None
        return EntityInfo(name, sum(entry.events for entry in entries), max(entry.last_ts_us for entry in entries))

    async def _exists(self, view: TailView, entity: str) -> bool:
        found = await self.entity_parts(view, entity, None, None)
        return bool(select_events(found.parts, limit=1))

    async def _snapshot(
        self, tenant: str, snapshot: str | None, consistency: Consistency, started: Started | None = None
    ) -> Snapshot:
        if snapshot is not None:
            return await self._snapshots.pinned(tenant, snapshot, started)
        return await self._snapshots.current(tenant, consistency, started)


def _merged(lists: list[list[str]], tail: Iterable[str]) -> Iterator[str]:
    """Distinct names, ascending."""
    return (name for name, _ in groupby(heapq.merge(*lists, sorted(tail))))


def _wanted(sources: frozenset[str] | None, kinds: frozenset[str] | None) -> where.Where | None:
    given = (("source", sources), ("kind", kinds))
    tests = [{"in": [field, sorted(values)]} for field, values in given if values is not None]
    return where.parse({"and": tests}) if tests else None
