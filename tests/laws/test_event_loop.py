"""Rule 10 of the engine's style: CPU work leaves the event loop.

What each step of the loop takes is counted in CPU time of the loop's own thread, so that a busy machine and
threads that hold the interpreter do not count.
"""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import replace

import pytest

from context_plane.model import Event
from tests.laws.plane_world import BEACON, TENANT, World, event, puts

STEP_S_MAX = 0.2
"""Thousands of events take over half a second to build, encode or embed; a garbage collection is kept out."""


def a_load(count: int) -> list[Event]:
    words = ["export", "invoice", "renewal", "upgrade", "crash", "seat", "price", "churn", "report", "login"]
    return [
        event(n, entity=f"acct-{n % 40:02}", text=f"beacon {' '.join(words[(n + i * i) % 10] for i in range(40))} {n}")
        for n in range(count)
    ]


async def test_no_step_blocks_the_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ingest, tail search, build, search and a bundle of six thousand events.

    Seen to fail with a day's blocks built without `to_thread`.
    """
    steps: list[tuple[float, str]] = []
    run = asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> None:
        started = time.thread_time()
        run(handle)
        steps.append((time.thread_time() - started, repr(handle)))

    plane, events = world.plane(), a_load(6_000)
    monkeypatch.setattr(asyncio.Handle, "_run", measured)
    gc.disable()
    try:
        await plane.write(TENANT, puts(events), body_bytes=3_000_000)
        await plane.search(TENANT, replace(BEACON, mode="hybrid", limit=10))
        await plane.build(TENANT, ["2026-03-01"])
        await plane.search(TENANT, replace(BEACON, mode="hybrid", limit=10))
        await plane.bundle(TENANT, "acct-01", spec="law_v0")
    finally:
        gc.enable()
    assert len(steps) > 100
    slow = [f"{took:.3f} s of CPU: {what}" for took, what in steps if took > STEP_S_MAX]
    assert not slow, "\n".join(slow)
