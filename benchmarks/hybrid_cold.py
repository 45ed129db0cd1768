"""One entity's 30 days, hybrid, from a far store and empty caches; the query vector given, and from text alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.cold import STALL, Case, measure, queries, searches
from benchmarks.far import world
from benchmarks.scenario import Row

SUMMARY: Final = "entity-scoped hybrid search, 10,000 events, 30 days, 60 ms a request, every cache empty"
SERVICES: Final = 2


def run(*, quick: bool, seed: int) -> Sequence[Row]:
    with world("hybrid_cold", seed=seed, quick=quick) as found:
        asked = found.questions[: queries(quick)]
        cases = [
            Case(f"{query}{stalls}", stall, searches(asked, vector=vector))
            for stalls, stall in (("", 0.0), (", 0.05 % stalls", STALL))
            for query, vector in (("vector given", True), ("from text", False))
        ]
        return measure(found, cases, seed=seed, services=SERVICES)
