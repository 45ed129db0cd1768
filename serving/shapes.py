"""Shapes of the HTTP contract's answers, for the OpenAPI document: every field with what it means and an example.

Answers are written by the functions of `serving.answers`; a test holds the two together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from context_plane.fulfil import State
from context_plane.recall.values import Freshness
from context_plane.tenants import TenantSettings
from serving import examples
from serving.bundle_shapes import BundleOut


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


Id = Annotated[str, Field(description="the event's id", examples=["zd-8812"])]
EntityId = Annotated[str, Field(description="whom it is about", examples=["acct-0042"])]
Day = Annotated[str, Field(description="a UTC day", examples=["2026-03-04"])]
Days = Annotated[list[str], Field(description="UTC days, ascending", examples=[["2026-03-04"]])]
SnapshotId = Annotated[str, Field(description="the cut: send it back to read at it again", examples=["17.41"])]
Digest = Annotated[
    str,
    Field(description="the first 32 hex digits of the event's SHA-256", examples=[examples.EVENT_DIGEST]),
]
BundleDigest = Annotated[
    str,
    Field(
        description="SHA-256 of the bundle's JSON, as in its ETag",
        examples=[examples.BUNDLE_DIGEST],
    ),
]
SpecName = Annotated[str, Field(description="of the bundle", examples=["customer_context_v0"])]
Segment = Annotated[
    str,
    Field(
        description="the stored object; of an unbuilt event its log object",
        examples=[examples.SEGMENT],
    ),
]
PageCursor = Annotated[
    str | None,
    Field(
        description="send it back for the next page; null at the end",
        examples=[examples.CURSOR],
    ),
]
Fresh = Annotated[
    Freshness,
    Field(description="stale: a day it looks at was published since; building: writes wait", examples=["fresh"]),
]


class FaultOut(_Answer):
    code: str = Field(description="as of the problem", examples=[examples.FAULT["code"]])
    detail: str = Field(description="what to mend", examples=[examples.FAULT["detail"]])
    line: int | None = Field(default=None, description="1-based line of an NDJSON body", examples=[2])
    pointer: str | None = Field(
        default=None, description="JSON pointer (RFC 6901) into the body", examples=[examples.FAULT["pointer"]]
    )


class Problem(_Answer):
    """RFC 9457, with a stable `code` to match on."""

    type: str = Field(description="names the code", examples=["urn:context-plane:problem:ts_invalid"])
    title: str = Field(description="what the code means", examples=["a time is RFC 3339 with an offset"])
    status: int = Field(description="of the answer", examples=[422])
    detail: str = Field(description="what was wrong here, and what to do", examples=["not an RFC 3339 time ts='noon'"])
    code: str = Field(description="stable: match on it", examples=["ts_invalid"])
    errors: list[FaultOut] | None = Field(
        default=None, description="each defect of a body", examples=[[examples.FAULT]]
    )
    request_id: str | None = Field(
        default=None, description="names the log entry, where there is one", examples=["4c1fd0a2b7e8931f"]
    )


class AcceptedOut(_Answer):
    accepted: int = Field(description="writes that are durable now", examples=[2])
    duplicates: int = Field(description="identities repeated within the request; the last one won", examples=[0])
    batch: int = Field(description="number in the log", examples=[41])
    days: Days
    snapshot: SnapshotId


class LegValues(_Answer):
    text: float | None = Field(description="of the text leg; null where it did not find the event", examples=[7.1])
    vector: float | None = Field(description="of the vector leg", examples=[0.63])


class CitationOut(_Answer):
    segment: Segment
    line: int = Field(description="1-based line of the object", examples=[17])
    chars: tuple[int, int] | None = Field(
        description="characters of the text that the hit stands for; null for the event as a whole", examples=[[0, 30]]
    )
    digest: Digest


class TimelineEventOut(_Answer):
    id: Id
    entity: EntityId
    ts: str = Field(description="when the fact came to be, UTC", examples=["2026-03-04T09:15:00Z"])
    source: str = Field(description="the system it comes from", examples=["zendesk"])
    kind: str = Field(description="what sort of fact", examples=["ticket"])
    thread: str | None = Field(description="a conversation within the entity", examples=["zd-8812"])
    text: str | None = Field(default=None, description="as it was sent", examples=[examples.TEXT])
    attrs: dict[str, Any] | None = Field(default=None, description="as they were sent", examples=[{"priority": "high"}])
    citation: CitationOut = Field(description="where it is stored", examples=[examples.CITED])


class HitOut(TimelineEventOut):
    score: float = Field(description="of both legs together; greater is better", examples=[0.91])
    ranks: LegValues = Field(description="1 is best", examples=[{"text": 1, "vector": 3}])
    scores: LegValues = Field(description="BM25, and cosine", examples=[{"text": 7.1, "vector": 0.63}])
    snippet: str | None = Field(
        default=None, description="the best passage, words of the query marked", examples=["<b>Export</b> fails"]
    )
    vector: list[float] | None = Field(
        default=None, description="of the best passage, as many numbers as the model's", examples=[[0.12, -0.03, 0.41]]
    )


class StatsOut(_Answer):
    cache: Literal["memory", "disk", "cold"] = Field(description="the coldest tier touched", examples=["memory"])
    round_trips: int = Field(description="dependent requests to the store", examples=[3])
    gets: int = Field(description="objects or ranges read", examples=[4])
    bytes_read: int = Field(description="of them", examples=[61234])
    bytes_scanned: int = Field(description="gone through, cached or not: what `bytes_per_s` counts", examples=[61234])
    shards: int = Field(description="days and months looked at", examples=[2])
    rows_scored: int = Field(description="passages that passed the filter and were scored", examples=[310])
    exact: bool = Field(description="whether every row in scope was scored", examples=[True])
    tail_events: int = Field(description="events searched that are not built yet", examples=[2])
    ms: dict[str, float] = Field(description="milliseconds of each step", examples=[{"plan": 1.2, "total": 4.3}])


class WindowOut(_Answer):
    """What the dates of the text name. The search looked within it and within `since` and `until`."""

    since: str | None = Field(description="included; null: open", examples=["2026-02-23T00:00:00Z"])
    until: str | None = Field(description="excluded; null: open", examples=["2026-03-02T00:00:00Z"])
    phrases: list[str] = Field(description="what of the text was read as dates", examples=[["last week"]])


class SearchOut(_Answer):
    hits: list[HitOut] = Field(description="best first", examples=[[examples.HIT]])
    snapshot: SnapshotId
    partial: bool = Field(description="whether something did not arrive in time", examples=[False])
    missing_days: list[str] = Field(description="days that were not searched", examples=[[]])
    stats: StatsOut = Field(description="what the read cost", examples=[examples.STATS])
    explain: dict[str, Any] | None = Field(
        default=None, description="with explain: the plan, and what it came to", examples=[examples.EXPLAIN]
    )
    window: WindowOut | None = Field(
        default=None, description="with resolve_time; null where the text names no date", examples=[examples.WINDOW]
    )


class TimelineOut(_Answer):
    events: list[TimelineEventOut] = Field(description="in the order asked", examples=[[examples.EVENT]])
    cursor: PageCursor
    snapshot: SnapshotId


class EntityOut(_Answer):
    entity: EntityId
    events: int = Field(description="how many it has", examples=[128])
    last_ts: str = Field(description="of its newest event", examples=["2026-03-04T09:15:00Z"])


class EntitiesOut(_Answer):
    entities: list[EntityOut] = Field(description="ascending by id", examples=[[examples.ENTITY]])
    cursor: PageCursor
    snapshot: SnapshotId


class BatchLineOut(_Answer):
    """One line: a bundle, or why there is none."""

    entity: str | None = Field(
        default=None,
        description="whom it is about; absent in a last line: the answer broke off",
        examples=["acct-0042"],
    )
    spec: str | None = Field(default=None, description="of the bundle", examples=["customer_context_v0"])
    as_of: str | None = Field(default=None, description="its day", examples=["2026-03-04"])
    digest: str | None = Field(default=None, description="its SHA-256", examples=[examples.BUNDLE_DIGEST])
    freshness: Freshness | None = Field(default=None, description="as `X-Freshness`", examples=["fresh"])
    snapshot: str | None = Field(default=None, description="the cut, of all lines", examples=["17.41"])
    bundle: BundleOut | None = Field(default=None, description="with format json", examples=[examples.BUNDLE])
    text: str | None = Field(default=None, description="with format text", examples=[examples.BUNDLE_TEXT])
    error: Problem | None = Field(default=None, description="why there is no bundle", examples=[examples.PROBLEM])


class SnapshotOut(_Answer):
    snapshot: SnapshotId
    max_event_time: str | None = Field(description="of the newest event", examples=["2026-03-04T09:15:00Z"])
    days: Annotated[list[str], Field(description="built days, ascending", examples=[["2026-03-04"]])]
    dirty_days: Annotated[list[str], Field(description="days with writes that wait", examples=[["2026-03-05"]])]
    pending_log_objects: int = Field(description="log objects that wait to be built", examples=[2])
    pending_events: int = Field(description="writes in them", examples=[118])
    index_lag_s: float = Field(description="age of the oldest write that waits", examples=[41.5])
    model: str | None = Field(
        description="of the vectors; null before anything is built", examples=["minilm-static-256@752af54a759e"]
    )
    bundles: dict[str, str] = Field(
        description="spec -> newest built day", examples=[{"customer_context_v0": "2026-03-04"}]
    )


class ChangeOut(_Answer):
    entity: EntityId
    changed: Literal["events", "bundle"] = Field(description="what of it", examples=["bundle"])
    spec: str | None = Field(description="of the bundle", examples=["customer_context_v0"])
    as_of: str | None = Field(description="of the bundle", examples=["2026-03-04"])


class ChangesOut(_Answer):
    changes: list[ChangeOut] = Field(description="events in write order, then bundles", examples=[[examples.CHANGE]])
    cursor: str | None = Field(
        description="send it back for the next page, which may be empty; null at the end", examples=[examples.CURSOR]
    )
    since: str = Field(description="as asked", examples=["17.41"])
    snapshot: str = Field(
        description="the newer cut, of all pages: what to ask the next changes since", examples=["18.44"]
    )


class InputSegmentOut(_Answer):
    day: Day
    segment: Segment
    events: int = Field(description="live ones within the look-back", examples=[3])


class CitedOut(_Answer):
    """A citation of the bundle. Without a segment no event of that identity has that content at the cut any more."""

    number: int = Field(description="as the text cites it: [1] is 1", examples=[1])
    day: Day
    id: Id
    digest: Digest
    segment: str | None = Field(description="the stored object", examples=[examples.SEGMENT])
    line: int | None = Field(description="1-based line of it", examples=[17])
    ts: str | None = Field(description="of the event", examples=["2026-03-04T09:15:00Z"])
    source: str | None = Field(description="of the event", examples=["zendesk"])
    kind: str | None = Field(description="of the event", examples=["ticket"])


class WhyOut(_Answer):
    digest: BundleDigest
    entity: EntityId
    spec: SpecName
    as_of: Day
    freshness: Fresh
    snapshot: SnapshotId
    spec_fingerprint: str = Field(description="of the spec, its model and analyzer", examples=["6b5e1d9b6f3f5f0e"])
    sources: str = Field(
        description="fingerprint of the look-back's days as they were built", examples=["0c6a2d9a1c7f"]
    )
    built: str = Field(description="when", examples=["2026-03-05T00:12:00Z"])
    pack: str = Field(
        description="the object that holds the bundle",
        examples=["tenants/acme/bundles/customer_context_v0/2026/03/04/6b5e1d9b6f3f5f0e.pack"],
    )
    since: str = Field(description="the look-back's first moment", examples=["2025-12-05T00:00:00Z"])
    until: str = Field(description="the moment after it", examples=["2026-03-05T00:00:00Z"])
    segments: list[InputSegmentOut] = Field(
        description="everything the bundle was made from", examples=[[examples.INPUT_SEGMENT]]
    )
    citations: list[CitedOut] = Field(description="what it shows, as it numbers them", examples=[[examples.CITATION]])


class TenantOut(_Answer):
    tenant: str = Field(description="its name", examples=["acme"])
    created: str | None = Field(
        description="null for a tenant that was written to before it was created", examples=["2026-03-01T08:00:00Z"]
    )
    updated: str | None = Field(description="when its settings were replaced", examples=["2026-03-01T08:00:00Z"])
    settings: TenantSettings = Field(description="as stored", examples=[{"requests_per_s": 500}])


class TenantNameOut(_Answer):
    tenant: str = Field(description="its name", examples=["acme"])


class TenantsOut(_Answer):
    tenants: list[TenantNameOut] = Field(description="ascending by name", examples=[[{"tenant": "acme"}]])
    cursor: PageCursor


class ErasureOut(_Answer):
    erasure: str = Field(
        description="the erasure's id: ask for its state", examples=["9f86d081884c7d659a2feaa0c55ad015"]
    )


Done = Annotated[int | None, Field(description="of an entity's erasure", examples=[7])]


class ReceiptOut(_Answer):
    """What was done. Of an entity's erasure all but `keys_revoked`; of a tenant's the counts of objects and keys."""

    hash: str | None = Field(
        default=None, description="keyed hash of the erased entity", examples=["2c26b46b68ffc68ff99b453c1d304134"]
    )
    log_number: int = Field(
        description="writes up to this number are erased; later ones began a new life", examples=[41]
    )
    snapshots_from: int | None = Field(default=None, description="snapshots of earlier manifests ended", examples=[19])
    days_rebuilt: Done = None
    months_opened: Done = None
    bundle_days_dropped: Done = None
    objects_deleted: int = Field(description="how many", examples=[212])
    bytes_deleted: int = Field(description="as stored", examples=[1048576])
    batches_redacted: Done = None
    manifests_redacted: Done = None
    keys_revoked: int | None = Field(default=None, description="of a tenant", examples=[2])


class ErasureStateOut(_Answer):
    erasure: str = Field(description="its id", examples=["9f86d081884c7d659a2feaa0c55ad015"])
    state: State = Field(
        description="requested: nothing is hidden; hidden: no read shows it; checking: erased, and not checked or "
        "something was found; done",
        examples=["done"],
    )
    requested: str = Field(description="when", examples=["2026-03-04T09:15:00Z"])
    completed: str | None = Field(description="when all was erased", examples=["2026-03-04T09:21:00Z"])
    receipt: ReceiptOut | None = Field(description="once all is erased", examples=[examples.RECEIPT])


class HealthOut(_Answer):
    status: Literal["ok"] = Field(description="always ok", examples=["ok"])
