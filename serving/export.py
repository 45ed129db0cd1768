"""Everything a tenant holds, as a stream of one cut."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from context_plane.wire import export_line
from serving import fields, wire
from serving.auth import Reads
from serving.describe import gives
from serving.service import answer_headers
from serving.stream import NDJSON, chunks, lines
from serving.wire import EventBody

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["read"])


class ExportQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    since: fields.Since = None
    until: fields.Until = None
    snapshot: fields.Snapshot = None


@router.get(
    "/export",
    summary="Every event",
    responses=gives(
        200, EventBody, "a line per event, as `POST …/events` takes them", headers=["X-Snapshot"], lines=True
    ),
)
async def get_export(request: Request, caller: Reads, query: Annotated[ExportQuery, Query()]) -> StreamingResponse:
    """NDJSON by day, entity and time, all of one cut, unbuilt events included; vectors that were sent are in it. A last
    line with `error` says that the answer broke off."""
    since_us, until_us = wire.time_of(query.since, "query", "since"), wire.time_of(query.until, "query", "until")
    snapshot, events = await caller.service.plane.export(
        caller.name, since_us=since_us, until_us=until_us, snapshot=query.snapshot
    )
    told = lines(events, export_line, request.scope["request_id"])
    return StreamingResponse(chunks(told), headers=dict(answer_headers(snapshot=snapshot)), media_type=NDJSON)
