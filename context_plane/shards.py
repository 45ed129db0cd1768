"""Shards in the store: the three of a day or a month put there, and read back.

A shard is written once, under a key of its own. One that the manifest names already is named again where its content
is the same and its bytes are whole (`context_plane/reuse.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from context_plane.catalog.manifest import FileRef, ObjectRef, PackRef, VectorRef, object_ref, pack_ref
from context_plane.engine import Engine
from context_plane.errors import Corrupt
from context_plane.index import entity_shard, fulltext_shard, vector_shard
from context_plane.index.rows import F32, U8, Rows
from context_plane.index.scratch import scratch_folder
from context_plane.layout.keys import ShardFileKey, ShardKey, built_id
from context_plane.layout.pack import EncodedPack
from context_plane.model import sha256_hex
from context_plane.reuse import PARALLEL_FILES, same_dataset, same_object
from context_plane.store.base import Store
from context_plane.store.pieces import Pieces

ReadFile: TypeAlias = Callable[[str, FileRef], Awaitable[bytes]]
"""(key, file) -> the stored bytes of one file of a dataset."""
UNREAD: Final = ("_transactions/", "_versions/latest_version_hint.json")
"""Files of a dataset that only its writers need: half of the requests for a small one."""


# --- writing ------------------------------------------------------------------------------------


async def put_vectors(
    engine: Engine,
    tenant: str,
    period: str,
    columns: Rows,
    vectors: F32,
    digests: U8,
    *,
    before: VectorRef | None = None,
    seen: Collection[str] = (),
) -> VectorRef:
    """Write the vector shard of a day or month: float32 [N, D] and text digests [N, 16] of the columns' rows. `before`
    is named again where it is the same; `seen`: paths of its files that were just found whole."""
    model = engine.embedder.model
    digest = await asyncio.to_thread(vector_shard.content_digest, vectors, digests, model=model)
    held = await same_dataset(engine.store, before, digest, seen=seen)
    if held is not None:
        return held
    key = ShardKey(tenant, "vector", period, built_id(digest, engine.nonce()))
    name = dataset_name(str(key))
    with scratch_folder() as folder:
        least = vector_shard.ANN_ROWS_MIN
        write = partial(vector_shard.write_dataset, ann_rows_min=least)
        paths = await asyncio.to_thread(write, folder, name, columns, vectors, digests)
        files = await asyncio.gather(*(_put_file(engine, key, folder / f"{name}.lance", path) for path in paths))
        ann = vectors.shape[0] >= least and await asyncio.to_thread(vector_shard.has_ann_index, folder, name)
    return VectorRef(key=str(key), digest=digest, files=tuple(files), dim=engine.embedder.dim, model=model, ann=ann)


async def _put_file(engine: Engine, key: ShardKey, dataset: Path, path: Path) -> FileRef:
    data = await asyncio.to_thread((dataset / path).read_bytes)
    await engine.store.put_new(str(ShardFileKey(key, path.as_posix())), data)
    return FileRef(path=path.as_posix(), bytes=len(data), sha256=sha256_hex(data))


async def put_entities(
    engine: Engine, tenant: str, period: str, encoded: EncodedPack, *, before: PackRef | None = None
) -> PackRef:
    """Write the entity shard of a day or month. `before` is named again where it is the same."""
    held = await same_object(engine.store, before, encoded.digest)
    if held is not None:
        return held
    key = str(ShardKey(tenant, "entity", period, built_id(encoded.digest, engine.nonce())))
    await engine.store.put_new(key, encoded.stored)
    return pack_ref(key, encoded)


async def put_fulltext(
    engine: Engine, tenant: str, period: str, columns: Rows, *, before: ObjectRef | None = None
) -> ObjectRef:
    """Write the full-text shard of a day or month. `before` is named again where it is the same."""
    digest = await asyncio.to_thread(fulltext_shard.content_digest, columns)
    held = await same_object(engine.store, before, digest)
    if held is not None:
        return held
    with scratch_folder() as scratch:
        stored = await asyncio.to_thread(fulltext_shard.build, columns, scratch)
    key = str(ShardKey(tenant, "fulltext", period, built_id(digest, engine.nonce())))
    await engine.store.put_new(key, stored)
    return object_ref(key, stored, digest)


# --- reading ------------------------------------------------------------------------------------


async def read_vectors(ref: VectorRef, read: ReadFile) -> vector_shard.StoredVectors:
    """Vectors and text digests of a stored dataset, fetched whole. Raises `Corrupt` where a file is damaged."""
    async with unpacked(ref, read) as folder:
        return await asyncio.to_thread(vector_shard.read_vectors, folder, dataset_name(ref.key))


@asynccontextmanager
async def unpacked(ref: VectorRef, read: ReadFile) -> AsyncIterator[Path]:
    """A folder with a stored dataset in it, fetched whole, while the context lasts."""
    gate = asyncio.Semaphore(PARALLEL_FILES)
    name = dataset_name(ref.key)
    with scratch_folder() as scratch:

        async def fetch(file: FileRef) -> None:
            async with gate:
                data = await read(f"{ref.key}/{file.path}", file)
            await asyncio.to_thread(_write, scratch / f"{name}.lance" / file.path, data)

        await asyncio.gather(*(fetch(file) for file in ref.files if not file.path.startswith(UNREAD)))
        yield scratch


def from_store(engine: Engine) -> ReadFile:
    """Straight from the store: a build reads a file once."""

    async def read(key: str, file: FileRef) -> bytes:
        data = await engine.store.get(key)
        if await asyncio.to_thread(sha256_hex, data) != file.sha256:
            raise Corrupt("corrupt_object", "a file of a vector shard does not match its recorded digest", key=key)
        return data

    return read


def dataset_name(key: str) -> str:
    """The table name under which lancedb opens a dataset in its parent folder."""
    return Path(key).name.removesuffix(".lance")


def _write(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


async def read_columns(store: Store, ref: PackRef) -> Rows:
    """The columns of a stored entity shard."""
    frame = await store.get_range(ref.key, entity_shard.columns_range(ref.ranges))
    return await asyncio.to_thread(entity_shard.decode_columns, Pieces([frame]))
