"""Roll up: the shards of one closed calendar month merged into one, so that a long read opens few objects.

The days' entries move from the manifest into one list object that the month names; nothing else of them
changes, so the same rows stay visible through the commit. Guards: every day of the month is still what
the merge read (a day published meanwhile would lose its rows), its vectors are of the tenant's model still, and
no tombstone came since. While an
erasure is under way the month waits: a month has one `erasures` count for all of its days, and days built
before and after a tombstone cannot share one.

A day that gets late writes afterwards becomes an open day again; its publish masks it in the month, and
rolling up again takes it back in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, Literal, TypeAlias

from context_plane.catalog import guards
from context_plane.catalog.head import commit, load_head
from context_plane.catalog.lists import decode_days, encode_days
from context_plane.catalog.manifest import DayEntry, Manifest, MonthEntry, ObjectRef, Shards, object_ref
from context_plane.engine import Engine
from context_plane.errors import Conflict, Invalid
from context_plane.layout.keys import ListKey, built_id
from context_plane.model import day_start_us
from context_plane.store.base import Store

Merge: TypeAlias = Callable[[Mapping[str, DayEntry]], Awaitable[Shards]]
"""Day -> entry, every one with shards, ascending by day; writes the month's shards and names them."""

GRACE_US: Final = 24 * 3600 * 1_000_000
"""After a month's end: its last day's events still arrive, and every one would open that day again."""

MonthState: TypeAlias = Literal["due", "current", "empty", "rolled_up", "dirty", "erasing"]
"""Whether to roll a month up, or why not."""

MEANINGS: Final[Mapping[MonthState, str]] = {
    "due": "the month's days are built and it can be rolled up",
    "current": "the month is not over, or has been for less than a day",
    "empty": "nothing of the month is built",
    "rolled_up": "the month is rolled up and no day changed since",
    "dirty": "days of the month have writes that are not built yet; build them first",
    "erasing": "an erasure is under way; the month is rolled up once it is complete",
}


def month_state(manifest: Manifest, dirty: Collection[str], month: str, now_us: int) -> MonthState:
    """`dirty`: days with uncovered writes. Pure. Raises `Invalid(query_invalid)` for a malformed month."""
    open_days = [entry for day, entry in manifest.days.items() if day.startswith(month)]
    if month_end_us(month) + GRACE_US > now_us:
        return "current"
    if any(day.startswith(month) for day in dirty):
        return "dirty"
    if not open_days:
        return "rolled_up" if month in manifest.months else "empty"
    if month not in manifest.months and not any(entry.shards for entry in open_days):
        return "empty"
    return "erasing" if manifest.tombstones else "due"


async def roll_up(engine: Engine, tenant: str, month: str, *, merge: Merge, damaged: bool = False) -> Manifest:
    """Roll `month` (`YYYY-MM`) up; returns the manifest. Nothing to do (no open day) commits nothing, unless the
    month's shards are `damaged`: then they are merged again.

    Raises `Invalid(query_invalid)` for a month that is not over, `Conflict(build_stale)` while an erasure is
    under way and when a day changed meanwhile: roll up again later.
    """
    started_us = engine.now_us()
    if month_end_us(month) > started_us:
        raise Invalid("query_invalid", "a month is rolled up once it is over", month=month)
    head = await load_head(engine.store, tenant)
    before = month_sources(head, month)
    days = await load_month(engine.store, head, month)
    with_rows = {day: entry for day, entry in days.items() if entry.shards is not None}
    if not with_rows or not (damaged or any(day.startswith(month) for day in head.days)):
        return head
    check_applied(head, days)
    shards = await merge(with_rows)
    stored, digest = encode_days(days)
    key = str(ListKey(tenant, month, built_id(digest, engine.nonce())))
    await engine.store.put_new(key, stored)
    rolled = MonthEntry(
        shards=shards,
        days=object_ref(key, stored, digest),
        covered={day: entry.covered for day, entry in days.items()},
        sources={day: entry.fingerprint for day, entry in days.items()},
        contents={day: entry.content for day, entry in days.items()},
        erasures=head.erasures,
        built_us=started_us,
    )

    def mutate(manifest: Manifest) -> Manifest:
        guards.young_build(engine.now_us(), started_us)
        guards.same_erasures(manifest, head.erasures)
        same_month(manifest, month, before)
        same_model(manifest, head)
        open_days = {day: entry for day, entry in manifest.days.items() if not day.startswith(month)}
        return manifest.model_copy(update={"days": open_days, "months": {**manifest.months, month: rolled}})

    return await commit(engine, tenant, mutate)


def month_end_us(month: str) -> int:
    """First microsecond after a month `YYYY-MM`. Raises `Invalid(query_invalid)` for a malformed one."""
    day_start_us(f"{month}-01")
    year, number = int(month[:4]), int(month[5:])
    return day_start_us(f"{year + number // 12:04d}-{number % 12 + 1:02d}-01")


def month_sources(manifest: Manifest, month: str) -> dict[str, str]:
    """What every built day of the month is made of: another answer at the commit means another month."""
    rolled = manifest.months.get(month)
    names = {day for day in manifest.days if day.startswith(month)} | set(rolled.covered if rolled else ())
    return {day: manifest.sources(day) for day in names}


def same_month(manifest: Manifest, month: str, before: Mapping[str, str]) -> None:
    if month_sources(manifest, month) != before:
        raise Conflict("build_stale", "a day of the month was published meanwhile; roll up again", month=month)


def same_model(manifest: Manifest, head: Manifest) -> None:
    """A re-embedding changes the shards of every day and none of its sources."""
    if manifest.model != head.model:
        raise Conflict("build_stale", "the tenant was embedded again meanwhile; roll up again")


def check_applied(manifest: Manifest, days: Mapping[str, DayEntry]) -> None:
    """Every live tombstone was applied by every day, or the merged month could not say which it applied."""
    newest = max((stone.seq for stone in manifest.tombstones), default=0)
    if any(entry.erasures < newest for entry in days.values()):
        raise Conflict("build_stale", "an erasure is under way; roll up when it is complete")


async def load_month(store: Store, manifest: Manifest, month: str) -> dict[str, DayEntry]:
    """Entries of every built day of the month, ascending: open days, and those the month already holds."""
    rolled = manifest.months.get(month)
    held = await load_rolled(store, rolled.days, masked=rolled.masked) if rolled else {}
    days = {day: entry for day, entry in manifest.days.items() if day.startswith(month)}
    return dict(sorted((held | days).items()))


async def load_rolled(store: Store, ref: ObjectRef, *, masked: tuple[str, ...]) -> dict[str, DayEntry]:
    return {day: entry for day, entry in decode_days(await store.get(ref.key)).items() if day not in masked}
