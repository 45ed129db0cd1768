"""Bounded concurrency: reads of one lane (a tenant) in flight at once, in order of arrival.

The HTTP client opens a connection for every request in flight and knows no limit. Without one, a search over
hundreds of days opens a thousand connections, and the requests of other tenants wait behind its handshakes.
A read holds one place and never waits for another read, so lanes cannot deadlock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

LANE_READS_MAX: Final = 128
"""Twice the widest budgeted round of one request (64): a request alone never waits, and a lane stays within what
servers and file descriptor limits take without notice."""


def lane_of(key: str) -> str:
    """Keys that share two segments share a lane: the layout puts a tenant there (`tenants/{tenant}/...`)."""
    return key[: key.find("/", key.find("/") + 1)]


class Lane:
    """Places of one tenant. `enter` (only while `full`: await `turn` first), then `leave`."""

    __slots__ = ("_waiting", "in_flight", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def full(self) -> bool:
        return self.in_flight >= self.size

    @property
    def empty(self) -> bool:
        return not self.in_flight

    def enter(self) -> None:
        self.in_flight += 1

    async def turn(self) -> None:
        """Waits for a place and takes it."""
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Hands the place on to who waits longest, if anyone."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.in_flight -= 1


class Lanes:
    """The lanes in use; one that empties is forgotten, so there are never more than reads in flight."""

    __slots__ = ("_lanes", "_size")

    def __init__(self, size: int = LANE_READS_MAX) -> None:
        self._size = size
        self._lanes: dict[str, Lane] = {}

    def lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(self._size)
        return lane

    def leave(self, name: str, lane: Lane) -> None:
        lane.leave()
        if lane.empty:
            self._lanes.pop(name, None)

    def __len__(self) -> int:
        return len(self._lanes)
