"""Write routes. A 2xx means durable; one invalid line refuses the request, and nothing of it is written."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from context_plane.errors import Invalid
from context_plane.idempotency import KEEP_US, KEY_BYTES_MAX
from context_plane.model import Write, sha256_hex
from context_plane.wire import parse_ndjson, parse_objects
from serving import answers, limits, shapes, wire
from serving.auth import Caller, Writes
from serving.describe import Json, gives, takes
from serving.wire import DeleteEventsBody, EventBody, EventsBody

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["write"])

NDJSON_TYPES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
Visible = Literal["now", "after_build"]
IdempotencyKey = Annotated[
    str | None,
    Header(
        description=f"1-{KEY_BYTES_MAX} bytes; the same request again within {KEEP_US // 3_600_000_000} h is written "
        "once",
        examples=["load-2026-03-04"],
    ),
]


class WriteQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    visible: Visible = Field(
        default="now",
        description="after_build: a bulk load, read when its days are built",
        examples=["after_build"],
    )


@router.post(
    "/events",
    status_code=201,
    summary="Write events",
    description='NDJSON, or JSON `{"events": [...]}`; `Content-Encoding: zstd` or `gzip`. '
    f"Up to {limits.EVENTS_MAX:,} events and {limits.EVENTS_BODY_BYTES_MAX // 1024**2} MiB decoded. "
    "`visible=after_build` keeps bulk loads out of the searched tail until their days are built.",
    openapi_extra=takes(EventsBody, ndjson=EventBody),
    responses=gives(
        201,
        shapes.AcceptedOut,
        "durable",
        headers=["X-Snapshot"],
        links={
            "get_changes": {"since": "$response.body#/snapshot"},
            "get_export": {"snapshot": "$response.body#/snapshot"},
            "get_entities": {"snapshot": "$response.body#/snapshot"},
            "get_snapshot": {},
        },
    ),
)
async def post_events(
    request: Request, caller: Writes, query: Annotated[WriteQuery, Query()], idempotency_key: IdempotencyKey = None
) -> Response:
    """Durable when it answers 201."""
    media_type = limits.check_media_type(request, *NDJSON_TYPES, "application/json")
    return await _write(
        request,
        caller,
        "json" if media_type == "application/json" else "ndjson",
        visible=query.visible,
        idempotency_key=idempotency_key,
    )


@router.post(
    "/events:delete",
    status_code=201,
    summary="Delete events",
    openapi_extra=takes(DeleteEventsBody),
    responses=gives(201, shapes.AcceptedOut, "durable", headers=["X-Snapshot"]),
)
async def delete_events(request: Request, caller: Writes, idempotency_key: IdempotencyKey = None) -> Response:
    """Named by entity, id and any time of their day. Deleting what is not there is no error."""
    limits.check_media_type(request, "application/json")
    return await _write(request, caller, "deletes", visible="now", idempotency_key=idempotency_key)


async def _write(
    request: Request,
    caller: Caller,
    form: Literal["ndjson", "json", "deletes"],
    *,
    visible: Visible,
    idempotency_key: str | None,
) -> Response:
    service = caller.service
    now_us, dim = service.plane.engine.now_us(), service.plane.engine.embedder.dim
    horizon_us = service.plane.settings.horizon_us
    async with limits.body(request, service.ledger, bytes_max=limits.EVENTS_BODY_BYTES_MAX) as raw:
        writes, digest = await limits.off_loop(
            len(raw), lambda: (_parse(raw, form, now_us, horizon_us, dim), sha256_hex(raw))
        )
        accepted = await service.plane.write(
            caller.name,
            writes,
            body_bytes=len(raw),
            visible=visible,
            idempotency_key=idempotency_key,
            body_digest=f"{form}:{visible}:{digest}",
            actor=caller.actor(request),
            paid=service.rates.events(caller.tenant, len(writes)),
        )
    service.metrics.events.inc(accepted.accepted)
    headers = {"x-snapshot": accepted.snapshot}
    return Json(orjson.dumps(answers.accepted(accepted)), status_code=201, headers=headers)


def _parse(
    raw: bytes, form: Literal["ndjson", "json", "deletes"], now_us: int, horizon_us: int, dim: int
) -> list[Write]:
    if form == "ndjson":
        return parse_ndjson(raw, now_us=now_us, events_max=limits.EVENTS_MAX, dim=dim, horizon_us=horizon_us)
    held = wire.loads(raw)
    if not isinstance(held, dict) or held.keys() != {"events"} or not isinstance(held["events"], list):
        raise Invalid("malformed_event", 'the body reads {"events": [...]}; or send application/x-ndjson').located()
    return parse_objects(
        held["events"],
        now_us=now_us,
        events_max=limits.EVENTS_MAX,
        dim=dim,
        deletes=form == "deletes",
        horizon_us=horizon_us,
    )
