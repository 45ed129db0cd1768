"""100,000 rows × 100 dimensions: vector search of a tenant, warm.

1,000 entities in a closed month, rolled up into one shard. Vectors are the callers' own.
"""

from __future__ import annotations

from typing import Final

from benchmarks.scenario import Row
from benchmarks.warm import Case, measure

SUMMARY: Final = "100,000 rows × 100 dimensions: vector search of a tenant, warm"
CASES: Final = (Case("vector", "vector"),)


def run(*, quick: bool, seed: int) -> list[Row]:
    """Two rows over HTTP and two in process for each case, and a row for each peer."""
    return measure("vector_100k", CASES, quick=quick, seed=seed)
