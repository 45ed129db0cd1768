"""Ranges as units: the dearest work on one large tenant-day, done by many workers before the step that needs it.

A range is told by its number, `2 of 5`: names of entities never leave the store. A range that fails, or whose worker
dies twice, fails its tenant-day under that number, and nothing of the tenant-day is published; the next run finds what
the other ranges staged and makes that one alone (`context_plane/ranges.py`).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, Protocol

from assets.report import Made
from assets.units import UNIT_BYTES, Outcome, Unit, do, in_workers, joined, settings_of_workers
from context_plane.plane import Plane
from context_plane.ranges import RangeDone
from resources.plane import OpenPlane
from resources.workers import Workers

RANGE_BYTES: Final = 4 * 1024 * 1024
"""Of segments whose texts are embedded: some ten thousand events."""
BUNDLE_RANGE_BYTES: Final = UNIT_BYTES
"""Of the blocks that bundles look back at: as much as a unit of several tenants reads."""
RANGES_MAX: Final = 64
"""Of a tenant-day: what waits at once stays small, and a range is worth the directories that each of them reads."""


class RangeWork(Protocol):
    """(plane, tenant, day, number, count) -> what was done. Sent to workers by pickle."""

    async def __call__(self, plane: Plane, tenant: str, day: str, number: int, count: int) -> RangeDone: ...


def count_of(size: int, range_bytes: int) -> int:
    """Ranges to cut so many bytes into. Pure."""
    return min(RANGES_MAX, max(1, math.ceil(size / range_bytes)))


def do_with_ranges(
    opened: OpenPlane,
    workers: Workers,
    tenants: Mapping[str, int],
    counts: Mapping[str, int],
    day: str,
    step: str,
    *,
    range_work: RangeWork,
    work: Callable[..., Awaitable[Made]],
) -> Outcome:
    """The ranges of the tenants that `counts` cuts, then `work(plane, tenant, day, ranges=counts)` on every tenant none
    of whose ranges failed."""
    settings = settings_of_workers(opened.settings)
    units = [
        Unit(settings, step, day, (tenant,), partial(one_range, work=range_work, number=n, count=count), part)
        for tenant, count in sorted(counts.items())
        for n, part in enumerate(f"{n + 1} of {count}" for n in range(count))
    ]
    ahead = in_workers(workers, units)
    lost = {item.tenant for item in ahead.failed}
    left = {tenant: size for tenant, size in tenants.items() if tenant not in lost}
    outcome = do(opened, workers, left, day, step, partial(work, ranges=counts))
    return joined([ahead.only({}), outcome])


async def one_range(plane: Plane, tenant: str, day: str, *, work: RangeWork, number: int, count: int) -> Made:
    await work(plane, tenant, day, number, count)
    return Made("")  # the step itself tells what came of all of them
