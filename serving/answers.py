"""Answers of the HTTP contract, as plain objects for the JSON encoder: a model per hit would cost more than the search.

Their shapes are in `serving.shapes`; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from context_plane.fulfil import ErasureState
from context_plane.ingest import Accepted
from context_plane.model import format_time
from context_plane.recall.values import (
    BundleInputs,
    ChangesAnswer,
    Citation,
    CitedEvent,
    EntitiesAnswer,
    FoundEvent,
    Include,
    ReadStats,
    SearchAnswer,
    SnapshotInfo,
    TimelineAnswer,
)
from context_plane.retrieval.when import Window
from context_plane.tenants import Tenant, TenantErasure


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


def window(found: Window | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"since": _time(found.since_us), "until": _time(found.until_us), "phrases": list(found.phrases)}


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


def changes(answer: ChangesAnswer, cursor: str | None) -> dict[str, Any]:
    return {
        "changes": [
            {
                "entity": change.entity,
                "changed": "events" if change.spec is None else "bundle",
                "spec": change.spec,
                "as_of": change.as_of,
            }
            for change in answer.changes
        ],
        "cursor": cursor,
        "since": answer.since,
        "snapshot": answer.snapshot,
    }


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


def erasure(found: ErasureState) -> dict[str, Any]:
    receipt, shown = found.receipt, None
    if receipt is not None:
        unsaid = {"format", "erasure", "tenant", "seq", "requested_us", "completed_us"}
        shown = receipt.model_dump(exclude=unsaid)
    return {
        "erasure": found.erasure,
        "state": found.state,
        "requested": format_time(found.requested_us),
        "completed": None if receipt is None else format_time(receipt.completed_us),
        "receipt": shown,
    }


def tenant_erasure(found: TenantErasure) -> dict[str, Any]:
    receipt = found.model_dump(include={"log_number", "objects_deleted", "bytes_deleted", "keys_revoked"})
    done = found.completed_us is not None
    return {
        "erasure": found.erasure,
        "state": "done" if done else "hidden",
        "requested": format_time(found.requested_us),
        "completed": _time(found.completed_us),
        "receipt": receipt if done else None,
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
    shown = _event(hit)
    shown["score"] = hit.score
    shown["ranks"] = {"text": hit.text_rank, "vector": hit.vector_rank}
    shown["scores"] = {"text": hit.text_score, "vector": hit.vector_score}
    shown["citation"] = _citation(hit.citation)
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
        "bytes_scanned": stats.bytes_scanned,
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
