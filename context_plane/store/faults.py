"""A store that misbehaves on purpose: slow, failing, or losing the response of what it did.

For simulations, benchmarks with injected latency, and tests. What happens to a request is decided
by a plan, a function the caller seeds; there is no randomness here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar

from context_plane.errors import Unavailable
from context_plane.store.base import Body, ByteRange, ObjectInfo, Store

T = TypeVar("T")
Operation: TypeAlias = Literal["get", "get_range", "get_ranges", "put_new", "put", "list", "delete"]


@dataclass(frozen=True, slots=True)
class Mishap:
    """Waits `delay_s`, then the request is lost, or served and its response lost, or all is well."""

    delay_s: float = 0.0
    lost: Literal["nothing", "request", "response"] = "nothing"


Plan: TypeAlias = Callable[[Operation, str], Mishap | None]
"""(operation, key or prefix) -> what happens; None: nothing unusual."""

_CALM: Final = Mishap()


class FaultyStore:
    """`Store` that follows a plan. A lost request or response is `Unavailable(store_unavailable)`."""

    def __init__(self, inner: Store, plan: Plan) -> None:
        self.inner = inner
        self.plan = plan

    async def get(self, key: str) -> bytes:
        mishap = await self._before("get", key)
        return _after(mishap, "get", key, await self.inner.get(key))

    async def get_range(self, key: str, byte_range: ByteRange) -> Body:
        mishap = await self._before("get_range", key)
        return _after(mishap, "get_range", key, await self.inner.get_range(key, byte_range))

    async def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> list[bytes]:
        mishap = await self._before("get_ranges", key)
        return _after(mishap, "get_ranges", key, await self.inner.get_ranges(key, ranges))

    async def put_new(self, key: str, data: bytes) -> None:
        mishap = await self._before("put_new", key)
        await self.inner.put_new(key, data)
        _after(mishap, "put_new", key, None)

    async def put(self, key: str, data: bytes) -> None:
        mishap = await self._before("put", key)
        await self.inner.put(key, data)
        _after(mishap, "put", key, None)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[ObjectInfo]:
        mishap = await self._before("list", prefix)
        _after(mishap, "list", prefix, None)
        async for info in self.inner.list(prefix, start_after=start_after, limit=limit):
            yield info

    async def delete(self, keys: Sequence[str]) -> None:
        first = keys[0] if keys else ""
        mishap = await self._before("delete", first)
        await self.inner.delete(keys)
        _after(mishap, "delete", first, None)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def _before(self, operation: Operation, key: str) -> Mishap:
        mishap = self.plan(operation, key) or _CALM
        await asyncio.sleep(mishap.delay_s)
        if mishap.lost == "request":
            raise _lost("request", operation, key)
        return mishap


def _after(mishap: Mishap, operation: Operation, key: str, answer: T) -> T:
    if mishap.lost == "response":
        raise _lost("response", operation, key)
    return answer


def _lost(what: str, operation: Operation, key: str) -> Unavailable:
    return Unavailable("store_unavailable", f"the {what} was lost, retry", operation=operation, key=key)
