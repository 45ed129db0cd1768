"""Every method of the client, once: its signature, what it asks, and how the answer reads.

A method below makes a `Call` or a `Listing` and sends nothing; `asks` and `lists` make of it what a face gives. Reads
and writes are here, what operators do is in `operations`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

import orjson

from context_plane.client.asking import asks, day_name, lists, moment, names
from context_plane.client.operations import Operations
from context_plane.client.requests import (
    Bundles,
    Call,
    Exported,
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
    BundleInputs,
    Change,
    Consistency,
    Day,
    EntityInfo,
    Event,
    EventLike,
    Format,
    FoundEvent,
    Include,
    Mode,
    NoBundle,
    SearchAnswer,
    Snapshot,
    Time,
    Visible,
)

PAGE_EVENTS: Final = 100
"""Of a timeline: each may hold 256 KiB of text."""
PAGE_ENTITIES: Final = 1000
"""The service's limit."""
PAGE_CHANGES: Final = 1000
"""The service's limit."""


class Methods(Operations):
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
        consistency: Consistency | None = None,
        known: Bundle | None = None,
    ) -> Call[Bundle]:
        """The bundle built ahead of time. `known`: one read before, which comes back when nothing changed.

        Raises `NotFound(bundle_not_built)` when only unbuilt events are known: ask `context_on_demand`."""
        params: dict[str, Any] = {"spec": spec, "as_of": day_name(as_of), "format": format, "snapshot": snapshot}
        params |= {"consistency": consistency}
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
        consistency: Consistency | None = None,
        budget_tokens: int | None = None,
    ) -> Call[Bundle]:
        """A bundle made now for a question, events not built yet included."""
        body: dict[str, Any] = {"text": text, "vector": vector, "where": where}
        body |= {"since": moment(since), "until": moment(until)}
        body |= {"spec": spec, "format": format, "snapshot": snapshot, "budget_tokens": budget_tokens}
        body |= {"consistency": consistency}
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
        consistency: Consistency | None = None,
    ) -> Listing[Bundle | NoBundle]:
        """Bundles of any number of entities at one cut, as they come: in the order asked, or in key order for every
        entity (None)."""
        return Bundles(
            entities, spec=spec, as_of=day_name(as_of), form=format, snapshot=snapshot, consistency=consistency
        )

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
        consistency: Consistency | None = None,
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
        body |= {"entities": names(entities), "since": moment(since), "until": moment(until)}
        body |= {"limit": limit, "group_by": group_by}
        body |= {"per_group": per_group, "fusion": fusion, "consistency": consistency, "snapshot": snapshot}
        body |= {"deadline_ms": deadline_ms, "include": names(include), "explain": explain}
        body |= {"resolve_time": resolve_time, "now": moment(now)}
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
        consistency: Consistency | None = None,
    ) -> Listing[FoundEvent]:
        """Events of an entity, newest first; pages are fetched as they are reached. `limit` None: all of them."""
        params: dict[str, Any] = {"since": moment(since), "until": moment(until)}
        params |= {"source": names(source), "kind": names(kind), "order": order, "snapshot": snapshot}
        params |= {"consistency": consistency}
        path = f"/entities/{name_in_path(entity)}/timeline"
        return Pages(path, params, page=PAGE_EVENTS, limit=limit, read=_timeline_page)

    @lists
    def entities(
        self,
        prefix: str = "",
        *,
        limit: int | None = None,
        snapshot: str | None = None,
        consistency: Consistency | None = None,
    ) -> Listing[EntityInfo]:
        """Entities in key order; pages are fetched as they are reached."""
        params = {"prefix": prefix, "snapshot": snapshot, "consistency": consistency}
        return Pages("/entities", params, page=PAGE_ENTITIES, limit=limit, read=_entities_page)

    @lists
    def changes(self, since: str, *, snapshot: str | None = None, limit: int | None = None) -> Listing[Change]:
        """Entities that were written to since a snapshot, then bundles whose content differs. `snapshot`: the newer cut
        (None: the newest); name it, and it is what to ask the next changes since.

        Raises `NotFound(snapshot_expired | snapshot_erased)` when `since` ended: read everything anew."""
        params = {"since": since, "snapshot": snapshot}
        return Pages("/changes", params, page=PAGE_CHANGES, limit=limit, read=_changes_page)

    @lists
    def export(
        self, *, since: Time | None = None, until: Time | None = None, snapshot: str | None = None
    ) -> Listing[Event]:
        """Every event of one cut, by day, entity and time, as `write` takes it; nothing is held but a line. Raises what
        broke it off: who named the `snapshot` can ask for the rest of the same cut."""
        return Exported(get("/export", {"since": moment(since), "until": moment(until), "snapshot": snapshot}))

    @asks
    def why(
        self,
        digest: str,
        *,
        entity: str | None = None,
        spec: str | None = None,
        as_of: Day | None = None,
        snapshot: str | None = None,
    ) -> Call[BundleInputs]:
        """What a bundle built ahead of time was made from (`Bundle.digest`). What is known beside the digest makes the
        search short; without it only the newest bundles are looked through."""
        params = {"entity": entity, "spec": spec, "as_of": day_name(as_of), "snapshot": snapshot}
        request = get(f"/why/{name_in_path(digest)}", params)
        return Call(request, lambda reply: BundleInputs.model_validate_json(reply.content))

    @asks
    def snapshot(self) -> Call[Snapshot]:
        """The newest cut: what is built and what waits."""
        return Call(get("/snapshot"), lambda reply: Snapshot.model_validate_json(reply.content))

    @asks
    def warm(
        self, *, entities: Sequence[str] | None = None, days: Sequence[Day] | None = None, pin: bool | None = None
    ) -> Call[None]:
        """Say what is going to be read. Answers before it is fetched."""
        shown = None if days is None else [day_name(day) for day in days]
        return Call(post("/warm", {"entities": names(entities), "days": shown, "pin": pin}), lambda _: None)

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
        """Delete events named by (entity, any time of their day, id). Sent under a random idempotency key."""
        named = [{"entity": entity, "ts": moment(ts), "id": event_id} for entity, ts, event_id in events]
        request = post("/events:delete", {"events": named})
        request = replace(request, headers={**request.headers, "idempotency-key": uuid.uuid4().hex})
        return Call(request, lambda reply: Accepted.model_validate_json(reply.content))


# --- leaves -------------------------------------------------------------------------------------


def _timeline_page(line: bytes) -> tuple[list[FoundEvent], str | None]:
    held = orjson.loads(line)
    return [FoundEvent.model_validate(each) for each in held["events"]], held["cursor"]


def _entities_page(line: bytes) -> tuple[list[EntityInfo], str | None]:
    held = orjson.loads(line)
    return [EntityInfo.model_validate(each) for each in held["entities"]], held["cursor"]


def _changes_page(line: bytes) -> tuple[list[Change], str | None]:
    held = orjson.loads(line)
    return [Change.model_validate(each) for each in held["changes"]], held["cursor"]
