"""What the OpenAPI document shows where a value has parts: one event, and what reads of it answer.

Values only, of the shapes they are examples of; a test holds them to these. None is null: FastAPI leaves nulls out.
"""

from __future__ import annotations

from typing import Any, Final

EVENT_DIGEST: Final = "9f86d081884c7d659a2feaa0c55ad015"
BUNDLE_DIGEST: Final = "9f86d081884c7d659a2feaa0c55ad0159f86d081884c7d659a2feaa0c55ad015"
SEGMENT: Final = "tenants/acme/entities/acct-0042/segments/2026/03/04/6b5e1d9b6f3f5f0e.jsonl.zst"
CURSOR: Final = "WyI2ZjQ5YjZlMmM5OGYxZDA3IiwiYWNjdC0wMDQyIl0"
TEXT: Final = "Export fails since the upgrade"
CITED: Final[dict[str, Any]] = {"segment": SEGMENT, "line": 17, "chars": [0, 30], "digest": EVENT_DIGEST}
EVENT: Final[dict[str, Any]] = {
    "id": "zd-8812",
    "entity": "acct-0042",
    "ts": "2026-03-04T09:15:00Z",
    "source": "zendesk",
    "kind": "ticket",
    "thread": "zd-8812",
    "text": TEXT,
    "attrs": {"priority": "high"},
    "citation": CITED,
}
HIT: Final[dict[str, Any]] = EVENT | {
    "score": 0.91,
    "ranks": {"text": 1, "vector": 3},
    "scores": {"text": 7.1, "vector": 0.63},
}
STATS: Final[dict[str, Any]] = {
    "cache": "memory", "round_trips": 0, "gets": 0, "bytes_read": 0, "bytes_scanned": 61234, "shards": 2,
    "rows_scored": 310, "exact": True, "tail_events": 2, "ms": {"total": 0.4},
}  # fmt: skip
EXPLAIN: Final[dict[str, Any]] = {"path": "exact", "rows_scored": 310, "measured": {"round_trips": 0, "gets": 0}}
WINDOW: Final[dict[str, Any]] = {
    "since": "2026-02-23T00:00:00Z",
    "until": "2026-03-02T00:00:00Z",
    "phrases": ["last week"],
}
FAULT: Final[dict[str, Any]] = {
    "code": "ts_invalid",
    "detail": "not an RFC 3339 time with an offset, such as 2026-03-04T09:15:00Z ts='noon'",
    "pointer": "/events/1/ts",
}
PROBLEM: Final[dict[str, Any]] = {
    "type": "urn:context-plane:problem:bundle_not_built",
    "title": "the bundle is not built; build the day, or ask for it on demand",
    "status": 404,
    "detail": "no bundles of that day; build it, or ask on demand",
    "code": "bundle_not_built",
}

# --- bundles ------------------------------------------------------------------------------------

ITEM: Final[dict[str, Any]] = {
    "name": "open_urgent_ticket",
    "severity": "critical",
    "text": "open urgent tickets: 1",
    "citations": [1],
}
SECTION: Final[dict[str, Any]] = {
    "name": "signals",
    "kind": "signals",
    "title": "Signals",
    "items": [ITEM],
    "tokens": 10,
}
BUNDLE_CITATION: Final[dict[str, Any]] = {"day": "2026-03-04", "id": "zd-8812", "digest": EVENT_DIGEST}
BUNDLE: Final[dict[str, Any]] = {
    "format": 1,
    "spec": "customer_context_v0",
    "spec_fingerprint": "6b5e1d9b6f3f",
    "entity": "acct-0042",
    "as_of": "2026-03-04",
    "budget_tokens": 200,
    "tokens": 23,
    "sections": [SECTION],
    "signals": {"open_urgent_ticket": 3},
    "citations": [BUNDLE_CITATION],
}
BUNDLE_TEXT: Final = "acct-0042 as of 2026-03-04\nSignals:\nopen urgent tickets: 1 [1]"

# --- what the rest answers ----------------------------------------------------------------------

ENTITY: Final[dict[str, Any]] = {"entity": "acct-0042", "events": 128, "last_ts": "2026-03-04T09:15:00Z"}
CHANGE: Final[dict[str, Any]] = {
    "entity": "acct-0042",
    "changed": "bundle",
    "spec": "customer_context_v0",
    "as_of": "2026-03-04",
}
INPUT_SEGMENT: Final[dict[str, Any]] = {"day": "2026-03-04", "segment": SEGMENT, "events": 3}
CITATION: Final[dict[str, Any]] = BUNDLE_CITATION | {
    "number": 1,
    "segment": SEGMENT,
    "line": 17,
    "ts": "2026-03-04T09:15:00Z",
    "source": "zendesk",
    "kind": "ticket",
}
RECEIPT: Final[dict[str, Any]] = {
    "hash": "2c26b46b68ffc68ff99b453c1d304134", "log_number": 41, "snapshots_from": 19, "days_rebuilt": 7,
    "months_opened": 0, "bundle_days_dropped": 7, "objects_deleted": 212, "bytes_deleted": 1048576,
    "batches_redacted": 3, "manifests_redacted": 2,
}  # fmt: skip
CALL: Final[dict[str, Any]] = {
    "at": "2026-03-04T09:15:00Z", "actor": "0123456789abcdef", "request": "9f86d081884c7d65", "action": "key_revoke",
    "subject": "fedcba9876543210", "outcome": "failed", "code": "store_unavailable", "counts": {},
}  # fmt: skip
ORIGIN: Final[dict[str, Any]] = {
    "actor": "0123456789abcdef",
    "request": "9f86d081884c7d65",
    "writes": 2,
    "deletes": 0,
}
AUDITED_BATCH: Final[dict[str, Any]] = {
    "at": "2026-03-04T09:15:00Z",
    "batch": 41,
    "writes": 2,
    "requests": [ORIGIN],
}
METRIC: Final = "context_plane_requests_in_flight 1.0\n"
