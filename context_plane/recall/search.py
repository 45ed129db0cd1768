"""Search: one request, one snapshot, one ranking over built rows and tail.

Filter first: periods are pruned by the manifest's time zones, entity scopes read only their blocks, and
`where` is applied before either leg ranks. Scopes of at most `exact_rows_max` rows are scored exactly;
above it each full-text shard and each vector index proposes candidates, which the same scorers then rank
with statistics of the whole scope.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from context_plane.cache.folders import Folders
from context_plane.cache.tiers import track_lookups
from context_plane.catalog.manifest import Shards
from context_plane.catalog.models import check_model
from context_plane.engine import Engine
from context_plane.errors import Corrupt, Invalid, Unavailable
from context_plane.index import fulltext_shard, vector_shard
from context_plane.index.analyzer import term_counts
from context_plane.index.rows import F32
from context_plane.model import day_of, unit
from context_plane.recall.assemble import Assembled, Assembler, Fetches, Scope, within
from context_plane.recall.present import Place, Presenter
from context_plane.recall.tail_view import TailView
from context_plane.recall.values import FoundEvent, ReadStats, SearchAnswer, SearchRequest
from context_plane.reindex import UNREAD, dataset_name
from context_plane.retrieval.fuse import WEIGHT_TEXT, WEIGHT_VECTOR, Fusion, Hit
from context_plane.retrieval.rank import Ranking, RankQuery, candidate_weights, rank_parts, scope_statistics
from context_plane.retrieval.reader import Reader
from context_plane.retrieval.scope import Part, filter_mask, rows_of, scope_mask
from context_plane.retrieval.snapshots import Snapshot, Snapshots
from context_plane.retrieval.snippet import snippet
from context_plane.store.counting import CountingStore, Trace

EXACT_ROWS_MAX: Final = 50_000
"""Scanning this many rows exactly takes some milliseconds; beyond it indexes propose candidates."""
CANDIDATES_MIN: Final = 200
CANDIDATES_PER_HIT: Final = 20
"""Rows a shard proposes per hit asked for: tantivy's order differs from ours by quantized lengths only."""
FETCH_SHARE: Final = 0.7
RANK_SHARE: Final = 0.85
"""Of a tenant-wide search's deadline: what arrived by then is ranked, and its texts are fetched in the rest."""
INLINE_ROWS_MAX: Final = 2_000
"""Fewer rows rank in under half a millisecond, on the event loop."""


@dataclass(slots=True)
class _Clock:
    """Milliseconds of each step of one read."""

    engine: Engine
    started_s: float
    last_s: float
    ms: dict[str, float]

    @classmethod
    def start(cls, engine: Engine) -> _Clock:
        now_s = engine.monotonic_s()
        return cls(engine, now_s, now_s, {})

    def lap(self, name: str) -> None:
        now_s = self.engine.monotonic_s()
        self.ms[name] = round((now_s - self.last_s) * 1000, 3)
        self.last_s = now_s

    def until_s(self, request: SearchRequest, share: float) -> float:
        """When a step ends. The blocks of entities hold their texts: there the first fetch is the last."""
        part = share if request.entities is None else 1.0
        return self.started_s + part * request.deadline_ms / 1000

    def total(self) -> Mapping[str, float]:
        return {**self.ms, "total": round((self.last_s - self.started_s) * 1000, 3)}


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
        self._folders = folders
        self._assembler = Assembler(engine, reader)
        self._presenter = Presenter(reader)
        self._exact_rows_max = exact_rows_max

    async def search(self, tenant: str, request: SearchRequest) -> SearchAnswer:
        """Raises `Invalid` for a request that cannot be run, `NotFound` for a snapshot that is gone."""
        clock = _Clock.start(self._engine)
        lookups = track_lookups()
        with self._store.trace() as trace:
            until_s = clock.started_s + request.deadline_ms / 1000
            fetch_s = clock.until_s(request, FETCH_SHARE)
            scope = Scope(request.entities, request.since_us, request.until_us, _wants_vector(request), fetch_s)
            with self._assembler.fetches(scope) as fetches:
                query, view = await self._planned(tenant, request, fetches, until_s)
                if query.wants_vector:
                    check_model(view.snapshot.manifest, self._engine.embedder)
                clock.lap("plan")
                found = await self._assembler.parts(view, scope, fetches)
            clock.lap("fetch")
            ranking, found, exact = await self._rank(found, query, clock.until_s(request, RANK_SHARE))
            clock.lap("score")
            hits, late = await self._hits(view, found, ranking, request, query, until_s)
            clock.lap("present")
        snapshot, missing = view.snapshot, tuple(sorted({*found.missing, *late}))
        stats = ReadStats(
            cache=lookups.temperature,
            round_trips=trace.round_trips,
            gets=trace.gets,
            bytes_read=trace.bytes_read,
            shards=len(found.periods),
            rows_scored=ranking.rows_scored,
            exact=exact,
            tail_events=view.count(request.entities),
            ms=clock.total(),
        )
        explain = _explain(request, snapshot, found, ranking, exact, trace) if request.explain else None
        return SearchAnswer(
            hits=tuple(hits),
            snapshot=snapshot.id,
            partial=bool(missing),
            missing_days=missing,
            stats=stats,
            explain=explain,
        )

    async def _planned(
        self, tenant: str, request: SearchRequest, fetches: Fetches, until_s: float
    ) -> tuple[RankQuery, TailView]:
        """The query and the cut. Nothing can be answered without them: late is `Unavailable(deadline_exceeded)`."""
        planning = asyncio.gather(self._query(request), self._view(tenant, request, fetches))
        try:
            return await asyncio.wait_for(planning, max(0.0, until_s - self._engine.monotonic_s()))
        except TimeoutError as error:
            detail = "the newest cut was not known in time; retry, or allow a longer deadline_ms"
            raise Unavailable("deadline_exceeded", detail, deadline_ms=request.deadline_ms) from error

    async def _view(self, tenant: str, request: SearchRequest, fetches: Fetches) -> TailView:
        if request.snapshot is not None:
            snapshot = await self._snapshots.pinned(tenant, request.snapshot, fetches.start)
        else:
            snapshot = await self._snapshots.current(tenant, request.consistency, fetches.start)
        return await self._snapshots.derived(snapshot, TailView.of)

    async def _query(self, request: SearchRequest) -> RankQuery:
        text_leg = request.mode in ("text", "hybrid")
        vector_leg = request.mode in ("vector", "hybrid")
        if request.text is None and request.vector is None:
            raise Invalid("query_invalid", "a search has text, a vector, or both", field="text")
        if request.mode == "text" and request.text is None:
            raise Invalid("query_invalid", "mode text needs text", field="text")
        vector: F32 | None = None
        if vector_leg:
            vector = await self._query_vector(request)
        fusion = Fusion(
            mode=request.mode,
            method=request.fusion_method,
            k=request.fusion_k,
            weight_text=WEIGHT_TEXT if request.weight_text is None else request.weight_text,
            weight_vector=WEIGHT_VECTOR if request.weight_vector is None else request.weight_vector,
        )
        return RankQuery(
            terms=tuple(term_counts(request.text).items()) if text_leg and request.text else (),
            vector=vector,
            entities=None if request.entities is None else frozenset(request.entities),
            since_us=request.since_us,
            until_us=request.until_us,
            where=request.where,
            limit=request.limit,
            fusion=fusion,
            group_by_entity=request.group_by_entity,
            per_group=request.per_group,
        )

    async def _query_vector(self, request: SearchRequest) -> F32 | None:
        dim = self._engine.embedder.dim
        if request.vector is not None:
            if len(request.vector) != dim:
                detail = "a query vector has the dimension of the tenant's model"
                raise Invalid("vector_invalid", detail, got=len(request.vector), dimension=dim)
            return unit(request.vector)
        assert request.text is not None
        return await self._engine.embedder.embed_query(request.text)

    # --- ranking --------------------------------------------------------------------------------

    async def _rank(self, found: Assembled, query: RankQuery, until_s: float) -> tuple[Ranking, Assembled, bool]:
        """The ranking, what it was made over (less than `found` where indexes came late), whether it is exact."""
        rows = sum(part.rows.row_count for part in found.parts)
        if rows <= INLINE_ROWS_MAX and rows <= self._exact_rows_max:
            return rank_parts(found.parts, query), found, True
        if rows <= self._exact_rows_max or query.entities is not None:
            return await asyncio.to_thread(rank_parts, found.parts, query), found, True
        statistics = await asyncio.to_thread(scope_statistics, found.parts, query)
        weights = candidate_weights(query, statistics)
        tasks = [
            asyncio.ensure_future(self._limited(part, source.period.shards if source.period else None, query, weights))
            for part, source in zip(found.parts, found.sources, strict=True)
        ]
        limited = await within(tasks, until_s - self._engine.monotonic_s())
        found = found.without([n for n, part in enumerate(limited) if part is None])
        kept = [part for part in limited if part is not None]
        return await asyncio.to_thread(rank_parts, kept, query, statistics), found, False

    async def _limited(
        self, part: Part, shards: Shards | None, query: RankQuery, weights: Sequence[tuple[str, float]]
    ) -> Part:
        """The part with the rows that its indexes propose; the tail and small vector shards stay exact."""
        if shards is None:
            return part
        scope = scope_mask(part, query.entities, query.since_us, query.until_us)
        mask = rows_of(part, filter_mask(part, scope, query.where))
        limit = max(CANDIDATES_MIN, CANDIDATES_PER_HIT * query.limit)
        text = vector = None
        if query.wants_text:
            searcher = await self._fulltext(shards)
            text = await asyncio.to_thread(fulltext_shard.candidates, searcher, weights, limit, mask)
        if query.wants_vector and shards.vector.ann and query.vector is not None:
            folder = await self._dataset(shards)
            name = dataset_name(shards.vector.key)
            vector = await asyncio.to_thread(vector_shard.ann_candidates, folder, name, query.vector, limit, mask)
        return part.limited(text=_mask(text, part), vector=_mask(vector, part))

    async def _fulltext(self, shards: Shards) -> fulltext_shard.FulltextSearcher:
        key = shards.fulltext.key

        def unpacked(stored: bytes) -> fulltext_shard.FulltextSearcher:
            folder = self._folders.get(key, lambda target: fulltext_shard.unpack(stored, target))
            return fulltext_shard.open_searcher(folder)

        async def load() -> tuple[fulltext_shard.FulltextSearcher, int]:
            stored = await self._reader.fulltext(shards)
            try:
                searcher = await asyncio.to_thread(unpacked, stored)
            except (OSError, ValueError, Corrupt):  # damaged on disk, or evicted while it was opened
                await asyncio.to_thread(self._folders.remove, key)
                searcher = await asyncio.to_thread(unpacked, stored)
            return searcher, len(stored)

        return await self._reader.cache.derived(f"{key}|searcher", load)

    async def _dataset(self, shards: Shards) -> Path:
        ref = shards.vector
        wanted = [file for file in ref.files if not file.path.startswith(UNREAD)]
        files = await asyncio.gather(*(self._reader.file(f"{ref.key}/{file.path}", file) for file in wanted))

        def fill(target: Path) -> None:
            for file, data in zip(wanted, files, strict=True):
                path = target / f"{dataset_name(ref.key)}.lance" / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

        return await asyncio.to_thread(self._folders.get, ref.key, fill)

    # --- presenting -----------------------------------------------------------------------------

    async def _hits(
        self,
        view: TailView,
        found: Assembled,
        ranking: Ranking,
        request: SearchRequest,
        query: RankQuery,
        until_s: float,
    ) -> tuple[list[FoundEvent], set[str]]:
        """The hits, and the days of those whose texts came too late: they are left out, and named."""
        wants_vector = "vector" in request.include
        tasks = [
            asyncio.ensure_future(self._presenter.one(view, found, Place(hit.part, hit.event, hit.row), wants_vector))
            for hit in ranking.hits
        ]
        events = await within(tasks, until_s - self._engine.monotonic_s())
        terms = [term for term, _ in query.terms]
        late = {
            day_of(int(found.parts[hit.part].rows.event_ts_us[hit.event]))
            for event, hit in zip(events, ranking.hits, strict=True)
            if event is None
        }
        shown = [(event, hit) for event, hit in zip(events, ranking.hits, strict=True) if event is not None]
        return [_scored(event, hit, request, terms) for event, hit in shown], late


def _wants_vector(request: SearchRequest) -> bool:
    """Whether the vector leg will run, as far as the request alone tells."""
    return request.mode == "vector" or (request.mode == "hybrid" and request.weight_vector != 0)


def _scored(event: FoundEvent, hit: Hit, request: SearchRequest, terms: Sequence[str]) -> FoundEvent:
    marked = None
    if "snippet" in request.include and event.text:
        start, stop = event.citation.chars or (0, len(event.text))
        marked = snippet(event.text[start:stop], terms)
    return replace(
        event,
        score=hit.score,
        text_rank=hit.text_rank,
        vector_rank=hit.vector_rank,
        text_score=hit.text_score,
        vector_score=hit.vector_score,
        text=event.text if "text" in request.include else None,
        attrs=event.attrs if "attrs" in request.include else None,
        snippet=marked,
    )


def _mask(rows: NDArray[np.int64] | None, part: Part) -> NDArray[np.bool_] | None:
    if rows is None:
        return None
    mask = np.zeros(part.rows.row_count, np.bool_)
    mask[rows] = True
    return mask


def _explain(
    request: SearchRequest, snapshot: Snapshot, found: Assembled, ranking: Ranking, exact: bool, trace: Trace
) -> dict[str, Any]:
    """The plan as it was run, for a person to read."""
    manifest = snapshot.manifest
    return {
        "scope": "tenant" if request.entities is None else "entities",
        "entities": None if request.entities is None else len(request.entities),
        "path": "exact" if exact else "candidates",
        "reads": "columns" if request.entities is None else "entity blocks",
        "shards": [
            {"period": p.name, "rows": p.shards.rows, "entities": p.shards.entities, "masked_days": list(p.masked)}
            for p in found.periods
        ],
        "pruned_shards": len(manifest.days) + len(manifest.months) - len(found.periods),
        "statistics": {
            "rows": ranking.statistics.rows,
            "mean_terms": round(ranking.statistics.length_mean, 3),
            "df": dict(ranking.statistics.df),
        },
        "rows_scored": ranking.rows_scored,
        "lists": trace.lists,
        "gets": trace.gets,
    }
