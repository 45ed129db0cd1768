"""A whole tenant's 30 days of 10,000 events, hybrid, from a far store and empty caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.cold import Case, measure, queries, searches
from benchmarks.corpus import exact
from benchmarks.far import world
from benchmarks.scenario import Row

SUMMARY: Final = "tenant-wide hybrid search, 30 days of 10,000 events, 60 ms a request, every cache empty"
REST_S: Final = 0.4
"""A question keeps both processors busy for half a second, the emptying included: as long again is rest."""
DEADLINE_MS: Final = 10_000
"""A partial answer would be faster, and another one."""
RECALL_QUESTIONS: Final = 200
"""Of these the answers are held against brute force."""


def run(*, quick: bool, seed: int) -> Sequence[Row]:
    with world("tenant_cold", seed=seed, quick=quick) as found:
        questions = found.questions[: queries(quick)]
        best = exact(found.corpus, questions[:RECALL_QUESTIONS], leg="hybrid", tied=True)
        case = Case("30 days", 0.0, searches(questions, deadline_ms=DEADLINE_MS), best=best)
        return measure(found, [case], seed=seed, services=1, rest_s=REST_S)
