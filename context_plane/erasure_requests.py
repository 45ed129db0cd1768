"""Erasure requests: whom to erase, kept in the tenant's own folder until it is done.

A request is one small object under the tenant's `control/`, and the only one that holds the entity of an erasure.
Whoever works it off (a job, whose configuration is stored and shown, or a command that was interrupted) is told its
id alone. The id is also that of the erasure: calling again with it goes on where the last call stopped.

The id is a keyed hash of the entity and of the newest number of the log. So two who ask at the same time file one
request, and after writes it is another one. The key is the tenant's, which leaves with its manifests.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from context_plane.audit import PROCESS, Actor, audited
from context_plane.catalog.erasures import entity_hash
from context_plane.catalog.head import commit, load_head
from context_plane.catalog.log import read_log_head
from context_plane.engine import Engine
from context_plane.erase import load_receipt
from context_plane.errors import Conflict, Corrupt, NotFound
from context_plane.layout.keys import ControlKey, Key, parse
from context_plane.model import check_entity, check_tenant
from context_plane.store.base import Store

FOLDER: Final = "erasure-requests/"
PARALLEL_REQUESTS: Final = 32
"""Read at once by whoever looks for one."""
_ID: Final = re.compile(r"[0-9a-f]{32}")


class ErasureRequest(BaseModel):
    """As stored. Times are microseconds since 1970."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    entity: str
    requested_us: int


async def request_erasure(
    engine: Engine, tenant: str, entity: str, *, anew: bool = False, actor: Actor = PROCESS
) -> str:
    """File a request and return its id; that of the open one where the entity is already asked for, unless `anew` and
    something was written since. Where the erasure of that id is done, nothing is filed.

    Nothing is erased or hidden yet. `actor`: for the audit. Raises `Invalid` for a malformed tenant or entity.
    """
    check_tenant(tenant)
    check_entity(entity)
    known = None if anew else await _open_request(engine, tenant, entity)
    if known is not None:
        return known
    made = ErasureRequest(id=await _id(engine, tenant, entity), entity=entity, requested_us=engine.now_us())
    if await load_receipt(engine.store, tenant, made.id) is not None:
        return made.id
    async with audited(engine, tenant, actor, "erasure_request", subject=made.id) as counts:
        counts["filed"] = 0
        with suppress(Conflict):  # somebody else asks at the same time
            await engine.store.put_new(_key(tenant, made.id), made.model_dump_json().encode())
            counts["filed"] = 1
    return made.id


async def _open_request(engine: Engine, tenant: str, entity: str) -> str | None:
    """The entity's open request, the one begun last. Whose the begun ones are is told by their tombstones: only those
    that are not begun, or wait for their check, are read."""
    head, listed = await asyncio.gather(load_head(engine.store, tenant), open_requests(engine.store, tenant))
    hashed = entity_hash(head.erasure_key, entity)
    begun = {stone.erasure: stone.hash == hashed for stone in head.tombstones}
    still_open = set(listed)
    own = [erasure for erasure, same in begun.items() if same and erasure in still_open]
    if own:
        return own[-1]
    gate = asyncio.Semaphore(PARALLEL_REQUESTS)

    async def asks(erasure: str) -> bool:
        async with gate:
            try:
                return (await load_request(engine.store, tenant, erasure)).entity == entity
            except NotFound:  # done since it was listed
                return False

    others = [erasure for erasure in listed if erasure not in begun]
    found = await asyncio.gather(*map(asks, others))
    return next((erasure for erasure, same in zip(others, found, strict=True) if same), None)


async def _id(engine: Engine, tenant: str, entity: str) -> str:
    """Of a tenant without any manifest the first one is committed: it gives the tenant its key."""
    head = await commit(engine, tenant, lambda found: found if found.erasure_key else found.model_copy())
    newest = (await read_log_head(engine, tenant, head)).number
    return entity_hash(entity_hash(head.erasure_key, f"erased up to {newest}"), entity)


async def open_requests(store: Store, tenant: str) -> list[str]:
    """Ids of the requests that are not done yet, ascending."""
    prefix = str(ControlKey(check_tenant(tenant), FOLDER))
    return [info.key.removeprefix(prefix).removesuffix(".json") async for info in store.list(prefix)]


async def load_request(store: Store, tenant: str, erasure: str) -> ErasureRequest:
    """Raises `NotFound(erasure_not_found)` where none of that id is open."""
    try:
        stored = await store.get(_key(tenant, erasure))
    except NotFound as error:
        raise _unknown(erasure) from error
    try:
        return ErasureRequest.model_validate_json(stored)
    except ValidationError:
        detail = "an erasure request does not decode; upgrade this process, or file the request again"
        raise Corrupt("format_unknown", detail, request=erasure) from None  # the cause quotes the entity


async def drop_request(store: Store, tenant: str, erasure: str) -> None:
    await store.delete([_key(tenant, erasure)])


def is_request(key: Key) -> bool:
    """Whether a key is that of a request: such an object names its entity for as long as it is open."""
    return isinstance(key, ControlKey) and key.tenant is not None and key.path.startswith(FOLDER)


def check_request_id(erasure: str) -> str:
    """The id itself, or `NotFound(erasure_not_found)`: what is no id names no request."""
    if not _ID.fullmatch(erasure):
        raise _unknown(erasure)
    return erasure


def _key(tenant: str, erasure: str) -> str:
    check_request_id(erasure)
    key = ControlKey(check_tenant(tenant), f"{FOLDER}{erasure}.json")
    assert is_request(parse(str(key)))
    return str(key)


def _unknown(erasure: str) -> NotFound:
    return NotFound("erasure_not_found", "no open erasure request of that id; file one", request=erasure[:64])
