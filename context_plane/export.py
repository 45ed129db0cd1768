"""Export: every live event of a cut, day by day, from the system of record and the tail.

Segments hold events exactly as they were acknowledged, vectors included; the tail's writes are applied to
them as a build would, so what comes out, written into an empty tenant, reads the same. A day's segments are read
in runs of entities, the next run while one is taken: memory grows with neither the days nor their entities, but for
the list of one day's segments.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Final

from context_plane.catalog.days import load_day, load_segments
from context_plane.catalog.lists import SegmentEntry
from context_plane.engine import Engine
from context_plane.fold import PARALLEL_SEGMENTS, apply_writes, read_events
from context_plane.model import Event, day_of
from context_plane.recall.ahead import in_order
from context_plane.recall.periods import stored_time
from context_plane.recall.tail_view import TailView
from context_plane.retrieval.snapshots import Snapshot

RUN_BYTES: Final = 4 << 20
"""Stored bytes of the segments read together; decoded they take some ten times that."""
RUNS_AHEAD: Final = 2


def exported_days(cut: Snapshot, view: TailView, since_us: int | None = None, until_us: int | None = None) -> list[str]:
    """Every day with something built or in the tail that the window touches, ascending."""
    manifest = cut.manifest
    built = {*manifest.days, *(day for month in manifest.months.values() for day in month.covered)}
    days = built | {day for by_day in view.latest.values() for day in by_day}
    first = "" if since_us is None else day_of(stored_time(since_us))
    last = "~" if until_us is None else day_of(stored_time(until_us - 1))
    return sorted(day for day in days if first <= day <= last)


async def export_events(
    engine: Engine, cut: Snapshot, view: TailView, *, since_us: int | None = None, until_us: int | None = None
) -> AsyncGenerator[Event, None]:
    """Events of since <= ts < until: by day, then entity, then (ts, id). `view`: of the cut's tail."""
    for day in exported_days(cut, view, since_us, until_us):
        async with aclosing(export_day(engine, cut, view, day)) as events:
            async for event in events:
                if (since_us is None or since_us <= event.ts_us) and (until_us is None or event.ts_us < until_us):
                    yield event


async def export_day(engine: Engine, cut: Snapshot, view: TailView, day: str) -> AsyncGenerator[Event, None]:
    """The day's events, ascending by entity, then (ts, id)."""
    entry = await load_day(engine.store, cut.manifest, day)
    applied = entry.erasures if entry else 0
    built = {
        segment.entity: segment
        for segment in await load_segments(engine.store, entry)
        if not cut.erasures.hides_built(segment.entity, applied)
    }
    touched = {entity for entity, by_day in view.latest.items() if day in by_day}

    async def read(names: Sequence[str]) -> list[Event]:
        entries = [built[name] for name in names if name in built]
        groups = await read_events(engine.store, cut.tenant, day, entries)
        held = {segment.entity: events for segment, events in zip(entries, groups, strict=True)}
        found: list[Event] = []
        for name in names:
            tail = view.latest.get(name, {}).get(day, {})
            found += apply_writes(held.get(name, []), [item.write for item in tail.values()])
        return found

    async with aclosing(in_order(_runs(sorted(built.keys() | touched), built), read, ahead=RUNS_AHEAD)) as runs:
        async for events in runs:
            for event in events:
                yield event


def _runs(names: Sequence[str], built: dict[str, SegmentEntry]) -> Iterator[list[str]]:
    """Consecutive names whose segments have about `RUN_BYTES`. Pure."""
    run: list[str] = []
    size = 0
    for name in names:
        run.append(name)
        size += built[name].bytes if name in built else 0
        if size >= RUN_BYTES or len(run) >= PARALLEL_SEGMENTS:
            yield run
            run, size = [], 0
    if run:
        yield run
