"""Warming by hand: a hint says what is going to be read, and the answer does not wait for it."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from context_plane.warm import HINT_DAYS_MAX, HINT_ENTITIES_MAX
from serving import limits, wire
from serving.auth import Reads
from serving.describe import Json, gives, takes

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["read"])


class WarmBody(BaseModel):
    """What is going to be read: entities, or days of the whole tenant."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    entities: Annotated[list[str], Field(min_length=1, max_length=HINT_ENTITIES_MAX, fail_fast=True)] | None = Field(
        default=None, description="whose blocks are fetched", examples=[["acct-0042"]]
    )
    days: Annotated[list[str], Field(min_length=1, max_length=HINT_DAYS_MAX, fail_fast=True)] | None = Field(
        default=None, description="what tenant-wide reads take of these days is fetched", examples=[["2026-03-04"]]
    )
    pin: bool | None = Field(
        default=None,
        description="true keeps it in memory, false lets it go, absent changes no pin",
        examples=[True],
    )


class WarmOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    entities: int = Field(description="named, without repeats", examples=[1])
    days: int = Field(description="named, without repeats", examples=[0])
    pin: bool | None = Field(description="as asked", examples=[True])


@router.post(
    "/warm",
    status_code=202,
    summary="Fetch ahead what is going to be read",
    openapi_extra=takes(WarmBody),
    responses=gives(202, WarmOut, "taken; fetched in the background"),
)
async def post_warm(request: Request, caller: Reads) -> Response:
    """A hint to the process that answers, and through the disk cache to those beside it. Answers at once. Pins hold
    until they are let go or the process ends, within a quarter of its memory; publishes move them on."""
    limits.check_media_type(request, "application/json")
    async with limits.body(request, caller.service.ledger, bytes_max=limits.QUERY_BODY_BYTES_MAX) as raw:
        wanted = await limits.off_loop(len(raw), lambda: wire.read(WarmBody, raw))
    caller.service.plane.warmer.warm(caller.name, entities=wanted.entities, days=wanted.days, pin=wanted.pin)
    taken = {"entities": len(set(wanted.entities or ())), "days": len(set(wanted.days or ())), "pin": wanted.pin}
    return Json(orjson.dumps(taken), status_code=202)
