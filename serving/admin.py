"""Tenants, and what operators and probes ask of the process."""

from __future__ import annotations

import asyncio
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from context_plane.access import AccessKey
from context_plane.errors import Denied, NotFound
from context_plane.recall.values import LIMIT_MAX
from context_plane.tenants import Tenant, list_tenants, put_tenant
from serving import answers, cursors, examples, limits, shapes, wire
from serving.auth import NO_TENANT, Reads, TenantName, authenticate, authorize, let_in, requester
from serving.describe import Json, gives, takes
from serving.metrics import MEDIA_TYPE as METRICS_TYPE
from serving.service import Service, service_of
from serving.wire import TenantBody

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["admin"])
tenants = APIRouter(prefix="/v1/tenants", tags=["admin"])
process = APIRouter(tags=["process"])


class TenantsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=100, ge=1, le=LIMIT_MAX, description="names at most", examples=[100])
    cursor: str | None = Field(default=None, description="of the page before", examples=[examples.CURSOR])


@router.put(
    "",
    summary="Create a tenant, or replace its settings",
    openapi_extra=takes(TenantBody),
    responses={
        **gives(200, shapes.TenantOut, "replaced"),
        201: {"model": shapes.TenantOut, "description": "created"},
    },
)
async def create_tenant(request: Request, tenant: TenantName) -> Response:
    """For operator keys with the scope `admin`."""
    service = service_of(request)
    key = await authorize(service, request, tenant, "admin")
    if key is not None and key.tenant is not None:
        raise Denied("scope_missing", "only an operator key creates or changes tenants")
    let_in(service, request, NO_TENANT, key)
    limits.check_media_type(request, "application/json")
    async with limits.body(request, service.ledger, bytes_max=limits.QUERY_BODY_BYTES_MAX) as raw:
        wanted = wire.read(TenantBody, raw)
    for n, name in enumerate(wanted.settings.specs or ()):
        try:
            service.plane.bundles.spec(name)
        except NotFound as error:
            error.located("settings", "specs", n)
            raise
    actor = requester(key, request)
    record, created = await put_tenant(service.plane.engine, tenant, wanted.settings, actor=actor)
    service.tenants.forget(tenant)
    return Json(orjson.dumps(answers.tenant(record)), status_code=201 if created else 200)


@router.get("", summary="A tenant's settings", responses=gives(200, shapes.TenantOut, "as stored"))
async def get_tenant(caller: Reads) -> Response:
    """What `PUT` stored last, with the defaults of what it left out. Needs `read`."""
    return Json(orjson.dumps(answers.tenant(caller.tenant)))


@tenants.get("", summary="Tenants that the key opens", responses=gives(200, shapes.TenantsOut, "a page"))
async def get_tenants(request: Request, query: Annotated[TenantsQuery, Query()]) -> Response:
    """Names, ascending: all of them for an operator key and in open mode, else the key's own. Needs `read`."""
    service = service_of(request)
    key = await authenticate(service, request)
    if key is not None and "read" not in key.scopes:
        raise Denied("scope_missing", "the API key lacks the scope read")
    own = None if key is None or key.tenant is None else await service.tenants.get(key.tenant)
    let_in(service, request, own or NO_TENANT, key)
    listing = ("tenants",)
    after = "" if query.cursor is None else cursors.read(listing, query.cursor, str)[0]
    rest = [name for name in await _opened(service, key, own) if name > after]
    page = rest[: query.limit]
    following = cursors.write(listing, [page[-1]]) if len(rest) > len(page) else None
    return Json(orjson.dumps(answers.tenants(page, following)))


async def _opened(service: Service, key: AccessKey | None, own: Tenant | None) -> list[str]:
    """Existing tenants that the key opens, ascending. Asks for nothing of other tenants."""
    if key is None or key.tenant is None:
        return await list_tenants(service.plane.engine.store)
    return [] if own is None else [own.tenant]


@process.get("/healthz", summary="The process runs", responses=gives(200, shapes.HealthOut, "always"))
async def healthz() -> Response:
    """Asks nobody, the store neither: for a probe that restarts what hangs. `readyz` tells whether it can serve."""
    return Json(b'{"status":"ok"}')


@process.get("/readyz", summary="The process can serve", responses=gives(200, shapes.HealthOut, "the store answers"))
async def readyz(request: Request) -> Response:
    """Asks the store, at most every few seconds."""
    await service_of(request).keyring.configured()
    return Json(b'{"status":"ok"}')


@process.get("/metrics", summary="Metrics", responses=gives(200, None, "as of now", text=examples.METRIC))
async def metrics(request: Request) -> Response:
    """Prometheus text format. No label names a tenant."""
    shown = service_of(request).metrics
    shown.carry()
    text = await asyncio.to_thread(shown.text)
    return Response(text, headers={"content-type": METRICS_TYPE})
