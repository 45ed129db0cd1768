"""Search: one request, one snapshot, one ranking over built rows and tail.

Filter first: the plan prunes by the manifest alone, and `where` is applied before either leg ranks. The vector leg
is exact, and so is the text leg of entities and of at most `exact_rows_max` rows; above it each full-text shard
proposes rows (and a graph, of shards whose vectors are too many to scan), which the same scorers then rank with
statistics of the whole scope. What is in memory is answered without a task, a thread or a wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from context_plane.cache.folders import Folders
from context_plane.cache.tiers import Lookups, track_lookups
from context_plane.catalog.manifest import Manifest
from context_plane.catalog.models import check_model
from context_plane.engine import Engine
from context_plane.errors import Corrupt, Unavailable
from context_plane.index.rows import F32
from context_plane.model import day_of
from context_plane.recall.assemble import Assembled, Assembler, Scope, Source, within
from context_plane.recall.candidates import Indexes, Proposals, Proposers, rank_candidates
from context_plane.recall.clock import Clock
from context_plane.recall.plan import EXACT_ROWS_MAX
from context_plane.recall.present import Place, Presenter, Show
from context_plane.recall.query import embeds, given_vector, rank_query, wants_vector
from context_plane.recall.tail_view import TailView
from context_plane.recall.values import FoundEvent, ReadStats, SearchAnswer, SearchRequest
from context_plane.retrieval.rank import Ranking, RankQuery, rank_parts
from context_plane.retrieval.reader import Reader
from context_plane.retrieval.snapshots import Snapshots
from context_plane.retrieval.where import bounds
from context_plane.store import deadline
from context_plane.store.counting import CountingStore, Trace

FETCH_SHARE: Final = 0.7
RANK_SHARE: Final = 0.85
"""Of a tenant-wide search's deadline: what arrived by then is ranked, and its texts are fetched in the rest."""
INLINE_ROWS_MAX: Final = 20_000
INLINE_SCAN_BYTES_MAX: Final = 4 * 1024 * 1024
INLINE_PARTS_MAX: Final = 4
"""What is smaller ranks in about half a millisecond, on the event loop."""
INLINE_FILTERED_ROWS_MAX: Final = 200
"""A filter may have hundreds of conditions, each a pass over the rows."""
INLINE_VECTORS_BYTES_MAX: Final = 16 * 1024 * 1024
"""... and so does the vector leg alone of so many bytes, for the first pass has threads of its own."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query, and the cut that it is asked of."""

    query: RankQuery
    view: TailView


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A ranking and what it was made over: less than was found where indexes came late."""

    ranking: Ranking
    found: Assembled
    exact: bool


class Searcher:
    """The search journey of one process."""

    def __init__(
        self,
        engine: Engine,
        store: CountingStore,
        snapshots: Snapshots,
        reader: Reader,
        folders: Folders,
        exact_rows_max: int = EXACT_ROWS_MAX,
    ) -> None:
        self._engine = engine
        self._store = store
        self._snapshots = snapshots
        self._reader = reader
        self._proposers = Proposers(reader, folders)
        self._assembler = Assembler(engine, reader)
        self._presenter = Presenter(reader)
        self._exact_rows_max = exact_rows_max

    async def search(self, tenant: str, request: SearchRequest) -> SearchAnswer:
        """Raises `Invalid` for a request that cannot be run, `NotFound` for a snapshot that is gone."""
        clock = Clock.start(self._engine)
        try:
            answer = await self._search(tenant, request, clock)
        except BaseException as error:
            clock.steps.close(error)
            raise
        clock.steps.close()
        return answer

    async def _search(self, tenant: str, request: SearchRequest, clock: Clock) -> SearchAnswer:
        lookups = track_lookups()
        query, trace = rank_query(request), Trace()
        scope = self._scope(request, query, clock)
        with deadline.within(request.deadline_ms / 1000):
            known = await self._known(tenant, request, query, clock)
            found = None if known is None else await self._held(known.view, scope)
            if known is not None and found is not None and self._is_quick(found, known.query):
                clock.lap("fetch")
                ranked = _Ranked(rank_parts(found.parts, known.query), found, exact=True)
                clock.lap("score")
                hits = self._held_hits(known, ranked, request)
                if None not in hits:
                    clock.lap("present")
                    return _answer(request, known, ranked, hits, (), lookups, trace, clock)
            else:
                ranked, hits = None, []
            proposals = Proposals(self._proposers, text=scope.text, vector=scope.vectors)
            with self._store.trace() as trace, proposals:
                if known is None or found is None:
                    known, found = await self._gathered(tenant, request, query, scope, known, proposals, clock)
                clock.lap("fetch")
                if ranked is None:
                    until_s = clock.until_s(request, RANK_SHARE)
                    ranked = await self._rank(found, known.query, proposals, until_s)
                    clock.lap("score")
                    hits = self._held_hits(known, ranked, request)
                hits, late = await self._late_hits(known, ranked, request, hits, clock)
                clock.lap("present")
        return _answer(request, known, ranked, hits, late, lookups, trace, clock)

    def _scope(self, request: SearchRequest, query: RankQuery, clock: Clock) -> Scope:
        statistics = request.mode != "vector"
        return Scope(
            request.entities,
            request.since_us,
            request.until_us,
            vectors=wants_vector(request),
            until_s=clock.until_s(request, FETCH_SHARE),
            hits=request.limit * (request.per_group if request.group_by_entity else 1),
            bounds=None if statistics or request.where is None else bounds(request.where),
            text=query.wants_text,
            exact_rows_max=self._exact_rows_max,
            embeds_tail=wants_vector(request),
        )

    async def _known(self, tenant: str, request: SearchRequest, query: RankQuery, clock: Clock) -> _Asked | None:
        """The query and the cut, where that is known: found without a task, and mostly without a wait."""
        if request.snapshot is not None or request.consistency != "eventual":
            return None
        view = self._snapshots.known_derived(tenant, TailView.of)
        if view is None:
            return None
        if embeds(request):
            async with self._in_time(request, clock):
                vector = await self._vector(request)
        else:
            vector = given_vector(request, self._engine.embedder.dim)
        return self._asked(replace(query, vector=vector), view, clock)

    async def _gathered(
        self,
        tenant: str,
        request: SearchRequest,
        query: RankQuery,
        scope: Scope,
        known: _Asked | None,
        proposals: Proposals,
        clock: Clock,
    ) -> tuple[_Asked, Assembled]:
        """Query, cut and parts, where something is to be fetched or waited for."""
        found = None
        with self._assembler.fetches(scope) as fetches:

            def start(manifest: Manifest) -> None:
                planned = fetches.start(manifest)
                if not planned.exact:
                    proposals.start(planned)

            if known is None:
                async with self._in_time(request, clock):
                    vector, view = await asyncio.gather(self._vector(request), self._view(tenant, request, start))
                known = self._asked(replace(query, vector=vector), view, clock)
                found = await self._held(view, scope)
            if found is None:
                start(known.view.snapshot.manifest)
                found = await self._assembler.parts(known.view, scope, fetches)
                if found.plan.exact:
                    self._assembler.offer(found)
        return known, found

    async def _held(self, view: TailView, scope: Scope) -> Assembled | None:
        planned = self._assembler.plan(view.snapshot.manifest, scope)
        joinable = planned.exact  # else each shard proposes candidates of its own
        found = await self._assembler.held_joined(view, scope, planned) if joinable else None
        if found is None:
            found = await self._assembler.held(view, scope, planned)
            if found is not None and joinable:
                self._assembler.offer(found)
        return found

    def _asked(self, query: RankQuery, view: TailView, clock: Clock) -> _Asked:
        if query.wants_vector:
            check_model(view.snapshot.manifest, self._engine.embedder)
        clock.lap("plan")
        return _Asked(query, view)

    @asynccontextmanager
    async def _in_time(self, request: SearchRequest, clock: Clock) -> AsyncIterator[None]:
        """Nothing can be answered without query and cut: late is `Unavailable(deadline_exceeded)`."""
        try:
            async with asyncio.timeout(max(0.0, clock.left_s(request))):
                yield
        except TimeoutError as error:
            detail = "the newest cut was not known in time; retry, or allow a longer deadline_ms"
            raise Unavailable("deadline_exceeded", detail, deadline_ms=request.deadline_ms) from error

    async def _view(self, tenant: str, request: SearchRequest, start: Callable[[Manifest], object] | None) -> TailView:
        if request.snapshot is not None:
            snapshot = await self._snapshots.pinned(tenant, request.snapshot, start)
        else:
            snapshot = await self._snapshots.current(tenant, request.consistency, start)
        return await self._snapshots.derived(snapshot, TailView.of)

    async def _vector(self, request: SearchRequest) -> F32 | None:
        if not embeds(request):
            return given_vector(request, self._engine.embedder.dim)
        assert request.text is not None, "what neither has text nor a vector is refused"
        return await self._engine.embedder.embed_query(request.text)

    def clear(self) -> None:
        """Forget what is known beside the cache."""
        self._assembler.clear()

    # --- ranking --------------------------------------------------------------------------------

    async def _rank(self, found: Assembled, query: RankQuery, proposals: Proposals, until_s: float) -> _Ranked:
        if found.plan.exact:
            inline = self._is_quick(found, query)
            ranking = (
                rank_parts(found.parts, query) if inline else await asyncio.to_thread(rank_parts, found.parts, query)
            )
            return _Ranked(ranking, found, exact=True)
        try:
            return await self._ranked(found, query, proposals.of, until_s)
        except Corrupt:  # a graph's files were evicted since it was opened; damage is met again
            return await self._ranked(found, query, proposals.again, until_s)

    async def _ranked(
        self, found: Assembled, query: RankQuery, opened: Callable[[Source], asyncio.Task[Indexes]], until_s: float
    ) -> _Ranked:
        """Of what the parts' indexes propose."""
        indexes = await within([opened(source) for source in found.sources], until_s - self._engine.monotonic_s())
        found = found.without([n for n, each in enumerate(indexes) if each is None])
        kept = [each for each in indexes if each is not None]
        return _Ranked(await asyncio.to_thread(rank_candidates, found.parts, kept, query), found, exact=False)

    def _is_quick(self, found: Assembled, query: RankQuery) -> bool:
        """Whether ranking takes half a millisecond: on the event loop then, a thread would cost a third of that."""
        parts = found.parts
        if len(parts) > INLINE_PARTS_MAX:
            return False
        if query.wants_vector and not all(part.columns.scans_quickly for part in parts):
            return False
        rows = sum(part.rows.row_count for part in parts)
        scanned = sum(part.rows.vectors.size for part in parts) if query.wants_vector else 0
        rows_max = INLINE_ROWS_MAX if query.where is None else INLINE_FILTERED_ROWS_MAX
        if scanned > INLINE_SCAN_BYTES_MAX or rows > rows_max:
            alone = not query.wants_text and query.where is None and query.entities is None
            if not alone or scanned > INLINE_VECTORS_BYTES_MAX:
                return False
        return found.plan.exact

    # --- presenting -----------------------------------------------------------------------------

    def _held_hits(self, asked: _Asked, ranked: _Ranked, request: SearchRequest) -> list[FoundEvent | None]:
        """The hits; None for each that needs a block which is not in memory."""
        held, view, found, show = self._presenter.held, asked.view, ranked.found, _show(request, asked.query)
        return [held(view, found, Place(hit.part, hit.event, hit.row, hit), show) for hit in ranked.ranking.hits]

    async def _late_hits(
        self,
        asked: _Asked,
        ranked: _Ranked,
        request: SearchRequest,
        held: Sequence[FoundEvent | None],
        clock: Clock,
    ) -> tuple[list[FoundEvent | None], set[str]]:
        """The hits with those that were not held, and the days of those that came too late: None, and named."""
        found, hits, events = ranked.found, ranked.ranking.hits, list(held)
        show = _show(request, asked.query)
        apart = [n for n, event in enumerate(events) if event is None]
        places = [Place(hits[n].part, hits[n].event, hits[n].row, hits[n]) for n in apart]
        tasks = [asyncio.ensure_future(self._presenter.one(asked.view, found, place, show)) for place in places]
        for n, event in zip(apart, await within(tasks, clock.left_s(request)), strict=True):
            events[n] = event
        late = {
            day_of(int(found.parts[hit.part].rows.event_ts_us[hit.event]))
            for hit, event in zip(hits, events, strict=True)
            if event is None
        }
        return events, late


def _show(request: SearchRequest, query: RankQuery) -> Show:
    return Show(request.include, [term for term, _ in query.terms] if "snippet" in request.include else ())


def _answer(
    request: SearchRequest,
    asked: _Asked,
    ranked: _Ranked,
    hits: Sequence[FoundEvent | None],
    late: Collection[str],
    lookups: Lookups,
    trace: Trace,
    clock: Clock,
) -> SearchAnswer:
    found, view = ranked.found, asked.view
    missing = tuple(sorted({*found.missing, *late})) if found.missing or late else ()
    stats = ReadStats(
        cache=lookups.temperature,
        round_trips=trace.round_trips,
        gets=trace.gets,
        bytes_read=trace.bytes_read,
        bytes_scanned=found.plan.bytes,
        shards=len(found.plan.reads),
        rows_scored=ranked.ranking.rows_scored,
        exact=ranked.exact,
        tail_events=view.count(request.entities),
        ms=clock.total(),
    )
    return SearchAnswer(
        hits=tuple(hit for hit in hits if hit is not None),
        snapshot=view.snapshot.id,
        partial=bool(missing),
        missing_days=missing,
        stats=stats,
        explain=_explain(ranked, trace) if request.explain else None,
    )


def _explain(ranked: _Ranked, trace: Trace) -> dict[str, Any]:
    """The plan, and what running it came to, for a person to read."""
    found, ranking = ranked.found, ranked.ranking
    return {
        **found.plan.describe(),
        "joined": found.joined is not None,
        "statistics": {
            "rows": ranking.statistics.rows,
            "mean_terms": round(ranking.statistics.length_mean, 3),
            "df": dict(ranking.statistics.df),
        },
        "rows_scored": ranking.rows_scored,
        "measured": {
            "round_trips": trace.round_trips,
            "gets": trace.gets,
            "bytes": trace.bytes_read,
            "lists": trace.lists,
            "hedges": trace.hedges,
        },
    }
