"""100,000 rows × 384 dimensions: hybrid search of 500 entities in a time range, warm.

1,000 entities in a closed month, rolled up into one shard. Each question names 500 entities of its own and ten
days: some 16,000 rows pass. Vectors are the callers' own.
"""

from __future__ import annotations

from typing import Final

from benchmarks.scenario import Row
from benchmarks.warm import Case, measure

SUMMARY: Final = "100,000 rows × 384 dimensions: hybrid search of 500 entities in a time range, warm"
CASES: Final = (Case("hybrid, 500 entities, 10 days", "hybrid"),)


def run(*, quick: bool, seed: int) -> list[Row]:
    """Two rows over HTTP and two in process for each case, and a row for each peer."""
    return measure("hybrid_filters", CASES, quick=quick, seed=seed)
