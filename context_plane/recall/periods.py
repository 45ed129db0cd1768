"""Which built shards a read touches, and which of their events it may see. Pure.

A period is an open day or a rolled month. Readers hide from it: entities erased since it was built, days of
a month that were opened again, and identities that the tail rewrites or deletes.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from context_plane.catalog.erasures import Erasures
from context_plane.catalog.manifest import Manifest, Shards
from context_plane.index.rows import Rows
from context_plane.model import day_end_us, day_start_us
from context_plane.retrieval.columns import Mask
from context_plane.retrieval.scope import both


@dataclass(frozen=True, slots=True)
class Period:
    """`name` is a day or a month. `masked`: days of the month that are read from elsewhere."""

    name: str
    shards: Shards
    erasures: int
    masked: tuple[str, ...] = ()

    @property
    def is_month(self) -> bool:
        return len(self.name) == len("2026-03")


def periods_of(manifest: Manifest, since_us: int | None, until_us: int | None) -> list[Period]:
    """Shards with an event in `since <= ts < until`, by the time zones the manifest records; ascending."""
    found = [
        Period(day, entry.shards, entry.erasures) for day, entry in manifest.days.items() if entry.shards is not None
    ]
    found += [Period(month, entry.shards, entry.erasures, entry.masked) for month, entry in manifest.months.items()]
    return sorted((p for p in found if _overlaps(p.shards, since_us, until_us)), key=lambda p: p.name)


def days_of(period: Period) -> list[str]:
    """The days a missing period leaves out: the day itself, or the month's name as `YYYY-MM`."""
    return [period.name]


def live_mask(
    rows: Rows,
    period: Period,
    erasures: Erasures,
    rewritten: Mapping[str, Mapping[str, Collection[str]]],
) -> Mask | None:
    """bool[E], False for hidden events; None when none is. `rewritten`: entity -> day -> ids in the tail."""
    mask: Mask | None = None
    if period.erasures < erasures.newest:
        hidden = np.fromiter(
            (erasures.hides_built(name, period.erasures) for name in rows.entities), np.bool_, len(rows.entities)
        )
        if hidden.any():
            mask = ~hidden[rows.event_entity]
    for day in period.masked:
        outside = (rows.event_ts_us < day_start_us(day)) | (rows.event_ts_us >= day_end_us(day))
        mask = both(mask, outside)
    touched = [name for name in rewritten if _holds(rows.entities, name)]
    if touched:
        mask = np.ones(rows.event_count, np.bool_) if mask is None else mask
        for name in touched:
            _hide(rows, name, rewritten[name], mask)
    return mask


def _hide(rows: Rows, entity: str, by_day: Mapping[str, Collection[str]], mask: Mask) -> None:
    code = bisect.bisect_left(rows.entities, entity)
    start, stop = np.searchsorted(rows.event_entity, [code, code + 1])
    for day, ids in by_day.items():
        first, last = day_start_us(day), day_end_us(day)
        for event in range(int(start), int(stop)):
            if rows.ids[event] in ids and first <= rows.event_ts_us[event] < last:
                mask[event] = False


def _holds(names: tuple[str, ...], name: str) -> bool:
    at = bisect.bisect_left(names, name)
    return at < len(names) and names[at] == name


def _overlaps(shards: Shards, since_us: int | None, until_us: int | None) -> bool:
    return (until_us is None or shards.first_ts_us < until_us) and (since_us is None or shards.last_ts_us >= since_us)
