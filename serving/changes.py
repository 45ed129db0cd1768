"""What changed since a snapshot, in pages that are all of one newer cut."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from context_plane.recall.values import ChangesPosition, ChangesRequest
from serving import answers, cursors, fields, shapes
from serving.auth import Reads
from serving.describe import Json, gives
from serving.service import answer_headers

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["read"])


class ChangesQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    since: str = Field(description="a snapshot of the last 24 hours: `X-Snapshot` of any answer", examples=["17.41"])
    snapshot: str | None = Field(default=None, description="the newer cut; default: the newest", examples=["18.44"])
    limit: fields.Limit = 100
    cursor: fields.Cursor = None


@router.get(
    "/changes",
    summary="What changed since a snapshot",
    responses=gives(
        200,
        shapes.ChangesOut,
        "a page: entities whose events changed, then bundles that did",
        headers=["X-Snapshot"],
    ),
)
async def get_changes(caller: Reads, query: Annotated[ChangesQuery, Query()]) -> Response:
    """Entities that were written to, and bundles whose content differs. Go on while there is a cursor; then ask anew
    since `snapshot`. Answers 410 when an erasure (`snapshot_erased`) or age (`snapshot_expired`) ended `since`."""
    listing = ("changes", caller.name, query.since)
    position, snapshot = None, query.snapshot
    if query.cursor is not None:
        snapshot, part, number, line = cursors.read(listing, query.cursor, str, str, int, int)
        position = ChangesPosition(part, number, line)
    request = ChangesRequest(query.since, snapshot, query.limit, position)
    answer = await caller.service.plane.changes(caller.name, request)
    following = answer.next_position
    cursor = None if following is None else cursors.write(listing, [answer.snapshot, *following])
    return Json(orjson.dumps(answers.changes(answer, cursor)), headers=answer_headers(snapshot=answer.snapshot))
