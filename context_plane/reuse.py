"""Reuse: what a manifest names already is named again, where its content is the same and its bytes are whole.

A build makes every content anew, whatever was built before: that is how a newer program reaches old days, and how a
digest comes to be compared with. What it need not do is write it again. Derived state may be deleted or damaged at any
time and a build restores it, so nothing is named again before its bytes were read and hashed: a read is the cheapest
question that a store answers truly (a listing knows names and sizes, no contents), costs less than the write it saves,
and of most objects it is one that the build does anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final, TypeVar

from context_plane.catalog.manifest import ObjectRef, Shards, VectorRef, shard_keys
from context_plane.errors import NotFound
from context_plane.model import sha256_hex
from context_plane.store.base import Store

R = TypeVar("R", bound=ObjectRef)

PARALLEL_FILES: Final = 16
"""Files of a dataset read at once: hides latency; the largest of them is most of the dataset whatever the number."""


async def same_object(store: Store, before: R | None, digest: str) -> R | None:
    """`before`, where it is of this content and stored whole."""
    if before is None or before.digest != digest:
        return None
    return before if await is_whole(store, before.key, before.sha256) else None


async def same_dataset(
    store: Store, before: VectorRef | None, digest: str, *, seen: Collection[str] = ()
) -> VectorRef | None:
    """The same of a vector shard. `seen`: paths of files that were just found whole."""
    if before is None or before.digest != digest:
        return None
    return before if await is_whole_dataset(store, before, seen=seen) else None


async def are_whole(store: Store, shards: Shards) -> bool:
    """Whether every object of three shards is stored as it was written."""
    for ref in (shards.fulltext, shards.entity):
        if not await is_whole(store, ref.key, ref.sha256):
            return False
    return await is_whole_dataset(store, shards.vector)


async def are_there(store: Store, shards: Shards) -> bool:
    """Whether every object of three shards is listed: cheap, and blind for damage."""
    folders = (shards.entity.key, shards.fulltext.key, f"{shards.vector.key}/")
    listed = {info.key for folder in folders async for info in store.list(folder)}
    return listed.issuperset(shard_keys(shards))


async def is_whole_dataset(store: Store, ref: VectorRef, *, seen: Collection[str] = ()) -> bool:
    gate = asyncio.Semaphore(PARALLEL_FILES)

    async def one(path: str, sha256: str) -> bool:
        async with gate:
            return await is_whole(store, f"{ref.key}/{path}", sha256)

    return all(await asyncio.gather(*(one(file.path, file.sha256) for file in ref.files if file.path not in seen)))


async def is_whole(store: Store, key: str, sha256: str) -> bool:
    """Whether an object is there and its bytes are those recorded."""
    try:
        stored = await store.get(key)
    except NotFound:
        return False
    return await asyncio.to_thread(sha256_hex, stored) == sha256
