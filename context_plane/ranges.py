"""Ranges: the dearest pure work on a large tenant-day, cut by entities, so that many workers share it.

A range is done by whoever is given its number, and what was made of it is staged as one object whose key says what it
was made of. The step that needs it takes from there what it finds and makes the rest itself: where a day was cut, how
often, in which order, and what of it was lost changes no byte of what is published. Nothing is made twice, whoever asks
again, and references are all that units exchange.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

import context_plane
from context_plane.catalog.days import load_day, load_segments
from context_plane.catalog.head import load_head
from context_plane.catalog.lists import SegmentEntry
from context_plane.engine import Engine
from context_plane.errors import Corrupt, NotFound
from context_plane.fold import read_events
from context_plane.index import blocks
from context_plane.index.rows import DIGEST_BYTES, F32
from context_plane.layout.compression import compress, decompress
from context_plane.layout.keys import PartKey
from context_plane.model import Event, canonical_json, sha256_hex
from context_plane.reindex import EMBED_ROWS, known_vectors
from context_plane.staging import SegmentsStage, load_segments_stage
from context_plane.store.base import Store

VECTORS: Final = "vectors"
PART_BYTES_MAX: Final = 1 << 30
"""Uncompressed, of one staged part: far more than a range of the size that asks for workers comes to."""
PARALLEL_PARTS: Final = 8
_HEAD: Final = 8
"""Rows and dimension, 4 bytes each, little endian: then text digests uint8 [N, 16], vectors float32 [N, D]."""


@dataclass(frozen=True, slots=True)
class RangeDone:
    """`made`: texts embedded, or bundles made. `objects`, `bytes`: written; none where the range was done before."""

    made: int = 0
    objects: int = 0
    bytes: int = 0


def _program() -> str:
    """Digest of this package's sources: some milliseconds."""
    digest = hashlib.sha256()
    folder = Path(context_plane.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:32]


PROGRAM: Final = _program()
"""What one program staged, another does not take: a mended one makes all anew. Digested at the start: the sources of a
checkout may change under a process."""


def cut(sizes: Sequence[int], count: int) -> list[tuple[int, int]]:
    """At most `count` ranges [first, stop) of about the same size, none of them empty, that cover all in turn. Pure."""
    ends = np.cumsum(np.maximum(np.asarray(sizes, np.int64), 1))
    if not len(ends):
        return []
    wanted = np.arange(1, count) * int(ends[-1]) // count
    inner = np.searchsorted(ends, wanted, side="left") + 1
    edges = sorted({0, len(ends), *(int(edge) for edge in inner if edge < len(ends))})
    return list(itertools.pairwise(edges))


# --- vectors ------------------------------------------------------------------------------------


async def embed_range(engine: Engine, tenant: str, day: str, number: int, count: int) -> RangeDone:
    """Embed the texts of range `number` of `count` of the staged day, and stage their vectors. Nothing where it was
    done before, or the day has fewer ranges."""
    stage = await load_segments_stage(engine.store, tenant, day)
    entries = await unembedded(engine, stage)
    spans = cut([entry.bytes for entry in entries], count)
    if number >= len(spans):
        return RangeDone()
    some = entries[slice(*spans[number])]
    key = _vectors_key(engine, tenant, day, some)
    if await load_part(engine.store, key) is not None:
        return RangeDone()
    events = [event for group in await read_events(engine.store, tenant, day, some) for event in group]
    known, _ = await known_vectors(engine, stage)
    texts = await asyncio.to_thread(_texts, events)
    missing = {digest: text for digest, text in texts.items() if digest not in known}
    vectors = np.zeros((len(missing), engine.embedder.dim), np.float32)
    wanted = list(missing.values())
    for start in range(0, len(wanted), EMBED_ROWS):
        vectors[start : start + EMBED_ROWS] = await engine.embedder.embed_documents(wanted[start : start + EMBED_ROWS])
    size = await save_part(engine.store, key, _encoded(list(missing), vectors))
    return RangeDone(made=len(missing), objects=1, bytes=size)


async def vectors_ahead(engine: Engine, tenant: str, day: str, count: int) -> dict[bytes, F32]:
    """Vectors by text digest of what is staged of the day's ranges."""
    stage = await load_segments_stage(engine.store, tenant, day)
    entries = await unembedded(engine, stage)
    gate = asyncio.Semaphore(PARALLEL_PARTS)
    found: dict[bytes, F32] = {}

    async def one(some: Sequence[SegmentEntry]) -> None:
        async with gate:
            raw = await load_part(engine.store, _vectors_key(engine, tenant, day, some))
        if raw is not None:
            found.update(_decoded(raw))

    await asyncio.gather(*(one(entries[slice(*span)]) for span in cut([entry.bytes for entry in entries], count)))
    return found


async def unembedded(engine: Engine, stage: SegmentsStage) -> list[SegmentEntry]:
    """The staged day's segments whose texts may lack vectors: those that the published day of this model has not."""
    if stage.segments is None:
        return []
    staged = await load_segments(engine.store, stage)
    manifest = await load_head(engine.store, stage.tenant)
    before = await load_day(engine.store, manifest, stage.day)
    if before is None or before.shards is None or before.shards.vector.model != engine.embedder.model:
        return staged
    if not any([info async for info in engine.store.list(f"{before.shards.vector.key}/", limit=1)]):
        return staged  # somebody deleted the indexes
    held = {(entry.entity, entry.digest) for entry in await load_segments(engine.store, before)}
    return [entry for entry in staged if (entry.entity, entry.digest) not in held]


def _texts(events: Sequence[Event]) -> Mapping[bytes, str]:
    """Texts to embed by their digest, each once."""
    digests = blocks.row_text_digests(events)
    wanted = [digest.tobytes() for digest in digests[digests.any(axis=1)]]
    return dict(zip(wanted, blocks.rows_to_embed(events), strict=True))


def _vectors_key(engine: Engine, tenant: str, day: str, some: Sequence[SegmentEntry]) -> str:
    made_of = [engine.embedder.model, engine.embedder.dim, [entry.digest for entry in some]]
    return str(PartKey(tenant, day, VECTORS, sha256_hex(canonical_json(made_of))[:32]))


def _encoded(digests: Sequence[bytes], vectors: F32) -> bytes:
    head = len(digests).to_bytes(4, "little") + vectors.shape[1].to_bytes(4, "little")
    return b"".join([head, *digests, np.ascontiguousarray(vectors, "<f4").tobytes()])


def _decoded(raw: bytes) -> dict[bytes, F32]:
    count, dim = int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:_HEAD], "little")
    behind = _HEAD + count * DIGEST_BYTES
    vectors = np.frombuffer(raw, "<f4", count * dim, behind).reshape(count, dim)
    return {raw[_HEAD + n * DIGEST_BYTES : _HEAD + (n + 1) * DIGEST_BYTES]: vectors[n] for n in range(count)}


# --- parts --------------------------------------------------------------------------------------


async def load_part(store: Store, key: str) -> bytes | None:
    """What was staged; None where nothing was, or it is damaged: then it is made again."""
    try:
        return await asyncio.to_thread(decompress, await store.get(key), size_max=PART_BYTES_MAX)
    except (NotFound, Corrupt):
        return None


async def save_part(store: Store, key: str, raw: bytes) -> int:
    """Bytes stored. The same key holds the same content, whoever writes it."""
    stored = await asyncio.to_thread(compress, raw)
    await store.put(key, stored)
    return len(stored)
