"""Partitions: UTC days, and for rollups the months they lie in. Tenants are none: tenant × day would pass 100,000 keys.

Days reach as far ahead as events may lie, so every acknowledged event has a partition, unless it is older
than the first day, which the environment may move.
"""

from __future__ import annotations

import os
from typing import Final

import dagster as dg

from context_plane.model import day_start_us
from context_plane.wire import HORIZON_US

GROUP: Final = "plane"
"""One group: the lineage page opens on every asset and its state."""
START_VARIABLE: Final = "CONTEXT_PLANE_FIRST_DAY"
START_DEFAULT: Final = "2000-01-01"
"""Older than the systems that context comes from; ten thousand keys, a tenth of what Dagster bears."""
DAY_US: Final = 86_400_000_000
DAYS_AHEAD: Final = 1 + HORIZON_US // DAY_US
"""Today, and as many days as the horizon of event times has."""


def daily_partitions(first_day: str | None = None) -> dg.DailyPartitionsDefinition:
    """Days from `first_day` (default: the environment's) to the horizon. Raises `Invalid` for a malformed day."""
    start = first_day or os.environ.get(START_VARIABLE) or START_DEFAULT
    day_start_us(start)
    return dg.DailyPartitionsDefinition(start_date=start, timezone="UTC", end_offset=DAYS_AHEAD)


def monthly_partitions(first_day: str) -> dg.MonthlyPartitionsDefinition:
    """Months that are over, from that of `first_day`; a key is the month's first day."""
    return dg.MonthlyPartitionsDefinition(start_date=f"{first_day[:7]}-01", timezone="UTC")


DAILY: Final = daily_partitions()
"""Shared by every daily asset. Read once, when the code location is loaded."""
MONTHLY: Final = monthly_partitions(DAILY.start.date().isoformat())
