"""Dirt: what the store says is to be built, and which of it to ask for now. The asking is a pure function.

Dirt is derived, never remembered: log batches above what a day covers, bundles whose sources or spec changed, and
days of closed months that are not rolled up (a month goes by its first day, which is its partition). A tick
looks at all of it and asks for a bounded number of (job, day) pairs, fair over tenants. What was asked for
travels in the sensor's cursor as run keys: a day whose run failed is not asked for again until its input changed (the
daily schedule does that), nor bundles or a rollup before the next UTC day, so none can crowd out others. A changed spec
is a backfill of all its days: it takes the room that is left, the newest day first (docs/decisions/0020).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from assets.bundles import built_days, is_due, is_outdated
from context_plane.bundle.spec import Spec
from context_plane.catalog.days import load_day
from context_plane.catalog.manifest import Manifest
from context_plane.catalog.models import same_model
from context_plane.catalog.tail import TAIL_BYTES_MAX, TAIL_OBJECTS_MAX
from context_plane.errors import PlaneError
from context_plane.fold import Pending, load_pending
from context_plane.materialize import sources_of
from context_plane.model import canonical_json, day_of, day_start_us, sha256_hex
from context_plane.plane import Plane
from context_plane.rollup import month_sources, month_state

DAY_JOB: Final = "build_day"
BUNDLES_JOB: Final = "build_bundles"
ROLLUPS_JOB: Final = "roll_up_month"
REQUESTS_MAX: Final = 8
"""Runs asked for per tick: a queue a person can read, and seldom more than a machine builds between two ticks."""
DIRT_AGE_US: Final = 5 * 60 * 1_000_000
"""Dirt rests this long unless the tail fills: events are found in the tail meanwhile, and a day is built once
for many batches instead of once a batch."""
ROLLUP_REST_US: Final = 24 * 3600 * 1_000_000
"""A month is rolled up once none of its days was published for this long: late events seldom come alone, and each
rollup reads the whole month."""
LOOKS_AT_ONCE: Final = 32
"""Tenants looked at at once: manifests and headers are small beside what builds hold, and Dagster ends a tick after a
minute, in which some four waits for the store of each tenant have to fit."""
REBUILD_DAYS: Final = 7
"""Newest built days whose stale bundles are renewed unasked; older ones say `stale` until backfilled."""
CURSOR_KEYS_MAX: Final = 4_096
"""As many run keys as there may be unbuilt batches of a tenant; past it the oldest are asked for again."""


@dataclass(frozen=True, slots=True)
class Dirt:
    """One tenant-day to build. `digest`: of its input. `oldest_us`: since when it waits. `urgent`: do not rest.

    `spec`: whose bundles, where it is about bundles. `backfill`: of days of any age, in the room that is left.
    """

    job: str
    tenant: str
    day: str
    digest: str
    oldest_us: int
    urgent: bool = False
    spec: str = ""
    backfill: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One run to ask for; of `BUNDLES_JOB`, of these specs' bundles alone."""

    job: str
    day: str
    run_key: str
    tenants: tuple[str, ...]
    specs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tick:
    """What a tick asks for. `asked`: the run keys to remember. `left`: (job, day) pairs that wait for a later one.
    `resting`: those whose writes are so new that more are waited for."""

    requests: tuple[Request, ...]
    asked: tuple[str, ...]
    left: int
    resting: int = 0


def plan_tick(
    dirt: Iterable[Dirt],
    *,
    now_us: int,
    asked: Collection[str],
    running: Collection[str] = (),
    ahead: Collection[str] = (),
    requests_max: int = REQUESTS_MAX,
) -> Tick:
    """Choose what to ask for. Pure; the order of `dirt` does not matter.

    A (job, day) is due when any of its tenant-days is urgent or has waited `DIRT_AGE_US`, its run key was not
    asked for, and no run of its `place` is under way (`running`). Tenants take turns, the longest waiting first, each
    naming its longest waiting day, so one tenant's thousand days cannot hold up another's one. Backfills come
    last, and only while asked and `running` together are within the bound: new events never queue behind a year.
    Days `ahead` of a backfill that a person launched are due as others are, but left to it by ours.
    """
    groups: dict[tuple[str, str], list[Dirt]] = {}
    for item in dirt:
        groups.setdefault((item.job, item.day), []).append(item)
    keys = {group: run_key(*group, items) for group, items in groups.items()}
    waiting = {
        group: items for group, items in groups.items() if keys[group] not in asked and place(*group) not in running
    }
    due = {
        group: items
        for group, items in waiting.items()
        if any(item.urgent or now_us - item.oldest_us >= DIRT_AGE_US for item in items)
    }
    backfills = {group: items for group, items in due.items() if all(item.backfill for item in items)}
    chosen = take_turns({group: items for group, items in due.items() if group not in backfills}, requests_max)
    days = {day for _, day in chosen}  # their runs make the bundles, too
    rest = {group: items for group, items in backfills.items() if group[1] not in {*days, *ahead}}
    chosen += take_turns(rest, requests_max - len(chosen) - len(running))
    requests = tuple(_request(group, keys[group], due[group]) for group in chosen)
    still = [key for key in asked if key in set(keys.values())]
    remembered = [*still, *(request.run_key for request in requests)][-CURSOR_KEYS_MAX:]
    return Tick(requests, tuple(remembered), len(due) - len(requests), len(waiting) - len(due))


def place(job: str, day: str) -> str:
    """What a run works on: a day, or the month that it rolls up. Pure."""
    return day[:7] if job == ROLLUPS_JOB else day


def run_key(job: str, day: str, items: Iterable[Dirt]) -> str:
    """Job, partition and input digest: the same input is never asked for twice. Pure."""
    digest = sha256_hex(canonical_json(sorted([item.tenant, item.digest] for item in items)))
    return f"{job}:{day}:{digest[:16]}"


def _request(group: tuple[str, str], key: str, items: Sequence[Dirt]) -> Request:
    tenants = tuple(sorted({item.tenant for item in items}))
    return Request(*group, key, tenants, tuple(sorted({item.spec for item in items if item.spec})))


def _turn(item: Dirt) -> tuple[bool, int, int, str, str]:
    """A tenant's dirt in its order: urgent, longest waiting; bundles by the newest day, backfills by nothing else."""
    start_us = day_start_us(item.day)
    by_day_us = -start_us if item.job == BUNDLES_JOB else start_us
    return not item.urgent, 0 if item.backfill else item.oldest_us, by_day_us, item.day, item.job


def take_turns(due: Mapping[tuple[str, str], Sequence[Dirt]], requests_max: int) -> list[tuple[str, str]]:
    """At most so many (job, day) pairs, each once, tenant by tenant, each in its own order. Pure."""
    queues: dict[str, list[tuple[bool, int, int, str, str]]] = {}
    for items in due.values():
        for item in items:
            queues.setdefault(item.tenant, []).append(_turn(item))
    for queue in queues.values():
        queue.sort(reverse=True)  # the next one is popped from the end
    order = sorted(queues, key=lambda tenant: (queues[tenant][-1], tenant))
    chosen: dict[tuple[str, str], None] = {}
    while len(chosen) < requests_max and any(queues.values()):
        for tenant in order:
            queue = queues[tenant]
            while queue and (queue[-1][4], queue[-1][3]) in chosen:
                queue.pop()
            if queue and len(chosen) < requests_max:
                *_, day, job = queue.pop()
                chosen[job, day] = None
    return list(chosen)


# --- the cursor ---------------------------------------------------------------------------------


def encode_cursor(asked: Sequence[str]) -> str:
    return orjson.dumps(list(asked)).decode()


def decode_cursor(cursor: str | None) -> tuple[str, ...]:
    return tuple(orjson.loads(cursor)) if cursor else ()


# --- reading the store --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Survey:
    """All dirt of so many tenants. `failed`: those that could not be read, with the error's code."""

    dirt: tuple[Dirt, ...]
    failed: tuple[tuple[str, str], ...]
    tenants: int


async def survey(plane: Plane, tenants: Sequence[str], *, held_back: Collection[str] = ()) -> Survey:
    """`held_back`: days of runs that failed before they made bundles, whoever of their tenants was published."""
    gate = asyncio.Semaphore(LOOKS_AT_ONCE)
    fingerprints = {name: plane.bundles.fingerprint(name) for name in plane.specs}
    found: list[Dirt] = []
    failed: list[tuple[str, str]] = []

    async def one(tenant: str) -> None:
        async with gate:
            try:
                pending = await load_pending(plane.engine, tenant)
                specs = await plane.specs_of(tenant)
                published_us = await _published_us(plane, pending)
            except PlaneError as error:
                failed.append((tenant, error.code))
                return
        manifest, dirty, now_us = pending.manifest, frozenset(pending.dirty), plane.engine.now_us()
        found.extend(log_dirt(tenant, pending))
        found.extend(bundle_dirt(tenant, manifest, specs, dirty, published_us, now_us))
        found.extend(held_back_dirt(tenant, manifest, specs, dirty, held_back, now_us))
        if same_model(manifest, plane.engine.embedder):
            own = {name: fingerprint for name, fingerprint in fingerprints.items() if name in specs}
            found.extend(spec_dirt(tenant, manifest, own, dirty, now_us))
        found.extend(rollup_dirt(tenant, manifest, dirty, now_us))

    await asyncio.gather(*(one(tenant) for tenant in tenants))
    ordered = sorted(found, key=lambda item: (item.tenant, item.day, item.job, item.spec))
    return Survey(tuple(ordered), tuple(sorted(failed)), len(tenants))


def log_dirt(tenant: str, pending: Pending) -> list[Dirt]:
    """Days with uncovered writes. Urgent: past half of the tail's bound. Pure."""
    visible = [b for b in pending.batches if b.header.visible == "now"]
    size = sum(batch.header.body_bytes for batch in visible)
    urgent = len(visible) * 2 >= TAIL_OBJECTS_MAX or size * 2 >= TAIL_BYTES_MAX
    return [
        Dirt(
            DAY_JOB,
            tenant,
            day,
            sha256_hex(canonical_json([pending.manifest.sources(day), [batch.number for batch in batches]]))[:32],
            min(batch.header.created_us for batch in batches),
            urgent,
        )
        for day, batches in pending.dirty.items()
    ]


def bundle_dirt(
    tenant: str,
    manifest: Manifest,
    specs: Mapping[str, Spec],
    dirty: Collection[str],
    published_us: Mapping[str, int],
    now_us: int,
) -> list[Dirt]:
    """Newest built days with missing or stale bundles of some spec, those aside that wait for a person; a dirty day
    gets them with its build. Bundles whose run failed are asked for again the next day. Pure.

    `published_us`: when each of these days was published. They rest as dirt does: a run that just published
    the day is about to make its bundles.
    """
    newest = newest_days(manifest)
    latest_us = max((published_us[day] for day in newest if day in published_us), default=0)
    found = []
    for day in newest:
        for name, spec in specs.items():
            if day not in dirty and is_due(manifest, spec, day):
                digest = _bundle_input(manifest, spec, day, now_us)
                found.append(Dirt(BUNDLES_JOB, tenant, day, digest, latest_us, spec=name))
    return found


def held_back_dirt(
    tenant: str,
    manifest: Manifest,
    specs: Mapping[str, Spec],
    dirty: Collection[str],
    days: Collection[str],
    now_us: int,
) -> list[Dirt]:
    """Days older than the newest that are published and have no bundles of a spec, since their run ended before them.
    They take the room that is left, and are asked for again the next day. Pure."""
    found = []
    for day in sorted(built_days(manifest).intersection(days).difference(dirty, newest_days(manifest))):
        entry = manifest.days.get(day) or manifest.months[day[:7]]
        for name, spec in specs.items():
            if day not in manifest.bundles.get(name, {}) and is_due(manifest, spec, day):
                digest = _bundle_input(manifest, spec, day, now_us)
                found.append(Dirt(BUNDLES_JOB, tenant, day, digest, entry.built_us, spec=name, backfill=True))
    return found


def spec_dirt(
    tenant: str, manifest: Manifest, fingerprints: Mapping[str, str], dirty: Collection[str], now_us: int
) -> list[Dirt]:
    """Days of any age whose bundles come from the spec as it was: its file changed, or the model did. Pure.

    The digest names the bundles that are there too: a spec that is changed back is new input. What failed is asked for
    again the next day.
    """
    found = []
    for name, fingerprint in fingerprints.items():
        for day, held in manifest.bundles.get(name, {}).items():
            if day not in dirty and is_outdated(manifest, name, fingerprint, day):
                made_of = [day_of(now_us), name, fingerprint, held.directory.key]
                digest = sha256_hex(canonical_json(made_of))[:32]
                found.append(Dirt(BUNDLES_JOB, tenant, day, digest, held.built_us, spec=name, backfill=True))
    return found


def rollup_dirt(tenant: str, manifest: Manifest, dirty: Collection[str], now_us: int) -> list[Dirt]:
    """Closed months with open days, once these rest. A rollup that failed is asked for again the next day. Pure."""
    found = []
    for month in sorted({day[:7] for day in manifest.days}):
        published_us = max(entry.built_us for day, entry in manifest.days.items() if day.startswith(month))
        if now_us - published_us < ROLLUP_REST_US or month_state(manifest, dirty, month, now_us) != "due":
            continue
        digest = sha256_hex(canonical_json([day_of(now_us), sorted(month_sources(manifest, month).items())]))[:32]
        found.append(Dirt(ROLLUPS_JOB, tenant, f"{month}-01", digest, published_us))
    return found


def newest_days(manifest: Manifest) -> list[str]:
    return sorted(built_days(manifest))[-REBUILD_DAYS:]


def _bundle_input(manifest: Manifest, spec: Spec, day: str, now_us: int) -> str:
    """Digest of everything that makes bundles stale, and of the UTC day."""
    made_of = [day_of(now_us), spec.name, sources_of(manifest, spec, day), manifest.erasures]
    return sha256_hex(canonical_json(made_of))[:32]


async def _published_us(plane: Plane, pending: Pending) -> dict[str, int]:
    days = newest_days(pending.manifest)
    entries = [await load_day(plane.engine.store, pending.manifest, day) for day in days]
    return {day: entry.built_us for day, entry in zip(days, entries, strict=True) if entry is not None}
