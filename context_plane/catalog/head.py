"""The newest manifest: reading it, and committing the next one.

Commit is a create-only PUT of the next numbered manifest; whoever creates a number owns it. A lost
response looks like a conflict or an error: the commit id read back decides. A retry writes the same
bytes under the same number until that number is known to be taken, so a delayed first attempt can only
become the same commit. The `latest` copy is a hint and never trusted alone.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final, TypeAlias

from context_plane.catalog import guards
from context_plane.catalog.manifest import Manifest, decode, encode
from context_plane.engine import Engine
from context_plane.errors import Conflict, NotFound, PlaneError, Unavailable
from context_plane.layout.keys import LatestKey, ManifestKey, manifests_prefix, parse
from context_plane.store.base import Store

COMMIT_ATTEMPTS_MAX: Final = 200
"""Races lost in a row before a committer gives up; eight committers lose far fewer."""
LOST_RESPONSES_MAX: Final = 5
"""Attempts to learn what became of one create."""

HEAD_READS_MAX: Final = 5
"""Each further read means an erasure ended the version between its listing and its reading."""

Mutation: TypeAlias = Callable[[Manifest], Manifest]


async def newest_version(store: Store, tenant: str) -> int:
    """The newest committed version, 0 when there is none. One LIST of one key."""
    async for info in store.list(manifests_prefix(tenant), limit=1):
        key = parse(info.key)
        if isinstance(key, ManifestKey):
            return key.version
    return 0


async def load_version(store: Store, tenant: str, version: int) -> Manifest:
    """Raises `NotFound`: `snapshot_not_found` when collected or never made, `snapshot_erased` when redacted."""
    if version == 0:
        return Manifest(tenant=tenant)
    try:
        manifest = decode(await store.get(str(ManifestKey(tenant, version))))
    except NotFound as error:
        raise NotFound(
            "snapshot_not_found", "no such manifest; ask for the current snapshot", version=version
        ) from error
    if manifest.redacted:
        raise snapshot_erased(version)
    return manifest


def snapshot_erased(version: int) -> NotFound:
    detail = "the snapshot was ended by an erasure; ask for the current one"
    return NotFound("snapshot_erased", detail, version=version)


async def load_snapshot(store: Store, head: Manifest, version: int) -> Manifest:
    """The manifest of a pinned snapshot. The tombstones that hide its rows are those of `head`, the newest.

    Raises `NotFound(snapshot_erased)` when an erasure ended it, `NotFound(snapshot_not_found)` when it was
    collected or never made.
    """
    if version == head.version:
        return head
    if version < head.snapshots_from:
        raise snapshot_erased(version)
    return await load_version(store, head.tenant, version)


async def load_hint(store: Store, tenant: str) -> Manifest | None:
    try:
        return decode(await store.get(str(LatestKey(tenant))))
    except NotFound:
        return None


async def load_head(store: Store, tenant: str, *, known: Manifest | None = None) -> Manifest:
    """The newest manifest, strongly. `known` saves the GET when it is still the newest."""
    if known is None:
        known, version = await asyncio.gather(load_hint(store, tenant), newest_version(store, tenant))
    else:
        version = await newest_version(store, tenant)
    for _ in range(HEAD_READS_MAX):
        if known is not None and known.version == version:
            return known
        try:
            return await load_version(store, tenant, version)
        except NotFound:  # superseded and redacted or collected since it was listed
            version = await newest_version(store, tenant)
    raise Unavailable("store_unavailable", "the newest manifest changes faster than it can be read; retry")


async def commit(engine: Engine, tenant: str, mutate: Mutation, *, known: Manifest | None = None) -> Manifest:
    """Apply `mutate` to the newest manifest and make the result the newest. Returns what was committed.

    `mutate` is pure and may run several times; a guard in it raises `Conflict`, which ends the commit.
    Returning its argument unchanged commits nothing. Raises `Conflict(commit_conflict)` after too many
    lost races, `Unavailable` when the fate of the write could not be learned.
    """
    head = known
    for attempt in range(COMMIT_ATTEMPTS_MAX):
        read_at = engine.monotonic_s()
        head = await load_head(engine.store, tenant, known=head)
        wanted = mutate(head)
        if wanted is head:
            return head
        proposal = wanted.model_copy(
            update={
                "version": head.version + 1,
                "commit_id": engine.nonce(),
                "committed_us": engine.now_us(),
                "erasure_key": wanted.erasure_key or engine.nonce() + engine.nonce(),
            }
        )
        if await _create(engine, proposal):
            guards.young_knowledge(engine.monotonic_s() - read_at)
            await refresh_hint(engine.store, proposal)
            return proposal
        await asyncio.sleep(_backoff_s(attempt))
    raise Conflict("commit_conflict", "lost too many races for the next manifest; retry", attempts=COMMIT_ATTEMPTS_MAX)


async def _create(engine: Engine, proposal: Manifest) -> bool:
    """True when this proposal is the commit of its number, False when another one is."""
    key, data = str(ManifestKey(proposal.tenant, proposal.version)), encode(proposal)
    for _ in range(LOST_RESPONSES_MAX):
        try:
            await engine.store.put_new(key, data)
        except Conflict:
            return await _is_mine(engine.store, proposal)
        except Unavailable:
            if await newest_version(engine.store, proposal.tenant) >= proposal.version:
                return await _is_mine(engine.store, proposal)
            continue
        return True
    raise Unavailable("store_unavailable", "could not learn whether a commit happened; reread and retry", key=key)


async def _is_mine(store: Store, proposal: Manifest) -> bool:
    """A redacted version keeps its commit id; a collected one is somebody's who is long gone."""
    try:
        there = decode(await store.get(str(ManifestKey(proposal.tenant, proposal.version))))
    except NotFound:
        return False
    return there.commit_id == proposal.commit_id


async def refresh_hint(store: Store, manifest: Manifest) -> None:
    """Rewrite the hint; readers confirm it, so a failure or a race here costs a round trip at most."""
    try:
        await store.put(str(LatestKey(manifest.tenant)), encode(manifest))
    except PlaneError:
        return


def _backoff_s(attempt: int) -> float:
    """Full jitter up to 0.2 s: committers drift apart instead of meeting again."""
    return secrets.randbelow(1000) / 1000 * min(0.005 * 2.0 ** min(attempt, 10), 0.2)
