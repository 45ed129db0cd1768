"""A deadline that travels: reads made for a request end when the request does.

`with within(seconds)` gives a deadline to the current task and to the tasks started inside; nested ones only
shorten it. `HedgingStore` starts no read past it and gives up reads under way: `Unavailable(deadline_exceeded)`.
Writes never look at it: what is sent to be written is settled by its answer.

A fetch that several requests share (single flight) must outlive the one that happened to start it. A deadline
bounds *waiting*: a shared fetch ends when the last of those who wait for it has run out of time. So whoever shares
fetches starts each inside `with shared() as deadline` (the tasks started inside get a deadline of their own, as
late as their starter's) and calls `deadline.join()` for every further waiter, which puts it off to the latest of
theirs, or for ever where one has none. The deadline of a fetch never comes earlier: a waiter that leaves, leaves
it as it is, and what was read by then is in the cache for the next request. Each waiter bounds its own wait.

Times are those of the event loop's clock (`loop.time()`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final


class Deadline:
    """`at_s`: when, on the event loop's clock; `math.inf`: never. Only `join` moves it, and only to later."""

    __slots__ = ("at_s",)

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s

    def join(self) -> None:
        """The current task waits for what this deadline ends, too."""
        self.at_s = max(self.at_s, current().at_s)


NEVER: Final = Deadline(math.inf)
_current: ContextVar[Deadline] = ContextVar("read_deadline", default=NEVER)


def current() -> Deadline:
    """The deadline of the current task."""
    return _current.get()


@contextmanager
def within(seconds: float) -> Iterator[Deadline]:
    """Reads made inside end `seconds` from now, or with the deadline around it, whichever comes first."""
    token = _current.set(Deadline(min(asyncio.get_running_loop().time() + seconds, current().at_s)))
    try:
        yield current()
    finally:
        _current.reset(token)


@contextmanager
def shared() -> Iterator[Deadline]:
    """Tasks started inside are shared: theirs is a deadline that `join` puts off. Only start them inside."""
    token = _current.set(Deadline(current().at_s))
    try:
        yield current()
    finally:
        _current.reset(token)
