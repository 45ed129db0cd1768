"""Reads with a bounded tail: a second identical request for one that is late, and an end at the deadline.

Some reads stall for seconds on a healthy store, and a query waits for its slowest of sixty. A read unanswered
after a delay is sent again; the first answer wins and the other request is dropped. The delay follows what is
usual: a high quantile of recent latencies, with a margin, plus the time that the bytes take. A budget keeps a
store that is slow as a whole from being asked twice as much just then.

The first request runs in the caller's own task, and one timer serves all reads, so a read that is answered in time
costs no task and no timer. A hedge that answers interrupts the caller as `asyncio.timeout` does: it cancels the
task and takes the cancellation back. `NotFound` and damage are answers; `Unavailable` is one only once no other
request is under way. Writes pass through: repeating them is for who can tell a lost response from a conflict.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextvars import Context
from functools import partial
from heapq import heappop, heappush
from typing import Any, Final, Generic, TypeAlias, TypeVar

from context_plane.errors import Unavailable
from context_plane.store import deadline
from context_plane.store.base import Body, ByteRange, ObjectInfo, Store
from context_plane.store.counting import current_request, next_page
from context_plane.store.lanes import LANE_READS_MAX, Lanes, lane_of
from context_plane.store.latencies import BYTES_PER_S, DELAY_MAX_S, Budget, Usual
from context_plane.store.objects import on_size, read_ranges
from context_plane.store.ranges import plan

T = TypeVar("T")
Call: TypeAlias = Callable[[], Coroutine[Any, Any, T]]

HEDGES_MAX: Final = 2
"""Of one read. The second is for a hedge that stalls too: one in millions at 0.05 %, all of them if a server hangs."""
LOOK_AGAIN_S: Final = 0.025
"""A read that may not be hedged now (no budget, or the store pauses as a whole) is looked at again after this."""
TICK_S: Final = 0.001
"""Timers of event loops tick in milliseconds: what is due within one is due."""
LATE_S: Final = 0.005
"""A timer later than this tells of a busy event loop, not of a slow store: answers may have come unheard."""
GRACE_S: Final = 0.010
"""Given to such answers, once for each request."""


class HedgingStore:
    """`Store` whose reads are hedged, bounded in number by tenant, and end at `deadline.current()`.

    Raises `Unavailable(deadline_exceeded)` for a read that its deadline ended or did not let start. Hedges are
    told to the `CountingStore` above.
    """

    def __init__(self, inner: Store, *, lane_reads_max: int = LANE_READS_MAX) -> None:
        self.inner = inner
        self._objects = Usual()
        self._listings = Usual()
        self._budget = Budget()
        self._lanes = Lanes(lane_reads_max)
        self._watch = _Watch()

    async def get(self, key: str) -> bytes:
        return await self._read(key, self._objects, partial(self.inner.get, key), None)

    async def get_range(self, key: str, byte_range: ByteRange) -> Body:
        return await self._read(key, self._objects, partial(self.inner.get_range, key, byte_range), byte_range.length)

    async def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> list[bytes]:
        if not plan(ranges):
            return await self.inner.get_ranges(key, ranges)
        return await read_ranges(self.get_range, key, ranges)

    async def put_new(self, key: str, data: bytes) -> None:
        await self.inner.put_new(key, data)

    async def put(self, key: str, data: bytes) -> None:
        await self.inner.put(key, data)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[ObjectInfo]:
        """The first page is hedged (the newest manifest, the tail of the log); those after it come as they come."""

        async def first() -> tuple[Sequence[ObjectInfo], AsyncIterator[ObjectInfo] | None]:
            objects = self.inner.list(prefix, start_after=start_after, limit=limit)
            page, more = await next_page(objects)
            return page, objects if more else None

        page, rest = await self._read(prefix, self._listings, first, 0)
        for info in page:
            yield info
        if rest is not None:
            async for info in rest:
                yield info

    async def delete(self, keys: Sequence[str]) -> None:
        await self.inner.delete(keys)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def _read(self, key: str, usual: Usual, call: Call[T], size: int | None) -> T:
        """`size`: bytes asked for; None: the headers will tell."""
        until = deadline.current()
        name = lane_of(key)
        lane = self._lanes.lane(name)
        if lane.full:
            await _in_time(lane.turn(), until)
        else:
            lane.enter()
        try:
            now_s = self._watch.now_s()
            if until.at_s <= now_s:
                raise _late()
            self._budget.earn()
            race = _Race(call, usual, self._budget, until, now_s, size or 0)
            self._watch.add(race)
            if size is not None:
                return await race.run()
            token = on_size.set(race.expect)
            try:
                return await race.run()
            finally:
                on_size.reset(token)
        finally:
            self._lanes.leave(name, lane)


class _Race(Generic[T]):
    """One read, by up to 1 + HEDGES_MAX requests. `open` until the caller has its answer, error or cancellation."""

    __slots__ = (
        "_budget",
        "_call",
        "_cancellings",
        "_graced",
        "_hedges",
        "_request",
        "_sent_s",
        "_size",
        "_task",
        "_until",
        "_usual",
        "_verdict",
        "open",
    )

    def __init__(
        self, call: Call[T], usual: Usual, budget: Budget, until: deadline.Deadline, now_s: float, size: int
    ) -> None:
        task = asyncio.current_task()
        assert task is not None, "a coroutine that awaits a future runs in a task"
        self.open = True
        self._call = call
        self._usual = usual
        self._budget = budget
        self._until = until
        self._size = size
        self._sent_s = now_s
        self._graced = False
        self._task = task
        self._cancellings = task.cancelling()
        self._request = current_request()
        self._hedges: list[asyncio.Task[T]] = []
        self._verdict: asyncio.Task[T] | Unavailable | None = None

    async def run(self) -> T:
        """The first answer. Raises its error, or `Unavailable` when every request failed or the deadline passed."""
        started_s = self._sent_s
        self._usual.in_flight += 1
        try:
            answer = await self._first()
        except asyncio.CancelledError:
            if not self._taken_back():
                raise  # the caller was cancelled, perhaps in the same instant
        except BaseException:
            self._taken_back()
            raise
        else:
            self._taken_back()
            self._usual.note(asyncio.get_running_loop().time() - started_s, self._size, started_s)
            return answer
        finally:
            self.open = False
            self._usual.in_flight -= 1
            for hedge in self._hedges:
                hedge.cancel()
        assert self._verdict is not None
        if isinstance(self._verdict, Unavailable):
            raise self._verdict
        return self._verdict.result()

    def _taken_back(self) -> bool:
        """Takes back the cancellation of an interruption, if there was one; whether it was the only one."""
        return self._verdict is not None and self._task.uncancel() <= self._cancellings

    async def _first(self) -> T:
        """What the first request gives, in the caller's task. Where it fails, the hedges under way may interrupt."""
        try:
            return await self._call()
        except Unavailable:
            while under_way := [hedge for hedge in self._hedges if not hedge.done()]:
                await asyncio.wait(under_way)
            raise

    def expect(self, size: int) -> None:
        """The headers came, and with them the length of the body: it may take its time."""
        self._size = size

    def due_s(self) -> float:
        """When something is to be done about this read, on the event loop's clock."""
        return min(self._sent_s + self._usual.delay_s + self._size / BYTES_PER_S, self._until.at_s)

    def tend(self, now_s: float, due_s: float) -> float:
        """Ends or hedges the read if it is time to; returns when to look again."""
        if self._until.at_s <= now_s + TICK_S:
            self._interrupt(_late())
        if self._verdict is not None:
            return math.inf
        if now_s - due_s > LATE_S and not self._graced:
            self._graced = True
            return now_s + GRACE_S
        if len(self._hedges) == HEDGES_MAX:
            return self._until.at_s
        due_s = self.due_s()  # the quantile, the size, the deadline may have changed meanwhile
        if due_s > now_s + TICK_S:
            return due_s
        stalled = self._usual.is_straggler(self._sent_s) or now_s - self._sent_s > DELAY_MAX_S
        if not stalled or not self._budget.spend():
            return min(now_s + LOOK_AGAIN_S, self._until.at_s)
        self._sent_s = now_s
        self._hedge(now_s)
        return self.due_s()

    def _hedge(self, now_s: float) -> None:
        if self._request is not None:
            self._request.hedged()
        hedge = asyncio.get_running_loop().create_task(self._again())
        hedge.add_done_callback(partial(self._heard, now_s))
        self._hedges.append(hedge)

    async def _again(self) -> T:
        on_size.set(self.expect)
        return await self._call()

    def _heard(self, sent_s: float, hedge: asyncio.Task[T]) -> None:
        if hedge.cancelled():
            return
        error = hedge.exception()
        if not self.open or isinstance(error, Unavailable):
            return
        if error is None:
            self._usual.note(hedge.get_loop().time() - sent_s, self._size, sent_s)
        self._interrupt(hedge)

    def _interrupt(self, verdict: asyncio.Task[T] | Unavailable) -> None:
        if self._verdict is None:
            self._verdict = verdict
            self._task.cancel()
            if self._request is not None and not isinstance(verdict, Unavailable):
                self._request.hedge_won()


class _Watch:
    """The reads in flight by when they are due, and one timer for the first of them.

    A read that was answered stays until its time, without harm: there are never more than are sent in a second.
    """

    __slots__ = ("_added", "_context", "_due", "_loop", "_timer")

    def __init__(self) -> None:
        self._due: list[tuple[float, int, _Race[Any]]] = []
        self._added = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = Context()
        """Timers and hedges belong to no request: they start in an empty context."""

    def now_s(self) -> float:
        """The time of the running loop. Reads of another loop, which is over, are forgotten."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._timer, self._due = loop, None, []
        return loop.time()

    def add(self, race: _Race[Any]) -> None:
        due_s = race.due_s()
        self._push(due_s, race)
        if self._timer is None or due_s < self._timer.when():
            self._arm(due_s)

    def _push(self, due_s: float, race: _Race[Any]) -> None:
        self._added += 1
        heappush(self._due, (due_s, self._added, race))

    def _arm(self, due_s: float) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due_s, self._fire, context=self._context)

    def _fire(self) -> None:
        now_s = self.now_s()
        self._timer = None
        due = self._due
        while due and (not due[0][2].open or due[0][0] <= now_s + TICK_S):
            due_s, _, race = heappop(due)
            if race.open and (again_s := race.tend(now_s, due_s)) < math.inf:
                self._push(again_s, race)
        if due:
            self._arm(due[0][0])


async def _in_time(turn: Coroutine[Any, Any, None], until: deadline.Deadline) -> None:
    """A place in a full lane, or `Unavailable(deadline_exceeded)`.

    Who joins the wait may extend `until`, so it is read again when it comes; the read stays where it is in the queue.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal timer
        if until.at_s <= loop.time():
            timeout.reschedule(until.at_s)
        elif until.at_s < math.inf:
            timer = loop.call_at(until.at_s, look)

    try:
        async with asyncio.timeout(None) as timeout:
            look()
            await turn
    except TimeoutError:
        raise _late() from None
    finally:
        if timer is not None:
            timer.cancel()


def _late() -> Unavailable:
    return Unavailable("deadline_exceeded", "a read was not answered before the request's deadline; allow more time")
