"""The plane: one object per process through which everything is written, built and read.

`open(settings)` is how everyone gets one: it opens the store, refuses one whose creates are not exclusive,
opens the embedder and the cache, and closes them again. No Dagster and no HTTP here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import context_plane
from context_plane.audit import PROCESS, Actor
from context_plane.bundle.spec import Spec, load_specs
from context_plane.cache.disk import DiskCache
from context_plane.cache.folders import Folders
from context_plane.cache.tiers import Cache
from context_plane.catalog.head import newest_version
from context_plane.catalog.log import list_log
from context_plane.catalog.manifest import MonthEntry
from context_plane.catalog.tail import uncovered_days
from context_plane.embed.open import MemoizedEmbedder, open_embedder
from context_plane.engine import Engine
from context_plane.errors import Invalid, NotFound, PlaneError
from context_plane.export import export_events
from context_plane.fold import load_pending
from context_plane.idempotency import key_hash, once
from context_plane.ingest import Accepted, Ingest, sorted_out
from context_plane.layout.batch import Visible
from context_plane.materialize import BundleBuild, materialize_day, materialize_range
from context_plane.merge import merge_month
from context_plane.model import Event, Write, check_tenant
from context_plane.ranges import RangeDone
from context_plane.recall.bundles import Bundles
from context_plane.recall.changes import Changes
from context_plane.recall.fleet import Fleet, FleetItems
from context_plane.recall.listing import Listing
from context_plane.recall.search import Searcher
from context_plane.recall.tail_view import TailView
from context_plane.recall.values import (
    BundleAnswer,
    BundleInputs,
    ChangesAnswer,
    ChangesRequest,
    EntitiesAnswer,
    OnDemandRequest,
    SearchAnswer,
    SearchRequest,
    SnapshotInfo,
    TimelineAnswer,
    TimelineRequest,
)
from context_plane.recall.why import Why
from context_plane.reindex import build_day
from context_plane.retrieval.reader import Reader
from context_plane.retrieval.snapshots import Consistency, Snapshots
from context_plane.reuse import are_whole
from context_plane.rollup import MonthState, month_state, roll_up
from context_plane.settings import Settings, store_options_from_environment
from context_plane.store import CountingStore, HedgingStore, StoreOptions, is_remote, open_store, probe
from context_plane.store.spans import step
from context_plane.tenants import load_settings, load_tenant, load_tenant_erasure
from context_plane.warm import Warmer

T = TypeVar("T")

FOLDERS_SHARE: Final = 4
"""Unpacked shards take at most this fraction (1/n) of the disk budget."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Everything one process does with a store. Methods raise `context_plane.errors`."""

    settings: Settings
    engine: Engine
    store: CountingStore
    ingest: Ingest
    cache: Cache
    reader: Reader
    folders: Folders
    snapshots: Snapshots
    specs: Mapping[str, Spec]
    searcher: Searcher
    listing: Listing
    bundles: Bundles
    warmer: Warmer
    reasons: Why
    differences: Changes
    fleet: Fleet

    async def warm_up(self) -> None:
        """Load what the first requests would otherwise wait for: the embedder, the specs' queries."""
        with suppress(Invalid):  # where no text is embedded there is no model to load
            await self.engine.embedder.embed_query("warm up")
        for name in self.specs:
            await self.bundles.compiled(name)

    async def empty_caches(self) -> None:
        """Forget everything cached, in memory and on disk, known cuts and embedded queries included: the next read is
        a cold one."""
        self.warmer.forget()
        if isinstance(self.engine.embedder, MemoizedEmbedder):
            self.engine.embedder.clear()
        self.snapshots.clear()
        self.reader.clear()
        self.searcher.clear()
        self.listing.clear()
        await self.cache.clear()
        await asyncio.to_thread(self.folders.clear)

    # --- write ----------------------------------------------------------------------------------

    async def write(
        self,
        tenant: str,
        writes: Sequence[Write],
        *,
        body_bytes: int,
        visible: Visible = "now",
        idempotency_key: str | None = None,
        body_digest: str | None = None,
        actor: Actor = PROCESS,
        paid: AbstractContextManager[None] | None = None,
    ) -> Accepted:
        """Durable when it returns; with an idempotency key, written once in 24 hours. `actor`: for the audit.

        `paid`: entered around the append alone, so not where an earlier one is answered again; it may refuse."""
        paid = paid or nullcontext()
        if idempotency_key is None or body_digest is None:
            with paid:
                return await self.ingest.write(tenant, writes, body_bytes=body_bytes, visible=visible, actor=actor)
        hashed = key_hash(idempotency_key)

        async def append(start_by_s: float) -> int:
            with paid:
                accepted = await self.ingest.write(
                    tenant,
                    writes,
                    body_bytes=body_bytes,
                    visible=visible,
                    key_hash=hashed,
                    actor=actor,
                    start_by_s=start_by_s,
                )
            return accepted.batch

        recorded = await once(self.engine, tenant, hashed, body_digest, append)
        unique, days = await sorted_out(writes)
        return Accepted(len(unique), len(writes) - len(unique), recorded.batch, days, recorded.manifest_version)

    # --- build ----------------------------------------------------------------------------------

    async def build(self, tenant: str, days: Sequence[str], *, specs: Sequence[str] | None = None) -> None:
        """Build days and then their bundles in this process: what the assets do, without Dagster."""
        for day in days:
            await build_day(self.engine, tenant, day)
        for name in await self.specs_of(tenant) if specs is None else specs:
            for day in days:
                await self.materialize(tenant, name, day)
        self.snapshots.forget(tenant)

    async def specs_of(self, tenant: str) -> Mapping[str, Spec]:
        """The specs whose bundles are made for a tenant: all, but where its settings name some."""
        settings = await load_settings(self.engine.store, tenant)
        return {name: spec for name, spec in self.specs.items() if settings.builds(name)}

    async def materialize(self, tenant: str, spec: str, day: str, *, ranges: int = 1) -> BundleBuild:
        """Build one day's bundles of one spec, of what is staged of that many ranges and the rest, and commit them
        unless they change too much to do so unasked."""
        compiled, change_max = await self.bundles.compiled(spec), self.settings.bundle_change_max
        return await materialize_day(
            self.engine, self.reader, tenant, compiled, day, ranges=ranges, change_max=change_max
        )

    async def materialize_range(self, tenant: str, spec: str, day: str, number: int, count: int) -> RangeDone:
        """Make and stage the bundles of one range of a day's entities."""
        compiled = await self.bundles.compiled(spec)
        return await materialize_range(self.engine, self.reader, tenant, compiled, day, number, count)

    async def roll_up(self, tenant: str, month: str) -> tuple[MonthState, MonthEntry | None]:
        """Merge the shards of a closed month (`YYYY-MM`) into one and commit it.

        Returns the state it was in, and the month's entry: None where nothing of it is rolled up. Only a month
        that was `due` changes, as one is whose shards are not whole in the store. Raises `Conflict` when a day
        changed meanwhile: call again.
        """
        pending = await load_pending(self.engine, tenant)
        manifest = pending.manifest
        state = month_state(manifest, pending.dirty.keys(), month, self.engine.now_us())
        rolled = manifest.months.get(month)
        shards = None if rolled is None else rolled.shards
        damaged = state == "rolled_up" and shards is not None and not await are_whole(self.engine.store, shards)
        if state == "due" or damaged:
            state, merge = "due", merge_month(self.engine, tenant, month, before=shards)
            manifest = await roll_up(self.engine, tenant, month, merge=merge, damaged=damaged)
            self.snapshots.forget(tenant)
        return state, manifest.months.get(month)

    # --- read -----------------------------------------------------------------------------------

    async def search(self, tenant: str, request: SearchRequest) -> SearchAnswer:
        self.warmer.note(tenant, request.entities, vectors=request.mode != "text")
        return await self._read(None, tenant, request.snapshot, lambda: self.searcher.search(tenant, request))

    async def timeline(self, tenant: str, request: TimelineRequest) -> TimelineAnswer:
        self.warmer.note(tenant, (request.entity,))
        return await self._read("timeline", tenant, request.snapshot, lambda: self.listing.timeline(tenant, request))

    async def entities(
        self,
        tenant: str,
        *,
        prefix: str = "",
        limit: int = 100,
        cursor: str | None = None,
        snapshot: str | None = None,
        consistency: Consistency = "strong",
    ) -> EntitiesAnswer:
        return await self._read(
            "entities",
            tenant,
            snapshot,
            lambda: self.listing.entities(
                tenant, prefix=prefix, limit=limit, cursor=cursor, snapshot=snapshot, consistency=consistency
            ),
        )

    async def bundle(
        self,
        tenant: str,
        entity: str,
        *,
        spec: str,
        as_of: str | None = None,
        snapshot: str | None = None,
        consistency: Consistency = "eventual",
    ) -> BundleAnswer:
        self.warmer.note_bundle(tenant, entity, spec)
        return await self._read(
            "bundle",
            tenant,
            snapshot,
            lambda: self.bundles.bundle(
                tenant, entity, spec=spec, as_of=as_of, snapshot=snapshot, consistency=consistency
            ),
        )

    async def bundle_batch(
        self,
        tenant: str,
        entities: Sequence[str] | None,
        *,
        spec: str,
        as_of: str | None = None,
        snapshot: str | None = None,
        consistency: Consistency = "eventual",
    ) -> tuple[str, FleetItems]:
        """The cut, and one item per entity, in the order asked, or in key order for every entity (None)."""

        async def begun() -> tuple[str, FleetItems]:
            cut, items = await self.fleet.batch(
                tenant, entities, spec=spec, as_of=as_of, snapshot=snapshot, consistency=consistency
            )
            first = await anext(items, None)  # what was read of the cut by then; later objects may go meanwhile
            return cut, _from(first, items)

        return await self._read("bundles", tenant, snapshot, begun)

    async def context_on_demand(self, tenant: str, request: OnDemandRequest) -> BundleAnswer:
        self.warmer.note(tenant, (request.entity,))
        return await self._read("on_demand", tenant, request.snapshot, lambda: self.bundles.on_demand(tenant, request))

    async def why(
        self,
        tenant: str,
        digest: str,
        *,
        entity: str | None = None,
        spec: str | None = None,
        as_of: str | None = None,
        snapshot: str | None = None,
    ) -> BundleInputs:
        """What the built bundle of a digest was made from."""
        return await self._read(
            "why",
            tenant,
            snapshot,
            lambda: self.reasons.why(tenant, digest, entity=entity, spec=spec, as_of=as_of, snapshot=snapshot),
        )

    async def changes(self, tenant: str, request: ChangesRequest) -> ChangesAnswer:
        """A page of what changed since a snapshot."""
        return await self._read("changes", tenant, request.since, lambda: self.differences.changes(tenant, request))

    async def export(
        self,
        tenant: str,
        *,
        since_us: int | None = None,
        until_us: int | None = None,
        snapshot: str | None = None,
    ) -> tuple[str, AsyncGenerator[Event, None]]:
        """The cut, and its events of since <= ts < until by day, entity and time, read as they are taken."""
        if snapshot is None:
            cut = await self.snapshots.current(tenant, "strong")
        else:
            cut = await self.snapshots.pinned(tenant, snapshot)
        view = await self.snapshots.derived(cut, TailView.of)
        return cut.id, export_events(self.engine, cut, view, since_us=since_us, until_us=until_us)

    async def _read(self, name: str | None, tenant: str, pinned: str | None, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` gives. Where an erasure or a collector was faster than its cut, it is asked once more: the
        newest cut then answers, and a pinned one says that it ended. `name`: of its step; None: it has steps itself."""
        try:
            with nullcontext() if name is None else step(name):
                return await read()
        except NotFound as error:
            ended = pinned is None and error.code in ("snapshot_erased", "snapshot_expired")
            if error.code != "object_not_found" and not ended:
                raise
        self.snapshots.forget(tenant)
        with nullcontext() if name is None else step(name):
            return await read()

    async def snapshot_info(self, tenant: str) -> SnapshotInfo:
        """The newest cut: what it covers and what waits."""
        cut = await self.snapshots.current(tenant, "strong")
        manifest, tail = cut.manifest, cut.tail
        dirty = sorted({day for batch in tail.batches for day in uncovered_days(manifest, batch)})
        months = [entry.shards.last_ts_us for entry in manifest.months.values()]
        newest = [entry.shards.last_ts_us for entry in manifest.days.values() if entry.shards] + months
        newest += [item.write.event.ts_us for item in tail.writes if hasattr(item.write, "event")]
        oldest_us = min((batch.header.created_us for batch in tail.batches), default=None)
        days = {*manifest.days, *(day for entry in manifest.months.values() for day in entry.covered)}
        return SnapshotInfo(
            snapshot=cut.id,
            max_event_us=max(newest, default=None),
            days=tuple(sorted(days)),
            dirty_days=tuple(dirty),
            pending_log_objects=len(tail.batches),
            pending_events=sum(batch.header.writes for batch in tail.batches),
            index_lag_s=0.0 if oldest_us is None else max(0.0, (self.engine.now_us() - oldest_us) / 1e6),
            model=manifest.model.name if manifest.model else None,
            bundles={name: max(built) for name, built in manifest.bundles.items() if built},
        )

    async def tenant_exists(self, tenant: str) -> bool:
        """Whether the tenant was created, or has anything in its log or manifest and was not erased."""
        check_tenant(tenant)
        store = self.engine.store
        if await load_tenant(store, tenant) is not None:
            return True
        version, log = await asyncio.gather(newest_version(store, tenant), list_log(store, tenant, after=0, limit=1))
        return (version > 0 or bool(log)) and await load_tenant_erasure(store, tenant) is None


@asynccontextmanager
async def open(
    settings: Settings | None = None, *, options: StoreOptions | None = None, probe_store: bool = True
) -> AsyncIterator[Plane]:
    """A plane over the settings' store. Raises `Unavailable(store_not_exclusive)` from the probe."""
    settings = settings or Settings()
    embedder = open_embedder(settings.embedder)
    opened = open_store(settings.store_url, options=options or store_options_from_environment())
    store = CountingStore(HedgingStore(opened) if is_remote(settings.store_url) else opened)
    plane = assemble(settings, store, embedder)
    try:
        if probe_store:
            await probe(store, nonce=plane.engine.nonce())
        yield plane
    finally:
        await plane.warmer.aclose()
        await plane.cache.settled()
        await plane.ingest.aclose()
        await embedder.aclose()
        await store.aclose()


def assemble(
    settings: Settings, store: CountingStore, embedder: MemoizedEmbedder, engine: Engine | None = None
) -> Plane:
    """A plane from opened parts."""
    engine = engine or Engine(store, embedder)
    folder = settings.cache_folder
    disk = DiskCache(folder / "objects", settings.cache_disk_bytes) if settings.cache_disk_bytes else None
    cache = Cache(store, settings.cache_memory_bytes, disk)
    reader = Reader(cache)
    snapshots = Snapshots(engine)
    specs = load_specs(settings.specs_dir or shipped_specs())
    listing = Listing(engine, snapshots, reader)
    folders = Folders(folder / "unpacked", settings.cache_disk_bytes // FOLDERS_SHARE)
    bundles = Bundles(engine, snapshots, reader, listing, specs)
    searcher = Searcher(engine, store, snapshots, reader, folders)
    warmer = Warmer(engine, reader, snapshots, searcher, bundles)
    snapshots.newer = warmer.published
    return Plane(
        settings=settings,
        engine=engine,
        store=store,
        ingest=Ingest(engine),
        cache=cache,
        reader=reader,
        folders=folders,
        snapshots=snapshots,
        specs=specs,
        searcher=searcher,
        listing=listing,
        bundles=bundles,
        warmer=warmer,
        reasons=Why(reader, listing, bundles),
        differences=Changes(engine, snapshots, bundles),
        fleet=Fleet(reader, bundles),
    )


def shipped_specs() -> Path:
    """The specs that come with the product, beside the package."""
    return Path(context_plane.__file__).resolve().parent.parent / "specs"


async def _from(first: BundleAnswer | tuple[str, PlaneError] | None, rest: FleetItems) -> FleetItems:
    async with aclosing(rest):
        if first is not None:
            yield first
        async for item in rest:
            yield item
