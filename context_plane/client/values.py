"""What goes in and what comes back, as typed values. Times are aware datetimes.

Fields that a newer service adds are ignored. A test holds these models against the service's own description.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

import orjson
from pydantic import BaseModel, ConfigDict

from context_plane.errors import PlaneError

Time: TypeAlias = str | dt.datetime
"""RFC 3339 with an offset, or an aware datetime."""
Day: TypeAlias = str | dt.date
Format: TypeAlias = Literal["json", "text"]
Freshness: TypeAlias = Literal["fresh", "stale", "building"]
Mode: TypeAlias = Literal["hybrid", "text", "vector"]
Visible: TypeAlias = Literal["now", "after_build"]
Include: TypeAlias = Literal["text", "attrs", "snippet", "vector"]


class Event(TypedDict):
    """One dated fact about one entity, as it is written. `id` defaults to a digest of the event."""

    entity: str
    ts: Time
    source: str
    kind: str
    id: NotRequired[str | None]
    thread: NotRequired[str | None]
    text: NotRequired[str | None]
    attrs: NotRequired[Mapping[str, str | int | float | bool | list[str] | None] | None]
    vector: NotRequired[Sequence[float] | None]
    op: NotRequired[Literal["put", "delete"]]


EventLike: TypeAlias = Event | Mapping[str, Any]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Accepted(_Answer):
    """A write that is durable. `duplicates`: identities repeated within the request; the last one won."""

    accepted: int
    duplicates: int
    batch: int
    days: list[str]
    snapshot: str


class Citation(_Answer):
    """Where an event lies: the stored object, its 1-based line, the characters of its text, its digest."""

    segment: str
    line: int
    chars: tuple[int, int] | None
    digest: str


class FoundEvent(_Answer):
    """An event of a timeline."""

    id: str
    entity: str
    ts: dt.datetime
    source: str
    kind: str
    thread: str | None
    text: str | None = None
    attrs: dict[str, Any] | None = None
    citation: Citation


class Legs(_Answer):
    """A value of each search leg; None where the leg did not find the event."""

    text: float | None
    vector: float | None


class Hit(FoundEvent):
    """An event of a search."""

    score: float
    ranks: Legs
    scores: Legs
    snippet: str | None = None
    vector: list[float] | None = None


class Stats(_Answer):
    """What a search cost. `cache`: the coldest tier touched."""

    cache: Literal["memory", "disk", "cold"]
    round_trips: int
    gets: int
    bytes_read: int
    bytes_scanned: int
    shards: int
    rows_scored: int
    exact: bool
    tail_events: int
    ms: dict[str, float]


class Window(_Answer):
    """What dates in the text were read as; `phrases` of it. None: open."""

    since: dt.datetime | None
    until: dt.datetime | None
    phrases: list[str]


class SearchAnswer(_Answer):
    """Hits, best first. `partial`: days in `missing_days` did not answer by the deadline. `window`: with
    `resolve_time`, where the text names dates."""

    hits: list[Hit]
    snapshot: str
    partial: bool
    missing_days: list[str]
    stats: Stats
    explain: dict[str, Any] | None = None
    window: Window | None = None


class EntityInfo(_Answer):
    entity: str
    events: int
    last_ts: dt.datetime


class Snapshot(_Answer):
    """What is built and what waits. `bundles`: spec -> newest built day."""

    snapshot: str
    max_event_time: dt.datetime | None
    days: list[str]
    dirty_days: list[str]
    pending_log_objects: int
    pending_events: int
    index_lag_s: float
    model: str | None
    bundles: dict[str, str]


class TenantInfo(_Answer):
    tenant: str
    created: dt.datetime | None
    updated: dt.datetime | None
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bundle:
    """One entity's context. `content`: prompt-ready text or canonical JSON, as the service wrote it.

    `etag` names the content: hand the bundle back as `known` and an unchanged one is not sent again."""

    entity: str
    format: Format
    content: str
    etag: str
    snapshot: str
    freshness: Freshness

    def json(self) -> dict[str, Any]:
        """The bundle as data. Asked for with `format="json"`."""
        held: dict[str, Any] = orjson.loads(self.content)
        return held


@dataclass(frozen=True, slots=True)
class NoBundle:
    """An entity of a batch for which there is none, and why."""

    entity: str
    error: PlaneError


@dataclass(frozen=True, slots=True)
class Ingested:
    """What a load has made durable so far. `bytes_sent`: as sent, compressed."""

    events: int = 0
    requests: int = 0
    bytes_sent: int = 0
    days: frozenset[str] = frozenset()
    snapshot: str | None = None
