"""Export: every live event of a cut, day by day, from the system of record and the tail.

Segments hold events exactly as they were acknowledged, vectors included; the tail's writes are applied to
them as a build would, so what comes out, written into an empty tenant, reads the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from context_plane.catalog.days import load_day, load_segments
from context_plane.engine import Engine
from context_plane.fold import apply_writes, read_events
from context_plane.model import Event
from context_plane.recall.tail_view import TailView
from context_plane.retrieval.snapshots import Snapshot


def exported_days(cut: Snapshot, view: TailView) -> list[str]:
    """Every day with something built or in the tail, ascending."""
    manifest = cut.manifest
    built = {*manifest.days, *(day for month in manifest.months.values() for day in month.covered)}
    return sorted(built | {day for by_day in view.latest.values() for day in by_day})


async def export_day(engine: Engine, cut: Snapshot, view: TailView, day: str) -> AsyncIterator[Event]:
    """The day's events, ascending by entity, then (ts, id)."""
    entry = await load_day(engine.store, cut.manifest, day)
    applied = entry.erasures if entry else 0
    entries = [
        segment
        for segment in await load_segments(engine.store, entry)
        if not cut.erasures.hides_built(segment.entity, applied)
    ]
    groups = await read_events(engine.store, cut.tenant, day, entries)
    built = {segment.entity: events for segment, events in zip(entries, groups, strict=True)}
    touched = {entity for entity, by_day in view.latest.items() if day in by_day}
    for entity in sorted(built.keys() | touched):
        tail = view.latest.get(entity, {}).get(day, {})
        for event in apply_writes(built.get(entity, []), [item.write for item in tail.values()]):
            yield event
