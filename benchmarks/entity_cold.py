"""One entity over a day, a month and a year (eleven months merged, the newest one open), from empty caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.cold import STALL, Case, measure, queries, searches
from benchmarks.far import world
from benchmarks.scenario import Row

SUMMARY: Final = "entity-scoped hybrid search over 1, 30 and 365 days, 60 ms a request, every cache empty"
SERVICES: Final = 2
SHAPES: Final = {"entity_cold_1": "1 day", "entity_cold_30": "30 days", "entity_cold_365": "365 days"}
YEAR: Final = {"layout": "closed months, rolled up; the newest in day shards"}


def run(*, quick: bool, seed: int) -> Sequence[Row]:
    rows: list[Row] = []
    for shape, name in SHAPES.items():
        with world(shape, seed=seed, quick=quick) as found:
            asked = searches(found.questions[: queries(quick)])
            more = YEAR if found.corpus.shape.rolled else {}
            cases = [Case(name, 0.0, asked, more), Case(f"{name}, 0.05 % stalls", STALL, asked, more)]
            rows += measure(found, cases, seed=seed, services=SERVICES)
    return rows
