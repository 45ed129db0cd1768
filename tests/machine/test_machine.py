"""The laws under any interleaving: every journey, every crash, every lost response, beside a dict oracle.

Seen to fail: `test_guards.py` removes each guard in turn and finds the loss. The machine itself found, among
others: an erasure resumed twice at once that erased a new life; a segment list reused because its digest
was equal while it named an erased object; a snapshot of the empty manifest that lost its log batches.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from context_plane.reindex import build_day
from tests.machine.journeys import index_real
from tests.machine.machine import run_schedule

SCHEDULES = 500
LONG_STEPS = 600


@settings(
    max_examples=SCHEDULES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(20, 170))
def test_laws_hold_under_any_schedule(seed: int, steps: int) -> None:
    """Acknowledged is durable and visible, every event exactly once, pinned snapshots read the same, erased is
    absent, a collection deletes garbage only, and a rebuild in another order has the same digests."""
    run_schedule(seed, steps=steps)


def test_laws_hold_on_long_schedules() -> None:
    """Few but long: states that need many commits, erasures and collections in a row."""
    for seed in range(8):
        counts = run_schedule(seed, steps=LONG_STEPS)
        assert counts["reads"] > 5
        assert counts["append"] > 20


def test_laws_hold_over_the_real_indexes() -> None:
    """A small share with entity, full-text and vector shards as they are built in earnest."""
    for seed in range(6):
        run_schedule(seed, build=build_day, index=index_real, steps=60)
