"""Erase: one entity leaves a tenant's log, segments, shards, rollups, bundles and snapshots, with a receipt.

Five steps, each of which can be repeated; the manifest and the receipt say which are done.

    a  commit a tombstone                      from here every read, build and commit hides the entity
    b  rebuild what holds it                   open days, days with log writes it covers; rolled months that
                                               hold it become open days again
    c  commit the end of older snapshots       they answer 410; bundle days that hold it are dropped, and all
                                               bundles that wait for an approval: they were made before it
    d  delete and redact                       what was there before (c) and is not named after it
    e  write the receipt, retire the tombstone

Resuming: whoever asked keeps the erasure's id and the entity, and calls `erase_entity` with both again.
A receipt means all is done. Else a tombstone of that id means (a) is done; (b) looks at what the manifest
still holds, so it goes on where it stopped; (c) and (d) are done again as a pair, since (d) works on a
listing made before (c). The tombstone is retired last: a crash before leaves reads safe.

Why (d) is safe: the commits (a) and (c) raise `erasures`, which ends every build under way (a commit refuses
builds that started from another count). So what was listed before (c) and is not named by it belongs to
nobody: it needs no age, and is not opened to learn what it holds. Objects that builds of before (a) still
write after that listing hold the entity unnamed until a collection removes them a day later.

Why (d) empties log batches and old manifests instead of deleting them: a writer may still hold knowledge
of the newest number from before, and would create a freed number below the floor, acknowledged and never
read. An emptied object keeps its number taken and its writer known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from context_plane.catalog import guards
from context_plane.catalog.erasures import entity_hash
from context_plane.catalog.head import Mutation, commit, load_head, refresh_hint
from context_plane.catalog.log import read_log_head
from context_plane.catalog.manifest import Manifest, Tombstone, decode, encode
from context_plane.catalog.named import holds, named_keys, read_buckets
from context_plane.engine import Engine
from context_plane.errors import Conflict, NotFound
from context_plane.fold import load_pending
from context_plane.layout.batch import HEADER_READ_BYTES, decode_header, redact
from context_plane.layout.keys import (
    BundleDiffKey,
    BundleKey,
    ErasureKey,
    Key,
    ListKey,
    LogKey,
    ManifestKey,
    PartKey,
    SegmentKey,
    ShardFileKey,
    ShardKey,
    StagingKey,
    manifests_prefix,
    parse,
    tenant_prefix,
)
from context_plane.publish import advance_floor
from context_plane.rollup import load_rolled
from context_plane.staging import LogDays
from context_plane.store.base import ByteRange, ObjectInfo, Store

ROUNDS_MAX: Final = 20
"""Rebuilding is repeated when other builds got in between; every round leaves fewer days."""
PARALLEL_REDACTIONS: Final = 32
DELETE_CHUNK: Final = 1000
"""Keys of one bulk delete request of S3."""

BuildDay: TypeAlias = Callable[[Engine, str, str], Awaitable[object]]
"""(engine, tenant, day): fold, index and publish the day. Raises `Conflict` when it lost to another build."""


class Receipt(BaseModel):
    """What an erasure did, without the entity: its keyed hash, and counts of the run that completed it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    erasure: str
    tenant: str
    hash: str
    seq: int
    log_number: int
    """Writes of the entity up to this number are erased; later ones began a new life."""
    snapshots_from: int
    """Snapshots of earlier manifests were ended."""
    requested_us: int
    completed_us: int
    days_rebuilt: int
    months_opened: int
    bundle_days_dropped: int
    objects_deleted: int
    bytes_deleted: int
    batches_redacted: int
    manifests_redacted: int


@dataclass(frozen=True, slots=True)
class _Rebuilt:
    days: int = 0
    months: int = 0


@dataclass(frozen=True, slots=True)
class _Swept:
    objects: int
    bytes: int
    batches: int
    manifests: int


async def erase_entity(
    engine: Engine, tenant: str, entity: str, *, build_day: BuildDay, erasure: str | None = None
) -> Receipt:
    """Erase the entity, or go on with the erasure of that id. Idempotent per `erasure` (32 hex by default).

    Raises `Unavailable` or `Conflict` when it must be called again; reads hide the entity from the first
    commit on, whatever happens later.
    """
    erasure = erasure or engine.nonce() + engine.nonce()
    begun = await begin_erasure(engine, tenant, entity, erasure=erasure)
    done = begun
    if isinstance(begun, Tombstone):
        done = await finish_erasure(engine, tenant, entity, begun, build_day=build_day)
    assert isinstance(done, Receipt)
    await _retire(engine, tenant, erasure)
    return done


async def begin_erasure(engine: Engine, tenant: str, entity: str, *, erasure: str) -> Tombstone | Receipt:
    """Step (a). The tombstone reaches every write acknowledged so far; doing it again finds it done.

    A receipt is written before its tombstone goes. So an erasure that has neither was never begun, unless
    both changed between the two looks, and then `erasures` moved: the commit gives way and looks again.
    """
    for _ in range(ROUNDS_MAX):
        head = await load_head(engine.store, tenant)
        for stone in head.tombstones:
            if stone.erasure == erasure:
                return stone
        receipt = await load_receipt(engine.store, tenant, erasure)
        if receipt is not None:
            return receipt
        newest = (await read_log_head(engine, tenant, head)).number
        mutate = _entomb(head, entity, erasure, newest, engine.nonce() + engine.nonce(), engine.now_us())
        try:
            await commit(engine, tenant, mutate, known=head)
        except Conflict:
            continue
    raise Conflict("commit_conflict", "other erasures kept getting in between; ask for the erasure again")


def _entomb(head: Manifest, entity: str, erasure: str, newest: int, fresh_key: str, at_us: int) -> Mutation:
    """Adds the tombstone. Built rows are hidden whole, so it reaches as far as they may; and never less far
    than an earlier tombstone of the entity, whose place it takes."""

    def mutate(manifest: Manifest) -> Manifest:
        guards.same_erasures(manifest, head.erasures)
        key = manifest.erasure_key or fresh_key
        hashed = entity_hash(key, entity)
        earlier = [stone.log_number for stone in manifest.tombstones if stone.hash == hashed]
        stone = Tombstone(
            seq=manifest.erasures + 1,
            hash=hashed,
            log_number=max(newest, manifest.covered_max(), *earlier),
            erasure=erasure,
            at_us=at_us,
        )
        stones = (*manifest.tombstones, stone)
        return manifest.model_copy(update={"erasure_key": key, "erasures": stone.seq, "tombstones": stones})

    return mutate


async def finish_erasure(engine: Engine, tenant: str, entity: str, stone: Tombstone, *, build_day: BuildDay) -> Receipt:
    """Steps (b) to (e) without the retirement."""
    rebuilt = _Rebuilt()
    for _ in range(ROUNDS_MAX):
        more = await _rebuild(engine, tenant, entity, stone, build_day)
        rebuilt = _Rebuilt(rebuilt.days + more.days, rebuilt.months + more.months)
        if more != _Rebuilt():
            continue
        listed = [info async for info in engine.store.list(tenant_prefix(tenant))]
        try:
            ended, dropped = await _end_snapshots(engine, tenant, entity, stone)
        except Conflict:
            continue
        swept = await _sweep(engine, ended, listed)
        receipt = _receipt(engine, ended, stone, rebuilt, dropped, swept)
        await engine.store.put(str(ErasureKey(tenant, stone.erasure)), receipt.model_dump_json().encode())
        return receipt
    raise Conflict("commit_conflict", "other builds kept getting in between; ask for the erasure again")


async def load_receipt(store: Store, tenant: str, erasure: str) -> Receipt | None:
    """The receipt of a complete erasure; None while it is under way."""
    try:
        return Receipt.model_validate_json(await store.get(str(ErasureKey(tenant, erasure))))
    except NotFound:
        return None


# --- (b) rebuild --------------------------------------------------------------------------------


async def _rebuild(engine: Engine, tenant: str, entity: str, stone: Tombstone, build_day: BuildDay) -> _Rebuilt:
    """One round: open the months and build the days that hold the entity, or owe writes the tombstone covers."""
    head = await load_head(engine.store, tenant)
    months = 0
    for month, rolled in head.months.items():
        if rolled.erasures < stone.seq and await holds(engine.store, rolled.shards.entity, entity):
            await _open_month(engine, tenant, month)
            months += 1
    if months:
        return _Rebuilt(months=months)
    days = await _days_to_build(engine, head, entity, stone)
    for day in days:
        try:
            await build_day(engine, tenant, day)
        except Conflict:  # another build published it; the next round looks again
            continue
    return _Rebuilt(days=len(days))


async def _open_month(engine: Engine, tenant: str, month: str) -> None:
    """Move a rolled month's days back into the manifest, as they were built."""
    head = await load_head(engine.store, tenant)
    rolled = head.months.get(month)
    if rolled is None:
        return
    held = await load_rolled(engine.store, rolled.days, masked=rolled.masked)

    def mutate(manifest: Manifest) -> Manifest:
        if manifest.months.get(month) != rolled:
            return manifest
        months = {name: entry for name, entry in manifest.months.items() if name != month}
        return manifest.model_copy(update={"months": months, "days": {**held, **manifest.days}})

    await commit(engine, tenant, mutate)


async def _days_to_build(engine: Engine, head: Manifest, entity: str, stone: Tombstone) -> list[str]:
    pending = await load_pending(engine, head.tenant, manifest=head)
    owed = {day for day, batches in pending.dirty.items() if batches[0].number <= stone.log_number}
    older = [(d, e.shards.entity) for d, e in head.days.items() if e.shards is not None and e.erasures < stone.seq]
    found = await asyncio.gather(*(holds(engine.store, shard, entity) for _, shard in older))
    return sorted(owed | {day for (day, _), held in zip(older, found, strict=True) if held})


# --- (c) end older snapshots --------------------------------------------------------------------


async def _end_snapshots(engine: Engine, tenant: str, entity: str, stone: Tombstone) -> tuple[Manifest, int]:
    """Commit (c). Nothing built before the tombstone holds the entity any more: (b) saw to it, and commits
    since then refused what had not applied it. Bundles whose directory cannot be read go too: their packs may hold
    the entity, and bundles are made again. Raises `Conflict` when the log still owes covered writes."""
    head = await load_head(engine.store, tenant)
    pending = await load_pending(engine, tenant, manifest=head)
    observed = tuple(LogDays(number=batch.number, days=tuple(batch.header.days)) for batch in pending.batches)
    holding = set()
    for by_day in head.bundles.values():
        for bundles in by_day.values():
            buckets = await read_buckets(engine.store, bundles)
            older = bundles.erasures < stone.seq
            if buckets is None or (older and any(bucket.find(entity) for bucket in buckets)):
                holding.add(bundles.directory.key)

    def mutate(manifest: Manifest) -> Manifest:
        floor = advance_floor(manifest, observed)
        if floor < stone.log_number:
            raise Conflict("build_stale", "the log still owes writes that the erasure covers; build again")
        kept = {
            spec: {day: b for day, b in by_day.items() if b.directory.key not in holding}
            for spec, by_day in manifest.bundles.items()
        }
        changed = {
            "bundles": kept,
            "pending": {},
            "erasures": manifest.erasures + 1,
            "log_floor": floor,
            "snapshots_from": manifest.version + 1,
        }
        return manifest.model_copy(update=changed)

    return await commit(engine, tenant, mutate, known=head), len(holding)


# --- (d) delete and redact ----------------------------------------------------------------------


async def _sweep(engine: Engine, ended: Manifest, listed: Sequence[ObjectInfo]) -> _Swept:
    """`listed`: the tenant's objects from before the commit `ended`."""
    store = engine.store
    named = await named_keys(store, ended, {})
    doomed = [info for info in listed if _is_built(parse(info.key)) and info.key not in named]
    for start in range(0, len(doomed), DELETE_CHUNK):
        await store.delete([info.key for info in doomed[start : start + DELETE_CHUNK]])
    keys = [parse(info.key) for info in listed]
    batches = [key for key in keys if isinstance(key, LogKey) and key.number <= ended.log_floor]
    old = [parse(info.key) async for info in store.list(manifests_prefix(ended.tenant))]
    manifests = [key for key in old if isinstance(key, ManifestKey) and key.version < ended.snapshots_from]
    gate = asyncio.Semaphore(PARALLEL_REDACTIONS)
    await asyncio.gather(*(_redact_batch(store, str(key), gate) for key in batches))
    await asyncio.gather(*(_redact_manifest(store, str(key), gate) for key in manifests))
    await refresh_hint(store, await load_head(store, ended.tenant))
    return _Swept(len(doomed), sum(info.size for info in doomed), len(batches), len(manifests))


def _is_built(key: Key) -> bool:
    built = SegmentKey | ShardKey | ShardFileKey | BundleKey | BundleDiffKey | ListKey | StagingKey | PartKey
    return isinstance(key, built)


async def _redact_batch(store: Store, key: str, gate: asyncio.Semaphore) -> None:
    async with gate:
        try:
            header, _ = decode_header(bytes(await store.get_range(key, ByteRange(0, HEADER_READ_BYTES))))
        except NotFound:
            return  # collected meanwhile
        if not header.redacted:
            await store.put(key, redact(header))


async def _redact_manifest(store: Store, key: str, gate: asyncio.Semaphore) -> None:
    async with gate:
        try:
            manifest = decode(await store.get(key))
        except NotFound:
            return
        if not manifest.redacted:
            await store.put(key, encode(manifest.redact()))


# --- (e) receipt --------------------------------------------------------------------------------


def _receipt(
    engine: Engine, ended: Manifest, stone: Tombstone, rebuilt: _Rebuilt, dropped: int, swept: _Swept
) -> Receipt:
    return Receipt(
        erasure=stone.erasure,
        tenant=ended.tenant,
        hash=stone.hash,
        seq=stone.seq,
        log_number=stone.log_number,
        snapshots_from=ended.snapshots_from,
        requested_us=stone.at_us,
        completed_us=engine.now_us(),
        days_rebuilt=rebuilt.days,
        months_opened=rebuilt.months,
        bundle_days_dropped=dropped,
        objects_deleted=swept.objects,
        bytes_deleted=swept.bytes,
        batches_redacted=swept.batches,
        manifests_redacted=swept.manifests,
    )


async def _retire(engine: Engine, tenant: str, erasure: str) -> None:
    """Drop the tombstone: everything it hid is gone, and every build that could bring it back was ended."""

    def mutate(manifest: Manifest) -> Manifest:
        stones = tuple(stone for stone in manifest.tombstones if stone.erasure != erasure)
        if len(stones) == len(manifest.tombstones):
            return manifest
        return manifest.model_copy(update={"tombstones": stones})

    await commit(engine, tenant, mutate)
