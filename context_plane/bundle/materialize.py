"""Materialization: spec, day and the entity's events -> the one byte sequence of its bundle. Format 1.

Pure: no clock, no I/O, no randomness. The bytes depend on the compiled spec, `as_of` and the events of the
look-back, and on nothing else: not on how events lie in blocks, nor on what is outside the window. Canonical
JSON; every item cites events by (day, id, digest); the digest of a bundle is the SHA-256 of its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal

from context_plane.bundle import tokens, wording
from context_plane.bundle.budget import Draft, pack
from context_plane.bundle.compiled import FINGERPRINT_CHARS, Choice, CompiledSpec
from context_plane.bundle.facts import DAY_US, Candidate, facts_of
from context_plane.bundle.history import EvidenceHit, EvidenceQuery, History, Retrieval, Timeline, timeline
from context_plane.bundle.render import header_text, render_text, section_text
from context_plane.bundle.selection import Selection
from context_plane.bundle.spec import (
    BUDGET_TOKENS_MAX,
    BUDGET_TOKENS_MIN,
    BUNDLE_FORMAT,
    QUERY_SECTION,
    EvidenceSection,
    MinScores,
    RecentSection,
    Section,
    Weights,
)
from context_plane.errors import Invalid
from context_plane.model import Vector, canonical_json, day_end_us, day_of, sha256_hex

KIND_CHARS_MAX: Final = 40
QUERY_SHARE: Final = 0.6
"""An on-demand bundle is asked for its query: that comes first and takes most of the budget."""
QUERY_LIMIT: Final = 8
QUERY_CHARS: Final = 400


@dataclass(frozen=True)
class Bundle:
    """One entity's context; `body` is canonical JSON, `digest` its SHA-256 (hex), `tokens` those of `text`."""

    entity: str
    as_of: str
    body: bytes
    digest: str
    tokens: int

    @cached_property
    def text(self) -> str:
        return render_text(self.body)


@dataclass(frozen=True, slots=True)
class ContextQuery:
    """An on-demand request. `where` is API JSON; `since_us`, `where` bound the query's section, `until_us` all."""

    text: str | None = None
    vector: Vector | None = None
    mode: Literal["hybrid", "text", "vector"] = "hybrid"
    where: dict[str, Any] | None = None
    since_us: int | None = None
    until_us: int | None = None
    budget_tokens: int | None = None
    weights: Weights = Weights()  # noqa: RUF009  # a frozen value


@dataclass(frozen=True, slots=True)
class _Job:
    """What one materialization works on."""

    compiled: CompiledSpec
    sections: tuple[Section, ...]
    budget: int
    entity: str
    as_of: str
    end_us: int
    line: Timeline
    retrieval: Retrieval
    selection: Selection
    query: ContextQuery | None = None


def materialize(
    compiled: CompiledSpec, entity: str, as_of: str, history: History, retrieval: Retrieval
) -> Bundle | None:
    """The bundle of an entity as of the end of a UTC day; None where the look-back holds no event."""
    spec = compiled.spec
    end_us = day_end_us(as_of)
    line = timeline(history, end_us - spec.lookback_days * DAY_US, end_us)
    if not line.entries:
        return None
    selection = Selection(line, entity, retrieval)
    job = _Job(compiled, compiled.sections, spec.budget_tokens, entity, as_of, end_us, line, retrieval, selection)
    return _assemble(job)


def materialize_query(
    compiled: CompiledSpec, entity: str, as_of: str, history: History, retrieval: Retrieval, query: ContextQuery
) -> Bundle | None:
    """The same on demand: the query's evidence takes the place of the spec's, first and with most of the budget.

    Without text and vector the newest events that pass `where` stand there; without `where` too, the spec
    alone. Nothing at or after `until_us` is seen, and windows end there. Raises `Invalid(query_invalid,
    where_invalid)`.
    """
    spec = compiled.spec
    budget = spec.budget_tokens if query.budget_tokens is None else query.budget_tokens
    if not BUDGET_TOKENS_MIN <= budget <= BUDGET_TOKENS_MAX:
        allowed = f"{BUDGET_TOKENS_MIN} to {BUDGET_TOKENS_MAX}"
        raise Invalid("query_invalid", f"budget_tokens is {allowed}", budget_tokens=budget)
    end_us = day_end_us(as_of)
    if query.until_us is not None and query.until_us < end_us:
        end_us, as_of = query.until_us, day_of(query.until_us - 1)
    first_us = end_us - spec.lookback_days * DAY_US
    line = timeline(history, first_us if query.since_us is None else min(first_us, query.since_us), end_us)
    if not line.entries:
        return None
    asked, choice = _query_section(query, spec.lookback_days, retrieval)
    sections = compiled.sections
    if asked is not None:
        sections = (asked, *(s for s in sections if not isinstance(s, EvidenceSection)))
        compiled = replace(compiled, choices={**compiled.choices, (QUERY_SECTION, ""): choice})
        if choice.where is not None:
            compiled = replace(compiled, filters={QUERY_SECTION: choice.where})
    selection = Selection(line, entity, retrieval)
    return _assemble(_Job(compiled, sections, budget, entity, as_of, end_us, line, retrieval, selection, query))


def _query_section(query: ContextQuery, days: int, retrieval: Retrieval) -> tuple[Section | None, Choice]:
    """The ad-hoc section and its filter. Built without validation: a request has its own limits."""
    choice = Choice(where=None if query.where is None else retrieval.parse_where(query.where))
    common: dict[str, Any] = {
        "name": QUERY_SECTION,
        "priority": 1,
        "share": QUERY_SHARE,
        "lookback_days": days,
        "limit": QUERY_LIMIT,
        "chars": QUERY_CHARS,
    }
    if query.text or query.vector is not None:
        mode = "text" if query.vector is None else query.mode if query.text else "vector"
        fields: dict[str, Any] = {"mode": mode, "query": query.text or "", "weights": query.weights}
        return EvidenceSection.model_construct(kind="evidence", title="Evidence", **fields, **common), choice
    if query.where is not None or query.since_us is not None:
        return RecentSection.model_construct(kind="recent", title="Events", **common), choice
    return None, choice


# --- sections -----------------------------------------------------------------------------------


def _assemble(job: _Job) -> Bundle:
    facts = facts_of(job.compiled, job.line, job.selection, job.end_us)
    drafts = []
    for section in job.sections:
        match section:
            case EvidenceSection():
                candidates = _evidence(job, section)
            case RecentSection():
                candidates = _recent(job, section)
            case _:
                candidates = facts.candidates.get(section.name, [])
        drafts.append(Draft(section.kind, section.title, section.share, candidates))
    pack(drafts, job.budget, tokens.count(header_text(job.entity, job.as_of, job.budget)))
    return _bundle(job, drafts, facts.fired)


def _since(job: _Job, section: EvidenceSection | RecentSection) -> int:
    if section.name == QUERY_SECTION and job.query is not None and job.query.since_us is not None:
        return job.query.since_us
    return job.end_us - section.lookback_days * DAY_US


def _evidence(job: _Job, section: EvidenceSection) -> list[Candidate]:
    ad_hoc = section.name == QUERY_SECTION and job.query is not None
    vector = job.query.vector if ad_hoc and job.query else job.compiled.vectors.get(section.query)
    query = EvidenceQuery(
        text=section.query or None if section.mode != "vector" or not ad_hoc else None,
        vector=vector if section.mode != "text" else None,
        mode=section.mode,
        where=job.compiled.filters.get(section.name),
        since_us=_since(job, section),
        until_us=job.end_us,
        limit=section.limit,
        weights=section.weights,
    )
    # Blocks without an event in the window are left out: ranking costs by the block, and its scope is the window.
    line = job.line
    used = sorted({entry.part for entry in line.entries[line.since(query.since_us) :]})
    hits = job.retrieval.rank(History(tuple(line.history.parts[n] for n in used)), query) if used else ()
    places = {(entry.part, entry.event): n for n, entry in enumerate(line.entries)} if hits else {}
    candidates = (
        _evidence_item(job, section, hit, places[used[hit.part], hit.event])
        for hit in hits
        if _reaches(hit, section.min_scores)
    )
    return [candidate for candidate in candidates if candidate is not None]


def _reaches(hit: EvidenceHit, minimum: MinScores | None) -> bool:
    if minimum is None:
        return True
    bounds = (("text", minimum.text), ("vector", minimum.vector))
    return any(bound is not None and leg in hit.scores and hit.scores[leg] >= bound for leg, bound in bounds)


def _evidence_item(job: _Job, section: EvidenceSection, hit: EvidenceHit, position: int) -> Candidate | None:
    entry = job.line.entries[position]
    line = wording.one_line((entry.text or "")[hit.start : hit.stop])
    if not line:
        return None
    body = wording.shorten(wording.focus(line, section.query), section.chars)
    prefix = f"{wording.show_day(entry.day, job.as_of)} {_kind(entry.kind)}: "
    fields = {"kind": entry.kind, "chars": [hit.start, hit.stop]}
    return Candidate(prefix + body, fields, (position,), prefix, body, position)


def _recent(job: _Job, section: RecentSection) -> list[Candidate]:
    first = job.line.since(_since(job, section))
    chosen = job.selection.positions(job.compiled.choices[section.name, ""], first)
    return [_recent_item(job, section, n) for n in reversed(chosen[-section.limit :])]


def _recent_item(job: _Job, section: RecentSection, position: int) -> Candidate:
    entry = job.line.entries[position]
    shown = [
        f"{name.replace('_', ' ')} {wording.show_value(entry.attrs[name])}"
        for name in section.attrs
        if entry.attrs.get(name) is not None
    ]
    head = f"{wording.show_day(entry.day, job.as_of)} {_kind(entry.kind)}"
    if shown:
        head = f"{head} ({', '.join(shown)})"
    body = wording.shorten(wording.one_line(entry.text or ""), section.chars)
    if not body:
        return Candidate(head, {"kind": entry.kind}, (position,), shows=position)
    return Candidate(f"{head}: {body}", {"kind": entry.kind}, (position,), f"{head}: ", body, position)


def _kind(kind: str) -> str:
    return wording.shorten(wording.one_line(kind.replace("_", " ")), KIND_CHARS_MAX)


# --- bytes --------------------------------------------------------------------------------------


def _bundle(job: _Job, drafts: Iterable[Draft], fired: Mapping[str, int | float]) -> Bundle:
    numbers: dict[int, int] = {}
    sections = []
    for section, draft in zip(job.sections, drafts, strict=True):
        if not draft.chosen:
            continue
        items = [
            {
                **candidate.fields,
                "text": text,
                "citations": [numbers.setdefault(position, len(numbers) + 1) for position in candidate.cites],
            }
            for candidate, text in draft.items()
        ]
        shown: dict[str, Any] = {"name": section.name, "kind": section.kind, "title": section.title, "items": items}
        shown["tokens"] = tokens.count(section_text(shown))
        sections.append(shown)
    head = header_text(job.entity, job.as_of, job.budget)
    total = tokens.count(head) + sum(section["tokens"] for section in sections)
    assert total <= job.budget, "packing keeps the budget"
    entries = job.line.entries
    body: dict[str, Any] = {
        "format": BUNDLE_FORMAT,
        "spec": job.compiled.spec.name,
        "spec_fingerprint": job.compiled.fingerprint[:FINGERPRINT_CHARS],
        "entity": job.entity,
        "as_of": job.as_of,
        "budget_tokens": job.budget,
        "tokens": total,
        "sections": sections,
        "signals": dict(fired),
        "citations": [{"day": entries[n].day, "id": entries[n].id, "digest": job.line.digest(n)} for n in numbers],
    }
    if job.query is not None:
        body["query"] = _query_digest(job.query)
    raw = canonical_json(body)
    return Bundle(job.entity, job.as_of, raw, sha256_hex(raw), total)


def _query_digest(query: ContextQuery) -> str:
    """Names the request an on-demand bundle answers."""
    vector = None if query.vector is None else sha256_hex(query.vector.astype("<f4").tobytes())
    asked = [query.text, vector, query.mode, query.where, query.since_us, query.until_us]
    return sha256_hex(canonical_json([*asked, query.weights.model_dump()]))[:FINGERPRINT_CHARS]
