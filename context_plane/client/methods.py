"""Every method of the client, once: its signature, what it asks, and how the answer reads.

A method below makes a `Call` or a `Listing` and sends nothing. `asks` and `lists` turn it into what a face gives:
a result or an iterator from `Client`, an awaitable or an asynchronous iterator from `AsyncClient`.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, Literal, ParamSpec, TypeVar, overload

import orjson

from context_plane.client.requests import (
    Bundles,
    Call,
    Listing,
    Pages,
    bundle_of,
    get,
    line_of,
    name_in_path,
    post,
    write_call,
)
from context_plane.client.values import (
    Accepted,
    Bundle,
    Day,
    EntityInfo,
    EventLike,
    Format,
    FoundEvent,
    Include,
    Mode,
    NoBundle,
    SearchAnswer,
    Snapshot,
    TenantInfo,
    Time,
    Visible,
)
from context_plane.errors import Invalid

if TYPE_CHECKING:
    from context_plane.client.faces import AsyncClient, Client

P = ParamSpec("P")
T = TypeVar("T")

PAGE_EVENTS: Final = 100
"""Of a timeline: each may hold 256 KiB of text."""
PAGE_ENTITIES: Final = 1000
"""The service's limit."""


class asks(Generic[P, T]):
    """A method that is one request."""

    def __init__(self, make: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> asks[P, T]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Any:
        if client is None:
            return self
        send, make = client.send, self._make

        @wraps(make)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return send(make(client, *args, **kwargs))

        return method


class lists(Generic[P, T]):
    """A method that gives an iterator, over as many requests as it takes."""

    def __init__(self, make: Callable[Concatenate[Any, P], Listing[T]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> lists[P, T]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Any:
        if client is None:
            return self
        iterate, make = client.iterate, self._make

        @wraps(make)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return iterate(make(client, *args, **kwargs))

        return method


class Methods:
    """What can be asked of one tenant."""

    # --- read -----------------------------------------------------------------------------------

    @asks
    def context(
        self,
        entity: str,
        *,
        spec: str | None = None,
        as_of: Day | None = None,
        format: Format = "text",
        snapshot: str | None = None,
        known: Bundle | None = None,
    ) -> Call[Bundle]:
        """The bundle built ahead of time. `known`: one read before, which comes back when nothing changed.

        Raises `NotFound(bundle_not_built)` when only unbuilt events are known: ask `context_on_demand`."""
        params: dict[str, Any] = {"spec": spec, "as_of": _day(as_of), "format": format, "snapshot": snapshot}
        headers = {} if known is None else {"if-none-match": known.etag}
        request = get(f"/entities/{name_in_path(entity)}/context", params, headers)
        return Call(request, bundle_of(entity, format, known))

    @asks
    def context_on_demand(
        self,
        entity: str,
        text: str | None = None,
        *,
        vector: Sequence[float] | None = None,
        where: Mapping[str, Any] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        spec: str | None = None,
        format: Format = "text",
        snapshot: str | None = None,
        budget_tokens: int | None = None,
    ) -> Call[Bundle]:
        """A bundle made now for a question, events not built yet included."""
        body: dict[str, Any] = {"text": text, "vector": vector, "where": where}
        body |= {"since": _time(since), "until": _time(until)}
        body |= {"spec": spec, "format": format, "snapshot": snapshot, "budget_tokens": budget_tokens}
        return Call(post(f"/entities/{name_in_path(entity)}/context", body), bundle_of(entity, format, None))

    @lists
    def contexts(
        self,
        entities: Iterable[str] | None,
        *,
        spec: str | None = None,
        as_of: Day | None = None,
        format: Format = "text",
        snapshot: str | None = None,
    ) -> Listing[Bundle | NoBundle]:
        """Bundles of any number of entities at one cut, as they come: in the order asked, or in key order for every
        entity (None)."""
        return Bundles(entities, spec=spec, as_of=_day(as_of), form=format, snapshot=snapshot)

    @asks
    def search(
        self,
        text: str | None = None,
        *,
        vector: Sequence[float] | None = None,
        mode: Mode = "hybrid",
        entities: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        limit: int = 10,
        group_by: Literal["entity"] | None = None,
        per_group: int | None = None,
        fusion: Mapping[str, Any] | None = None,
        consistency: Literal["strong", "eventual"] | None = None,
        snapshot: str | None = None,
        deadline_ms: int | None = None,
        include: Sequence[Include] | None = None,
        resolve_time: bool = False,
        now: Time | None = None,
        explain: bool = False,
    ) -> Call[SearchAnswer]:
        """Events, best first, each with its citation. `entities` None: the whole tenant. `resolve_time`: dates in the
        text are read as a window, relative ones from `now` (None: the service's clock)."""
        body: dict[str, Any] = {"text": text, "vector": vector, "mode": mode, "where": where}
        body |= {"entities": _names(entities), "since": _time(since), "until": _time(until)}
        body |= {"limit": limit, "group_by": group_by}
        body |= {"per_group": per_group, "fusion": fusion, "consistency": consistency, "snapshot": snapshot}
        body |= {"deadline_ms": deadline_ms, "include": _names(include), "explain": explain}
        body |= {"resolve_time": resolve_time, "now": _time(now)}
        return Call(post("/search", body), lambda reply: SearchAnswer.model_validate_json(reply.content))

    @lists
    def timeline(
        self,
        entity: str,
        *,
        since: Time | None = None,
        until: Time | None = None,
        source: Sequence[str] = (),
        kind: Sequence[str] = (),
        order: Literal["desc", "asc"] = "desc",
        limit: int | None = None,
        snapshot: str | None = None,
    ) -> Listing[FoundEvent]:
        """Events of an entity, newest first; pages are fetched as they are reached. `limit` None: all of them."""
        params: dict[str, Any] = {"since": _time(since), "until": _time(until)}
        params |= {"source": _names(source), "kind": _names(kind), "order": order, "snapshot": snapshot}
        path = f"/entities/{name_in_path(entity)}/timeline"
        return Pages(path, params, page=PAGE_EVENTS, limit=limit, read=_timeline_page)

    @lists
    def entities(
        self, prefix: str = "", *, limit: int | None = None, snapshot: str | None = None
    ) -> Listing[EntityInfo]:
        """Entities in key order; pages are fetched as they are reached."""
        params = {"prefix": prefix, "snapshot": snapshot}
        return Pages("/entities", params, page=PAGE_ENTITIES, limit=limit, read=_entities_page)

    @asks
    def snapshot(self) -> Call[Snapshot]:
        """The newest cut: what is built and what waits."""
        return Call(get("/snapshot"), lambda reply: Snapshot.model_validate_json(reply.content))

    @asks
    def warm(
        self, *, entities: Sequence[str] | None = None, days: Sequence[Day] | None = None, pin: bool | None = None
    ) -> Call[None]:
        """Say what is going to be read. Answers before it is fetched."""
        shown = None if days is None else [_day(day) for day in days]
        return Call(post("/warm", {"entities": _names(entities), "days": shown, "pin": pin}), lambda _: None)

    # --- write ----------------------------------------------------------------------------------

    @asks
    def write(
        self,
        events: Iterable[EventLike] | bytes,
        *,
        visible: Visible = "now",
        idempotency_key: str | None = None,
        repeatable: bool = True,
    ) -> Call[Accepted]:
        """Write at most 10,000 events in one request, all or none; bytes are NDJSON. Durable when it returns.

        Sent under an idempotency key, a random one unless given. `repeatable` False: without one, which saves the
        store a request, and a write that may have arrived is not sent again."""
        ndjson = events if isinstance(events, bytes) else b"".join(map(line_of, events))
        made = idempotency_key or (uuid.uuid4().hex if repeatable else None)
        return write_call(ndjson, visible=visible, idempotency_key=made)

    @asks
    def delete(self, events: Iterable[tuple[str, Time, str]]) -> Call[Accepted]:
        """Delete events named by (entity, any time of their day, id)."""
        named = [{"entity": entity, "ts": _time(ts), "id": event_id} for entity, ts, event_id in events]
        request = post("/events:delete", {"events": named})
        return Call(request, lambda reply: Accepted.model_validate_json(reply.content))

    # --- tenant ---------------------------------------------------------------------------------

    @asks
    def tenant(self) -> Call[TenantInfo]:
        """The tenant's settings."""
        return Call(get(""), lambda reply: TenantInfo.model_validate_json(reply.content))

    @asks
    def put_tenant(self, settings: Mapping[str, Any] | None = None) -> Call[TenantInfo]:
        """Create the tenant, or replace its settings. For operator keys with the scope `admin`."""
        request = post("", {"settings": dict(settings or {})}, method="PUT")
        return Call(request, lambda reply: TenantInfo.model_validate_json(reply.content))


# --- leaves -------------------------------------------------------------------------------------


def _timeline_page(line: bytes) -> tuple[list[FoundEvent], str | None]:
    held = orjson.loads(line)
    return [FoundEvent.model_validate(each) for each in held["events"]], held["cursor"]


def _entities_page(line: bytes) -> tuple[list[EntityInfo], str | None]:
    held = orjson.loads(line)
    return [EntityInfo.model_validate(each) for each in held["entities"]], held["cursor"]


def _time(value: Time | None) -> str | None:
    """Raises `Invalid(ts_invalid)` for a time that could be anywhere."""
    if not isinstance(value, dt.datetime):
        return value
    if value.tzinfo is None:
        raise Invalid("ts_invalid", "a datetime needs a time zone: datetime.now(timezone.utc)", ts=value.isoformat())
    return value.isoformat()


def _day(value: Day | None) -> str | None:
    return value.isoformat() if isinstance(value, dt.date) else value


def _names(values: Sequence[T] | None) -> list[T] | None:
    return None if values is None else list(values)
