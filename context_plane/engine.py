"""What every journey needs of the world, as one value: store, embedder, clocks, randomness.

Journeys take an `Engine` and are otherwise free of globals, so a test can replace any of it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from context_plane.embed.base import Embedder
from context_plane.store.base import Store


def _now_us() -> int:
    return time.time_ns() // 1000


def _nonce() -> str:
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Engine:
    """`now_us`: wall clock, microseconds since 1970. `monotonic_s`: for ages of knowledge. `nonce`: 16 hex, fresh."""

    store: Store
    embedder: Embedder
    now_us: Callable[[], int] = _now_us
    monotonic_s: Callable[[], float] = time.monotonic
    nonce: Callable[[], str] = _nonce
