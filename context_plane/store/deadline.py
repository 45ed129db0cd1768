"""A deadline that travels: reads made for a request end when the request does.

`with within(seconds)` gives a deadline to the current task and to the tasks started inside; nested ones only
shorten it. `HedgingStore` starts no read past it and gives up reads under way: `Unavailable(deadline_exceeded)`.
Writes never look at it: what is sent to be written is settled by its answer.

Work that several requests share (single flight) must outlive the one that happened to start it. A deadline bounds
*waiting*: shared work ends when the last of those who wait for it has run out of time. So whoever shares work
starts it with `fly` and waits with `joined`, where `asyncio.create_task` and `asyncio.shield` would do without
deadlines. A flight that starts or joins another one waits as long as those who wait for itself, also if they come
later. A waiter that leaves early leaves the deadline as it is: what is read by then is cached for the next one.

Times are those of the event loop's clock (`loop.time()`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class Deadline:
    """The end of a request: `at_s` on the event loop's clock, and not after `outer`."""

    __slots__ = ("_at_s", "_outer")

    def __init__(self, at_s: float, outer: Deadline | None = None) -> None:
        self._at_s = at_s
        self._outer = outer

    @property
    def at_s(self) -> float:
        return self._at_s if self._outer is None else min(self._at_s, self._outer.at_s)


class _Latest(Deadline):
    """The latest of the deadlines of those who wait."""

    __slots__ = ("_waiting",)

    def __init__(self, first: Deadline) -> None:
        super().__init__(math.inf)
        self._waiting = [first]

    @property
    def at_s(self) -> float:
        if len(self._waiting) == 1:
            return self._waiting[0].at_s
        return max([each.at_s for each in self._waiting])

    def join(self, waiter: Deadline) -> None:
        if not any(each is waiter for each in self._waiting):
            self._waiting.append(waiter)


NEVER: Final = Deadline(math.inf)
_current: ContextVar[Deadline] = ContextVar("read_deadline", default=NEVER)
_flights: WeakKeyDictionary[asyncio.Task[Any], _Latest] = WeakKeyDictionary()


def current() -> Deadline:
    """The deadline of the current task."""
    return _current.get()


@contextmanager
def within(seconds: float) -> Iterator[Deadline]:
    """Reads made inside end `seconds` from now, or with the deadline around it, whichever comes first."""
    outer = current()
    deadline = Deadline(asyncio.get_running_loop().time() + seconds, None if outer is NEVER else outer)
    token = _current.set(deadline)
    try:
        yield deadline
    finally:
        _current.reset(token)


@contextmanager
def unbounded() -> Iterator[None]:
    """Work begun inside is not of the request that begins it. It must be joined by none that has a deadline."""
    token = _current.set(NEVER)
    try:
        yield
    finally:
        _current.reset(token)


def fly(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task to be shared; its reads end at the latest deadline of its starter and of those who call `joined`."""
    latest = _Latest(current())
    token = _current.set(latest)
    try:
        flight = asyncio.create_task(work)
    finally:
        _current.reset(token)
    _flights[flight] = latest
    return flight


async def joined(flight: asyncio.Task[T]) -> T:
    """Its result. A cancelled caller does not end the flight; one with more time than others keeps it alive."""
    latest = _flights.get(flight)
    if latest is not None:
        latest.join(current())
    return await asyncio.shield(flight)
