"""Idempotency keys: the same request sent again within 24 hours is written once and answered alike.

A claim object is created before the append and holds the log head of that moment; a result object is
written after it. A retry that finds a claim without a result either meets a request still under way
(409) or, once the claim is old enough for its maker to have given up, looks for the key's hash in the
headers of the batches above the claim's head: the append itself is the truth.
Draft: draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import orjson

from context_plane.catalog.log import list_log, read_log_head
from context_plane.catalog.tail import read_headers
from context_plane.engine import Engine
from context_plane.errors import Conflict, Invalid, NotFound
from context_plane.layout.keys import ControlKey

KEEP_US: Final = 24 * 3600 * 1_000_000
ABANDONED_US: Final = 60 * 1_000_000
"""No request lives this long (its own deadline is half of it): an older claim has lost its maker."""
KEY_BYTES_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class _Claim:
    body: str
    at_us: int
    head: int


def key_hash(key: str) -> str:
    """SHA-256 hex of an idempotency key. Raises `Invalid` for an empty or overlong one."""
    if not 1 <= len(key.encode("utf-8", "surrogatepass")) <= KEY_BYTES_MAX:
        raise Invalid("query_invalid", f"an Idempotency-Key is 1-{KEY_BYTES_MAX} bytes", field="Idempotency-Key")
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


async def once(engine: Engine, tenant: str, hashed: str, body_digest: str, append: Callable[[], Awaitable[int]]) -> int:
    """The log number of the request: of its first writing, or of `append` now.

    Raises `Invalid(idempotency_key_reused)` for another body, `Conflict(idempotency_in_progress)`.
    """
    claim_key = str(ControlKey(tenant, f"idempotency/{hashed}.claim"))
    result_key = str(ControlKey(tenant, f"idempotency/{hashed}.result"))
    now_us = engine.now_us()
    head = await read_log_head(engine, tenant)
    claim = _Claim(body_digest, now_us, head.number)
    held = await _claim(engine, claim_key, claim)
    if held is not None and now_us - held.at_us > KEEP_US:
        await engine.store.delete([claim_key, result_key])
        held = await _claim(engine, claim_key, claim)
    if held is not None:
        if held.body != body_digest:
            raise Invalid("idempotency_key_reused", "that Idempotency-Key came with another body; use a new key")
        number = await _earlier(engine, tenant, hashed, result_key, held)
        if number is not None:
            return number
        if now_us - held.at_us < ABANDONED_US:
            detail = "a request with this key is under way; retry shortly"
            raise Conflict("idempotency_in_progress", detail, retry_after_s=2.0)
        await engine.store.put(claim_key, _encode(claim))
    number = await append()
    await engine.store.put(result_key, orjson.dumps({"batch": number}))
    return number


async def _claim(engine: Engine, key: str, claim: _Claim) -> _Claim | None:
    """None when the claim is ours, else whose it is."""
    try:
        await engine.store.put_new(key, _encode(claim))
    except Conflict:
        fields = orjson.loads(await engine.store.get(key))
        return _Claim(**fields)
    return None


async def _earlier(engine: Engine, tenant: str, hashed: str, result_key: str, held: _Claim) -> int | None:
    try:
        found: int = orjson.loads(await engine.store.get(result_key))["batch"]
    except NotFound:
        objects = await list_log(engine.store, tenant, after=held.head)
        for batch in await read_headers(engine.store, tenant, objects):
            if hashed in batch.header.requests:
                return batch.number
        return None
    return found


def _encode(claim: _Claim) -> bytes:
    return orjson.dumps({"body": claim.body, "at_us": claim.at_us, "head": claim.head})
