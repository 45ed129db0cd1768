"""The five tools, without the protocol: what a model reads about them, what they take, and the text they answer.

They call what the routes call. An answer is lines for a model to read, cited by entity, day and event id, and no longer
than `bounds.RESULT_TOKENS_MAX`; `detail: "full"` adds scores, attributes and stored lines, to a bundle its spec, day
and snapshot, to its sources their text, to entities the snapshot. An error says what to do next.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from context_plane.bundle.render import render_text
from context_plane.bundle.wording import one_line, shorten, show_value
from context_plane.errors import Invalid, PlaneError
from context_plane.model import check_entity, day_end_us, day_of, day_start_us, format_edge, format_time
from context_plane.recall.values import ENTITIES_MAX, BundleAnswer, CitedEvent, FoundEvent, TimelineRequest
from serving import cursors, fields, read, wire
from serving.auth import Caller
from serving.mcp.bounds import bounded, within
from serving.problems import Internal, body_of, of_validation

log = logging.getLogger("context_plane.serving")

TEXT_CHARS: Final = 320
"""Of an event's text: about 80 tokens, so that ten hits are a fraction of the bound."""
TEXT_CHARS_FULL: Final = 2_000
BUNDLE_CUT: Final = (
    "The bundle is cut: it is longer than one answer. explain_context lists its sources, get_timeline and "
    "search_context show its events; all of it is in the context route of the API."
)
MISSING_SHOWN: Final = 5
"""Days by name; of more, the first and the last."""
EVENTS_MAX: Final = 50
ENTITIES_SHOWN: Final = 100
SECOND_US: Final = 1_000_000

Detail: TypeAlias = Literal["concise", "full"]
DetailOf = Annotated[Detail, Field(description='"full" adds scores, attributes and stored lines')]
EntityId = Annotated[str, Field(description="the id, exactly as list_entities shows it", examples=["acct-0042"])]
Since = Annotated[
    str | None,
    Field(description="a day or an RFC 3339 time; included", examples=["2026-03-01", "2026-03-01T09:00:00Z"]),
]
Until = Annotated[
    str | None, Field(description="a day, included, or an RFC 3339 time, excluded", examples=["2026-03-31"])
]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GetContext(_Arguments):
    entity: EntityId
    spec: str = Field(default=fields.DEFAULT_SPEC, description="which kind of bundle; the default suits most questions")
    as_of: str | None = Field(default=None, description="a day; default: the newest built", examples=["2026-03-04"])
    detail: DetailOf = "concise"


class SearchContext(_Arguments):
    query: str = Field(description="what to look for, in plain words", examples=["export fails after upgrade"])
    entities: Annotated[list[str], Field(min_length=1, max_length=ENTITIES_MAX)] | None = Field(
        default=None, description="only these; absent: every entity", examples=[["acct-0042"]]
    )
    where: dict[str, Any] | None = Field(
        default=None,
        description="a filter over source, kind, id, entity, ts and attrs.NAME with and or not eq ne in nin lt lte gt "
        "gte contains contains_any prefix glob exists",
        examples=[{"and": [{"eq": ["source", "zendesk"]}, {"gte": ["attrs.seats", 10]}]}],
    )
    since: Since = None
    until: Until = None
    limit: int = Field(default=10, ge=1, le=EVENTS_MAX)
    detail: DetailOf = "concise"


class GetTimeline(_Arguments):
    entity: EntityId
    since: Since = None
    until: Until = None
    limit: int = Field(default=20, ge=1, le=EVENTS_MAX)
    cursor: str | None = Field(default=None, description="as the answer before printed it; all else as before")
    detail: DetailOf = "concise"


class ListEntities(_Arguments):
    prefix: str = Field(default="", max_length=256, description="only ids that start so", examples=["acct-"])
    detail: Annotated[Detail, Field(description='"full" adds the snapshot, and times in full')] = "concise"


class ExplainContext(_Arguments):
    """What get_context prints for it: by the digest alone only the newest bundles are looked through."""

    bundle_digest: str = Field(pattern="^[0-9a-f]{64}$", description="of the bundle, as get_context printed it")
    entity: str | None = Field(default=None, description="whose bundle it is", examples=["acct-0042"])
    spec: str | None = Field(default=None, description="its spec", examples=[fields.DEFAULT_SPEC])
    as_of: fields.AsOf = None
    detail: Annotated[Detail, Field(description='"full" adds texts, attributes and digests, and the pack')] = "concise"


@dataclass(frozen=True, slots=True)
class Tool:
    """`description`: what it does, when to use it, what comes back, an example."""

    name: str
    title: str
    description: str
    arguments: type[BaseModel]
    run: Callable[[Caller, Any], Awaitable[str]]


async def call(caller: Caller, name: str, arguments: Mapping[str, Any], request_id: str) -> tuple[str, bool]:
    """The tool's text, and whether it is an error. Raises nothing: a model mends its own call."""
    try:
        return await _called(caller, name, arguments), False
    except PlaneError as error:
        return error_text(error, body_of(error, request_id)), True
    except Exception as error:
        log.error("request_id=%s unexpected %s", request_id, type(error).__name__, exc_info=error)
        internal = Internal()
        return error_text(internal, body_of(internal, request_id)), True


async def _called(caller: Caller, name: str, arguments: Mapping[str, Any]) -> str:
    tool = next((each for each in TOOLS if each.name == name), None)
    if tool is None:
        raise Invalid("query_invalid", f"no such tool; the tools are {', '.join(each.name for each in TOOLS)}")
    try:
        asked = tool.arguments.model_validate(arguments)
    except ValidationError as error:
        raise of_validation(error.errors(include_url=False, include_context=False), where="the arguments") from error
    return await tool.run(caller, asked)


_CONNECTION: Final = "tell the user: the key or the tenant of this connection is to be set anew"
NEXT: Final[Mapping[str, str]] = {
    "entity_not_found": "call list_entities with the beginning of the id to see how it is spelled",
    "bundle_not_built": "call search_context or get_timeline with this entity: they read what is not built yet",
    "bundle_not_found": "call get_context again and pass everything that it prints for explain_context: a bundle that "
    "was built anew since has another digest",
    "spec_not_found": "leave spec out",
    "where_invalid": 'a filter reads {"eq": ["source", "zendesk"]}, or leave where out',
    "ts_invalid": "write a day like 2026-03-04, or a time like 2026-03-04T09:15:00Z",
    "rate_limited": "wait a second, then call again",
    "deadline_exceeded": "narrow it with entities, since or until, then call again",
    "store_unavailable": "wait a few seconds, then call again; tell the user when it happens twice",
    "not_ready": "wait a few seconds, then call again; tell the user when it happens twice",
    "stopping": "wait a few seconds, then call again; tell the user when it happens twice",
    "scope_missing": "tell the user: the key of this connection needs the scope read",
    "key_missing": _CONNECTION,
    "key_invalid": _CONNECTION,
    "tenant_invalid": _CONNECTION,
    "tenant_not_found": _CONNECTION,
}
"""What a model does about an error, where the error does not say it in its own words."""


def error_text(error: PlaneError, problem: Mapping[str, Any]) -> str:
    """`problem`: the error as `body_of` tells it."""
    following = _next(error)
    named = f" (request id {problem['request_id']})" if "request_id" in problem else ""
    return f"{error.code}: {problem['detail']}{named}{f'. Next: {following}.' if following else ''}"


def _next(error: PlaneError) -> str | None:
    wait_s = math.ceil(error.retry_after_s or 0.0)
    if error.code == "rate_limited" and wait_s > 1:
        return f"wait {wait_s} seconds, then call again"
    return NEXT.get(error.code)


# --- the tools ----------------------------------------------------------------------------------


async def _get_context(caller: Caller, asked: GetContext) -> str:
    query = read.ContextQuery(spec=asked.spec, as_of=asked.as_of)
    bundle = await read.bundle_of(caller, check_entity(asked.entity), query)
    tail = []
    if bundle.freshness != "fresh":
        tail.append(f"This bundle is {bundle.freshness}: newer events are found by search_context and get_timeline.")
    tail.append(f"For explain_context: {_explanation(bundle)}")
    if asked.detail == "full":
        tail.append(f"spec {bundle.spec}, as of {bundle.as_of}, {bundle.freshness}, snapshot {bundle.snapshot}")
    return bounded([], render_text(bundle.json_bytes, sources=True), [BUNDLE_CUT], tail)


async def _search_context(caller: Caller, asked: SearchContext) -> str:
    plane = caller.service.plane
    body = wire.SearchBody(
        text=asked.query,
        entities=asked.entities,
        where=asked.where,
        since=_since(asked.since),
        until=_until(asked.until),
        limit=asked.limit,
    )
    wanted = body.to_request(dim=plane.engine.embedder.dim, weights=caller.tenant.settings.weights)
    answer = await read.found(caller, wanted)
    partial = [f"Partial: {_days(answer.missing_days)} did not answer in time."] if answer.partial else []
    if not answer.hits:
        return "\n".join([*partial, "Nothing found. Use other words, or fewer filters, or a wider window."])
    head = [*partial, f"{len(answer.hits)} events, best first, at snapshot {answer.snapshot}:"]
    return within(head, [_hit(hit, asked.detail) for hit in answer.hits], "lower limit or narrow the query")


async def _get_timeline(caller: Caller, asked: GetTimeline) -> str:
    entity = check_entity(asked.entity)
    listing = cursors.of_timeline(caller.name, entity, "desc")
    position = None
    if asked.cursor is not None:
        ts_us, event_id = cursors.read(listing, asked.cursor, int, str)
        position = (ts_us, event_id)
    request = TimelineRequest(
        entity=entity,
        since_us=wire.time_of(_since(asked.since), "since"),
        until_us=wire.time_of(_until(asked.until), "until"),
        limit=asked.limit,
        cursor=position,
    )
    answer = await caller.service.plane.timeline(caller.name, request)
    if not answer.events:
        return "No events in that window. Leave since and until out to see the newest."

    def older(count: int) -> str | None:
        if count == len(answer.events) and answer.next_cursor is None:
            return None
        last = answer.events[count - 1]
        return f"Older: the same with cursor={cursors.write(listing, [last.ts_us, last.id])}"

    head = [f"{len(answer.events)} events, newest first, at snapshot {answer.snapshot}:"]
    shown = [_event(event, asked.detail) for event in answer.events]
    return within(head, shown, "they begin at the cursor", also=older)


async def _list_entities(caller: Caller, asked: ListEntities) -> str:
    answer = await caller.service.plane.entities(caller.name, prefix=asked.prefix, limit=ENTITIES_SHOWN)
    if not answer.entities:
        return "No entity starts so. Use a shorter prefix, or none."
    full = asked.detail == "full"
    moment = format_time if full else _moment
    shown = [f"{one_line(e.entity)} | {e.events} events | last {moment(e.last_ts_us)}" for e in answer.entities]
    head = f"{len(shown)} entities{f' at snapshot {answer.snapshot}' if full else ''}:"
    more = "There are more: use a longer prefix." if answer.next_cursor is not None else None
    return within([head], shown, "use a longer prefix", also=lambda _: more)


async def _explain_context(caller: Caller, asked: ExplainContext) -> str:
    entity = None if asked.entity is None else check_entity(asked.entity)
    inputs = await caller.service.plane.why(
        caller.name, asked.bundle_digest, entity=entity, spec=asked.spec, as_of=asked.as_of
    )
    head = [
        f"{one_line(inputs.entity)} as of {inputs.as_of} under {inputs.spec}, {inputs.freshness}, from "
        f"{len(inputs.segments)} segments of {day_of(inputs.since_us)} to {day_of(inputs.until_us - 1)}:"
    ]
    if asked.detail == "full":
        head.append(
            f"spec fingerprint {inputs.spec_fingerprint}, built {format_time(inputs.built_us)} into {inputs.pack}, "
            f"snapshot {inputs.snapshot}"
        )
    shown = [f"[{number}] {_source(cited, asked.detail)}" for number, cited in enumerate(inputs.citations, 1)]
    return within(head, shown, "read the events themselves with get_timeline")


TOOLS: Final[Sequence[Tool]] = (
    Tool(
        "get_context",
        "Context of one entity",
        "What is known about one entity (account, user, lead), built ahead of time: profile, metrics, signals, "
        "evidence and recent events in some 200 tokens. Use it first whenever a question is about an entity whose id "
        "you know. Returns text in which [n] names a source listed below it, and what explain_context takes. "
        'Example: {"entity": "acct-0042"}.',
        GetContext,
        _get_context,
    ),
    Tool(
        "search_context",
        "Search events",
        "Finds events by meaning and by words, of all entities or of some, newest writes included. Use it for a detail "
        "that get_context does not show, and for questions across entities. Returns events, best first, each with its "
        'entity, time, source, kind, id and text: cite them by entity, day and id. Example: {"query": "export fails '
        'after upgrade", "entities": ["acct-0042"], "since": "2026-03-01", "limit": 5}.',
        SearchContext,
        _search_context,
    ),
    Tool(
        "get_timeline",
        "Events of one entity in order",
        "The events of one entity, newest first, newest writes included. Use it to see what happened when, or around a "
        "day. Returns what search_context returns, in time order, and a cursor where there is more. Example: "
        '{"entity": "acct-0042", "since": "2026-03-01", "until": "2026-03-31"}.',
        GetTimeline,
        _get_timeline,
    ),
    Tool(
        "list_entities",
        "Find entity ids",
        "Ids of entities in alphabetical order, with their number of events and the time of the last. Use it when you "
        'do not know how an id is spelled. Returns at most 100: a longer prefix shows the rest. Example: {"prefix": '
        '"acct-00"}.',
        ListEntities,
        _list_entities,
    ),
    Tool(
        "explain_context",
        "Sources of a bundle",
        "The stored lines behind a bundle that get_context returned. Use it to check a fact, or when the user asks "
        "where it comes from. Returns, for each [n], the event, and the object and line that hold it. "
        'Example: {"bundle_digest": "<64 hex digits>", "entity": "acct-0042", "spec": "customer_context_v0", "as_of": '
        '"2026-03-04"}, as get_context printed it.',
        ExplainContext,
        _explain_context,
    ),
)
"""In the order in which they are listed."""


# --- leaves -------------------------------------------------------------------------------------


def _days(days: Sequence[str]) -> str:
    if len(days) <= MISSING_SHOWN:
        return ", ".join(days)
    return f"{len(days)} days from {min(days)} to {max(days)}"


def _explanation(bundle: BundleAnswer) -> str:
    """The arguments of explain_context that name the bundle, wherever it lies."""
    named = {"bundle_digest": bundle.digest, "entity": bundle.entity, "spec": bundle.spec, "as_of": bundle.as_of}
    return orjson.dumps(named).decode()


def _hit(hit: FoundEvent, detail: Detail) -> str:
    line = _event(hit, detail)
    if detail == "concise":
        return line
    legs = [("text", hit.text_rank, hit.text_score), ("vector", hit.vector_rank, hit.vector_score)]
    shown = ", ".join(
        f"{name} #{rank} {score:.3f}" for name, rank, score in legs if rank is not None and score is not None
    )
    return f"{line}\n  score {hit.score:.4f}{f' ({shown})' if shown else ''}"


def _event(event: FoundEvent, detail: Detail) -> str:
    """Who, when, whence and which, then the text: the chunk that was found, where there is one."""
    chars = event.citation.chars
    text = (event.text or "")[slice(*chars) if chars is not None else slice(None)]
    parts = [event.entity, _moment(event.ts_us), f"{event.source} {event.kind}", event.id]
    lines = [" | ".join(one_line(part) for part in parts)]
    if text:
        lines.append(f"  {shorten(one_line(text), TEXT_CHARS if detail == 'concise' else TEXT_CHARS_FULL)}")
    if detail == "full":
        lines.append(f"  {event.citation.segment} line {event.citation.line}, digest {event.citation.digest}")
    if event.attrs and (detail == "full" or not text):
        lines.append("  " + ", ".join(f"{one_line(name)}={show_value(value)}" for name, value in event.attrs.items()))
    return "\n".join(lines)


def _source(cited: CitedEvent, detail: Detail) -> str:
    if cited.event is None:
        return f"{cited.day} | {one_line(cited.id)} | changed or deleted since"
    if detail == "full":
        return _event(cited.event, detail)
    event = cited.event
    place = f"{event.citation.segment} line {event.citation.line}"
    return f"{_moment(event.ts_us)} | {one_line(f'{event.source} {event.kind}')} | {one_line(event.id)} | {place}"


def _moment(ts_us: int) -> str:
    """To the second: `2026-03-04T09:15:00Z`."""
    return format_time(ts_us - ts_us % SECOND_US)


def _since(value: str | None) -> str | None:
    return _day_edge(value, day_start_us)


def _until(value: str | None) -> str | None:
    return _day_edge(value, day_end_us)


def _day_edge(value: str | None, edge: Callable[[str], int]) -> str | None:
    """A plain day as the time of one of its ends; a time as it is. Raises `Invalid(query_invalid)`."""
    return format_edge(value, edge) if value is not None and len(value) == len("2026-03-04") else value
