"""How late a far store answers: log-normal through two percentiles, and with a small probability a stall. Pure."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final

P50_MS: Final = 60.0
P99_MS: Final = 80.0
STALL_S: Final = (2.0, 10.0)
Z_P99: Final = 2.3263478740408408
"""The 99th percentile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Of one request: seconds until the first byte, a stall included."""

    seconds: float
    stalled: bool


class Delays:
    """Delays by seed. Whether stalls are on does not change the other draws."""

    def __init__(self, *, seed: int, p50_ms: float = P50_MS, p99_ms: float = P99_MS, stall: float = 0.0) -> None:
        self._random = random.Random(seed)
        self._mu = math.log(p50_ms / 1000)
        self._sigma = (math.log(p99_ms / 1000) - self._mu) / Z_P99
        self._stall = stall

    def next(self) -> Delay:
        first_byte_s = self._random.lognormvariate(self._mu, self._sigma)
        stall_s = self._random.uniform(*STALL_S)
        stalled = self._random.random() < self._stall
        return Delay(first_byte_s + stall_s if stalled else first_byte_s, stalled)
