"""Collect: mark what live manifests name, list the rest, fence, mark again, delete. A dry run by default.

A manifest is live while it is the newest or was superseded less than the snapshots' life plus an hour ago
(the hour covers reads that began in time). An object goes when

- no live manifest names it, itself or through a list;
- it is older than 24 h: a build may be writing objects that nothing names yet, and a publish refuses
  builds older than 12 h, so an older unnamed object can not become named;
- except by a committer that was suspended after its last look at its own age. So the collector commits an
  unchanged manifest first (the fence: that committer's number is taken, and it looks again), and marks
  again after it (a commit that came before the fence is seen, and what it names is spared).

Log batches go when the floor of every live manifest is past them, and their age keeps their numbers from
being used again: a writer trusts its knowledge of the newest number for ten minutes only. What their headers say of
who wrote is kept for the audit. The newest manifest never goes, nor anything this layout does not know.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from context_plane.audit import keep_batches
from context_plane.catalog.head import commit, load_head, load_hint, load_version, refresh_hint
from context_plane.catalog.log import LogObject
from context_plane.catalog.manifest import Manifest
from context_plane.catalog.named import NamedCache, named_keys
from context_plane.engine import Engine
from context_plane.errors import Corrupt, NotFound
from context_plane.idempotency import KEEP_US as CLAIM_KEEP_US
from context_plane.layout.keys import (
    BundleDiffKey,
    BundleKey,
    ControlKey,
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
from context_plane.store.base import ObjectInfo, Store

HOUR_US: Final = 3600 * 1_000_000
SNAPSHOT_TTL_US: Final = 24 * HOUR_US
"""Default life of a snapshot after a newer one exists."""
GRACE_US: Final = HOUR_US
"""Reads that began within a snapshot's life end within this."""
AGE_MIN_US: Final = 24 * HOUR_US
"""Twice the greatest age of a build that may publish."""
DELETE_CHUNK: Final = 1000
"""Keys of one bulk delete request of S3."""


@dataclass(frozen=True, slots=True)
class Candidate:
    key: str
    bytes: int
    kind: str
    """Such as `segment`, `shard`, `log`: for the report."""


@dataclass(frozen=True, slots=True)
class CollectPlan:
    """What the first marking and the listing found. `marked`: versions whose names were read."""

    tenant: str
    marked: frozenset[int]
    log_floor: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Tally:
    objects: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class CollectReport:
    """`by_kind`: what was deleted, or would be in a dry run. `spared`: candidates the second marking saved."""

    tenant: str
    dry_run: bool
    by_kind: Mapping[str, Tally]
    spared: int


@dataclass(slots=True)
class _Live:
    """Manifests that count, and what they name."""

    versions: set[int] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    log_floor: int = 0


async def collect(
    engine: Engine, tenant: str, *, dry_run: bool = True, snapshot_ttl_us: int = SNAPSHOT_TTL_US
) -> CollectReport:
    """One collection of one tenant. Raises `NotFound` when an erasure ran into it; collect again."""
    cache: NamedCache = {}
    plan = await plan_collection(engine, tenant, snapshot_ttl_us=snapshot_ttl_us, cache=cache)
    if plan.candidates and not dry_run:
        await fence(engine, tenant)
    doomed = await still_dead(engine, plan, snapshot_ttl_us=snapshot_ttl_us, cache=cache)
    if not dry_run:
        await _keep_audit(engine.store, tenant, doomed)
        for start in range(0, len(doomed), DELETE_CHUNK):
            await engine.store.delete([item.key for item in doomed[start : start + DELETE_CHUNK]])
        await _renew_hint(engine.store, tenant)
    return CollectReport(tenant, dry_run, _tallies(doomed), len(plan.candidates) - len(doomed))


async def _keep_audit(store: Store, tenant: str, doomed: Sequence[Candidate]) -> None:
    """Who wrote the batches that go stays known."""
    keys = [(parse(item.key), item.bytes) for item in doomed]
    await keep_batches(store, tenant, [LogObject(key.number, size, 0) for key, size in keys if isinstance(key, LogKey)])


async def plan_collection(
    engine: Engine, tenant: str, *, snapshot_ttl_us: int = SNAPSHOT_TTL_US, cache: NamedCache | None = None
) -> CollectPlan:
    """Mark and list: every object that is old enough and that no live manifest names."""
    live = await _mark(engine, tenant, snapshot_ttl_us, {} if cache is None else cache)
    listed = [info async for info in engine.store.list(tenant_prefix(tenant))]
    now_us = engine.now_us()
    newest = max(live.versions, default=0)
    candidates = []
    for info in listed:
        kind = _dead_kind(info, live, newest)
        age_min_us = max(AGE_MIN_US, CLAIM_KEEP_US + GRACE_US) if kind == "claim" else AGE_MIN_US
        if kind is not None and now_us - info.modified_us > age_min_us:
            candidates.append(Candidate(info.key, info.size, kind))
    return CollectPlan(tenant, frozenset(live.versions), live.log_floor, tuple(candidates))


async def fence(engine: Engine, tenant: str) -> None:
    """Take the next version, so that every commit begun before has to judge its age anew."""
    await commit(engine, tenant, lambda manifest: manifest.model_copy())


async def still_dead(
    engine: Engine, plan: CollectPlan, *, snapshot_ttl_us: int = SNAPSHOT_TTL_US, cache: NamedCache | None = None
) -> list[Candidate]:
    """The plan's candidates that manifests committed since do not name either."""
    fresh = await _mark(engine, plan.tenant, snapshot_ttl_us, {} if cache is None else cache, known=plan.marked)
    return [item for item in plan.candidates if item.key not in fresh.named]


async def _mark(
    engine: Engine, tenant: str, snapshot_ttl_us: int, cache: NamedCache, known: frozenset[int] = frozenset()
) -> _Live:
    """Live manifests that are not `known`, and what they name."""
    now_us = engine.now_us()
    live = _Live()
    head = await load_head(engine.store, tenant)
    listed = [info async for info in engine.store.list(manifests_prefix(tenant))]
    for version in _live_versions(listed, now_us - snapshot_ttl_us - GRACE_US, head.snapshots_from):
        if version in known:
            continue
        try:
            manifest = head if version == head.version else await load_version(engine.store, tenant, version)
        except NotFound as error:
            if error.code == "snapshot_erased":
                continue
            raise
        live.named |= await named_keys(engine.store, manifest, cache)
        live.log_floor = min(live.log_floor, manifest.log_floor) if live.versions else manifest.log_floor
        live.versions.add(version)
    return live


def _live_versions(listed: Sequence[ObjectInfo], superseded_after_us: int, snapshots_from: int) -> list[int]:
    """Newest first. A version is superseded when the next one that exists was written."""
    written = [(key.version, info.modified_us) for info in listed if isinstance(key := parse(info.key), ManifestKey)]
    if not written or written[-1][0] == 1:
        written.append((0, 0))  # the empty manifest before the first commit: its snapshots read the log alone
    live = [written[0][0]]
    for (_, superseded_us), (version, _) in itertools.pairwise(written):
        if superseded_us >= superseded_after_us and version >= snapshots_from:
            live.append(version)
    return live


def _dead_kind(info: ObjectInfo, live: _Live, newest: int) -> str | None:
    """What kind of garbage an object is, or None when it is alive, a record to keep, or unknown."""
    try:
        key: Key = parse(info.key)
    except Corrupt:
        return None
    match key:
        case ManifestKey(version=version):
            return None if version in live.versions or version >= newest else "manifest"
        case LogKey(number=number):
            return "log" if number <= live.log_floor else None
        case SegmentKey() | ShardKey() | ShardFileKey() | BundleKey() | BundleDiffKey() | ListKey():
            return None if info.key in live.named else _KINDS[type(key)]
        case StagingKey() | PartKey():
            return "staging"
        case ControlKey(tenant=str(), path=path) if path.startswith("idempotency/"):
            return "claim"
        case _:
            return None


_KINDS: Final[Mapping[type, str]] = {
    SegmentKey: "segment",
    ShardKey: "shard",
    ShardFileKey: "shard",
    BundleKey: "bundle",
    BundleDiffKey: "staging",
    ListKey: "list",
}


def _tallies(items: Iterable[Candidate]) -> dict[str, Tally]:
    tallies: dict[str, Tally] = {}
    for item in items:
        before = tallies.get(item.kind, Tally())
        tallies[item.kind] = Tally(before.objects + 1, before.bytes + item.bytes)
    return tallies


async def _renew_hint(store: Store, tenant: str) -> None:
    """A hint written late may be of an ended version, and name what was erased since."""
    head: Manifest = await load_head(store, tenant)
    hint = await load_hint(store, tenant)
    if hint is not None and hint.version != head.version:
        await refresh_hint(store, head)
