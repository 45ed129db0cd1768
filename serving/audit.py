"""The audit over HTTP: who did what to a tenant, for keys with the scope `admin`."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from context_plane.audit import PAGE_MAX, Action, Outcome, read_batches, read_calls
from context_plane.tenants import Tenant, load_tenant_erasure
from serving import cursors, examples, wire
from serving.auth import Caller, TenantName, authorize, let_in, no_tenant
from serving.describe import Json, gives
from serving.service import service_of

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["admin"])


class AuditQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    since: str | None = Field(default=None, description="RFC 3339; included", examples=["2026-01-01T00:00:00Z"])
    until: str | None = Field(default=None, description="RFC 3339; excluded", examples=["2026-02-01T00:00:00Z"])
    limit: int = Field(default=100, ge=1, le=PAGE_MAX, description="entries at most", examples=[100])
    cursor: str | None = Field(default=None, description="of the page before", examples=[examples.CURSOR])


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


At = Annotated[str, Field(description="when, RFC 3339 in UTC", examples=["2026-03-04T09:15:00Z"])]
ActorName = Annotated[
    str, Field(description="id of an API key; or open, command, job, process", examples=[examples.ORIGIN["actor"]])
]
RequestDigest = Annotated[
    str | None,
    Field(description="first 16 hex digits of the SHA-256 of the request's id", examples=["9f86d081884c7d65"]),
]
Cursor = Annotated[
    str | None, Field(description="send it back for the next page; null at the end", examples=[examples.CURSOR])
]


class CallOut(_Answer):
    at: At
    actor: ActorName
    request: RequestDigest
    action: Action = Field(description="what was done", examples=["key_create"])
    subject: str | None = Field(description="id of the key or erasure", examples=["0123456789abcdef"])
    outcome: Outcome = Field(
        description="begun: nobody lived to tell how it ended", examples=[examples.CALL["outcome"]]
    )
    code: str | None = Field(description="of the error that ended it", examples=[examples.CALL["code"]])
    counts: dict[str, int] = Field(description="what was done, in numbers", examples=[{"objects_deleted": 12}])


class CallsOut(_Answer):
    calls: list[CallOut] = Field(description="oldest first", examples=[[examples.CALL]])
    cursor: Cursor


class OriginOut(_Answer):
    actor: ActorName
    request: RequestDigest
    writes: int = Field(description="events written", examples=[2])
    deletes: int = Field(description="events deleted", examples=[0])


class AuditedBatchOut(_Answer):
    at: At
    batch: int = Field(description="its number in the log", examples=[41])
    writes: int = Field(description="0 where an erasure emptied the batch", examples=[2])
    requests: list[OriginOut] = Field(description="that the batch joined", examples=[[examples.ORIGIN]])


class WritesOut(_Answer):
    batches: list[AuditedBatchOut] = Field(description="in the order of the log", examples=[[examples.AUDITED_BATCH]])
    cursor: Cursor


async def audited_tenant(request: Request, tenant: TenantName) -> Caller:
    """Who may read the audit: keys with the scope `admin`, and of an erased tenant operators alone."""
    service = service_of(request)
    key = await authorize(service, request, tenant, "admin")
    found, operator = await service.tenants.get(tenant), key is None or key.tenant is None
    if found is None and operator and await load_tenant_erasure(service.plane.engine.store, tenant) is not None:
        found = Tenant(tenant=tenant)
    if found is None:
        raise no_tenant(service, key)
    return let_in(service, request, found, key)


Audits = Annotated[Caller, Depends(audited_tenant)]


@router.get("/audit", summary="Calls that changed the tenant", responses=gives(200, CallsOut, "a page, oldest first"))
async def get_audit(caller: Audits, query: Annotated[AuditQuery, Query()]) -> Response:
    """Keys, settings and erasures. `begun`: nobody lived to tell how it ended. Operators read that of an erased tenant
    too."""
    listing = ("audit", caller.name)
    page = await read_calls(
        caller.service.plane.engine.store,
        caller.name,
        since_us=wire.time_of(query.since, "query", "since"),
        until_us=wire.time_of(query.until, "query", "until"),
        after=None if query.cursor is None else cursors.read(listing, query.cursor, str)[0],
        limit=query.limit,
    )
    following = None if page.next_after is None else cursors.write(listing, [page.next_after])
    return Json(orjson.dumps({"calls": [call.describe() for call in page.calls], "cursor": following}))


@router.get("/audit/writes", summary="Who wrote", responses=gives(200, WritesOut, "a page, in the order of the log"))
async def get_written(caller: Audits, query: Annotated[AuditQuery, Query()]) -> Response:
    """Each batch of the log and the requests that it joined. A page may be short, or empty, before the end."""
    listing = ("audit/writes", caller.name)
    page = await read_batches(
        caller.service.plane.engine.store,
        caller.name,
        since_us=wire.time_of(query.since, "query", "since"),
        until_us=wire.time_of(query.until, "query", "until"),
        after=0 if query.cursor is None else cursors.read(listing, query.cursor, int)[0],
        limit=query.limit,
    )
    following = None if page.next_after is None else cursors.write(listing, [page.next_after])
    return Json(orjson.dumps({"batches": [batch.describe() for batch in page.batches], "cursor": following}))
