"""The audit: who did what to a tenant, kept in the store, without any content. Format 1.

**Calls** (keys, settings, erasures) have an object each, written before the act as `begun` and again after it as `done`
or `failed`. So no act is without its entry; one that stays `begun` says that nobody lived to tell how it ended.

**Writes** are in the log already: a batch's header names the requests that it joined (`layout.batch.Origin`), so their
audit is exactly as durable as they are and costs no request. A collection that removes built batches copies what their
headers say beforehand (`keep_batches`), in objects named by the range of numbers.

Nothing of an event is in here, and no entity: an erasure is named by its id, and ids of requests are digests, because
callers choose them. All of it lies under the store's `control/`, so that it outlives what it tells of.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from context_plane.catalog.log import LogObject
from context_plane.catalog.tail import read_headers
from context_plane.engine import Engine
from context_plane.errors import Conflict, Corrupt, NotFound, PlaneError, Unavailable
from context_plane.layout.batch import Origin
from context_plane.layout.compression import compress, decompress
from context_plane.layout.keys import (
    NUMBER_MAX,
    AuditedBatchesKey,
    AuditKey,
    LogKey,
    audit_prefix,
    audited_batches_prefix,
    log_prefix,
    parse,
)
from context_plane.model import format_time
from context_plane.store.base import ObjectInfo, Store

Action: TypeAlias = Literal[
    "key_create",
    "key_rotate",
    "key_revoke",
    "tenant_put",
    "tenant_erasure_request",
    "tenant_erasure",
    "erasure_request",
    "erasure",
]
Outcome: TypeAlias = Literal["begun", "done", "failed"]

PAGE_MAX: Final = 1_000
"""Entries of one answer: as many reads of the store at most, some 64 at a time."""
PARALLEL_READS: Final = 64
KEPT_BATCHES_MAX: Final = 1_000
"""Batches in one kept object: some tens of kilobytes."""
KEPT_RAW_BYTES_MAX: Final = 64 * 1024 * 1024
"""Uncompressed: so many batches, each of the most requests that one joins, some 100 bytes each."""
SKEW_US: Final = 3600 * 1_000_000
"""How far a store's clock may be behind ours: what it calls older than asked for by less is looked into."""
LOOKS_MAX: Final = 3
"""Each further look means that a collection took a batch away while the page was read."""
_REQUEST_CHARS: Final = 16


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. `name`: the id of an API key, or `open` (over HTTP, at a store without keys), `command`, `job`, or
    `process` (a program that uses the library). `request`: the digest of the request's id."""

    name: str
    request: str | None = None


COMMAND: Final = Actor("command")
JOB: Final = Actor("job")
PROCESS: Final = Actor("process")


def actor_of(key_id: str | None, request_id: str) -> Actor:
    """Who sent an HTTP request; `key_id` None: at a store without keys."""
    return Actor(key_id or "open", hashlib.sha256(request_id.encode()).hexdigest()[:_REQUEST_CHARS])


class Call(BaseModel):
    """One audited call as stored. `subject`: the id of the key or erasure. `code`: of the error that ended it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    at_us: int
    actor: str
    request: str | None = None
    action: Action
    tenant: str | None = None
    subject: str | None = None
    outcome: Outcome
    code: str | None = None
    counts: dict[str, int] = {}

    def describe(self) -> dict[str, Any]:
        """For a person to read; plain JSON values."""
        shown = self.model_dump(include={"actor", "request", "action", "subject", "outcome", "code", "counts"})
        return {"at": format_time(self.at_us), **shown}


@dataclass(frozen=True, slots=True)
class AuditedBatch:
    """What the log's header says of one batch. `writes`: 0 of one that an erasure emptied."""

    batch: int
    at_us: int
    writes: int
    requests: tuple[Origin, ...]

    def describe(self) -> dict[str, Any]:
        """For a person to read; plain JSON values."""
        requests = [asdict(request) for request in self.requests]
        return {"at": format_time(self.at_us), "batch": self.batch, "writes": self.writes, "requests": requests}


@dataclass(frozen=True, slots=True)
class CallsPage:
    """`next_after`: where the next page begins; None at the end."""

    calls: tuple[Call, ...]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class BatchesPage:
    batches: tuple[AuditedBatch, ...]
    next_after: int | None


@asynccontextmanager
async def audited(
    engine: Engine, tenant: str | None, actor: Actor, action: Action, *, subject: str | None = None
) -> AsyncIterator[dict[str, int]]:
    """The block is an audited act, of a tenant or of the whole store (None); what it puts into the dict is counted.

    Raises what the block raises, and `Unavailable` before it where the entry can not be written."""
    at_us = engine.now_us()
    key = str(AuditKey(tenant, at_us, engine.nonce()))
    counts: dict[str, int] = {}

    async def note(outcome: Outcome, code: str | None = None) -> None:
        entry = Call(
            at_us=at_us,
            actor=actor.name,
            request=actor.request,
            action=action,
            tenant=tenant,
            subject=subject,
            outcome=outcome,
            code=code,
            counts=counts,
        )
        await engine.store.put(key, entry.model_dump_json(exclude_none=True).encode())

    await note("begun")
    try:
        yield counts
    except Exception as error:
        with suppress(Unavailable):
            await note("failed", error.code if isinstance(error, PlaneError) else "internal")
        raise
    with suppress(Unavailable):  # the act is done, and its entry says that it was begun
        await note("done")


async def read_calls(
    store: Store,
    tenant: str | None,
    *,
    since_us: int | None = None,
    until_us: int | None = None,
    after: str | None = None,
    limit: int,
) -> CallsPage:
    """Calls from `since_us` up to `until_us`, oldest first. `after`: the `next_after` of the page before."""
    prefix = audit_prefix(tenant)
    start = f"{prefix}{since_us or 0:020d}" if after is None else f"{prefix}{after}"
    keys: list[str] = []
    async for info in store.list(prefix, start_after=start, limit=limit + 1):
        found = parse(info.key)
        assert isinstance(found, AuditKey)
        if until_us is None or found.at_us < until_us:
            keys.append(info.key)
    shown = keys[:limit]
    calls = await _all(store, shown)
    return CallsPage(tuple(map(_call, calls)), shown[-1].removeprefix(prefix) if len(keys) > limit else None)


async def read_batches(
    store: Store,
    tenant: str,
    *,
    since_us: int | None = None,
    until_us: int | None = None,
    after: int = 0,
    limit: int,
) -> BatchesPage:
    """Batches of the log numbered above `after`, in its order; of a page those made from `since_us` up to `until_us`,
    so it may be short before the end."""
    for _ in range(LOOKS_MAX - 1):
        with suppress(NotFound):
            return await _read_batches(store, tenant, since_us, until_us, after, limit)
    return await _read_batches(store, tenant, since_us, until_us, after, limit)


async def _read_batches(
    store: Store, tenant: str, since_us: int | None, until_us: int | None, after: int, limit: int
) -> BatchesPage:
    """The log is listed before what was kept of it: what left it in between is in both."""
    logged = await _logged(store, tenant, after, since_us, limit + 1)
    kept = await _kept(store, tenant, after, since_us)
    found: dict[int, AuditedBatch] = {}
    for key in kept:
        found |= {each.batch: each for each in await _read_kept(store, key) if each.batch > after}
        if len(found) > limit:
            break
    enough = sorted(found)[limit] if len(found) > limit else NUMBER_MAX
    alone = [item for item in logged if item.number < enough and item.number not in found]
    found |= {each.batch: each for each in await _headers(store, tenant, alone)}
    page = sorted(found)[:limit]
    shown = [found[n] for n in page if _within(found[n].at_us, since_us, until_us)]
    return BatchesPage(tuple(shown), page[-1] if len(found) > limit else None)


async def keep_batches(store: Store, tenant: str, batches: Sequence[LogObject]) -> None:
    """Keep what the headers of these batches say, before they go. Repeated after a crash it does no harm: what is kept
    twice is told once.

    Objects hold runs of numbers without gaps, so no other's begin between them. Raises `NotFound` where one is gone."""
    for run in _runs(sorted(batches, key=lambda each: each.number)):
        kept = await _headers(store, tenant, run)
        raw = b"".join(orjson.dumps(asdict(each), option=orjson.OPT_APPEND_NEWLINE) for each in kept)
        data = await asyncio.to_thread(compress, raw)
        with suppress(Conflict):  # an interrupted collection kept the same
            await store.put_new(str(AuditedBatchesKey(tenant, run[0].number, run[-1].number)), data)


def _runs(batches: Sequence[LogObject]) -> Iterable[list[LogObject]]:
    for _, group in itertools.groupby(enumerate(batches), lambda item: item[1].number - item[0]):
        run = [each for _, each in group]
        for start in range(0, len(run), KEPT_BATCHES_MAX):
            yield run[start : start + KEPT_BATCHES_MAX]


async def _kept(store: Store, tenant: str, after: int, since_us: int | None) -> list[AuditedBatchesKey]:
    """Kept objects that may hold batches above `after` of since then, ascending: each is younger than its batches."""
    found = []
    async for info in store.list(audited_batches_prefix(tenant)):
        key = parse(info.key)
        assert isinstance(key, AuditedBatchesKey)
        if key.last > after and _recent(info, since_us):
            found.append(key)
    return found


async def _read_kept(store: Store, key: AuditedBatchesKey) -> list[AuditedBatch]:
    raw = await asyncio.to_thread(decompress, await store.get(str(key)), size_max=KEPT_RAW_BYTES_MAX)
    return [_batch(orjson.loads(line)) for line in raw.splitlines()]


async def _logged(store: Store, tenant: str, after: int, since_us: int | None, limit: int) -> list[LogObject]:
    """The first batches of the log above `after` that were not written before `since_us`."""
    found: list[LogObject] = []
    async for info in store.list(log_prefix(tenant), start_after=str(LogKey(tenant, after)) if after else ""):
        key = parse(info.key)
        assert isinstance(key, LogKey)
        if _recent(info, since_us):
            found.append(LogObject(key.number, info.size, info.modified_us))
        if len(found) == limit:
            break
    return found


async def _headers(store: Store, tenant: str, batches: Sequence[LogObject]) -> list[AuditedBatch]:
    read = await read_headers(store, tenant, batches)
    return [AuditedBatch(b.number, b.header.created_us, b.header.writes, b.header.origins) for b in read]


async def _all(store: Store, keys: Sequence[str]) -> list[bytes]:
    gate = asyncio.Semaphore(PARALLEL_READS)

    async def one(key: str) -> bytes:
        async with gate:
            return await store.get(key)

    return list(await asyncio.gather(*map(one, keys)))


def _call(stored: bytes) -> Call:
    try:
        return Call.model_validate_json(stored)
    except ValidationError as error:
        raise Corrupt("format_unknown", "an audit entry does not decode; upgrade this process") from error


def _batch(fields: Mapping[str, Any]) -> AuditedBatch:
    return AuditedBatch(**{**fields, "requests": tuple(Origin(**each) for each in fields["requests"])})


def _recent(info: ObjectInfo, since_us: int | None) -> bool:
    return since_us is None or info.modified_us >= since_us - SKEW_US


def _within(at_us: int, since_us: int | None, until_us: int | None) -> bool:
    return (since_us is None or at_us >= since_us) and (until_us is None or at_us < until_us)
