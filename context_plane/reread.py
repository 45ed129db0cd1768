"""Reread: what a day's commit would name, and no manifest names yet, is read back from the store and hashed.

A store may alter what it acknowledged, and nothing reads every byte of a shard for months. So each new object is
fetched once more before anybody can be led to it: segments and their list, the entity shard, and the files of a vector
shard that only its writers open. (The other files, and the full-text shard, are hashed by who opens them to count.)
What the published day names already was read so when it was published, and again by the build that names it again
(`context_plane/reuse.py`); it is not hashed here.

Large objects are hashed in pieces: memory is bounded whatever the size of a day.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from context_plane.catalog.days import load_day, load_segments
from context_plane.catalog.head import load_head
from context_plane.catalog.lists import SegmentEntry, decode_segments
from context_plane.catalog.manifest import ObjectRef, VectorRef
from context_plane.errors import Corrupt, NotFound
from context_plane.fold import PARALLEL_SEGMENTS
from context_plane.index.rows import Rows
from context_plane.layout.keys import SegmentKey
from context_plane.layout.segment import decode_lines
from context_plane.model import sha256_hex
from context_plane.shards import UNREAD, read_columns
from context_plane.staging import Staged
from context_plane.store.base import ByteRange, Store

PIECE_BYTES: Final = 32 * 1024 * 1024
"""Fetched and hashed at once: a second of a usual link, so that few requests are made, and little is held."""
DAMAGED: Final = "a staged object is not what was written, or not there; rebuild the day"


@contextmanager
def naming(artefact: str, key: str) -> Iterator[None]:
    """Damage or loss met inside is told with the artefact it is of, and its key unless a part of it is named."""
    try:
        yield
    except (Corrupt, NotFound) as error:
        raise type(error)(error.code, DAMAGED, artefact=artefact, key=error.fields.get("key", key)) from error


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What a staged day holds: its segments, and the columns of its entity shard (None: it has none)."""

    entries: Sequence[SegmentEntry]
    columns: Rows | None


async def reread(store: Store, staged: Staged) -> ReadBack:
    """Read and hash what is new of a staged day, for who counts and compares it.

    Raises `Corrupt` with `artefact` and `key` for the first object that is not what was written, `NotFound` with them
    for one that is not there.
    """
    stage = staged.segments
    manifest = await load_head(store, stage.tenant)
    published = await load_day(store, manifest, stage.day)
    before = None if published is None else published.shards
    entries: list[SegmentEntry] = []
    if stage.segments is not None:
        with naming("segment list", stage.segments.key):
            entries = decode_segments(await read_whole(store, stage.segments))
        with naming("segment list of the day as published", ""):
            known = {(entry.entity, entry.id) for entry in await load_segments(store, published)}
        await _check_segments(store, staged, [entry for entry in entries if (entry.entity, entry.id) not in known])
    if staged.vector.shard is not None and (before is None or staged.vector.shard != before.vector):
        await _check_unread(store, staged.vector.shard)
    shard = staged.entity.shard
    if shard is None:
        return ReadBack(entries, None)
    with naming("entity shard", shard.key):
        if before is None or shard != before.entity:
            await check_object(store, shard.key, shard.bytes, shard.sha256)
        return ReadBack(entries, await read_columns(store, shard))


async def _check_unread(store: Store, ref: VectorRef) -> None:
    """Whoever opens the dataset hashes the others."""
    with naming("vector shard", ref.key):
        for file in ref.files:
            if file.path.startswith(UNREAD):
                await check_object(store, f"{ref.key}/{file.path}", file.bytes, file.sha256)


async def _check_segments(store: Store, staged: Staged, entries: Sequence[SegmentEntry]) -> None:
    """Their content, which is what their entries record."""
    tenant, day = staged.segments.tenant, staged.segments.day
    for start in range(0, len(entries), PARALLEL_SEGMENTS):
        part = entries[start : start + PARALLEL_SEGMENTS]
        stored = await asyncio.gather(*(_segment(store, tenant, day, entry) for entry in part))
        await asyncio.to_thread(_decode, tenant, day, part, stored)


async def _segment(store: Store, tenant: str, day: str, entry: SegmentEntry) -> bytes:
    try:
        return await store.get(entry.key(tenant, day))
    except NotFound as error:
        raise NotFound(error.code, DAMAGED, artefact="segment", key=_told(tenant, day, entry)) from error


def _told(tenant: str, day: str, entry: SegmentEntry) -> str:
    """A segment's key as it is told: names no entity. Pure."""
    return str(SegmentKey(tenant, "…", day, entry.id))


def _decode(tenant: str, day: str, entries: Sequence[SegmentEntry], stored: Sequence[bytes]) -> None:
    for entry, each in zip(entries, stored, strict=True):
        with naming("segment", _told(tenant, day, entry)):
            decode_lines(each, digest=entry.digest)


async def read_whole(store: Store, ref: ObjectRef) -> bytes:
    """The bytes of an object that is held in memory anyway. Raises `Corrupt`."""
    return await read_checked(store, ref.key, ref.sha256)


async def read_checked(store: Store, key: str, sha256: str) -> bytes:
    stored = await store.get(key)
    if await asyncio.to_thread(sha256_hex, stored) != sha256:
        raise Corrupt("corrupt_object", DAMAGED, key=key)
    return stored


async def check_object(store: Store, key: str, size: int, sha256: str) -> None:
    """Read an object of `size` bytes, a piece at a time. Raises `Corrupt` where it is another, `NotFound`."""
    if size <= PIECE_BYTES:
        await read_checked(store, key, sha256)
        return
    digest, found = hashlib.sha256(), 0
    for start in range(0, size, PIECE_BYTES):
        left = size - start
        wanted = PIECE_BYTES if left > PIECE_BYTES else left + 1  # a byte more tells an object that goes on
        piece = await store.get_range(key, ByteRange(start, wanted))
        found += len(piece)
        await asyncio.to_thread(digest.update, piece)
    if found != size or digest.hexdigest() != sha256:
        raise Corrupt("corrupt_object", DAMAGED, key=key)
