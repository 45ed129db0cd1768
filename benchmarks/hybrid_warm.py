"""10,000 rows × 256 dimensions: hybrid search of a tenant, warm; from vectors and from text alone.

200 entities over 30 day shards, as the days of an open month lie. Vectors are of the default model. Twice: the
query's vector given, and from its text alone, embedding included.
"""

from __future__ import annotations

from typing import Final

from benchmarks.scenario import Row
from benchmarks.warm import Case, measure

SUMMARY: Final = "10,000 rows × 256 dimensions: hybrid search of a tenant, warm; from vectors and from text alone"
CASES: Final = (Case("hybrid, vector given", "hybrid"), Case("hybrid, from text", "hybrid", embedded=True))


def run(*, quick: bool, seed: int) -> list[Row]:
    """Two rows over HTTP and two in process for each case, and a row for each peer."""
    return measure("hybrid_warm", CASES, quick=quick, seed=seed)
