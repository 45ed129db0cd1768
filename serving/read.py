"""Read routes: context, timelines, entities, search, the snapshot."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from context_plane.bundle.render import render_text
from context_plane.cache.tiers import track_lookups
from context_plane.recall.values import BundleAnswer, SearchAnswer, SearchRequest, TimelineRequest
from serving import answers, cursors, examples, fields, limits, shapes, wire
from serving.auth import Caller, Reads
from serving.bundle_shapes import BundleOut
from serving.describe import Json, Plain, gives, takes, unchanged
from serving.fields import Format
from serving.paths import Entity
from serving.service import answer_headers
from serving.wire import OnDemandBody, SearchBody

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["read"])

TEXT: Final = "text/plain; charset=utf-8"
CACHING: Final = "private, no-cache"
"""A client may keep a bundle, and asks with its ETag before it uses it again."""
OF_BUNDLES: Final = ("ETag", "X-Snapshot", "X-Freshness", "X-Cache")


IfNoneMatch = Annotated[
    str, Header(description="ETags that the caller holds: 304 where one is it", examples=['"6b5e1d9b"'])
]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ContextQuery(_Query):
    spec: fields.Spec = fields.DEFAULT_SPEC
    as_of: fields.AsOf = None
    format: fields.Form = "json"
    snapshot: fields.Snapshot = None
    consistency: fields.Consistent = "eventual"


class TimelineQuery(_Query):
    since: fields.Since = None
    until: fields.Until = None
    source: list[str] = Field(default=[], max_length=64, description="may be repeated", examples=[["zendesk"]])
    kind: list[str] = Field(default=[], max_length=64, description="may be repeated", examples=[["ticket"]])
    limit: fields.Limit = 100
    cursor: fields.Cursor = None
    order: Literal["desc", "asc"] = Field(default="desc", description="desc: newest first", examples=["asc"])
    snapshot: fields.Snapshot = None
    consistency: fields.Consistent = "strong"


class EntitiesQuery(_Query):
    prefix: str = Field(default="", max_length=256, description="of the ids", examples=["acct-"])
    limit: fields.Limit = 100
    cursor: fields.Cursor = None
    snapshot: fields.Snapshot = None
    consistency: fields.Consistent = "strong"


def _a_bundle() -> dict[int | str, Any]:
    """`responses` of what answers with one."""
    description = "the bundle: canonical JSON, or prompt-ready text"
    return gives(200, BundleOut, description, headers=OF_BUNDLES, text=examples.BUNDLE_TEXT)


@router.get(
    "/entities/{entity}/context",
    summary="The bundle of an entity",
    responses=_a_bundle() | unchanged("`If-None-Match` names the bundle", headers=OF_BUNDLES),
)
async def get_context(
    caller: Reads, entity: Entity, query: Annotated[ContextQuery, Query()], if_none_match: IfNoneMatch = ""
) -> Response:
    """Built ahead of time. Answers 304 when `If-None-Match` names the bundle, 404 `bundle_not_built` when only
    unbuilt events are known (`POST` the same path for a bundle on demand)."""
    return bundle_response(await bundle_of(caller, entity, query), query.format, if_none_match)


async def bundle_of(caller: Reads, entity: str, query: ContextQuery) -> BundleAnswer:
    wire.check_day(query.as_of, "query", "as_of")
    return await caller.service.plane.bundle(
        caller.name,
        entity,
        spec=query.spec,
        as_of=query.as_of,
        snapshot=query.snapshot,
        consistency=query.consistency,
    )


@router.post(
    "/entities/{entity}/context",
    summary="A bundle for a question",
    openapi_extra=takes(OnDemandBody),
    responses=_a_bundle(),
)
async def post_context(request: Request, caller: Reads, entity: Entity) -> Response:
    """Materialized on demand, events not built yet included. Same inputs, same bytes."""
    wanted = await body_as(request, caller, OnDemandBody)
    plane = caller.service.plane
    bundle = await plane.context_on_demand(caller.name, wanted.to_request(entity, dim=plane.engine.embedder.dim))
    return bundle_response(bundle, wanted.format, "")


@router.get(
    "/entities/{entity}/timeline",
    summary="Events of an entity",
    responses=gives(
        200,
        shapes.TimelineOut,
        "a page",
        headers=("X-Snapshot", "X-Cache"),
        links={
            "get_timeline": {
                "entity": "$request.path.entity",
                "cursor": "$response.body#/cursor",
                "order": "$request.query.order",
            }
        },
    ),
)
async def get_timeline(caller: Reads, entity: Entity, query: Annotated[TimelineQuery, Query()]) -> Response:
    """Every event with its citation. The cursor stays valid across publishes."""
    listing = cursors.of_timeline(caller.name, entity, query.order)
    position = None
    if query.cursor is not None:
        ts_us, event_id = cursors.read(listing, query.cursor, int, str)
        position = (ts_us, event_id)
    lookups = track_lookups()
    answer = await caller.service.plane.timeline(
        caller.name,
        TimelineRequest(
            entity=entity,
            since_us=wire.time_of(query.since, "query", "since"),
            until_us=wire.time_of(query.until, "query", "until"),
            sources=frozenset(query.source) or None,
            kinds=frozenset(query.kind) or None,
            limit=query.limit,
            cursor=position,
            descending=query.order == "desc",
            snapshot=query.snapshot,
            consistency=query.consistency,
        ),
    )
    following = None if answer.next_cursor is None else cursors.write(listing, list(answer.next_cursor))
    headers = answer_headers(snapshot=answer.snapshot, cache=lookups.temperature)
    return Json(orjson.dumps(answers.timeline(answer, following)), headers=headers)


@router.get(
    "/entities",
    summary="Entities of the tenant",
    responses=gives(
        200,
        shapes.EntitiesOut,
        "a page",
        headers=("X-Snapshot", "X-Cache"),
        links={
            "get_timeline": {"entity": "$response.body#/entities/0/entity", "snapshot": "$response.body#/snapshot"},
            "get_context": {"entity": "$response.body#/entities/0/entity"},
            "post_context": {"entity": "$response.body#/entities/0/entity"},
        },
    ),
)
async def get_entities(caller: Reads, query: Annotated[EntitiesQuery, Query()]) -> Response:
    """Ids in ascending order, with the number of their events and the time of the last."""
    listing = cursors.of_entities(caller.name, query.prefix)
    after = None if query.cursor is None else cursors.read(listing, query.cursor, str)[0]
    lookups = track_lookups()
    answer = await caller.service.plane.entities(
        caller.name,
        prefix=query.prefix,
        limit=query.limit,
        cursor=after,
        snapshot=query.snapshot,
        consistency=query.consistency,
    )
    following = None if answer.next_cursor is None else cursors.write(listing, [answer.next_cursor])
    headers = answer_headers(snapshot=answer.snapshot, cache=lookups.temperature)
    return Json(orjson.dumps(answers.entities(answer, following)), headers=headers)


@router.post(
    "/search",
    summary="Search events",
    openapi_extra=takes(SearchBody),
    responses=gives(200, shapes.SearchOut, "hits, best first", headers=("X-Snapshot", "X-Cache")),
)
async def search(request: Request, caller: Reads) -> Response:
    """Text, vector or hybrid; one entity, some, or all. Filters apply before ranking. Every hit cites its source."""
    plane = caller.service.plane
    body = await body_as(request, caller, SearchBody)
    window = body.window(plane.engine.now_us())
    wanted = body.to_request(dim=plane.engine.embedder.dim, weights=caller.tenant.settings.weights, window=window)
    answer = await found(caller, wanted)
    headers = answer_headers(snapshot=answer.snapshot, cache=answer.stats.cache)
    shown = answers.search_answer(answer, wanted.include)
    if body.resolve_time:
        shown["window"] = answers.window(window)
    return Plain(orjson.dumps(shown, option=orjson.OPT_SERIALIZE_NUMPY), headers, media_type=Json.media_type)


@router.get(
    "/snapshot",
    summary="The current snapshot",
    responses=gives(
        200,
        shapes.SnapshotOut,
        "the newest cut",
        headers=["X-Snapshot"],
        links={"get_changes": {"since": "$response.body#/snapshot"}},
    ),
)
async def get_snapshot(caller: Reads) -> Response:
    """What is built, what waits, and for how long."""
    info = await caller.service.plane.snapshot_info(caller.name)
    return Json(orjson.dumps(answers.snapshot(info)), headers=answer_headers(snapshot=info.snapshot))


async def found(caller: Caller, wanted: SearchRequest) -> SearchAnswer:
    """The answer of a search, paid for and counted."""
    answer = await caller.service.plane.search(caller.name, wanted)
    caller.spend(answer.stats.bytes_scanned)
    if answer.partial:
        caller.service.metrics.partials.inc()
    return answer


async def body_as(request: Request, caller: Reads, model: type[wire.M]) -> wire.M:
    """The JSON body of a read, checked."""
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
