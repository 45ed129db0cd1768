"""When a read is late, and how many late reads may be sent again. Pure: times are arguments.

A delay has two parts: what the store usually takes to begin an answer (`Usual`), and what its bytes take to come
(`BYTES_PER_S`). The first is a high quantile of recent reads times a margin. Reads that a hedge answered in their
place are not known to the end and do not count; a store that becomes slow as a whole answers first requests first,
so they do, and the delay follows within some hundred reads.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

QUANTILE: Final = 0.95
MARGIN: Final = 1.5
"""1.5 x p95 is beyond p99.9 of a store with p50 60 and p99 80 ms: 110 ms. What is later than that is most likely
stalled, and a stall then costs a query some 170 ms. The quantile alone would hedge one healthy read in twenty."""
DELAY_S: Final = 0.15
"""Before anything is known of the store: twice what a store in the region usually takes."""
DELAY_MIN_S: Final = 0.05
"""A near store answers in 2 ms; below this delay a busy event loop, not the store, would be what is hedged."""
DELAY_MAX_S: Final = 1.0
"""A store usually slower than this is not helped by more requests, but a stall of seconds still is by one."""
RECENT: Final = 256
"""Reads that tell what is usual: four queries of sixty."""
KNOWN_MIN: Final = 16
"""With fewer, the 95th percentile is their maximum."""
PEERS_MIN: Final = 8
"""With fewer reads in flight than the budget keeps hedges (BURST), hedging them all does not empty it."""
BURST_S: Final = 0.01
"""Reads sent within this were sent together: a burst of sixty leaves in a millisecond or two."""
SORT_EVERY: Final = 32
"""Reads between two looks at the quantile: sorting 256 numbers takes some 20 us, so under 1 us a read."""
BYTES_PER_S: Final = 20e6
"""A slow connection. One of S3 gives 50 to 95 MB/s, and sixty share a machine's link: 8 MiB add 0.4 s."""

EARNED: Final = 0.1
"""Of a hedge, by each read: over any time, hedges are at most a tenth of the reads and BURST."""
BURST: Final = 8.0
"""Hedges at hand after a quiet time. A cold query of sixty reads on a new process earns six; several may stall."""


class Usual:
    """Latencies of one kind of read. `delay_s`: how long to wait for the first byte before a read is late."""

    __slots__ = ("_newest_s", "_recent", "_seen", "delay_s", "in_flight")

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._seen = 0
        self._newest_s = -math.inf
        self.delay_s = DELAY_S
        self.in_flight = 0

    def is_straggler(self, sent_s: float) -> bool:
        """Whether reads sent as late were answered before this one, or too few are in flight to tell.

        Where a whole burst waits, one read does not stall: connections are being opened, or store, network or this
        machine pause. The budget is not spent on that, and the burst itself will tell what is usual now.
        """
        return self.in_flight < PEERS_MIN or self._newest_s >= sent_s - BURST_S

    def note(self, latency_s: float, size: int, sent_s: float) -> None:
        """A read of `size` bytes, sent at `sent_s`, was answered in `latency_s`."""
        self._newest_s = max(self._newest_s, sent_s)
        self._recent.append(latency_s - size / BYTES_PER_S)
        self._seen += 1
        if self._seen == KNOWN_MIN or (self._seen > KNOWN_MIN and self._seen % SORT_EVERY == 0):
            ordered = sorted(self._recent)
            usual_s = ordered[int(QUANTILE * len(ordered))]
            self.delay_s = min(max(MARGIN * usual_s, DELAY_MIN_S), DELAY_MAX_S)


class Budget:
    """A token bucket of hedges, filled by reads."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens = BURST

    def earn(self) -> None:
        """A read was asked for."""
        self._tokens = min(BURST, self._tokens + EARNED)

    def spend(self) -> bool:
        """Whether one more hedge may be sent; it is then counted as sent."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
