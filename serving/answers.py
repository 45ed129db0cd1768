"""Answers of the HTTP contract: models that describe them in OpenAPI, functions that write them.

The functions make plain objects for the JSON encoder (a model per hit would cost more than the search); a test
holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from context_plane.ingest import Accepted
from context_plane.model import format_time
from context_plane.recall.values import (
    BundleInputs,
    Citation,
    CitedEvent,
    EntitiesAnswer,
    FoundEvent,
    Freshness,
    Include,
    ReadStats,
    SearchAnswer,
    SnapshotInfo,
    TimelineAnswer,
)
from context_plane.tenants import Tenant, TenantSettings


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FaultOut(_Answer):
    code: str
    detail: str
    line: int | None = Field(default=None, description="1-based line of an NDJSON body")
    pointer: str | None = Field(default=None, description="JSON pointer (RFC 6901) into the body")


class Problem(_Answer):
    """RFC 9457, with a stable `code` to match on."""

    type: str = Field(examples=["urn:context-plane:problem:ts_invalid"])
    title: str
    status: int
    detail: str
    code: str
    errors: list[FaultOut] | None = None
    request_id: str | None = Field(default=None, description="names the log entry, where there is one")


class AcceptedOut(_Answer):
    accepted: int
    duplicates: int = Field(description="identities repeated within the request; the last one won")
    batch: int
    days: list[str]
    snapshot: str


class LegValues(_Answer):
    text: float | None
    vector: float | None


class CitationOut(_Answer):
    segment: str
    line: int
    chars: tuple[int, int] | None
    digest: str


class TimelineEventOut(_Answer):
    id: str
    entity: str
    ts: str
    source: str
    kind: str
    thread: str | None
    text: str | None = None
    attrs: dict[str, Any] | None = None
    citation: CitationOut


class HitOut(TimelineEventOut):
    score: float
    ranks: LegValues
    scores: LegValues
    snippet: str | None = None
    vector: list[float] | None = None


class StatsOut(_Answer):
    cache: Literal["memory", "disk", "cold"]
    round_trips: int
    gets: int
    bytes_read: int
    shards: int
    rows_scored: int
    exact: bool
    tail_events: int
    ms: dict[str, float]


class SearchOut(_Answer):
    hits: list[HitOut]
    snapshot: str
    partial: bool
    missing_days: list[str]
    stats: StatsOut
    explain: dict[str, Any] | None = None


class TimelineOut(_Answer):
    events: list[TimelineEventOut]
    cursor: str | None = Field(description="send it back for the next page; null at the end")
    snapshot: str


class EntityOut(_Answer):
    entity: str
    events: int
    last_ts: str


class EntitiesOut(_Answer):
    entities: list[EntityOut]
    cursor: str | None
    snapshot: str


class SnapshotOut(_Answer):
    snapshot: str
    max_event_time: str | None
    days: list[str]
    dirty_days: list[str]
    pending_log_objects: int
    pending_events: int
    index_lag_s: float
    model: str | None
    bundles: dict[str, str] = Field(description="spec -> newest built day")


class InputSegmentOut(_Answer):
    day: str
    segment: str
    events: int = Field(description="live ones within the look-back")


class CitedOut(_Answer):
    """A citation of the bundle. Without a segment no event of that identity has that content at the cut any more."""

    number: int = Field(description="as the text cites it: [1] is 1")
    day: str
    id: str
    digest: str = Field(description="of the event: the first 32 hex digits of its SHA-256")
    segment: str | None
    line: int | None
    ts: str | None
    source: str | None
    kind: str | None


class WhyOut(_Answer):
    digest: str
    entity: str
    spec: str
    as_of: str
    freshness: Freshness
    snapshot: str
    spec_fingerprint: str
    sources: str = Field(description="fingerprint of the look-back's days as they were built")
    built: str
    pack: str = Field(description="the object that holds the bundle")
    since: str = Field(description="the look-back's first moment")
    until: str = Field(description="the moment after it")
    segments: list[InputSegmentOut]
    citations: list[CitedOut]


class TenantOut(_Answer):
    tenant: str
    created: str | None = Field(description="null for a tenant that was written to before it was created")
    updated: str | None
    settings: TenantSettings


class TenantNameOut(_Answer):
    tenant: str


class TenantsOut(_Answer):
    tenants: list[TenantNameOut]
    cursor: str | None


class ErasureOut(_Answer):
    erasure: str


class HealthOut(_Answer):
    status: Literal["ok"]


def accepted(answer: Accepted) -> dict[str, Any]:
    return {
        "accepted": answer.accepted,
        "duplicates": answer.duplicates,
        "batch": answer.batch,
        "days": answer.days,
        "snapshot": answer.snapshot,
    }


def search_answer(answer: SearchAnswer, include: frozenset[Include]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "hits": [_hit(hit, include) for hit in answer.hits],
        "snapshot": answer.snapshot,
        "partial": answer.partial,
        "missing_days": answer.missing_days,
        "stats": _stats(answer.stats),
    }
    if answer.explain is not None:
        shown["explain"] = answer.explain
    return shown


def timeline(answer: TimelineAnswer, cursor: str | None) -> dict[str, Any]:
    return {
        "events": [
            _event(event) | {"text": event.text, "attrs": event.attrs or {}, "citation": _citation(event.citation)}
            for event in answer.events
        ],
        "cursor": cursor,
        "snapshot": answer.snapshot,
    }


def entities(answer: EntitiesAnswer, cursor: str | None) -> dict[str, Any]:
    return {
        "entities": [
            {"entity": info.entity, "events": info.events, "last_ts": format_time(info.last_ts_us)}
            for info in answer.entities
        ],
        "cursor": cursor,
        "snapshot": answer.snapshot,
    }


def snapshot(info: SnapshotInfo) -> dict[str, Any]:
    return {
        "snapshot": info.snapshot,
        "max_event_time": _time(info.max_event_us),
        "days": info.days,
        "dirty_days": info.dirty_days,
        "pending_log_objects": info.pending_log_objects,
        "pending_events": info.pending_events,
        "index_lag_s": info.index_lag_s,
        "model": info.model,
        "bundles": dict(info.bundles),
    }


def tenants(names: Sequence[str], cursor: str | None) -> dict[str, Any]:
    return {"tenants": [{"tenant": name} for name in names], "cursor": cursor}


def why(inputs: BundleInputs) -> dict[str, Any]:
    return {
        "digest": inputs.digest,
        "entity": inputs.entity,
        "spec": inputs.spec,
        "as_of": inputs.as_of,
        "freshness": inputs.freshness,
        "snapshot": inputs.snapshot,
        "spec_fingerprint": inputs.spec_fingerprint,
        "sources": inputs.sources,
        "built": format_time(inputs.built_us),
        "pack": inputs.pack,
        "since": format_time(inputs.since_us),
        "until": format_time(inputs.until_us),
        "segments": [{"day": one.day, "segment": one.segment, "events": one.events} for one in inputs.segments],
        "citations": [_cited(number, one) for number, one in enumerate(inputs.citations, 1)],
    }


def _cited(number: int, cited: CitedEvent) -> dict[str, Any]:
    event = cited.event
    return {
        "number": number,
        "day": cited.day,
        "id": cited.id,
        "digest": cited.digest,
        "segment": None if event is None else event.citation.segment,
        "line": None if event is None else event.citation.line,
        "ts": None if event is None else format_time(event.ts_us),
        "source": None if event is None else event.source,
        "kind": None if event is None else event.kind,
    }


def _time(ts_us: int | None) -> str | None:
    return None if ts_us is None else format_time(ts_us)


def _event(event: FoundEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "entity": event.entity,
        "ts": format_time(event.ts_us),
        "source": event.source,
        "kind": event.kind,
        "thread": event.thread,
    }


def _hit(hit: FoundEvent, include: frozenset[Include]) -> dict[str, Any]:
    shown = _event(hit) | {
        "score": hit.score,
        "ranks": {"text": hit.text_rank, "vector": hit.vector_rank},
        "scores": {"text": hit.text_score, "vector": hit.vector_score},
        "citation": _citation(hit.citation),
    }
    if "text" in include:
        shown["text"] = hit.text
    if "attrs" in include:
        shown["attrs"] = dict(hit.attrs or {})
    if "snippet" in include:
        shown["snippet"] = hit.snippet
    if "vector" in include:
        shown["vector"] = None if hit.vector is None else [float(x) for x in hit.vector]
    return shown


def _citation(citation: Citation) -> dict[str, Any]:
    return {
        "segment": citation.segment,
        "line": citation.line,
        "chars": citation.chars,
        "digest": citation.digest,
    }


def _stats(stats: ReadStats) -> dict[str, Any]:
    return {
        "cache": stats.cache,
        "round_trips": stats.round_trips,
        "gets": stats.gets,
        "bytes_read": stats.bytes_read,
        "shards": stats.shards,
        "rows_scored": stats.rows_scored,
        "exact": stats.exact,
        "tail_events": stats.tail_events,
        "ms": dict(stats.ms),
    }


def tenant(record: Tenant) -> dict[str, Any]:
    return {
        "tenant": record.tenant,
        "created": _time(record.created_us),
        "updated": _time(record.updated_us),
        "settings": record.settings.model_dump(mode="json"),
    }
