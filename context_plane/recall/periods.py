"""Which built shards a read touches, and which of their events it may see. Pure.

A period is an open day or a rolled month. Readers hide from it: entities erased since it was built, days of
a month that were opened again, and identities that the tail rewrites or deletes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from context_plane.catalog.erasures import Erasures
from context_plane.catalog.manifest import Manifest, Shards
from context_plane.model import day_end_us, day_of
from context_plane.retrieval import scope
from context_plane.retrieval.columns import Columns, Mask

LAST_US: Final = day_end_us("9999-12-31") - 1


@dataclass(frozen=True, slots=True)
class Period:
    """`name` is a day or a month, `days` those it answers for. `masked`: days of the month read from elsewhere."""

    name: str
    shards: Shards
    erasures: int
    days: tuple[str, ...]
    masked: tuple[str, ...] = ()

    @property
    def is_month(self) -> bool:
        return len(self.name) == len("2026-03")


def periods_of(manifest: Manifest, since_us: int | None, until_us: int | None) -> list[Period]:
    """Shards with an event in `since <= ts < until`, by the time zones the manifest records; ascending.

    A month whose days of the window all left it is not read.
    """
    first = "" if since_us is None else day_of(stored_time(since_us))
    last = "~" if until_us is None else day_of(stored_time(until_us - 1))
    found = [
        Period(day, entry.shards, entry.erasures, (day,))
        for day, entry in manifest.days.items()
        if entry.shards is not None
    ]
    for month, rolled in manifest.months.items():
        days = tuple(day for day in rolled.covered if day not in rolled.masked)
        if any(first <= day <= last for day in days):
            found.append(Period(month, rolled.shards, rolled.erasures, days, rolled.masked))
    return sorted((p for p in found if _overlaps(p.shards, since_us, until_us)), key=lambda p: p.name)


def live_mask(
    columns: Columns, period: Period, erasures: Erasures, rewritten: Mapping[str, Collection[tuple[str, str]]]
) -> Mask | None:
    """bool[E], False for hidden events; None when none is. `rewritten`: entity -> (day, id)s in the tail."""
    erased: list[str] = []
    if period.erasures < erasures.newest:
        erased = [name for name in columns.rows.entities if erasures.hides_built(name, period.erasures)]
    if not erased and not period.masked and not rewritten:
        return None
    return scope.live_mask(columns, identities=rewritten, entities=erased, days=period.masked)


def stored_time(ts_us: int) -> int:
    """The nearest time an event can have: a window may begin or end before or after all of them."""
    return min(max(ts_us, 0), LAST_US)


def _overlaps(shards: Shards, since_us: int | None, until_us: int | None) -> bool:
    return (until_us is None or shards.first_ts_us < until_us) and (since_us is None or shards.last_ts_us >= since_us)
