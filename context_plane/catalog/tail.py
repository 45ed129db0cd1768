"""The tail: log batches the manifest does not cover yet.

Headers are read by one bounded range GET per batch, all in parallel, and tell which days are dirty;
bodies are decoded for batches visible to searches. A write of batch n on day D is uncovered while
`n > manifest.covered(D)`. Batches are immutable, so decoded ones are cached by (tenant, number).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final

from context_plane.catalog.log import LogObject, list_log
from context_plane.catalog.manifest import Manifest
from context_plane.errors import Corrupt, NotFound
from context_plane.layout.batch import HEADER_READ_BYTES, BatchHeader, decode_body, decode_header
from context_plane.layout.keys import LogKey
from context_plane.model import Write, identity
from context_plane.store.base import ByteRange, Store

TAIL_OBJECTS_MAX: Final = 64
TAIL_BYTES_MAX: Final = 64 * 1024 * 1024
"""Searched on every strong read, so both bound the cost of freshness; past them ingest answers `tail_full`."""
UNBUILT_OBJECTS_MAX: Final = 4096
"""Batches that wait for a build, bulk loads included: readers list them and read their headers once."""
ORIGIN_BYTES: Final = 256
"""What a request named by a header takes in memory."""
PARALLEL_READS: Final = TAIL_OBJECTS_MAX
"""A full tail is one round of the network."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One log batch. `writes` is None until its body is needed."""

    number: int
    header: BatchHeader
    body_offset: int
    body: bytes | None
    """The compressed body when the first read already held all of it."""

    @property
    def held_bytes(self) -> int:
        """What it takes in memory, roughly."""
        return 512 + ORIGIN_BYTES * len(self.header.origins) + len(self.body or b"")


@dataclass(frozen=True, slots=True)
class TailWrite:
    """An uncovered write: `number` and 0-based `line` give the write order."""

    number: int
    line: int
    write: Write


@dataclass(frozen=True, slots=True)
class Tail:
    """Uncovered batches up to `log_number` under one manifest; `writes` are the visible ones, in write order."""

    log_number: int
    batches: tuple[Batch, ...]
    writes: tuple[TailWrite, ...]

    def days(self) -> dict[str, int]:
        """Day -> visible uncovered writes."""
        counts: dict[str, int] = {}
        for item in self.writes:
            day = identity(item.write)[1]
            counts[day] = counts.get(day, 0) + 1
        return counts


BatchCache = MutableMapping[tuple[str, int], Batch]
WritesCache = MutableMapping[tuple[str, int], list[Write]]


async def read_headers(
    store: Store, tenant: str, objects: Iterable[LogObject], cache: BatchCache | None = None
) -> list[Batch]:
    """Headers of the given batches, in order; one parallel round of range GETs for those not cached."""
    gate = asyncio.Semaphore(PARALLEL_READS)

    async def one(item: LogObject) -> Batch:
        if cache is not None and (tenant, item.number) in cache:
            return cache[tenant, item.number]
        async with gate:
            head = ByteRange(0, min(item.bytes, HEADER_READ_BYTES))
            data = bytes(await store.get_range(str(LogKey(tenant, item.number)), head))
        header, offset = decode_header(data)
        whole = len(data) >= offset + header.body_bytes
        batch = Batch(item.number, header, offset, data[offset:] if whole else None)
        if cache is not None:
            cache[tenant, item.number] = batch
        return batch

    return list(await asyncio.gather(*(one(item) for item in objects)))


def check_dense(listed: Sequence[LogObject], floor: int, log_number: int | None) -> None:
    """Numbers are dense, so a gap is a collected batch: the snapshot is over, and a part of it is no answer."""
    last = log_number if log_number is not None else (listed[-1].number if listed else floor)
    if len(listed) != max(0, last - floor):
        detail = "log batches of the snapshot were collected; ask for the current snapshot"
        raise NotFound("snapshot_expired", detail, log=last)


def without_gap(listed: Sequence[LogObject], floor: int) -> list[LogObject]:
    """The batches up to the first number that is not there. Pure.

    Numbers are dense, but a listing of a folder that grows meanwhile may show a batch and miss the one before:
    whoever builds must not count the missed one as covered. Its turn comes with the next build.
    """
    return [item for item, number in zip(listed, itertools.count(floor + 1), strict=False) if item.number == number]


def check_whole(batches: Iterable[Batch]) -> None:
    """Only batches below the floor of every manifest that still counts are redacted: the reader's has ended."""
    for batch in batches:
        if batch.header.redacted:
            raise _ended(batch.number)


def _ended(number: int) -> NotFound:
    return NotFound("snapshot_erased", "an erasure ended the snapshot; reread the newest manifest", batch=number)


async def read_writes(
    store: Store, tenant: str, batch: Batch, cache: WritesCache | None = None, *, day: str | None = None
) -> list[Write]:
    """Every write of a batch (of one day, with `day`), by line. Raises `Corrupt` when the stored body is short."""
    assert cache is None or day is None, "the cache holds whole batches"
    if cache is not None and (tenant, batch.number) in cache:
        return cache[tenant, batch.number]
    body = await read_body(store, tenant, batch)
    writes = await asyncio.to_thread(decode_body, batch.header, body, day=day)
    if cache is not None:
        cache[tenant, batch.number] = writes
    return writes


async def read_body(store: Store, tenant: str, batch: Batch) -> bytes:
    """A batch's compressed writes. Raises `Corrupt` when the stored body is short."""
    body = batch.body
    if body is None:
        key = str(LogKey(tenant, batch.number))
        body = bytes(await store.get_range(key, ByteRange(batch.body_offset, batch.header.body_bytes)))
        if len(body) != batch.header.body_bytes:
            again = bytes(await store.get_range(key, ByteRange(0, HEADER_READ_BYTES)))
            if decode_header(again)[0].redacted:
                raise _ended(batch.number)
            raise Corrupt("corrupt_object", "a log batch is shorter than its header says", number=batch.number)
    return body


def uncovered_days(manifest: Manifest, batch: Batch) -> list[str]:
    """Days of the batch that the manifest does not cover at its number."""
    return [day for day in batch.header.days if batch.number > manifest.covered(day)]


def dirty_days(manifest: Manifest, batches: Iterable[Batch]) -> dict[str, list[Batch]]:
    """Day -> the uncovered batches that touch it, ascending: what there is to build."""
    dirty: dict[str, list[Batch]] = {}
    for batch in batches:
        for day in uncovered_days(manifest, batch):
            dirty.setdefault(day, []).append(batch)
    return dirty


async def load_tail(
    store: Store,
    manifest: Manifest,
    *,
    log_number: int | None = None,
    batch_cache: BatchCache | None = None,
    writes_cache: WritesCache | None = None,
    objects: list[LogObject] | None = None,
) -> Tail:
    """The tail under `manifest`, up to `log_number` (default: the newest). Two rounds: LIST, then GETs.

    `objects`: a listing already made (concurrently with reading the manifest, for instance). One that ends
    before what the manifest has built is made again: it would show a batch on some of its days only.
    Raises `NotFound`: `snapshot_erased` when an erasure ended `manifest` meanwhile, `snapshot_expired` when
    batches of a pinned snapshot were collected.
    """
    tenant = manifest.tenant
    if objects is not None and manifest.covered_max() > (objects[-1].number if objects else 0):
        objects = None
    listed = await list_log(store, tenant, after=manifest.log_floor) if objects is None else objects
    wanted = [o for o in listed if o.number > manifest.log_floor and (log_number is None or o.number <= log_number)]
    check_dense(wanted, manifest.log_floor, log_number)
    batches = await read_headers(store, tenant, wanted, batch_cache)
    check_whole(batches)
    pending = [batch for batch in batches if uncovered_days(manifest, batch)]
    visible = [batch for batch in pending if batch.header.visible == "now"]
    bodies = await asyncio.gather(*(read_writes(store, tenant, batch, writes_cache) for batch in visible))
    writes = tuple(
        TailWrite(batch.number, line, write)
        for batch, body in zip(visible, bodies, strict=True)
        for line, write in enumerate(body)
        if batch.number > manifest.covered(identity(write)[1])
    )
    newest = wanted[-1].number if wanted else (manifest.log_floor if log_number is None else log_number)
    return Tail(newest, tuple(pending), writes)
