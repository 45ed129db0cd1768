"""Bundles of many entities, as a stream of lines."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from context_plane.bundle.render import render_text
from context_plane.cache.tiers import temperature
from context_plane.errors import PlaneError
from context_plane.recall.values import BundleAnswer
from serving import shapes
from serving.auth import Reads
from serving.describe import gives, takes
from serving.fields import Format
from serving.problems import body_of
from serving.read import body_as
from serving.service import answer_headers
from serving.stream import NDJSON, chunks, lines
from serving.wire import BatchBody

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["read"])

BatchItem: TypeAlias = BundleAnswer | tuple[str, PlaneError]


@router.post(
    "/context:batch",
    summary="Bundles of many entities",
    openapi_extra=takes(BatchBody),
    responses=gives(
        200,
        shapes.BatchLineOut,
        "a line per entity, in request order; errors inline",
        headers=("X-Snapshot", "X-Cache"),
        lines=True,
    ),
)
async def batch_context(request: Request, caller: Reads) -> StreamingResponse:
    """Streams NDJSON. `"entities": "*"` takes every entity, in key order. A last line with `error` and no `entity`
    says that the answer broke off."""
    wanted = await body_as(request, caller, BatchBody)
    # The first item is awaited in it, so that an unknown spec or snapshot is a status and not a line.
    cut, items = await caller.service.plane.bundle_batch(
        caller.name,
        None if wanted.entities == "*" else wanted.entities,
        spec=wanted.spec,
        as_of=wanted.day(),
        snapshot=wanted.snapshot,
        consistency=wanted.consistency,
    )
    request_id: str = request.scope["request_id"]
    told = lines(items, partial(_line, cut=cut, form=wanted.format, request_id=request_id), request_id)
    headers = answer_headers(snapshot=cut, cache=temperature())  # of what the first line took: the rest is read later
    return StreamingResponse(chunks(told), headers=dict(headers), media_type=NDJSON)


def _line(item: BatchItem, cut: str, form: Format, request_id: str) -> bytes:
    shown: dict[str, Any]
    if isinstance(item, BundleAnswer):
        shown = {
            "entity": item.entity,
            "spec": item.spec,
            "as_of": item.as_of,
            "digest": item.digest,
            "freshness": item.freshness,
            "snapshot": cut,
        }
        if form == "json":
            shown["bundle"] = orjson.Fragment(item.json_bytes)
        else:
            shown["text"] = render_text(item.json_bytes)
    else:
        entity, error = item
        shown = {"entity": entity, "snapshot": cut, "error": body_of(error, request_id)}
    return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)
