"""A deterministic world: a store where every operation waits for a scheduler, and clocks that jump.

Journeys are tasks of a private event loop. The world runs the loop until every journey waits for a store
operation, then a scheduler chooses one operation and its fate: applied, lost before or after it was
applied, or delayed (the caller gets a lost response, the create lands later). A crash cancels a journey
at an operation. Nothing sleeps and nothing depends on time: a run is a function of its choices.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from context_plane.errors import Conflict, NotFound, Unavailable
from context_plane.store.base import ByteRange, ObjectInfo

Fate: TypeAlias = Literal["ok", "lost_request", "lost_response", "delayed"]

_journey: ContextVar[str] = ContextVar("journey", default="")


@dataclass(slots=True, eq=False)
class Op:
    """A store operation that waits to be scheduled."""

    journey: str
    name: str
    key: str
    apply: Callable[[], Any]
    future: asyncio.Future[Any]

    @property
    def writes(self) -> bool:
        return self.name in ("put", "put_new")


@dataclass(slots=True)
class World:
    """The store's objects, the clocks, and the operations in flight."""

    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    """Key -> (bytes, modified_us)."""
    now: int = 1_800_000_000_000_000
    """Wall clock, microseconds; the monotonic clock moves with it."""
    waiting: list[Op] = field(default_factory=list)
    limbo: list[Op] = field(default_factory=list)
    """Writes whose caller was told they are lost and that have not landed yet."""
    calm: bool = False
    """Operations apply at once: for setting up and for checks at the end."""
    nonces: int = 0
    on_create: Callable[[str, bytes], None] = lambda key, data: None
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    tasks: dict[str, asyncio.Task[Any]] = field(default_factory=dict)

    # --- running ---

    def start(self, name: str, journey: Coroutine[Any, Any, Any]) -> None:
        assert name not in self.tasks

        async def named() -> Any:
            _journey.set(name)
            return await journey

        self.tasks[name] = self.loop.create_task(named())

    def settle(self) -> None:
        """Run the loop until every journey waits for the store or is done."""
        ready = self.loop._ready  # type: ignore[attr-defined]  # the only way to know that nothing is runnable
        while True:
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            if not ready:
                break
        self.waiting = [op for op in self.waiting if not op.future.done()]

    def resolve(self, op: Op, fate: Fate = "ok") -> None:
        """Give one waiting operation its fate."""
        self.waiting.remove(op)
        self.now += 1000
        lost = Unavailable("store_unavailable", "simulated loss", operation=op.name, key=op.key)
        match fate:
            case "lost_request":
                op.future.set_exception(lost)
                return
            case "delayed":
                self.limbo.append(op)
                op.future.set_exception(lost)
                return
            case _:
                pass
        try:
            answer = op.apply()
        except (NotFound, Conflict) as error:
            op.future.set_exception(lost if fate == "lost_response" else error)
            return
        if fate == "lost_response":
            op.future.set_exception(lost)
        else:
            op.future.set_result(answer)

    def land(self, op: Op) -> None:
        """A delayed write reaches the store after all."""
        self.limbo.remove(op)
        try:
            op.apply()
        except Conflict:
            return

    def crash(self, name: str, *, applied: bool) -> None:
        """The process of a journey dies; its operations in flight are applied or not."""
        if name in self.tasks:  # else it failed and left siblings of a gather behind
            self.tasks[name].cancel()
        for op in [op for op in self.waiting if op.journey == name]:
            self.waiting.remove(op)
            if applied:
                try:
                    op.apply()
                except (NotFound, Conflict):
                    continue

    def jump(self, us: int) -> None:
        """Time passes while every process is suspended; what was still on its way is gone by then."""
        self.limbo.clear()
        self.now += us

    def running(self) -> list[str]:
        return [name for name, task in self.tasks.items() if not task.done()]

    # --- directed schedules ---

    def finish(self, name: str) -> Any:
        """Run one journey to its end, everybody else suspended. Returns its result, raises its error."""
        while not self.tasks[name].done():
            self.settle()
            for op in [op for op in self.waiting if op.journey == name][:1]:
                self.resolve(op)
            self.settle()
        return self.tasks[name].result()

    def run(self, name: str, journey: Coroutine[Any, Any, Any]) -> Any:
        self.start(name, journey)
        return self.finish(name)

    def run_until(self, name: str, operation: str, part: str) -> Op:
        """Run one journey until it is about to do `operation` on a key that contains `part`."""
        while True:
            self.settle()
            assert not self.tasks[name].done(), f"{name} ended before {operation} {part}: {self.tasks[name]!r}"
            mine = [op for op in self.waiting if op.journey == name]
            for op in mine:
                if op.name == operation and part in op.key:
                    return op
            self.resolve(mine[0])

    def calmly(self, journey: Coroutine[Any, Any, Any]) -> Any:
        """Run to the end with a store that answers at once."""
        self.calm = True
        try:
            return self.loop.run_until_complete(journey)
        finally:
            self.calm = False

    def close(self) -> None:
        for name in self.running():
            self.tasks[name].cancel()
        self.settle()
        for task in self.tasks.values():
            if not task.cancelled():
                task.exception()
        self.loop.close()

    def nonce(self) -> str:
        self.nonces += 1
        return f"{self.nonces:016x}"


class SimStore:
    """`Store` over a `World`."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def _do(self, name: str, key: str, apply: Callable[[], Any]) -> Any:
        world = self.world
        if world.calm:
            world.now += 1000
            return apply()
        op = Op(_journey.get(), name, key, apply, world.loop.create_future())
        world.waiting.append(op)
        return await op.future

    async def get(self, key: str) -> bytes:
        data: bytes = await self._do("get", key, lambda: self._read(key))
        return data

    async def get_range(self, key: str, byte_range: ByteRange) -> bytes:
        data: bytes = await self._do("get", key, lambda: self._read(key)[byte_range.offset : byte_range.stop])
        return data

    async def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> list[bytes]:
        parts: list[bytes] = await self._do("get", key, lambda: [self._read(key)[r.offset : r.stop] for r in ranges])
        return parts

    async def put_new(self, key: str, data: bytes) -> None:
        def apply() -> None:
            if key in self.world.objects:
                raise Conflict("already_exists", "a create-only write found the key taken", key=key)
            self.world.objects[key] = (data, self.world.now)
            self.world.on_create(key, data)

        await self._do("put_new", key, apply)

    async def put(self, key: str, data: bytes) -> None:
        def apply() -> None:
            self.world.objects[key] = (data, self.world.now)

        await self._do("put", key, apply)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[ObjectInfo]:
        def apply() -> list[ObjectInfo]:
            keys = sorted(key for key in self.world.objects if key.startswith(prefix) and key > start_after)
            return [
                ObjectInfo(key, len(self.world.objects[key][0]), self.world.objects[key][1]) for key in keys[:limit]
            ]

        for info in await self._do("list", prefix, apply):
            yield info

    async def delete(self, keys: Sequence[str]) -> None:
        def apply() -> None:
            for key in keys:
                self.world.objects.pop(key, None)

        await self._do("delete", keys[0] if keys else "", apply)

    async def aclose(self) -> None:
        return

    def _read(self, key: str) -> bytes:
        if key not in self.world.objects:
            raise NotFound("object_not_found", "no such object", key=key)
        return self.world.objects[key][0]
