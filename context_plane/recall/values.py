"""Requests and answers of the read journeys, as values. Times are microseconds since 1970 UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from context_plane.model import AttrValue, Event, Vector
from context_plane.retrieval.fuse import FUSION_K, FusionMethod, Mode
from context_plane.retrieval.snapshots import Consistency
from context_plane.retrieval.where import Where

LIMIT_MAX: Final = 1000
ENTITIES_MAX: Final = 5000
QUERY_TEXT_BYTES_MAX: Final = 8 * 1024
DEADLINE_MS_DEFAULT: Final = 2000
DEADLINE_MS_MAX: Final = 60_000

Include: TypeAlias = Literal["text", "attrs", "snippet", "vector"]
Freshness: TypeAlias = Literal["fresh", "stale", "building"]


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search. `entities` None: the whole tenant. At least one of text and vector, as `mode` needs."""

    text: str | None = None
    vector: Vector | None = None
    mode: Mode = "hybrid"
    entities: tuple[str, ...] | None = None
    where: Where | None = None
    since_us: int | None = None
    until_us: int | None = None
    limit: int = 10
    group_by_entity: bool = False
    per_group: int = 3
    fusion_method: FusionMethod = "relative_score"
    fusion_k: float = FUSION_K
    """Of reciprocal ranks."""
    weight_text: float | None = None
    """None: the product's default."""
    weight_vector: float | None = None
    consistency: Consistency = "strong"
    snapshot: str | None = None
    deadline_ms: int = DEADLINE_MS_DEFAULT
    include: frozenset[Include] = frozenset({"text", "attrs"})
    explain: bool = False


class Citation(NamedTuple):
    """Where an event lies: the stored object, its 1-based line, and the characters of the chunk in its text."""

    segment: str
    line: int
    chars: tuple[int, int] | None
    digest: str
    """First 32 hex digits of the event's SHA-256."""


class FoundEvent(NamedTuple):
    """One event of an answer. Leg ranks and scores are None where the leg did not find it."""

    entity: str
    id: str
    ts_us: int
    source: str
    kind: str
    thread: str | None
    text: str | None
    attrs: Mapping[str, AttrValue] | None
    citation: Citation
    score: float = 0.0
    text_rank: int | None = None
    vector_rank: int | None = None
    text_score: float | None = None
    vector_score: float | None = None
    snippet: str | None = None
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class ReadStats:
    """What one read cost. `cache`: coldest tier touched. `bytes_scanned`: stored bytes of what it went through, at
    most, wherever they were; `bytes_read`: of them and of the cut, those that came from the store."""

    cache: Literal["memory", "disk", "cold"]
    round_trips: int
    gets: int
    bytes_read: int
    bytes_scanned: int
    shards: int
    rows_scored: int
    exact: bool
    tail_events: int
    ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    hits: tuple[FoundEvent, ...]
    snapshot: str
    partial: bool
    missing_days: tuple[str, ...]
    stats: ReadStats
    explain: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TimelineRequest:
    """`cursor`: position after which to go on, (ts_us, id) of the last event returned."""

    entity: str
    since_us: int | None = None
    until_us: int | None = None
    sources: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    limit: int = 100
    cursor: tuple[int, str] | None = None
    descending: bool = True
    consistency: Consistency = "strong"
    snapshot: str | None = None


@dataclass(frozen=True, slots=True)
class TimelineAnswer:
    events: tuple[FoundEvent, ...]
    next_cursor: tuple[int, str] | None
    snapshot: str


@dataclass(frozen=True, slots=True)
class EntityInfo:
    entity: str
    events: int
    last_ts_us: int


@dataclass(frozen=True, slots=True)
class EntitiesAnswer:
    """`next_cursor`: the last entity returned when there may be more."""

    entities: tuple[EntityInfo, ...]
    next_cursor: str | None
    snapshot: str


@dataclass(frozen=True, slots=True)
class BundleAnswer:
    """One bundle. `json_bytes` is canonical; `digest` is its SHA-256, hex."""

    entity: str
    spec: str
    as_of: str
    json_bytes: bytes
    digest: str
    freshness: Freshness
    snapshot: str
    cache: Literal["memory", "disk", "cold"]


class Change(NamedTuple):
    """An entity that changed: its events, or its bundle of `spec` and `as_of`."""

    entity: str
    spec: str | None = None
    as_of: str | None = None


@dataclass(frozen=True, slots=True)
class ChangesRequest:
    """`since`: the snapshot to compare with; `snapshot` None: the newest cut. `position`: where to go on."""

    since: str
    snapshot: str | None = None
    limit: int = 100
    position: ChangesPosition | None = None


class ChangesPosition(NamedTuple):
    """Where a page ended. `part`: "" for the log, else day and spec of bundles; then batch and line, or bucket and
    place in it, of what comes next."""

    part: str
    number: int
    line: int


@dataclass(frozen=True, slots=True)
class ChangesAnswer:
    """One page: no change twice. `next_position` None: that was all."""

    changes: tuple[Change, ...]
    next_position: ChangesPosition | None
    since: str
    snapshot: str


@dataclass(frozen=True, slots=True)
class InputSegment:
    """A segment that a bundle's look-back reads. `events`: live ones within the look-back."""

    day: str
    segment: str
    events: int


@dataclass(frozen=True, slots=True)
class CitedEvent:
    """A citation of a bundle. `event` None: at this cut no event of that identity has that content any more."""

    day: str
    id: str
    digest: str
    event: FoundEvent | None


@dataclass(frozen=True, slots=True)
class BundleInputs:
    """What a built bundle was made from. Its look-back is since <= ts < until; citation n is `citations[n - 1]`."""

    digest: str
    entity: str
    spec: str
    as_of: str
    freshness: Freshness
    snapshot: str
    spec_fingerprint: str
    sources: str
    """Fingerprint of the look-back's days as they were built."""
    built_us: int
    pack: str
    since_us: int
    until_us: int
    segments: tuple[InputSegment, ...]
    citations: tuple[CitedEvent, ...]


@dataclass(frozen=True, slots=True)
class OnDemandRequest:
    """A bundle for a query: the spec's sections plus evidence for the question, tail included.

    `where` is the API's JSON, not yet parsed: it is part of what the bundle's digest covers.
    """

    entity: str
    spec: str
    text: str | None = None
    vector: Vector | None = None
    where: dict[str, Any] | None = None
    since_us: int | None = None
    until_us: int | None = None
    snapshot: str | None = None
    budget_tokens: int | None = None
    consistency: Consistency = "strong"


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """The state of a tenant's newest cut. `index_lag_s`: age of the oldest unbuilt write, 0 when none."""

    snapshot: str
    max_event_us: int | None
    days: tuple[str, ...]
    dirty_days: tuple[str, ...]
    pending_log_objects: int
    pending_events: int
    index_lag_s: float
    model: str | None
    bundles: Mapping[str, str] = field(default_factory=dict)
    """Spec -> newest built day."""


@dataclass(frozen=True, slots=True)
class TailEvent:
    """A visible uncovered put, with its place in the log."""

    event: Event
    log_key: str
    line: int
