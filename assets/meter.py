"""What a piece of work costs in full, from its first line to its last: wall clock, and requests to the store.

What workers ask for is counted where they report (`assets/units.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from context_plane.store.counting import Trace, trace


@dataclass(slots=True)
class Meter:
    """`seconds`: of wall clock, once the work has ended."""

    spent: Trace
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.spent.gets} GETs, {self.spent.lists} LISTs"


@contextmanager
def metered() -> Iterator[Meter]:
    """Counts what is done until the exit, in this process and by its workers. No `yield` of a generator in it: whoever
    resumes that may do so in another context."""
    started = time.perf_counter()
    with trace() as spent:
        meter = Meter(spent)
        try:
            yield meter
        finally:
            meter.seconds = time.perf_counter() - started
