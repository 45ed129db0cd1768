"""Read routes: context, batches, timelines, entities, search, the snapshot."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal, TypeAlias

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from context_plane.bundle.render import render_text
from context_plane.errors import PlaneError
from context_plane.model import day_start_us
from context_plane.recall.values import LIMIT_MAX, BundleAnswer, TimelineRequest
from serving import answers, cursors, limits, wire
from serving.auth import Reads
from serving.describe import Json, Plain, gives, takes
from serving.paths import Entity
from serving.problems import body_of
from serving.service import answer_headers
from serving.wire import BatchBody, Format, OnDemandBody, SearchBody

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["read"])

TEXT: Final = "text/plain; charset=utf-8"
NDJSON: Final = "application/x-ndjson"
CACHING: Final = "private, no-cache"
"""A client may keep a bundle, and asks with its ETag before it uses it again."""
CHUNK_BYTES: Final = 64 * 1024
"""Lines of a batch that travel together: a send per line costs more than the line."""
CHUNK_S: Final = 0.05
"""A line waits no longer for company."""

BatchItem: TypeAlias = BundleAnswer | tuple[str, PlaneError]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ContextQuery(_Query):
    spec: str = wire.DEFAULT_SPEC
    as_of: str | None = Field(default=None, description="a day; default: the newest built", examples=["2026-03-04"])
    format: Format = "json"
    snapshot: str | None = None


class TimelineQuery(_Query):
    since: str | None = Field(default=None, description="RFC 3339; included", examples=["2026-01-01T00:00:00Z"])
    until: str | None = Field(default=None, description="RFC 3339; excluded")
    source: list[str] = Field(default=[], max_length=64, description="may be repeated")
    kind: list[str] = Field(default=[], max_length=64, description="may be repeated")
    limit: int = Field(default=100, ge=1, le=LIMIT_MAX)
    cursor: str | None = None
    order: Literal["desc", "asc"] = "desc"
    snapshot: str | None = None


class EntitiesQuery(_Query):
    prefix: str = Field(default="", max_length=256)
    limit: int = Field(default=100, ge=1, le=LIMIT_MAX)
    cursor: str | None = None
    snapshot: str | None = None


@router.get(
    "/entities/{entity}/context",
    summary="The bundle of an entity",
    responses=gives(200, None, "the bundle: canonical JSON, or prompt-ready text", media="text/plain"),
)
async def get_context(
    caller: Reads, entity: Entity, query: Annotated[ContextQuery, Query()], if_none_match: Annotated[str, Header()] = ""
) -> Response:
    """Built ahead of time. Answers 304 when `If-None-Match` names the bundle, 404 `bundle_not_built` when only
    unbuilt events are known (`POST` the same path for a bundle on demand)."""
    return bundle_response(await bundle_of(caller, entity, query), query.format, if_none_match)


async def bundle_of(caller: Reads, entity: str, query: ContextQuery) -> BundleAnswer:
    if query.as_of is not None:
        day_start_us(query.as_of)
    return await caller.service.plane.bundle(
        caller.name, entity, spec=query.spec, as_of=query.as_of, snapshot=query.snapshot
    )


@router.post(
    "/entities/{entity}/context",
    summary="A bundle for a question",
    openapi_extra=takes(OnDemandBody),
    responses=gives(200, None, "the bundle: canonical JSON, or prompt-ready text", media="text/plain"),
)
async def post_context(request: Request, caller: Reads, entity: Entity) -> Response:
    """Materialized on demand, events not built yet included. Same inputs, same bytes."""
    wanted = await _body(request, caller, OnDemandBody)
    plane = caller.service.plane
    bundle = await plane.context_on_demand(caller.name, wanted.to_request(entity, dim=plane.engine.embedder.dim))
    return bundle_response(bundle, wanted.format, "")


@router.post(
    "/context:batch",
    summary="Bundles of many entities",
    openapi_extra=takes(BatchBody),
    responses=gives(200, BaseModel, "a line per entity, in request order; errors inline", media=NDJSON),
)
async def batch_context(request: Request, caller: Reads) -> Response:
    """Streams NDJSON. `"entities": "*"` takes every entity, in key order."""
    wanted = await _body(request, caller, BatchBody)
    if wanted.as_of is not None:
        day_start_us(wanted.as_of)
    items: AsyncIterator[BatchItem] = caller.service.plane.bundle_batch(
        caller.name,
        None if wanted.entities == "*" else wanted.entities,
        spec=wanted.spec,
        as_of=wanted.as_of,
        snapshot=wanted.snapshot,
    )
    # The first item is awaited here, so that an unknown spec or snapshot is a status and not a line.
    first = await anext(items, None)
    headers = dict(answer_headers(snapshot=first.snapshot)) if isinstance(first, BundleAnswer) else {}
    request_id: str = request.scope["request_id"]
    return StreamingResponse(
        _chunks(_lines(first, items, wanted.format, request_id)), headers=headers, media_type=NDJSON
    )


@router.get(
    "/entities/{entity}/timeline", summary="Events of an entity", responses=gives(200, answers.TimelineOut, "a page")
)
async def get_timeline(caller: Reads, entity: Entity, query: Annotated[TimelineQuery, Query()]) -> Response:
    """Every event with its citation. The cursor stays valid across publishes."""
    listing = ("timeline", caller.name, entity, query.order)
    position = None
    if query.cursor is not None:
        ts_us, event_id = cursors.read(listing, query.cursor, int, str)
        position = (ts_us, event_id)
    answer = await caller.service.plane.timeline(
        caller.name,
        TimelineRequest(
            entity=entity,
            since_us=wire.time_of(query.since, "since"),
            until_us=wire.time_of(query.until, "until"),
            sources=frozenset(query.source) or None,
            kinds=frozenset(query.kind) or None,
            limit=query.limit,
            cursor=position,
            descending=query.order == "desc",
            snapshot=query.snapshot,
        ),
    )
    following = None if answer.next_cursor is None else cursors.write(listing, list(answer.next_cursor))
    return Json(orjson.dumps(answers.timeline(answer, following)), headers=answer_headers(snapshot=answer.snapshot))


@router.get("/entities", summary="Entities of the tenant", responses=gives(200, answers.EntitiesOut, "a page"))
async def get_entities(caller: Reads, query: Annotated[EntitiesQuery, Query()]) -> Response:
    """Ids in ascending order, with the number of their events and the time of the last."""
    listing = ("entities", caller.name, query.prefix)
    after = None if query.cursor is None else cursors.read(listing, query.cursor, str)[0]
    answer = await caller.service.plane.entities(
        caller.name, prefix=query.prefix, limit=query.limit, cursor=after, snapshot=query.snapshot
    )
    following = None if answer.next_cursor is None else cursors.write(listing, [answer.next_cursor])
    return Json(orjson.dumps(answers.entities(answer, following)), headers=answer_headers(snapshot=answer.snapshot))


@router.post(
    "/search",
    summary="Search events",
    openapi_extra=takes(SearchBody),
    responses=gives(200, answers.SearchOut, "hits, best first"),
)
async def search(request: Request, caller: Reads) -> Response:
    """Text, vector or hybrid; one entity, some, or all. Filters apply before ranking. Every hit cites its source."""
    plane = caller.service.plane
    body = await _body(request, caller, SearchBody)
    wanted = body.to_request(dim=plane.engine.embedder.dim, weights=caller.tenant.settings.weights)
    answer = await plane.search(caller.name, wanted)
    headers = answer_headers(snapshot=answer.snapshot, cache=answer.stats.cache)
    shown = answers.search_answer(answer, wanted.include)
    return Plain(orjson.dumps(shown, option=orjson.OPT_SERIALIZE_NUMPY), headers, media_type=Json.media_type)


@router.get("/snapshot", summary="The current snapshot", responses=gives(200, answers.SnapshotOut, "the newest cut"))
async def get_snapshot(caller: Reads) -> Response:
    """What is built, what waits, and for how long."""
    info = await caller.service.plane.snapshot_info(caller.name)
    return Json(orjson.dumps(answers.snapshot(info)), headers=answer_headers(snapshot=info.snapshot))


async def _body(request: Request, caller: Reads, model: type[wire.M]) -> wire.M:
    limits.check_media_type(request, "application/json")
    async with limits.body(request, caller.service.ledger, bytes_max=limits.QUERY_BODY_BYTES_MAX) as raw:
        return await limits.off_loop(len(raw), lambda: wire.read(model, raw), limits.INLINE_QUERY_BYTES)


def bundle_response(bundle: BundleAnswer, form: Format, if_none_match: str) -> Plain:
    """The bundle in its form, or 304 where the header names it."""
    tag = f'"{bundle.digest}"' if form == "json" else f'"{bundle.digest}-text"'
    headers = {
        **answer_headers(snapshot=bundle.snapshot, cache=bundle.cache, freshness=bundle.freshness),
        "etag": tag,
        "cache-control": CACHING,
    }
    if names(if_none_match, tag):
        return Plain(b"", headers, status_code=304, media_type=None)
    if form == "text":
        return Plain(render_text(bundle.json_bytes).encode(), headers, media_type=TEXT)
    return Plain(bundle.json_bytes, headers, media_type=Json.media_type)


def names(if_none_match: str, tag: str) -> bool:
    """Whether the header names the tag (RFC 9110, 13.1.2: weak comparison)."""
    held = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return "*" in held or tag in held


async def _lines(
    first: BatchItem | None, items: AsyncIterator[BatchItem], form: Format, request_id: str
) -> AsyncIterator[bytes]:
    if first is None:
        return
    yield _line(first, form, request_id)
    try:
        async for item in items:
            yield _line(item, form, request_id)
    except PlaneError as error:
        # The status is sent already: the last line says that the answer ends early.
        yield orjson.dumps({"error": body_of(error, request_id)}, option=orjson.OPT_APPEND_NEWLINE)


def _line(item: BatchItem, form: Format, request_id: str) -> bytes:
    shown: dict[str, Any]
    if isinstance(item, BundleAnswer):
        shown = {
            "entity": item.entity,
            "spec": item.spec,
            "as_of": item.as_of,
            "digest": item.digest,
            "freshness": item.freshness,
            "snapshot": item.snapshot,
        }
        if form == "json":
            shown["bundle"] = orjson.Fragment(item.json_bytes)
        else:
            shown["text"] = render_text(item.json_bytes)
    else:
        entity, error = item
        shown = {"entity": entity, "error": body_of(error, request_id)}
    return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)


async def _chunks(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    held: list[bytes] = []
    size, since_s = 0, time.monotonic()
    async for line in lines:
        held.append(line)
        size += len(line)
        if size >= CHUNK_BYTES or time.monotonic() - since_s >= CHUNK_S:
            yield b"".join(held)
            held, size, since_s = [], 0, time.monotonic()
    if held:
        yield b"".join(held)
