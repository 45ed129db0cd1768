"""Reading bundles: one, many, and on demand for a query.

A built bundle is two steps from cold where the manifest names the packs of a day, as it does of tenants of ordinary
size: manifest, then bucket of the day's directory and pack together. Elsewhere the block comes after the bucket. It
does not contain the tail; the on-demand form does, and is made by the same pure function.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from cachetools import LRUCache

from context_plane.bundle.compiled import CompiledSpec
from context_plane.bundle.history import History, Part
from context_plane.bundle.materialize import ContextQuery, materialize_query
from context_plane.bundle.pack import bucket_of
from context_plane.bundle.spec import Spec, fingerprint
from context_plane.cache.tiers import Temperature, track_lookups
from context_plane.catalog.bundles import Bucket, BundleEntry, decode_bucket
from context_plane.catalog.manifest import BundleDay, Manifest
from context_plane.catalog.models import check_model
from context_plane.catalog.tail import uncovered_days
from context_plane.engine import Engine
from context_plane.errors import NotFound
from context_plane.index.analyzer import ANALYZER
from context_plane.layout.pack import decode_block
from context_plane.materialize import compiled, sources_of
from context_plane.model import add_days, day_end_us, day_of, day_start_us
from context_plane.recall.assemble import Started as StartedReads
from context_plane.recall.assemble import abandon
from context_plane.recall.listing import Listing
from context_plane.recall.periods import LAST_US
from context_plane.recall.tail_view import TailView
from context_plane.recall.values import BundleAnswer, Freshness, OnDemandRequest
from context_plane.retrieval.evidence import Evidence
from context_plane.retrieval.reader import Reader
from context_plane.retrieval.snapshots import Consistency, Outline, Snapshot, Snapshots, Started
from context_plane.store.base import ByteRange

BUCKET: Final = "bucket"
BUNDLE: Final = "bundle"
"""Forms of a day's directory section and of a pack's block in the cache."""
DAYS_KNOWN: Final = 4096
"""Built days of recent cuts, some hundred bytes each: what is the same for all bundles of a day is made once."""


@dataclass(frozen=True, slots=True)
class BuiltDay:
    """What all bundles of one spec and day have in common at one cut."""

    snapshot: str
    spec: str
    as_of: str
    entry: BundleDay
    freshness: Freshness


class Bundles:
    """The bundle journeys of one process."""

    def __init__(
        self, engine: Engine, snapshots: Snapshots, reader: Reader, listing: Listing, specs: Mapping[str, Spec]
    ) -> None:
        self._engine = engine
        self._snapshots = snapshots
        self._reader = reader
        self._listing = listing
        self._specs = specs
        self._compiled: dict[str, CompiledSpec] = {}
        self._fingerprints: dict[str, str] = {}
        self._built: LRUCache[tuple[str, str, str, str | None], BuiltDay] = LRUCache(DAYS_KNOWN)

    def spec(self, name: str) -> Spec:
        """Raises `NotFound(spec_not_found)`."""
        try:
            return self._specs[name]
        except KeyError:
            known = ", ".join(sorted(self._specs)) or "none"
            raise NotFound("spec_not_found", f"no such spec; known: {known}", spec=name[:80]) from None

    def names(self) -> list[str]:
        """Of the specs this process has."""
        return sorted(self._specs)

    async def compiled(self, name: str) -> CompiledSpec:
        if name not in self._compiled:
            self._compiled[name] = await compiled(self._engine, self.spec(name))
        return self._compiled[name]

    def fingerprint(self, name: str) -> str:
        """Of the spec as this process has it, with its model and analyzer."""
        if name not in self._fingerprints:
            self._fingerprints[name] = fingerprint(
                self.spec(name), model=self._engine.embedder.model, analyzer=ANALYZER
            )
        return self._fingerprints[name]

    async def bundle(
        self,
        tenant: str,
        entity: str,
        *,
        spec: str,
        as_of: str | None,
        snapshot: str | None,
        consistency: Consistency = "eventual",
    ) -> BundleAnswer:
        """Raises `NotFound(entity_not_found | bundle_not_built | spec_not_found)`."""
        self.spec(spec)
        known = snapshot is None and consistency == "eventual"
        held = self.held(tenant, entity, spec=spec, as_of=as_of) if known else None
        if held is not None:
            return held
        lookups = track_lookups()
        reads: StartedReads[str, tuple[BundleEntry, bytes] | None] = StartedReads()

        def start(manifest: Manifest) -> None:
            """Look while the log is still being listed; only the confirmed cut's day is answered from."""
            entry = manifest.bundles.get(spec, {}).get(as_of or _newest_built(manifest, spec))
            if entry is not None and not reads.closed:
                reads.once(entry.directory.key, partial(self._read, entry, entity))

        with reads:
            cut = await self.cut(tenant, snapshot, start, consistency)
            built = self.day(cut, spec, as_of)
            found = None
            if not cut.erasures.hides_built(entity, built.entry.erasures):
                found = await reads.once(built.entry.directory.key, partial(self._read, built.entry, entity))
        if found is None:
            raise await self.absent(cut, entity, built.as_of)
        return answer_of(built, found[0], found[1], lookups.temperature)

    def held(self, tenant: str, entity: str, *, spec: str, as_of: str | None) -> BundleAnswer | None:
        """What `bundle` answers at the newest cut, where all of it is in memory; else None. Waits for nothing.

        Raises `NotFound(bundle_not_built)` for a day without bundles."""
        cut = self._snapshots.known(tenant)
        if cut is None:
            return None
        built = self.day(cut, spec, as_of)
        if cut.erasures.hides_built(entity, built.entry.erasures):
            return None
        cache, directory = self._reader.cache, built.entry.directory
        span = directory.sections[bucket_of(entity, len(directory.sections))].range
        bucket: Bucket | None = cache.held_value(directory.key, span, BUCKET)
        place = None if bucket is None else bucket.find(entity)
        if bucket is None or place is None:
            return None
        body: bytes | None = cache.held_value(bucket.key, ByteRange(place.offset, place.length), BUNDLE)
        return None if body is None else answer_of(built, place, body, "memory")

    async def on_demand(self, tenant: str, request: OnDemandRequest) -> BundleAnswer:
        """The bundle of a query over built rows and tail. Raises `NotFound(entity_not_found)`."""
        lookups = track_lookups()
        spec = await self.compiled(request.spec)
        if request.snapshot is not None:
            cut = await self._snapshots.pinned(tenant, request.snapshot)
        else:
            cut = await self._snapshots.current(tenant, request.consistency)
        check_model(cut.manifest, self._engine.embedder)
        view = await self._snapshots.derived(cut, TailView.of)
        until_us = None if request.until_us is None else min(max(request.until_us, 0), LAST_US + 1)
        as_of = _newest_day(cut) if until_us is None else day_of(until_us - 1)
        first_us = day_start_us(add_days(as_of, 1 - spec.spec.lookback_days))
        since_us = first_us if request.since_us is None else min(first_us, request.since_us)
        entity, until = request.entity, day_end_us(as_of)
        found = await self._listing.entity_parts(view, entity, since_us, until, vectors=True)
        history = History(tuple(Part(part.rows, part.live) for part in found.parts))
        vector = request.vector
        if vector is None and request.text:
            vector = await self._engine.embedder.embed_query(request.text)
        query = ContextQuery(
            text=request.text,
            vector=vector,
            where=request.where,
            since_us=request.since_us,
            until_us=until_us,
            budget_tokens=request.budget_tokens,
        )
        made = await asyncio.to_thread(materialize_query, spec, request.entity, as_of, history, Evidence(), query)
        if made is None:
            raise NotFound("entity_not_found", "the entity has no events in the look-back", entity=request.entity)
        return BundleAnswer(
            entity=request.entity,
            spec=request.spec,
            as_of=made.as_of,
            json_bytes=made.body,
            digest=made.digest,
            freshness="fresh",
            snapshot=cut.id,
            cache=lookups.temperature,
        )

    # --- leaves ---------------------------------------------------------------------------------

    async def cut(
        self, tenant: str, snapshot: str | None, started: Started | None, consistency: Consistency = "eventual"
    ) -> Outline:
        """A built bundle does not contain the tail: its writes are not waited for."""
        if snapshot is not None:
            return await self._snapshots.pinned_outline(tenant, snapshot, started)
        return await self._snapshots.outline(tenant, consistency, started)

    def day(self, cut: Outline, spec: str, as_of: str | None) -> BuiltDay:
        """The day asked for, or the newest built. Raises `NotFound(bundle_not_built)`, `Invalid(query_invalid)`."""
        key = (cut.tenant, cut.id, spec, as_of)
        held = self._built.get(key)
        if held is None:
            held = self._built[key] = self._found_day(cut, spec, as_of)
        return held

    def _found_day(self, cut: Outline, spec: str, as_of: str | None) -> BuiltDay:
        days = cut.manifest.bundles.get(spec, {})
        day = _newest_built(cut.manifest, spec) if as_of is None else as_of
        if as_of is not None:
            day_start_us(as_of)
        if day not in days:
            newest = max(days, default="none")
            detail = "no bundles of that day; build it, or ask on demand"
            raise NotFound("bundle_not_built", detail, spec=spec, as_of=as_of, newest=newest)
        return BuiltDay(cut.id, spec, day, days[day], self._freshness(cut, spec, day, days[day]))

    async def _read(self, entry: BundleDay, entity: str) -> tuple[BundleEntry, bytes] | None:
        number = bucket_of(entity, len(entry.directory.sections))
        if entry.packs and entry.packs[number] and not self._holds_bucket(entry, number):
            return await self._read_together(entry, number, entity)
        bucket = await self.bucket(entry, number)
        place = bucket.find(entity)
        return None if place is None else (place, await self.body(bucket, place))

    async def _read_together(self, entry: BundleDay, number: int, entity: str) -> tuple[BundleEntry, bytes] | None:
        """Bucket and pack in one round trip. The rest of the pack stays on disk, for its other bundles."""
        folder = entry.directory.key.rpartition("/")[0]
        pack = asyncio.ensure_future(self._reader.cache.raw(f"{folder}/{entry.packs[number]}"))
        try:
            bucket = await self.bucket(entry, number)
            place = bucket.find(entity)
            if place is None:
                return None
            body = decode_block((await pack)[place.offset : place.offset + place.length])
        finally:
            abandon(pack)
        self._reader.cache.keep(bucket.key, ByteRange(place.offset, place.length), BUNDLE, body)
        return place, body

    def _holds_bucket(self, entry: BundleDay, number: int) -> bool:
        return self._reader.cache.holds(entry.directory.key, entry.directory.sections[number].range, BUCKET)

    async def bucket(self, entry: BundleDay, number: int) -> Bucket:
        """One section of a day's directory."""
        span = entry.directory.sections[number].range
        return await self._reader.cache.value(entry.directory.key, decode_bucket, byte_range=span, form=BUCKET)

    async def body(self, bucket: Bucket, place: BundleEntry) -> bytes:
        """A bundle's canonical JSON."""
        span = ByteRange(place.offset, place.length)
        return await self._reader.cache.value(bucket.key, decode_block, byte_range=span, form=BUNDLE)

    async def absent(self, cut: Outline, entity: str, day: str) -> NotFound:
        """Why there is no bundle of an entity on a built day."""
        view = await self._snapshots.derived(await self._snapshots.complete(cut), TailView.of)
        if entity in view.latest:
            detail = "the entity's events wait to be built; build the days, or ask on demand"
            return NotFound("bundle_not_built", detail, entity=entity, as_of=day)
        detail = "nothing of it is known by that day; check the id, or ask for its newest day"
        return NotFound("entity_not_found", detail, entity=entity, as_of=day)

    def _freshness(self, cut: Outline, spec: str, day: str, entry: BundleDay) -> Freshness:
        """`stale`: the spec changed or a day of the look-back was published since; `building`: writes wait to be."""
        first = add_days(day, 1 - self.spec(spec).lookback_days)
        dirty = {d for batch in cut.pending for d in uncovered_days(cut.manifest, batch)}
        same_spec = self.fingerprint(spec) == entry.spec_fingerprint
        if not same_spec or sources_of(cut.manifest, self.spec(spec), day) != entry.sources:
            return "stale"
        return "building" if any(first <= d <= day for d in dirty) else "fresh"


def answer_of(built: BuiltDay, place: BundleEntry, body: bytes, cache: Temperature) -> BundleAnswer:
    return BundleAnswer(
        entity=place.entity,
        spec=built.spec,
        as_of=built.as_of,
        json_bytes=body,
        digest=place.digest,
        freshness=built.freshness,
        snapshot=built.snapshot,
        cache=cache,
    )


def _newest_built(manifest: Manifest, spec: str) -> str:
    """The newest day with bundles; empty when there is none."""
    return max(manifest.bundles.get(spec, {}), default="")


def _newest_day(cut: Snapshot) -> str:
    """The last day with anything known, built or not: where an on-demand bundle stands. Not the clock's."""
    days = [*cut.manifest.days, *(day for month in cut.manifest.months.values() for day in month.covered)]
    days += cut.tail.days()
    return max(days, default="1970-01-01")
