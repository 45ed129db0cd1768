"""The log: acknowledged batches under dense numbers per tenant. The number is the write order.

An append creates the next number; a conflict means another writer has it, so the following one is
tried. A lost response is settled by reading the number back and comparing `writer`. The newest number
is known by listing and by the manifest's floor (an erasure may delete the newest batches).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from context_plane.catalog import guards
from context_plane.catalog.head import load_head
from context_plane.catalog.manifest import Manifest
from context_plane.engine import Engine
from context_plane.errors import Conflict, NotFound, Unavailable
from context_plane.layout.batch import HEADER_READ_BYTES, decode_header
from context_plane.layout.keys import LogKey, log_prefix, parse
from context_plane.store.base import ByteRange, Store

APPEND_ATTEMPTS_MAX: Final = 200
LOST_RESPONSES_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class LogObject:
    number: int
    bytes: int
    modified_us: int


async def list_log(store: Store, tenant: str, *, after: int, limit: int | None = None) -> list[LogObject]:
    """Batches numbered above `after`, ascending; the first `limit` of them. One LIST per thousand."""
    start = str(LogKey(tenant, after)) if after else ""
    found = []
    async for info in store.list(log_prefix(tenant), start_after=start, limit=limit):
        key = parse(info.key)
        assert isinstance(key, LogKey)
        found.append(LogObject(key.number, info.size, info.modified_us))
    return found


@dataclass(frozen=True, slots=True)
class LogHead:
    """The newest number known, and when that was learned (`monotonic_s`)."""

    number: int
    at_s: float


async def read_log_head(engine: Engine, tenant: str, manifest: Manifest | None = None) -> LogHead:
    at_s = engine.monotonic_s()
    known = manifest or await load_head(engine.store, tenant)
    listed = await list_log(engine.store, tenant, after=known.log_floor)
    newest = listed[-1].number if listed else 0
    return LogHead(guards.next_log_number(newest, known.log_floor) - 1, at_s)


async def append(
    engine: Engine, tenant: str, data: bytes, *, writer: str, head: LogHead | None, start_by_s: float = math.inf
) -> LogHead:
    """Make one encoded batch durable; returns the head with its number. `writer` is in the batch's header; no request
    of the store that writes it starts after `start_by_s` (`monotonic_s`).

    Raises `Unavailable` when the fate of the write is unknown, it is too late, or the knowledge behind it grew too old;
    the batch may then still appear, and a retry is a second write of the same identities.
    """
    if head is None or engine.monotonic_s() - head.at_s > guards.HEAD_AGE_MAX_S / 2:
        head = await read_log_head(engine, tenant)
    number = head.number + 1
    for _ in range(APPEND_ATTEMPTS_MAX):
        if await _create(engine, str(LogKey(tenant, number)), data, writer, start_by_s):
            guards.young_knowledge(engine.monotonic_s() - head.at_s)
            return LogHead(number, head.at_s)
        number += 1
    raise Conflict("commit_conflict", "lost too many races for the next log number; retry")


async def _create(engine: Engine, key: str, data: bytes, writer: str, start_by_s: float) -> bool:
    for _ in range(LOST_RESPONSES_MAX):
        if engine.monotonic_s() > start_by_s:
            raise Unavailable("deadline_exceeded", "the write waited too long to be begun; send it again", key=key)
        try:
            await engine.store.put_new(key, data)
        except (Conflict, Unavailable) as error:
            try:
                first = bytes(await engine.store.get_range(key, ByteRange(0, HEADER_READ_BYTES)))
            except NotFound:
                if isinstance(error, Conflict):
                    return False  # it existed and was collected since: the number is spent
                continue
            return decode_header(first)[0].writer == writer
        return True
    raise Unavailable("store_unavailable", "could not learn whether a batch was written; retry", key=key)
