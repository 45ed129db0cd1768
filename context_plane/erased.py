"""Erased: a complete erasure checked again from its receipt, by reading the tenant's objects.

What the newest manifest names is asked by its own directories: days, months and bundles that had not applied the
tombstone may not hold the entity, and no vector shard may tell of it whose entity shard does not. Any other object that
mentions it is a problem unless it can only speak of a later life: a log batch above the receipt's number, or a
manifest since the end of older snapshots. When there is no later life, no unnamed object may mention it either.
Landing files are exports given by the tenant, which the plane never rewrites: they are reported, and whoever owns them
deletes them. Requests to erase are left out: an open one must name its entity, and goes once it is done.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import zstandard

from context_plane.catalog.days import load_days, load_segments
from context_plane.catalog.head import load_head
from context_plane.catalog.manifest import FileRef, Manifest, VectorRef, decode
from context_plane.catalog.named import holds, named_keys, read_buckets
from context_plane.engine import Engine
from context_plane.erase import Receipt
from context_plane.erasure_requests import is_request
from context_plane.errors import NotFound, PlaneError, Unavailable
from context_plane.index import vector_shard
from context_plane.layout.keys import (
    LandingKey,
    LatestKey,
    LogKey,
    ManifestKey,
    SegmentKey,
    ShardFileKey,
    ShardKey,
    entity_part,
    parse,
    tenant_prefix,
)
from context_plane.layout.pack import MAGIC
from context_plane.model import check_entity
from context_plane.shards import dataset_name, unpacked
from context_plane.store.base import Store

CONTENT_BYTES_MAX: Final = 1 << 30
"""Uncompressed bytes looked at of one object."""
OPAQUE_NAME_BYTES_MIN: Final = 6
"""In the files of Lance and tantivy a name has no quotes around it; shorter ones would be found by chance."""


async def verify_erasure(engine: Engine, tenant: str, entity: str, receipt: Receipt) -> list[str]:
    """One line a problem; empty when nothing of the erased life is left."""
    check_entity(entity)
    store = engine.store
    head = await load_head(store, tenant)
    named = await named_keys(store, head, {})
    built = await _built(store, head, entity, receipt.seq)
    problems = [*built.problems]
    suspects: list[str] = []
    datasets: dict[ShardKey, list[str]] = {}
    later_life = bool(built.later)
    async for info in store.list(tenant_prefix(tenant)):
        key = parse(info.key)
        if isinstance(key, ShardFileKey):
            datasets.setdefault(key.shard, []).append(key.path)
        if isinstance(key, ShardFileKey) or info.key in named or is_request(key):
            continue
        try:
            stored = await store.get(info.key)
        except NotFound:
            continue
        match _verdict(info.key, stored, entity, receipt):
            case "none":
                continue
            case "later":
                later_life = True
            case "unnamed":
                suspects.append(info.key)
            case problem:
                problems.append(f"{problem}: {info.key}")
    for shard in await _telling(store, datasets, entity, built.later):
        if str(shard) in built.vectors:
            problems.append(f"a vector shard tells of it; delete its files and build its day or month again: {shard}")
        else:
            suspects += [f"{shard}/{path}" for path in datasets[shard]]
    if later_life or not suspects:
        return problems
    named |= await named_keys(store, await load_head(store, tenant), {})  # published while all of that was read
    advice = "no manifest names it; collect, or ask for the erasure again"
    return problems + [f"{advice}: {key}" for key in suspects if key not in named]


@dataclass(frozen=True, slots=True)
class _Built:
    """What a manifest's own directories say. `vectors`: keys of its vector shards; `later`: of those in which a later
    life is."""

    problems: tuple[str, ...]
    vectors: frozenset[str]
    later: frozenset[str]


async def _built(store: Store, head: Manifest, entity: str, seq: int) -> _Built:
    """Where the manifest's shards, segments and bundles hold the entity. What had applied the tombstone `seq` holds a
    later life."""
    problems: list[str] = []
    vectors: set[str] = set()
    later: set[str] = set()
    days = await load_days(store, head)
    periods = [(entry.erasures, entry.shards) for entry in days.values() if entry.shards is not None]
    periods += [(month.erasures, month.shards) for month in head.months.values()]
    for applied, shards in periods:
        vectors.add(shards.vector.key)
        if not await holds(store, shards.entity, entity):
            continue
        if applied >= seq:
            later.add(shards.vector.key)
        else:
            problems.append(f"a named object still holds it: {shards.entity.key}")
    for day, entry in days.items():
        if entry.erasures < seq:
            listed = [each for each in await load_segments(store, entry) if each.entity == entity]
            problems += [f"a named object still holds it: {each.key(head.tenant, day)}" for each in listed]
    bundle_days = [bundles for by_day in head.bundles.values() for bundles in by_day.values()]
    bundle_days += [waiting.bundles for by_day in head.pending.values() for waiting in by_day.values()]
    for bundles in bundle_days:
        buckets = await read_buckets(store, bundles) if bundles.erasures < seq else []
        if buckets is None:
            problems.append(f"a directory of bundles cannot be read; materialize its day: {bundles.directory.key}")
        elif any(bucket.find(entity) for bucket in buckets):
            problems.append(f"a named object still holds it: {bundles.directory.key}")
    return _Built(tuple(problems), frozenset(vectors), frozenset(later))


def _verdict(key: str, stored: bytes, entity: str, receipt: Receipt) -> str:
    """Of an object that the newest manifest does not name: `none`, `later`, `unnamed`, or what is wrong."""
    try:
        if not mentions(key, stored, entity):
            return "none"
    except zstandard.ZstdError:
        return "unnamed"  # damaged: nobody knows
    match parse(key):
        case LogKey(number=number):
            return "later" if number > receipt.log_number else "a log batch still holds it"
        case ManifestKey(version=version):
            return "none" if version >= receipt.snapshots_from else "an ended manifest still names it"
        case LatestKey():
            return "none" if decode(stored).version >= receipt.snapshots_from else "a stale hint names it; collect"
        case LandingKey():
            return "a landing file holds it; delete the file"
        case _:
            return "unnamed"


async def _telling(
    store: Store, datasets: Mapping[ShardKey, Sequence[str]], entity: str, later: Collection[str]
) -> list[ShardKey]:
    """Those datasets (shard -> paths of its files) that tell of the entity, but for `later`."""
    asked = [(shard, paths) for shard, paths in datasets.items() if str(shard) not in later]
    return [shard for shard, paths in asked if await _tells_of(store, shard, paths, entity)]


async def _tells_of(store: Store, shard: ShardKey, paths: Sequence[str], entity: str) -> bool:
    """Whether a record of a dataset is of the entity. Lance compresses names, so the dataset is opened; of one that is
    damaged, or of which a build wrote a part, the bytes are searched."""
    stored: dict[str, bytes] = {}

    async def read(key: str, file: FileRef) -> bytes:
        stored[key] = await store.get(key)
        return stored[key]

    files = tuple(FileRef(path=path, bytes=0, sha256="") for path in sorted(paths))
    ref = VectorRef(key=str(shard), digest="", files=files, dim=0, model="")
    try:
        async with unpacked(ref, read) as folder:
            if any(path.startswith("_versions/") for path in paths):
                return await asyncio.to_thread(vector_shard.tells_of, folder, dataset_name(ref.key), entity)
    except Unavailable:
        raise
    except (PlaneError, OSError, RuntimeError, ValueError):  # lancedb passes Lance's errors on as any of these
        pass
    return any(mentions(key, data, entity) for key, data in stored.items())


def mentions(key: str, stored: bytes, entity: str) -> bool:
    """Whether an object's key or content holds the entity's id."""
    typed = parse(key)
    if isinstance(typed, SegmentKey):
        return typed.entity_part == entity_part(entity)
    if isinstance(typed, ShardFileKey) or (isinstance(typed, ShardKey) and typed.kind == "fulltext"):
        raw = entity.encode()
        return len(raw) >= OPAQUE_NAME_BYTES_MIN and raw in stored
    return orjson.dumps(entity) in contents(stored)


def contents(stored: bytes) -> bytes:
    """The uncompressed bytes of anything this layout writes: packs, frames one after another, or plain JSON."""
    frames = stored.removeprefix(MAGIC)
    if frames == stored and not stored.startswith(zstandard.FRAME_HEADER):
        return stored
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(frames), read_across_frames=True) as reader:
        return bytes(reader.read(CONTENT_BYTES_MAX))
