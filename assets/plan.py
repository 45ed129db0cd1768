"""The plan of a day's build: which tenants a run is about, and what failed so far. One small object per day.

Dagster runs a day's assets one after another and skips what depends on a failed one. One tenant must not stop
the others, so a tenant that fails is written down here and left out, and `published` fails once the others are
visible. The next run of the day overwrites the object; a step that belongs to no planned run (somebody
materialized it alone) takes every tenant whose day is staged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict

from context_plane.catalog.days import load_day
from context_plane.catalog.head import load_head
from context_plane.catalog.manifest import DayEntry
from context_plane.catalog.tail import Batch
from context_plane.errors import NotFound, PlaneError
from context_plane.fold import load_pending
from context_plane.layout.keys import ControlKey, StagingKey
from context_plane.plane import Plane
from context_plane.store.base import Store
from context_plane.tenants import list_tenants
from resources.scope import BuildScope

TENANTS_AT_ONCE: Final = 4
"""Tenants worked on at once: hides object latency, and bounds memory to as many tenant-days."""
LANDING: Final = "landing"
VERSION_CHARS: Final = 32
"""Of each content digest kept here: enough to tell contents apart."""


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


class DayPlan(_Model):
    """`unchanged`: tenants with built days the run leaves alone -> their content digests by artefact. `sizes`: bytes
    of a tenant's input, about."""

    run: str
    day: str
    tenants: tuple[str, ...] = ()
    unchanged: Mapping[str, Mapping[str, str]] = {}
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
    unchanged: dict[str, Mapping[str, str]] = {}
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
        if dirty or (entry is not None and not scope.only_dirty):
            wanted[tenant] = input_bytes(dirty, entry)
        elif entry is not None:
            unchanged[tenant] = digests_of(entry)

    await asyncio.gather(*(one(tenant) for tenant in tenants))
    found = DayPlan(
        run=run,
        day=day,
        tenants=tuple(sorted(wanted)),
        unchanged=dict(sorted(unchanged.items())),
        sizes=dict(sorted(wanted.items())),
    )
    landing = await saved_plan(plane.engine.store, run, day)
    carried = landing.failed if landing is not None else ()
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


def digests_of(entry: DayEntry) -> dict[str, str]:
    """Content digests of a published day by the asset that makes them. Pure."""
    found = {"segments": entry.segments.digest[:VERSION_CHARS] if entry.segments else ""}
    if entry.shards is not None:
        found["vector_shards"] = entry.shards.vector.digest[:VERSION_CHARS]
        found["entity_shards"] = entry.shards.entity.digest[:VERSION_CHARS]
        found["fulltext_shards"] = entry.shards.fulltext.digest[:VERSION_CHARS]
    return found


# --- the object ---------------------------------------------------------------------------------


def plan_key(day: str) -> str:
    return str(ControlKey(None, f"builds/{day}.json"))


async def save_plan(store: Store, plan: DayPlan) -> None:
    await store.put(plan_key(plan.day), plan.model_dump_json().encode())


async def saved_plan(store: Store, run: str, day: str) -> DayPlan | None:
    """The plan an earlier step of the run left. None when there is none, or it is another run's."""
    try:
        plan = DayPlan.model_validate_json(await store.get(plan_key(day)))
    except NotFound:
        return None
    return plan if plan.run == run else None


async def load_plan(plane: Plane, scope: BuildScope, run: str, day: str) -> DayPlan:
    """The run's plan; for a step outside of any planned run, one of every tenant whose day is staged."""
    plan = await saved_plan(plane.engine.store, run, day)
    if plan is not None:
        return plan
    tenants = await chosen_tenants(plane, scope)
    staged = await asyncio.gather(*(_is_staged(plane.engine.store, tenant, day) for tenant in tenants))
    return DayPlan(run=run, day=day, tenants=tuple(t for t, there in zip(tenants, staged, strict=True) if there))


async def _is_staged(store: Store, tenant: str, day: str) -> bool:
    key = str(StagingKey(tenant, day, "segments"))
    return any([info.key == key async for info in store.list(key, limit=1)])
