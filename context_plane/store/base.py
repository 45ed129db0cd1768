"""The store contract: seven operations on immutable-by-convention objects.

Every backend gives read-after-write and list-after-write consistency, an exclusive `put_new`, and
listing in ascending order of key bytes. Keys are relative to the store's root, ASCII, `/`-separated.
All errors are `context_plane.errors`: `NotFound(object_not_found)`, `Conflict(already_exists)`,
`Unavailable(store_unavailable)`; a `put`/`put_new` that raises `Unavailable` may or may not have
happened (a lost response), and the caller must find out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

Body: TypeAlias = bytes | memoryview
"""Bytes as a store handed them over, not to be changed; not copied, for they may be many."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object. `modified_us`: store's time of last write, microseconds since 1970."""

    key: str
    size: int
    modified_us: int


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes from `offset` (both >= 0)."""

    offset: int
    length: int

    @property
    def stop(self) -> int:
        return self.offset + self.length


@runtime_checkable
class Store(Protocol):
    """What the engine knows of object storage."""

    async def get(self, key: str) -> bytes:
        """The whole object. `NotFound` when absent."""
        ...

    async def get_range(self, key: str, byte_range: ByteRange) -> Body:
        """The bytes of the range; shorter only where the object ends first. `NotFound` when absent."""
        ...

    async def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> list[bytes]:
        """One result per range, in order; near ranges are coalesced into one request."""
        ...

    async def put_new(self, key: str, data: bytes) -> None:
        """Create. Exactly one of any concurrent creators wins; the others get `Conflict`."""
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Create or replace."""
        ...

    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[ObjectInfo]:
        """Objects whose key starts with `prefix` (any string, not only a folder), ascending, after `start_after`."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete; absent keys are no error."""
        ...

    async def aclose(self) -> None:
        """Release connections and threads."""
        ...
