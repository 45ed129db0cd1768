"""Since when bundles are stale, read from the manifests that are kept for a day after they were replaced.

The newest manifest says that bundles are stale, not since when: a day that is published every few minutes always looks
as if it had just moved. Once bundles are stale they stay so until they are made again, so the first version that
has them stale is found by halving.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import replace
from typing import TypeAlias

from assets.bundles import is_due, is_stale
from assets.dirt import BUNDLES_JOB, Dirt
from context_plane.bundle.spec import Spec
from context_plane.catalog.head import load_head, load_version
from context_plane.catalog.manifest import Manifest
from context_plane.errors import NotFound
from context_plane.plane import Plane
from context_plane.store.base import Store

Versions: TypeAlias = MutableMapping[int, Manifest | str]
"""Of one tenant: the manifest of each version that was asked for, or the code that says why there is none."""


async def with_ages(plane: Plane, dirt: Iterable[Dirt]) -> list[Dirt]:
    """The same dirt; that of bundles counts from when they became stale, and is left out where it is gone since.
    Backfills are left out too: what they replace is served, and no version of the store says when a file changed.

    Raises `PlaneError` for a tenant that cannot be read.
    """
    store, heads = plane.engine.store, dict[str, Manifest]()
    known: dict[str, Versions] = {}
    specs: dict[str, Mapping[str, Spec]] = {}
    found = []
    for item in dirt:
        if item.backfill:
            continue
        if item.job != BUNDLES_JOB:
            found.append(item)
            continue
        if item.tenant not in heads:
            heads[item.tenant] = await load_head(store, item.tenant)
            specs[item.tenant] = await plane.specs_of(item.tenant)
        head, versions = heads[item.tenant], known.setdefault(item.tenant, {})
        spec = specs[item.tenant].get(item.spec)
        if spec is not None and is_due(head, spec, item.day):
            since_us = await stale_since(store, head, spec, item.day, versions)
            found.append(replace(item, oldest_us=since_us))
    return found


async def stale_since(store: Store, head: Manifest, spec: Spec, day: str, versions: Versions) -> int:
    """Time of the commit that made the bundles of `day` stale, which they are in `head`; microseconds since 1970.

    Where the versions that could tell are collected, they are stale for as long as versions are kept: it counts from
    when they were made. Where an erasure ended them, from the first version that is left.
    """
    held = head.bundles.get(spec.name, {}).get(day)
    fresh, stale, since_us = 0, head.version, head.committed_us
    collected = False
    while stale - fresh > 1:
        middle = (fresh + stale) // 2
        version = await _version(store, head.tenant, middle, versions)
        if isinstance(version, str):
            fresh, collected = middle, version == "snapshot_not_found"
        elif version.bundles.get(spec.name, {}).get(day) == held and is_stale(version, spec, day):
            stale, since_us = middle, version.committed_us
        else:
            fresh, collected = middle, False
    return min(since_us, held.built_us) if collected and held is not None else since_us


async def _version(store: Store, tenant: str, version: int, versions: Versions) -> Manifest | str:
    if version not in versions:
        try:
            versions[version] = await load_version(store, tenant, version)
        except NotFound as error:
            versions[version] = error.code
    return versions[version]
