"""Reading ahead: results in order, a bounded number of them under way. What nobody takes any more ends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, TypeVar

from context_plane.recall.assemble import abandon

T = TypeVar("T")
R = TypeVar("R")


async def in_order(
    items: Iterable[T], load: Callable[[T], Coroutine[Any, Any, R]], *, ahead: int
) -> AsyncGenerator[R, None]:
    """What `load` gives for each item, in their order; at most `ahead` are under way or wait to be taken."""
    assert ahead > 0
    source = iter(items)
    waiting = deque(asyncio.ensure_future(load(item)) for item in islice(source, ahead))
    try:
        while waiting:
            result = await waiting[0]
            waiting.popleft()
            waiting.extend(asyncio.ensure_future(load(item)) for item in islice(source, 1))
            yield result
    finally:
        for task in waiting:
            abandon(task)
