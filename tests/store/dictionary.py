"""`Store` in a dict: no threads, every operation suspends exactly once, so schedules are reproducible.

The oracle of simulations; it passes the same contract as the real stores.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from context_plane.errors import Conflict, NotFound
from context_plane.store import ByteRange, ObjectInfo
from context_plane.store.key import check_key, check_prefix


class DictStore:
    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects: dict[str, bytes] = {} if objects is None else objects

    async def get(self, key: str) -> bytes:
        check_key(key)
        await asyncio.sleep(0)
        if key not in self.objects:
            raise NotFound("object_not_found", "no such object", key=key)
        return self.objects[key]

    async def get_range(self, key: str, byte_range: ByteRange) -> bytes:
        return (await self.get(key))[byte_range.offset : byte_range.stop]

    async def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> list[bytes]:
        if not any(part.length for part in ranges):
            return [b""] * len(ranges)
        data = await self.get(key)
        return [data[part.offset : part.stop] for part in ranges]

    async def put_new(self, key: str, data: bytes) -> None:
        check_key(key)
        await asyncio.sleep(0)
        if key in self.objects:
            raise Conflict("already_exists", "the key is taken", key=key)
        self.objects[key] = bytes(data)

    async def put(self, key: str, data: bytes) -> None:
        check_key(key)
        await asyncio.sleep(0)
        self.objects[key] = bytes(data)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[ObjectInfo]:
        check_prefix(prefix)
        await asyncio.sleep(0)
        for key in sorted(key for key in self.objects if key.startswith(prefix) and key > start_after)[:limit]:
            yield ObjectInfo(key, len(self.objects.get(key, b"")), 0)

    async def delete(self, keys: Sequence[str]) -> None:
        await asyncio.sleep(0)
        for key in keys:
            self.objects.pop(check_key(key), None)

    async def aclose(self) -> None:
        await asyncio.sleep(0)
