"""Small control objects, remembered for a few seconds: API keys, tenant records.

Younger than `refresh_after_s` a value is used as it is; up to `age_max_s` it is used and refreshed
in the background; older, the caller waits for a fresh one. None means absent and is never remembered: what
was just made is found at once, and a flood of unknown names pushes nobody out. So a revocation holds everywhere within
`age_max_s`, and a busy key never makes a request wait for the store twice. Concurrent loads of one
name are one. Who derives something from a value may keep its `Held`, and sees there whether it still stands.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from cachetools import Cache, LRUCache

from context_plane.store import deadline

T = TypeVar("T")

AGE_MAX_S: Final = 5.0
"""How long a revoked key may still work in a process that knew it."""
REFRESH_AFTER_S: Final = 2.5
ENTRIES_MAX: Final = 4096
"""Names kept; least recently used go first."""


@dataclass(slots=True, eq=False)
class Held(Generic[T]):
    """A value that never changes, and when it was last asked for: `at_s`, monotonic seconds.

    `fresh_s`: how long after that it is used without being confirmed. `at_s` moves on when the value is confirmed, and
    is -inf for good once the value is replaced, forgotten or pushed out."""

    value: T
    at_s: float
    fresh_s: float

    def fresh(self, now_s: float) -> bool:
        """Whether who holds this would use it now without asking anybody."""
        return now_s - self.at_s <= self.fresh_s

    @property
    def ended(self) -> bool:
        return self.at_s == -math.inf


class Latest(LRUCache[str, Held[T]]):
    """The newest value of each name. What leaves ends."""

    def __setitem__(self, name: str, held: Held[T]) -> None:
        before = self.get(name)
        super().__setitem__(name, held)
        if before is not None and before is not held:
            before.at_s = -math.inf

    def __delitem__(self, name: str) -> None:
        held = self[name]
        super().__delitem__(name)
        held.at_s = -math.inf

    def clear(self) -> None:
        for held in self.values():
            held.at_s = -math.inf
        super().clear()

    def untouched(self) -> Iterator[Held[T]]:
        """Every value; to look at one so is no use of it."""
        return (Cache.__getitem__(self, name) for name in self)


class Recent(Generic[T]):
    """Values by name, as `load` gave them at most `age_max_s` ago. An error of `load` is never remembered."""

    def __init__(
        self,
        load: Callable[[str], Awaitable[T]],
        *,
        monotonic_s: Callable[[], float],
        age_max_s: float = AGE_MAX_S,
        refresh_after_s: float = REFRESH_AFTER_S,
    ) -> None:
        assert refresh_after_s <= age_max_s
        self._load = load
        self._monotonic_s = monotonic_s
        self._age_max_s = age_max_s
        self._refresh_after_s = refresh_after_s
        self._held: Latest[T] = Latest(ENTRIES_MAX)
        self._flights: dict[str, asyncio.Task[T]] = {}

    async def get(self, name: str) -> T:
        """The value of `name`, at most `age_max_s` old. Raises what `load` raises."""
        held = self._held.get(name)
        age_s = self._monotonic_s() - held.at_s if held is not None else 0.0
        if held is not None and age_s <= self._age_max_s:
            if age_s > self._refresh_after_s:
                self._flight(name)
            return held.value
        return await deadline.joined(self._flight(name))

    def look(self, name: str) -> Held[T] | None:
        """What is known of `name`, however old. Waits for nothing, starts nothing."""
        return self._held.get(name)

    def prefetch(self, name: str) -> None:
        """Start loading what is not known, so that a `get` after other work waits less. Errors wait for the `get`."""
        held = self._held.get(name)
        if held is None or self._monotonic_s() - held.at_s > self._age_max_s:
            self._flight(name)

    def forget(self, name: str) -> None:
        """Drop what is known, a load under way included, so that the next `get` asks again."""
        self._held.pop(name, None)
        self._flights.pop(name, None)

    def _flight(self, name: str) -> asyncio.Task[T]:
        flight = self._flights.get(name)
        if flight is None:
            flight = deadline.fly(self._refresh(name))
            self._flights[name] = flight
            flight.add_done_callback(lambda done: self._landed(name, done))
        return flight

    async def _refresh(self, name: str) -> T:
        at_s = self._monotonic_s()
        value = await self._load(name)
        if self._flights.get(name) is asyncio.current_task():  # else forgotten meanwhile
            held = self._held.get(name)
            if value is None:
                self._held.pop(name, None)
            elif held is not None and held.value == value:
                held.at_s = at_s
                return held.value
            else:
                self._held[name] = Held(value, at_s, self._refresh_after_s)
        return value

    def _landed(self, name: str, flight: asyncio.Task[T]) -> None:
        if self._flights.get(name) is flight:
            del self._flights[name]
        if not flight.cancelled():
            flight.exception()  # a background refresh has nobody else to ask
