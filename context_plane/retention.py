"""Retention: days older than a tenant keeps leave its manifest, and what only they named is collected later. So do
the bundles of specs that are defined no more.

One commit takes every such day: its segments and shards, its bundles, and those that wait for an approval. A rolled
month that holds one becomes open days again, as in an erasure, so that no shard keeps rows of a retired day; what is
left of it is rolled up anew.

Nothing comes back by itself. The log may still hold batches of a retired day, and a day that is not there counts as
built up to the floor alone. So an emptied entry, with the day's `covered`, stays until the floor has passed that
number: the batches stay covered. An event that is written for a retired day later is another matter: it was
acknowledged, so it is found, built, and retired by the next run.

Bundles of kept days may quote retired ones within their look-back until they are made again: their sources changed,
so readers say `stale`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from context_plane.catalog.days import load_segments
from context_plane.catalog.head import Mutation, commit, load_head
from context_plane.catalog.lists import decode_days
from context_plane.catalog.manifest import DayEntry, Manifest
from context_plane.engine import Engine
from context_plane.errors import Conflict, Invalid
from context_plane.model import add_days, day_of, day_start_us

ROUNDS_MAX: Final = 20
"""Months are rolled up by others meanwhile; every round looks again."""
PARALLEL_LISTS: Final = 32
Opened: TypeAlias = Mapping[str, Mapping[str, DayEntry]]
"""Month -> its days' entries, of rolled months that hold a day to retire."""


@dataclass(frozen=True, slots=True)
class Retired:
    """What left the manifest, or would in a dry run. `bytes`: of segments and shards, as stored."""

    first_kept: str
    days: int = 0
    months_opened: int = 0
    bundle_days: int = 0
    events: int = 0
    bytes: int = 0


def first_kept_day(now_us: int, retain_days: int) -> str:
    """The oldest day a tenant keeps: `retain_days` before today (UTC). Pure."""
    return add_days(day_of(now_us), -retain_days)


async def retire_days(engine: Engine, tenant: str, first_kept: str, *, dry_run: bool = True) -> Retired:
    """Take every day before `first_kept` out of the manifest. With nothing to take, nothing is committed.

    Raises `Conflict(build_stale)` when months kept changing meanwhile: call again.
    """
    day_start_us(first_kept)
    for attempt in range(ROUNDS_MAX):
        head = await load_head(engine.store, tenant)
        opened = await _months_to_open(engine, head, first_kept)
        found = await _tally(engine, head, opened, first_kept)
        if dry_run:
            return found
        try:
            await commit(engine, tenant, _mutation(head, opened, first_kept), known=head)
        except Conflict as error:
            if error.code != "build_stale" or attempt == ROUNDS_MAX - 1:
                raise
            continue
        return found
    raise AssertionError("the last round returns or raises")


async def retire_specs(
    engine: Engine, tenant: str, defined: Collection[str], *, dry_run: bool = True
) -> dict[str, int]:
    """Take the bundles of every spec that is not `defined` out of the manifest, those that wait for an approval too;
    which, and of how many days.

    With nothing to take, nothing is committed. Raises `Invalid(settings_invalid)` where no spec is defined at all.
    """
    if not defined:
        raise Invalid("settings_invalid", "the specs folder defines nothing; check CONTEXT_PLANE_SPECS_DIR")
    head = await load_head(engine.store, tenant)
    names = sorted({*head.bundles, *head.pending} - set(defined))
    found = {name: len({*head.bundles.get(name, {}), *head.pending.get(name, {})}) for name in names}
    if found and not dry_run:
        await commit(engine, tenant, lambda manifest: without_specs(manifest, found), known=head)
    return found


def without_specs(manifest: Manifest, names: Collection[str]) -> Manifest:
    """The manifest without the bundles of these specs; itself where it has none. Pure."""
    bundles = {name: days for name, days in manifest.bundles.items() if name not in names}
    pending = {name: days for name, days in manifest.pending.items() if name not in names}
    if (bundles, pending) == (manifest.bundles, manifest.pending):
        return manifest
    return manifest.model_copy(update={"bundles": bundles, "pending": pending})


def retired(manifest: Manifest, opened: Opened, first_kept: str) -> Manifest:
    """The manifest without the days before `first_kept`; itself where it has none. Pure."""
    days = dict(manifest.days)
    for held in opened.values():
        days = {**held, **days}
    kept = {day: entry for day, entry in days.items() if day >= first_kept}
    for day in days.keys() - kept.keys():
        entry = days[day]
        if entry.covered > manifest.log_floor:
            kept[day] = entry if entry.segments is None else entry.model_copy(update={"segments": None, "shards": None})
    bundles = {
        spec: {day: held for day, held in by_day.items() if day >= first_kept}
        for spec, by_day in manifest.bundles.items()
    }
    pending = {
        spec: {day: held for day, held in by_day.items() if day >= first_kept}
        for spec, by_day in manifest.pending.items()
    }
    same = (kept, bundles, pending) == (dict(manifest.days), manifest.bundles, manifest.pending)
    if same and not opened:
        return manifest
    months = {month: entry for month, entry in manifest.months.items() if month not in opened}
    days = dict(sorted(kept.items()))
    return manifest.model_copy(update={"days": days, "months": months, "bundles": bundles, "pending": pending})


def _mutation(head: Manifest, opened: Opened, first_kept: str) -> Mutation:
    def mutate(manifest: Manifest) -> Manifest:
        if manifest.months != head.months:
            raise Conflict("build_stale", "a month was rolled up or opened meanwhile; retire again")
        return retired(manifest, opened, first_kept)

    return mutate


async def _months_to_open(engine: Engine, head: Manifest, first_kept: str) -> dict[str, dict[str, DayEntry]]:
    opened = {}
    for month, rolled in head.months.items():
        if not any(day < first_kept for day in rolled.covered):
            continue
        held = decode_days(await engine.store.get(rolled.days.key))
        if any(day < first_kept and entry.segments is not None for day, entry in held.items()):
            opened[month] = {day: entry for day, entry in held.items() if day not in rolled.masked}
    return opened


async def _tally(engine: Engine, head: Manifest, opened: Opened, first_kept: str) -> Retired:
    days = dict(head.days)
    for held in opened.values():
        days = {**held, **days}
    going = {day: entry for day, entry in days.items() if day < first_kept and entry.segments is not None}
    gate = asyncio.Semaphore(PARALLEL_LISTS)

    async def stored(entry: DayEntry) -> int:
        async with gate:
            segments = await load_segments(engine.store, entry)
        return sum(segment.bytes for segment in segments) + (entry.shards.bytes if entry.shards else 0)

    return Retired(
        first_kept=first_kept,
        days=len(going),
        months_opened=len(opened),
        bundle_days=sum(day < first_kept for by_day in head.bundles.values() for day in by_day),
        events=sum(entry.segments.events for entry in going.values() if entry.segments is not None),
        bytes=sum(await asyncio.gather(*(stored(entry) for entry in going.values()))),
    )
