"""Erasures: of an entity, and of a whole tenant. Reads stop at once; a receipt says what was done."""

from __future__ import annotations

import logging
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Request, Response

from context_plane import erase_tenant
from context_plane.audit import Actor
from context_plane.errors import Denied, NotFound, PlaneError
from context_plane.fulfil import start, state_of
from context_plane.tenants import TenantErasure, load_tenant_erasure
from serving import answers, shapes
from serving.auth import NO_TENANT, Administers, TenantName, authorize, let_in, requester, unknown_tenant
from serving.describe import Json, gives
from serving.paths import Entity
from serving.service import Service, service_of

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["admin"])
log = logging.getLogger("context_plane.serving")

ErasureId = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{32}$",
        description="as the request that started the erasure answered",
        examples=["9f86d081884c7d659a2feaa0c55ad015"],
    ),
]


@router.delete(
    "/entities/{entity}",
    status_code=202,
    summary="Erase an entity",
    responses=gives(
        202,
        shapes.ErasureOut,
        "no read shows the entity any more (`eventual` ones of other processes within a second); the rest follows",
        links={"get_erasure": {"erasure": "$response.body#/erasure"}},
    ),
)
async def delete_entity(request: Request, caller: Administers, entity: Entity) -> Response:
    """Everything written of the entity so far is hidden on every snapshot when this answers (from `eventual` reads of
    other processes a second later), and leaves the store when the job `erase_entities` or `context-plane erase` ran.
    Asked again it is the same erasure, unless anything was written to the tenant since. Needs the scope `admin`."""
    plane = caller.service.plane
    erasure = await start(plane.engine, caller.name, entity, actor=caller.actor(request))
    plane.snapshots.forget(caller.name)
    return Json(orjson.dumps({"erasure": erasure}), status_code=202)


@router.get(
    "/erasures/{erasure}",
    summary="The state of an erasure, and its receipt",
    responses=gives(200, shapes.ErasureStateOut, "how far it is"),
)
async def get_erasure(request: Request, tenant: TenantName, erasure: ErasureId) -> Response:
    """Receipts hold a keyed hash of the entity and counts, never its id. That of an erased tenant is for operator keys.
    Needs the scope `admin`."""
    service = service_of(request)
    key = await authorize(service, request, tenant, "admin")
    engine, known = service.plane.engine, await service.tenants.get(tenant)
    let_in(service, request, known or NO_TENANT, key)
    if known is not None:
        try:
            return Json(orjson.dumps(answers.erasure(await state_of(engine, tenant, erasure))))
        except NotFound as error:
            if error.code != "erasure_not_found" or (key is not None and key.tenant is not None):
                raise
    elif key is not None and key.tenant is not None:
        raise unknown_tenant()
    found = await load_tenant_erasure(engine.store, tenant)
    if found is None or found.erasure != erasure:
        raise NotFound("erasure_not_found", "no erasure of that id", erasure=erasure)
    return Json(orjson.dumps(answers.tenant_erasure(found)))


@router.delete(
    "",
    status_code=202,
    summary="Erase a tenant",
    responses=gives(
        202,
        shapes.ErasureOut,
        "the tenant does not exist any more; its objects go",
        links={"get_erasure": {"erasure": "$response.body#/erasure"}},
    ),
)
async def delete_tenant(request: Request, tenant: TenantName) -> Response:
    """For operator keys with the scope `admin`. The name is never given again. The process goes on deleting after it
    answered; asked again, or by `context-plane erase --tenant NAME --whole-tenant`, the same erasure goes on."""
    service = service_of(request)
    key = await authorize(service, request, tenant, "admin")
    if key is not None and key.tenant is not None:
        raise Denied("scope_missing", "only an operator key erases tenants")
    let_in(service, request, NO_TENANT, key)
    known = await load_tenant_erasure(service.plane.engine.store, tenant)
    if known is None and not await service.plane.tenant_exists(tenant):
        raise unknown_tenant()
    actor = requester(key, request)
    begun = await erase_tenant.begin(service.plane.engine, tenant, actor=actor)
    service.tenants.forget(tenant)
    service.plane.snapshots.forget(tenant)
    service.begin(begun.erasure, lambda: _finish(service, begun, actor))
    return Json(orjson.dumps({"erasure": begun.erasure}), status_code=202)


async def _finish(service: Service, begun: TenantErasure, actor: Actor) -> None:
    try:
        await erase_tenant.finish(service.plane.engine, begun.tenant, actor=actor)
    except PlaneError as error:
        log.error("the erasure %s of a tenant stopped: %s; ask for it again", begun.erasure, error.code)
    except Exception:
        log.exception("the erasure %s of a tenant stopped; ask for it again", begun.erasure)
