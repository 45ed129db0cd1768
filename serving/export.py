"""Everything a tenant holds, as a stream of one cut."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from context_plane.errors import PlaneError
from context_plane.model import Event
from context_plane.wire import export_line
from serving import fields, wire
from serving.auth import Reads
from serving.describe import gives
from serving.problems import body_of
from serving.service import answer_headers
from serving.stream import chunks
from serving.wire import EventBody

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["read"])

NDJSON: Final = "application/x-ndjson"


class ExportQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    since: fields.Since = None
    until: fields.Until = None
    snapshot: fields.Snapshot = None


@router.get(
    "/export",
    summary="Every event",
    responses=gives(200, EventBody, "a line per event, as `POST …/events` takes them", media=NDJSON),
)
async def get_export(request: Request, caller: Reads, query: Annotated[ExportQuery, Query()]) -> StreamingResponse:
    """NDJSON by day, entity and time, all of one cut, unbuilt events included; vectors that were sent are in it. A last
    line with `error` says that the answer broke off."""
    since_us, until_us = wire.time_of(query.since, "since"), wire.time_of(query.until, "until")
    snapshot, events = await caller.service.plane.export(
        caller.name, since_us=since_us, until_us=until_us, snapshot=query.snapshot
    )
    request_id: str = request.scope["request_id"]
    return StreamingResponse(
        chunks(_lines(events, request_id)), headers=dict(answer_headers(snapshot=snapshot)), media_type=NDJSON
    )


async def _lines(events: AsyncGenerator[Event, None], request_id: str) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(events):
            async for event in events:
                yield export_line(event)
    except PlaneError as error:
        # The status is sent already: the last line says that the answer ends early.
        yield orjson.dumps({"error": body_of(error, request_id)}, option=orjson.OPT_APPEND_NEWLINE)
