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
Consistency: TypeAlias = Literal["strong", "eventual"]
"""Everything acknowledged before; or at most a second old, and no round trip for it."""
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


class Change(_Answer):
    """An entity that was written to, or (`spec` and `as_of`) one of its bundles."""

    entity: str
    changed: Literal["events", "bundle"]
    spec: str | None
    as_of: str | None


class InputSegment(_Answer):
    """A stored object, and how many of its events a bundle was made from."""

    day: str
    segment: str
    events: int


class Cited(_Answer):
    """A citation of a bundle, by its number. `segment` None: the event changed since."""

    number: int
    day: str
    id: str
    digest: str
    segment: str | None
    line: int | None
    ts: dt.datetime | None
    source: str | None
    kind: str | None


class BundleInputs(_Answer):
    """What a bundle was made from: events from `since` to before `until`, and which of them it cites."""

    digest: str
    entity: str
    spec: str
    as_of: str
    freshness: Freshness
    snapshot: str
    spec_fingerprint: str
    sources: str
    built: dt.datetime
    pack: str
    since: dt.datetime
    until: dt.datetime
    segments: list[InputSegment]
    citations: list[Cited]


class Receipt(_Answer):
    """What an erasure did. None: not of this kind (an entity's, or a tenant's)."""

    hash: str | None = None
    log_number: int
    snapshots_from: int | None = None
    days_rebuilt: int | None = None
    months_opened: int | None = None
    bundle_days_dropped: int | None = None
    objects_deleted: int
    bytes_deleted: int
    batches_redacted: int | None = None
    manifests_redacted: int | None = None
    keys_revoked: int | None = None


class ErasureState(_Answer):
    """`requested`: nothing is hidden yet; `hidden`: no read shows it; `checking`: erased and not checked; `done`."""

    erasure: str
    state: Literal["requested", "hidden", "checking", "done"]
    requested: dt.datetime
    completed: dt.datetime | None
    receipt: Receipt | None


class AuditedCall(_Answer):
    """Who did what. `outcome` begun: nobody lived to tell how it ended."""

    at: dt.datetime
    actor: str
    request: str | None
    action: str
    subject: str | None
    outcome: Literal["begun", "done", "failed"]
    code: str | None
    counts: dict[str, int]


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

    @property
    def digest(self) -> str:
        """SHA-256 of its JSON: what `why` takes, of a bundle built ahead of time."""
        return self.etag.strip('"').removesuffix("-text")

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
