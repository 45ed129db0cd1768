"""Lookback: the blocks of many periods entity by entity, in memory that does not grow with the entities.

A pack's blocks ascend by entity, so a run of entities is one range of every pack. Each pack is cut at block
boundaries into pieces of about `PIECE_BYTES`, the same ones whichever day looks back at it, so that a disk cache
serves them again; entities are taken in runs whose blocks have about `RUN_BYTES`. Held at once: the pieces of
one run, and some sixteen bytes for each entity of each period.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from context_plane.index.rows import I32, I64, decode_rows
from context_plane.layout.pack import Entry, decode_block
from context_plane.recall.periods import Period
from context_plane.retrieval.columns import Columns
from context_plane.retrieval.reader import Reader
from context_plane.store.base import ByteRange

PIECE_BYTES: Final = 1 << 20
"""Compressed. A quarter of look-backs of 90 days is then a run's share of overlap, and a request is well used."""
RUN_BYTES: Final = 32 << 20
"""Compressed. With the pieces that stand across its edges a run of 90 days holds some 100 MiB at most."""
PARALLEL_PIECES: Final = 64

Held: TypeAlias = list[tuple[Period, Columns]]


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive entities with their blocks, still encoded. `frames`: per entity, (period, frame) in their order."""

    entities: Sequence[str]
    frames: Sequence[Sequence[tuple[Period, memoryview]]]
    held_bytes: int
    """Of all pieces that were read for it."""

    def blocks(self) -> Iterator[tuple[str, Held]]:
        """Each entity, ascending, with its blocks by period. Decodes one entity at a time. Raises `Corrupt`."""
        for entity, frames in zip(self.entities, self.frames, strict=True):
            yield entity, [(period, Columns(decode_rows(decode_block(bytes(frame))))) for period, frame in frames]


@dataclass(frozen=True, slots=True)
class _Places:
    """Where one period's pack has its blocks: n of them, ascending by entity."""

    period: Period
    entity: I32
    """[n] number among the entities of all periods."""
    offset: I64
    length: I64
    piece: I32
    """[n] which of `pieces` holds the block."""
    pieces: Sequence[ByteRange]

    def within(self, first: int, stop: int) -> range:
        """Positions of the blocks of entities first to stop (exclusive)."""
        low, high = np.searchsorted(self.entity, [first, stop]).tolist()
        return range(low, high)


@dataclass(frozen=True, slots=True)
class Look:
    """Every entity of some periods, ascending, and where its blocks lie."""

    names: Sequence[str]
    places: Sequence[_Places]

    def sizes(self) -> I64:
        """[n] bytes of each entity's blocks."""
        sizes = np.zeros(len(self.names), np.int64)
        for place in self.places:
            sizes[place.entity] += place.length
        return sizes


async def look(reader: Reader, periods: Sequence[Period], *, piece_bytes: int | None = None) -> Look:
    """A round of reads, of the directories."""
    return Look(*await _load_places(reader, periods, piece_bytes or PIECE_BYTES))


async def runs(
    reader: Reader, seen: Look, *, begin: int = 0, end: int | None = None, run_bytes: int | None = None
) -> AsyncIterator[Run]:
    """The entities numbered begin to end (exclusive) once, ascending, in runs. A round of reads for each run."""
    names, places = seen.names, seen.places
    held: list[dict[int, bytes]] = [{} for _ in places]
    gate = asyncio.Semaphore(PARALLEL_PIECES)

    async def read(place: _Places, number: int) -> bytes:
        async with gate:
            return await reader.cache.raw(place.period.shards.entity.key, byte_range=place.pieces[number])

    sizes = seen.sizes()[begin:end].tolist()
    for first, stop in _cut(sizes, begin, run_bytes or RUN_BYTES):
        inside = [place.within(first, stop) for place in places]
        for n, (place, span) in enumerate(zip(places, inside, strict=True)):
            wanted = set(place.piece[span.start : span.stop].tolist())
            held[n] = {number: data for number, data in held[n].items() if number in wanted}
        missing = [
            (n, number)
            for n, (place, span) in enumerate(zip(places, inside, strict=True))
            for number in sorted(set(place.piece[span.start : span.stop].tolist()) - held[n].keys())
        ]
        bodies = await asyncio.gather(*(read(places[n], number) for n, number in missing))
        for (n, number), body in zip(missing, bodies, strict=True):
            held[n][number] = body
        yield await asyncio.to_thread(_run, names[first:stop], first, places, inside, held)


async def _load_places(reader: Reader, periods: Sequence[Period], piece_bytes: int) -> tuple[list[str], list[_Places]]:
    """Every entity's name, ascending, and each period's places. Directories are let go one by one."""
    numbers: dict[str, int] = {}
    found: list[tuple[I32, I64, I64]] = []

    def note(entries: Sequence[Entry]) -> None:
        mine = np.fromiter((numbers.setdefault(e.key, len(numbers)) for e in entries), np.int32, len(entries))
        offset = np.fromiter((e.offset for e in entries), np.int64, len(entries))
        found.append((mine, offset, np.fromiter((e.length for e in entries), np.int64, len(entries))))

    for start in range(0, len(periods), PARALLEL_PIECES):
        some = periods[start : start + PARALLEL_PIECES]
        for entries in await asyncio.gather(*(reader.directory(period.shards.entity) for period in some)):
            await asyncio.to_thread(note, entries)

    def place() -> tuple[list[str], list[_Places]]:
        names = sorted(numbers)
        rank = np.zeros(len(names), np.int32)
        rank[[numbers[name] for name in names]] = np.arange(len(names), dtype=np.int32)
        return names, [_place(p, rank[f[0]], f[1], f[2], piece_bytes) for p, f in zip(periods, found, strict=True)]

    return await asyncio.to_thread(place)


def _place(period: Period, entity: I32, offset: I64, length: I64, piece_bytes: int) -> _Places:
    """Pieces begin at the first block at or behind each multiple of `piece_bytes`. Pure."""
    piece = np.zeros(len(entity), np.int32)
    pieces: list[ByteRange] = []
    if len(entity):
        _, starts, piece64 = np.unique(offset // piece_bytes, return_index=True, return_inverse=True)
        piece = piece64.astype(np.int32)
        stops = [*starts[1:].tolist(), len(entity)]
        for first, stop in zip(starts.tolist(), stops, strict=True):
            begin = int(offset[first])
            pieces.append(ByteRange(begin, int(offset[stop - 1] + length[stop - 1]) - begin))
    return _Places(period, entity, offset, length, piece, pieces)


def _cut(sizes: Sequence[int], begin: int, run_bytes: int) -> list[tuple[int, int]]:
    """Entities first to stop (exclusive) of each run: as many as `run_bytes` hold, at least one. `sizes`: of those
    from `begin` on. Pure."""
    cuts, first, total = [], begin, 0
    for n, size in enumerate(sizes, begin):
        if n > first and total + size > run_bytes:
            cuts.append((first, n))
            first, total = n, 0
        total += size
    return [*cuts, (first, begin + len(sizes))] if sizes else []


def _run(
    names: Sequence[str],
    first: int,
    places: Sequence[_Places],
    inside: Sequence[range],
    held: Sequence[dict[int, bytes]],
) -> Run:
    frames: list[list[tuple[Period, memoryview]]] = [[] for _ in names]
    for place, span, pieces in zip(places, inside, held, strict=True):
        views = {number: memoryview(data) for number, data in pieces.items()}
        for at in span:
            number = int(place.piece[at])
            begin = int(place.offset[at]) - place.pieces[number].offset
            frame = views[number][begin : begin + int(place.length[at])]
            frames[int(place.entity[at]) - first].append((place.period, frame))
    return Run(names, frames, sum(len(data) for pieces in held for data in pieces.values()))
