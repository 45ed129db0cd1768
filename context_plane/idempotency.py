"""Idempotency keys: the same request sent again within 24 hours is written once and answered alike.

A claim is created before the append and holds the log head of that moment; a result is written after it. A
retry that finds a claim without a result looks for the key's hash in the headers of the batches above the
claim's head: the append itself is the truth. Not finding it, it either meets a request still under way (409)
or, once the claim is old enough for its maker to have given up, makes the next claim. Claims of a key are
numbered and created exclusively, so of concurrent requests, first ones and retries alike, one appends. A collector
takes objects one by one, and numbers then begin anew: a result names the maker of its claim, and is no other's.
Draft: draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

import orjson

from context_plane.catalog.head import load_head
from context_plane.catalog.log import list_log, read_log_head
from context_plane.catalog.tail import read_headers
from context_plane.engine import Engine
from context_plane.errors import Conflict, Invalid, NotFound, PlaneError, Unavailable
from context_plane.layout.keys import ControlKey

KEEP_US: Final = 24 * 3600 * 1_000_000
APPEND_START_S: Final = 30.0
"""From its claim on: no request of the store that writes its batch is begun later."""
ABANDONED_US: Final = 60 * 1_000_000
"""An older claim has lost its maker: what it began in time was ended by the timeout of a store's request, 30 s."""
KEY_BYTES_MAX: Final = 256
CLAIM_RACES_MAX: Final = 5
"""Claims lost in a row before a request gives way to whoever wins them."""
_REFUSED: Final = frozenset({"tail_full", "rate_limited"})
"""Refused before anything was written: the retry need not wait."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where a request's writes are: its batch, and the manifest version that was newest before it."""

    batch: int
    manifest_version: int


@dataclass(frozen=True, slots=True)
class _Claim:
    """`head`, `version`: the newest log number and manifest before the append. `maker`: a nonce."""

    body: str
    at_us: int
    head: int
    version: int
    maker: str


def key_hash(key: str) -> str:
    """SHA-256 hex of an idempotency key. Raises `Invalid` for an empty or overlong one."""
    if not 1 <= len(key.encode("utf-8", "surrogatepass")) <= KEY_BYTES_MAX:
        raise Invalid("query_invalid", f"an Idempotency-Key is 1-{KEY_BYTES_MAX} bytes", field="Idempotency-Key")
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


async def once(
    engine: Engine, tenant: str, hashed: str, body_digest: str, append: Callable[[float], Awaitable[int]]
) -> Recorded:
    """Where the request is recorded: by its first writing, or by `append`, which returns the batch, now.
    `append` is told until when it may begin to write (`monotonic_s`).

    Raises `Invalid(idempotency_key_reused)` for another body, `Conflict(idempotency_in_progress)`.
    """
    for _ in range(CLAIM_RACES_MAX):
        start_by_s, now_us = engine.monotonic_s() + APPEND_START_S, engine.now_us()
        number, held = await _newest_claim(engine, tenant, hashed)
        if held is not None and now_us - held.at_us <= KEEP_US:
            if held.body != body_digest:
                raise Invalid("idempotency_key_reused", "that Idempotency-Key came with another body; use a new key")
            batch = await _earlier(engine, tenant, hashed, number, held)
            if batch is not None:
                return Recorded(batch, held.version)
            if now_us - held.at_us < ABANDONED_US:
                raise _in_progress()
        manifest = await load_head(engine.store, tenant)
        head = await read_log_head(engine, tenant, manifest)
        claim = _Claim(body_digest, now_us, head.number, manifest.version, engine.nonce())
        if await _create(engine, _key(tenant, hashed, number + 1, "claim"), claim):
            return await _append(engine, tenant, hashed, number + 1, claim, partial(append, start_by_s))
    raise _in_progress()


async def _append(
    engine: Engine, tenant: str, hashed: str, number: int, claim: _Claim, append: Callable[[], Awaitable[int]]
) -> Recorded:
    try:
        batch = await append()
    except Unavailable as error:
        if error.code in _REFUSED:
            await engine.store.delete([_key(tenant, hashed, number, "claim")])
        raise
    with contextlib.suppress(Unavailable):  # a shortcut only: the batch is durable and names the key
        result = orjson.dumps({"batch": batch, "maker": claim.maker})
        await engine.store.put(_key(tenant, hashed, number, "result"), result)
    return Recorded(batch, claim.version)


async def _newest_claim(engine: Engine, tenant: str, hashed: str) -> tuple[int, _Claim | None]:
    """The newest claim of a key and its number; (0, None) when there is none."""
    newest = 0
    prefix = str(ControlKey(tenant, f"idempotency/{hashed}/"))
    async for info in engine.store.list(prefix):
        name = info.key.removeprefix(prefix)
        if name.endswith(".claim"):
            newest = max(newest, int(name.removesuffix(".claim")))
    if not newest:
        return 0, None
    try:
        return newest, _decode(await engine.store.get(_key(tenant, hashed, newest, "claim")))
    except NotFound:  # given back, or collected
        return newest, None


async def _create(engine: Engine, key: str, claim: _Claim) -> bool:
    """Whether the claim is ours. A lost response is settled by reading it back."""
    try:
        await engine.store.put_new(key, orjson.dumps(asdict(claim)))
    except (Conflict, Unavailable) as error:
        try:
            return _decode(await engine.store.get(key)).maker == claim.maker
        except NotFound:
            if isinstance(error, Conflict):
                return False  # given back meanwhile
            raise error from None
    return True


async def _earlier(engine: Engine, tenant: str, hashed: str, number: int, held: _Claim) -> int | None:
    """The batch that the claim's maker wrote, if it did."""
    with contextlib.suppress(NotFound):
        result = orjson.loads(await engine.store.get(_key(tenant, hashed, number, "result")))
        if result.get("maker") == held.maker:
            found: int = result["batch"]
            return found
    objects = await list_log(engine.store, tenant, after=held.head)
    for batch in await read_headers(engine.store, tenant, objects):
        if hashed in batch.header.requests:
            return batch.number
    return None


def _key(tenant: str, hashed: str, number: int, what: str) -> str:
    return str(ControlKey(tenant, f"idempotency/{hashed}/{number:06d}.{what}"))


def _decode(stored: bytes) -> _Claim:
    return _Claim(**orjson.loads(stored))


def _in_progress() -> PlaneError:
    return Conflict("idempotency_in_progress", "a request with this key is under way; retry shortly", retry_after_s=2.0)
