"""Rules that make commits safe under any interleaving. Each is one pure function, and each is needed:
the state machine removes them one at a time and must find the loss.

A guard raises `Conflict`; whoever builds rereads the manifest and starts over, or gives way.
"""

from __future__ import annotations

from typing import Final

from context_plane.catalog.manifest import Manifest
from context_plane.errors import Conflict, Unavailable

BUILD_AGE_MAX_US: Final = 12 * 3600 * 1_000_000
"""Half of what a collector leaves alone: no object of a younger build is ever collected under it."""
HEAD_AGE_MAX_S: Final = 600.0
"""Knowledge of the newest number is used this long: far less than the 24 h before numbers are collected."""


def same_sources(manifest: Manifest, day: str, base: str) -> None:
    """The day is still what the build started from: no write is covered twice, none is lost."""
    if manifest.sources(day) != base:
        raise Conflict("build_stale", "the day was published by another build; build it again", day=day)


def same_erasures(manifest: Manifest, erasures: int) -> None:
    """The build applied every tombstone there is: an erased entity is never added again."""
    if manifest.erasures != erasures:
        raise Conflict("build_stale", "an entity was erased since the build began; build again")


def young_build(now_us: int, started_us: int) -> None:
    """The build's objects are too young to be collected while they are being named."""
    if now_us - started_us > BUILD_AGE_MAX_US:
        raise Conflict("build_expired", "the build is older than 12 hours; build again")


def young_knowledge(age_s: float) -> None:
    """A number is created only from recent knowledge of the newest one: collected numbers stay unused."""
    if age_s > HEAD_AGE_MAX_S:
        raise Unavailable("store_unavailable", "a write took over 10 minutes and may be void; retry", age_s=age_s)


def next_log_number(listed: int, floor: int) -> int:
    """The next free log number, also when the newest batches were deleted by an erasure or a collector."""
    return max(listed, floor) + 1
