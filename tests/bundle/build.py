"""Entity blocks from plain events, and a small retrieval: what the laws of bundles are tested with.

The blocks carry what bundles read (events, texts, digests); postings and vectors are left empty. The
retrieval ranks by how many words of the query a text holds, and knows one filter, `{"eq": ["kind", x]}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from context_plane.bundle.compiled import CompiledSpec, compile_spec
from context_plane.bundle.history import EvidenceHit, EvidenceQuery, History, Part
from context_plane.bundle.spec import Spec, query_texts
from context_plane.errors import Invalid
from context_plane.index.rows import Rows
from context_plane.model import AttrValue, Event, Vector, day_of, event_digest, parse_time

ENTITY = "acct-0042"


def event(
    ts: str,
    kind: str,
    text: str | None = None,
    attrs: Mapping[str, AttrValue] | None = None,
    *,
    id: str | None = None,
    source: str = "crm",
    thread: str | None = None,
) -> Event:
    at = parse_time(ts if "T" in ts else f"{ts}T12:00:00Z")
    return Event(ENTITY, at, id or f"{kind}-{ts}", source, kind, thread, text, attrs)


def block(events: Sequence[Event], day: str | None = None) -> Rows:
    """One block; events in any order."""
    ordered = sorted(events, key=lambda e: e.order)
    sources, kinds = sorted({e.source for e in ordered}), sorted({e.kind for e in ordered})
    digests = [list(bytes.fromhex(event_digest(e)[:32])) for e in ordered]
    count = len(ordered)
    lengths = [len(e.text or "") for e in ordered]
    return Rows(
        day=day,
        entities=(ENTITY,),
        sources=tuple(sources),
        kinds=tuple(kinds),
        ids=tuple(e.id for e in ordered),
        threads=tuple(e.thread for e in ordered),
        attrs=tuple(e.attrs for e in ordered),
        texts=tuple(e.text for e in ordered),
        event_entity=np.zeros(count, np.int32),
        event_ts_us=np.array([e.ts_us for e in ordered], np.int64),
        event_source=np.array([sources.index(e.source) for e in ordered], np.uint16),
        event_kind=np.array([kinds.index(e.kind) for e in ordered], np.uint16),
        event_line=np.arange(2, count + 2, dtype=np.int32),
        event_digest=np.array(digests, np.uint8).reshape(count, 16),
        row_event=np.arange(count, dtype=np.int32),
        row_start=np.zeros(count, np.int32),
        row_stop=np.array(lengths, np.int32),
        row_terms=np.zeros(count, np.int32),
        terms=(),
        post_indptr=np.zeros(1, np.int32),
        post_rows=np.zeros(0, np.int32),
        post_counts=np.zeros(0, np.uint16),
        dim=0,
        scales=np.zeros(0, np.float32),
        vectors=np.zeros((0, 0), np.int16),
    )


def by_day(events: Sequence[Event]) -> History:
    days: dict[str, list[Event]] = {}
    for e in events:
        days.setdefault(day_of(e.ts_us), []).append(e)
    return History(tuple(Part(block(days[day], day)) for day in sorted(days)))


class WordRetrieval:
    """Deterministic stand-in for the search engine."""

    def parse_where(self, where: object) -> Any:
        match where:
            case {"eq": ["kind", str()]}:
                return where
            case {"nin": ["kind", list()]} | {"eq": [str(), _]} | {"and": list()}:
                return where
        raise Invalid("where_invalid", "unknown filter")

    def matches(self, where: Any, rows: Rows) -> NDArray[np.bool_]:
        kinds = [rows.kinds[code] for code in rows.event_kind.tolist()]
        return np.array([_passes(where, k, a or {}) for k, a in zip(kinds, rows.attrs, strict=True)], np.bool_)

    def rank(self, history: History, query: EvidenceQuery) -> Sequence[EvidenceHit]:
        words = set((query.text or "").lower().split())
        scored = []
        for number, part in enumerate(history.parts):
            rows = part.rows
            assert rows.texts is not None
            passed = None if query.where is None else self.matches(query.where, rows)
            for n, text in enumerate(rows.texts):
                ts = int(rows.event_ts_us[n])
                live = part.live is None or bool(part.live[n])
                if not live or not query.since_us <= ts < query.until_us or (passed is not None and not passed[n]):
                    continue
                score = len(words & set((text or "").lower().split()))
                if score:
                    scored.append((-score, -ts, rows.ids[n], number, n, len(text or "")))
        return [
            EvidenceHit(part, n, 0, stop, {"text": float(-score)})
            for score, _, _, part, n, stop in sorted(scored)[: query.limit]
        ]


def _passes(where: Any, kind: str, attrs: Mapping[str, AttrValue]) -> bool:
    match where:
        case {"eq": ["kind", wanted]}:
            return bool(kind == wanted)
        case {"eq": [name, wanted]}:
            return bool(attrs.get(name.removeprefix("attrs.")) == wanted)
        case {"nin": ["kind", refused]}:
            return bool(kind not in refused)
        case {"and": parts}:
            return all(_passes(part, kind, attrs) for part in parts)
    return False


def compiled(spec: Spec) -> CompiledSpec:
    vectors: dict[str, Vector] = {text: np.zeros(4, np.float32) for text in query_texts(spec)}
    return compile_spec(spec, WordRetrieval(), model="test", analyzer="1", vectors=vectors)
