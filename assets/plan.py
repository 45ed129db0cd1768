"""The plan of a day's build: which tenants a run is about, what is published, and what failed so far. A small object.

Dagster runs a day's assets one after another and skips what depends on a failed one. One tenant must not stop
the others, so a tenant that fails is written down here and left out, and a check beside `published` fails the run
once the others are visible. Each run has an object of its own, so that two runs of a day keep apart; a step that
belongs to no planned run (somebody materialized it alone) takes every tenant whose day is staged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from pydantic import BaseModel, ConfigDict

from context_plane.catalog.days import load_day, load_segments
from context_plane.catalog.head import load_head
from context_plane.catalog.manifest import DayEntry
from context_plane.catalog.tail import Batch
from context_plane.errors import NotFound, PlaneError
from context_plane.fold import load_pending
from context_plane.layout.keys import ControlKey, StagingKey
from context_plane.model import canonical_json, sha256_hex
from context_plane.plane import Plane
from context_plane.store.base import Store
from context_plane.tenants import list_tenants
from resources.scope import BuildScope

TENANTS_AT_ONCE: Final = 4
"""Tenants worked on at once: hides object latency, and bounds memory to as many tenant-days."""
LANDING: Final = "landing"
VERSION_CHARS: Final = 32
"""Of each content digest kept here: enough to tell contents apart."""
PLANS_KEPT: Final = 8
"""Plans of a day: those of runs under way, and of the last that failed, whose steps may be tried again."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Failed(_Model):
    """One tenant that a step could not process. `code` is a stable error code; ids of entities never enter: of a large
    tenant-day `part` says which range of them it was."""

    tenant: str
    step: str
    code: str
    part: str = ""

    def __str__(self) -> str:
        return f"{self.code} in {self.step}" + (f", range {self.part}" if self.part else "")


class Held(_Model):
    """What one artefact of a tenant's published day comes to. `digest`: of the content. `bytes`: as stored. `events`
    and `entities`: None where its step does not know them."""

    digest: str
    rows: int = 0
    events: int | None = None
    entities: int | None = None
    bytes: int = 0
    newest_us: int = 0


class DayPlan(_Model):
    """`tenants`: those the run builds. `held`: tenant -> what was published before, by the asset that makes it, also of
    tenants that the run leaves alone. `sizes`: bytes of a tenant's input, about."""

    run: str
    day: str
    tenants: tuple[str, ...] = ()
    held: Mapping[str, Mapping[str, Held]] = {}
    sizes: Mapping[str, int] = {}
    failed: tuple[Failed, ...] = ()

    def left(self) -> list[str]:
        """Tenants still being built. A file that does not land keeps no other event from being built."""
        out = {failed.tenant for failed in self.failed if failed.step != LANDING}
        return [tenant for tenant in self.tenants if tenant not in out]

    def weights(self) -> dict[str, int]:
        """Bytes of each tenant still being built."""
        return {tenant: self.sizes.get(tenant, 0) for tenant in self.left()}

    def with_failed(self, failed: Sequence[Failed]) -> DayPlan:
        return self.model_copy(update={"failed": (*self.failed, *failed)})


async def chosen_tenants(plane: Plane, scope: BuildScope) -> list[str]:
    return sorted(set(scope.tenants)) or await list_tenants(plane.engine.store)


async def plan_day(plane: Plane, scope: BuildScope, run: str, day: str) -> DayPlan:
    """Tenants whose day has uncovered writes, and unless only those are wanted, those whose day is built."""
    tenants = await chosen_tenants(plane, scope)
    gate = asyncio.Semaphore(TENANTS_AT_ONCE)
    held: dict[str, Mapping[str, Held]] = {}
    wanted: dict[str, int] = {}
    failed: list[Failed] = []

    async def one(tenant: str) -> None:
        async with gate:
            try:
                pending = await load_pending(plane.engine, tenant)
                dirty = pending.dirty.get(day, [])
                entry = await load_day(plane.engine.store, pending.manifest, day)
            except PlaneError as error:
                failed.append(Failed(tenant=tenant, step="segments", code=error.code))
                return
            if entry is not None:
                held[tenant] = held_of(entry, await segment_bytes(plane.engine.store, entry))
        if dirty or (entry is not None and not scope.only_dirty):
            wanted[tenant] = input_bytes(dirty, entry)

    await asyncio.gather(*(one(tenant) for tenant in tenants))
    found = DayPlan(
        run=run,
        day=day,
        tenants=tuple(sorted(wanted)),
        held=dict(sorted(held.items())),
        sizes=dict(sorted(wanted.items())),
    )
    await _drop_old(plane.engine.store, day)
    landing = await saved_plan(plane.engine.store, run, day)
    carried = [] if landing is None else [item for item in landing.failed if item.step == LANDING]
    return found.with_failed([*carried, *sorted(failed, key=lambda item: item.tenant)])


def input_bytes(batches: Sequence[Batch], entry: DayEntry | None) -> int:
    """Of a day's build, about: its share of the log batches, and what was built of it before. Pure."""
    log = sum(batch.header.body_bytes // len(batch.header.days) for batch in batches)
    return log + (0 if entry is None or entry.shards is None else entry.shards.entity.bytes)


async def weigh(plane: Plane, tenants: Sequence[str], first: str, last: str) -> dict[str, int]:
    """Bytes of each tenant's entity shards from day `first` to `last`; 0 where its manifest cannot be read."""
    gate = asyncio.Semaphore(TENANTS_AT_ONCE)

    async def one(tenant: str) -> int:
        async with gate:
            try:
                manifest = await load_head(plane.engine.store, tenant)
            except PlaneError:
                return 0  # the work meets the error too, and is where it is told
        days = [entry.shards for day, entry in manifest.days.items() if first <= day <= last]
        months = [entry.shards for month, entry in manifest.months.items() if first[:7] <= month <= last[:7]]
        return sum(shards.entity.bytes for shards in [*days, *months] if shards is not None)

    return dict(zip(tenants, await asyncio.gather(*(one(tenant) for tenant in tenants)), strict=True))


async def segment_bytes(store: Store, entry: DayEntry) -> int:
    """Of the day's segments, as stored. 0 where their list cannot be read: the step that needs it says so."""
    try:
        return sum(listed.bytes for listed in await load_segments(store, entry))
    except PlaneError:
        return 0


def held_of(entry: DayEntry, segments: int = 0) -> dict[str, Held]:
    """What is published of a day by the asset that makes it. `segments`: their bytes beside their list's. Pure."""
    listed, shards = entry.segments, entry.shards
    none = {"events": 0, "entities": 0}
    found = {"segments": Held(digest="", **none)}
    if listed is not None:
        counts = {"rows": listed.events, "events": listed.events, "entities": listed.entities}
        found["segments"] = Held(digest=listed.digest[:VERSION_CHARS], bytes=listed.bytes + segments, **counts)
    if shards is None:
        return {**found, "published": Held(digest=_version(found), **none)}
    vectors, counts = shards.vector, {"events": shards.events, "entities": shards.entities}
    size = sum(file.bytes for file in vectors.files)
    newest = {"newest_us": shards.last_ts_us}
    found["vector_shards"] = _shard(vectors.digest, shards.rows, size)
    found["entity_shards"] = _shard(shards.entity.digest, shards.rows, shards.entity.bytes, **counts, **newest)
    found["fulltext_shards"] = _shard(shards.fulltext.digest, shards.rows, shards.fulltext.bytes)
    return {**found, "published": _shard(_version(found), shards.rows, shards.bytes, **counts, **newest)}


def _shard(digest: str, rows: int, size: int, **more: int) -> Held:
    return Held(digest=digest[:VERSION_CHARS], rows=rows, bytes=size, **more)


def _version(found: Mapping[str, Held]) -> str:
    return sha256_hex(canonical_json({name: held.digest for name, held in found.items()}))[:VERSION_CHARS]


# --- the object ---------------------------------------------------------------------------------


def plans_folder(day: str) -> str:
    return str(ControlKey(None, f"builds/{day}/"))


def plan_key(day: str, run: str) -> str:
    return f"{plans_folder(day)}{run}.json"


async def save_plan(store: Store, plan: DayPlan) -> None:
    await store.put(plan_key(plan.day, plan.run), plan.model_dump_json().encode())


async def end_plan(store: Store, plan: DayPlan) -> None:
    """After the commit: who failed stays on record for a retry of the check; of a run without failures nothing does."""
    if plan.failed:
        await save_plan(store, plan)
    else:
        await store.delete([plan_key(plan.day, plan.run)])


async def saved_plan(store: Store, run: str, day: str) -> DayPlan | None:
    """The plan an earlier step of the run left. None when there is none."""
    try:
        return DayPlan.model_validate_json(await store.get(plan_key(day, run)))
    except NotFound:
        return None


async def _drop_old(store: Store, day: str) -> None:
    found = sorted([info async for info in store.list(plans_folder(day))], key=lambda info: info.modified_us)
    old = [info.key for info in found[:-PLANS_KEPT]]
    if old:
        await store.delete(old)


async def load_plan(plane: Plane, scope: BuildScope, run: str, day: str) -> DayPlan:
    """The run's plan; for a step outside of any planned run, one of every tenant whose day is staged."""
    plan = await saved_plan(plane.engine.store, run, day)
    if plan is not None:
        return plan
    tenants = await chosen_tenants(plane, scope)
    staged = await asyncio.gather(*(_is_staged(plane.engine.store, tenant, day) for tenant in tenants))
    wanted = tuple(tenant for tenant, there in zip(tenants, staged, strict=True) if there)
    return DayPlan(run=run, day=day, tenants=wanted, held=await _published(plane, tenants, day))


async def _published(plane: Plane, tenants: Sequence[str], day: str) -> dict[str, Mapping[str, Held]]:
    """What each tenant has of the day, without those that cannot be read."""
    store, gate = plane.engine.store, asyncio.Semaphore(TENANTS_AT_ONCE)
    found: dict[str, Mapping[str, Held]] = {}

    async def one(tenant: str) -> None:
        async with gate:
            with suppress(PlaneError):
                entry = await load_day(store, await load_head(store, tenant), day)
                if entry is not None:
                    found[tenant] = held_of(entry, await segment_bytes(store, entry))

    await asyncio.gather(*(one(tenant) for tenant in tenants))
    return dict(sorted(found.items()))


async def _is_staged(store: Store, tenant: str, day: str) -> bool:
    key = str(StagingKey(tenant, day, "segments"))
    return any([info.key == key async for info in store.list(key, limit=1)])
