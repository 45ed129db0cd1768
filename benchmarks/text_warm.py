"""10,000 rows: text search of a tenant, warm.

200 entities over 30 day shards, as the days of an open month lie.
"""

from __future__ import annotations

from typing import Final

from benchmarks.scenario import Row
from benchmarks.warm import Case, measure

SUMMARY: Final = "10,000 rows: text search of a tenant, warm"
CASES: Final = (Case("text", "text"),)


def run(*, quick: bool, seed: int) -> list[Row]:
    """Two rows over HTTP and two in process for each case, and a row for each peer."""
    return measure("text_warm", CASES, quick=quick, seed=seed)
