"""Compiled specs: a spec with everything resolved that does not depend on the entity.

Filters are parsed and phrases lowered once, evidence queries carry their vectors, sections stand in packing
order. Made once per build or service start, then shared by all entities and threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from context_plane.bundle.history import Retrieval
from context_plane.bundle.spec import (
    Attribute,
    EvidenceSection,
    Metric,
    MetricsSection,
    ProfileSection,
    RecentSection,
    Section,
    Selector,
    Spec,
    fingerprint,
    query_texts,
)
from context_plane.errors import Invalid
from context_plane.model import Vector

FINGERPRINT_CHARS: Final = 12
"""Of the fingerprint, in a bundle: enough to tell the specs of one tenant apart."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A selector, ready to run. None restricts nothing; `where` is a parsed filter."""

    kinds: frozenset[str] | None = None
    sources: frozenset[str] | None = None
    latest_by: str | None = None
    where: Any | None = None
    where_key: int = -1
    """Equal filters of a spec share a key, so that each is evaluated once per entity."""
    phrases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CompiledSpec:
    spec: Spec
    fingerprint: str
    sections: tuple[Section, ...]
    """By priority, then as written."""
    choices: Mapping[tuple[str, str], Choice]
    """By (section, item); the item is empty for a section's own selector."""
    filters: Mapping[str, Any]
    """Parsed filters of evidence sections, by section."""
    vectors: Mapping[str, Vector] = field(repr=False)


def compile_spec(
    spec: Spec, retrieval: Retrieval, *, model: str, analyzer: str, vectors: Mapping[str, Vector]
) -> CompiledSpec:
    """Resolve a spec. `vectors` has one unit vector per `query_texts(spec)`, or is empty where no text is embedded:
    hybrid evidence is then ranked by its text alone. `model` and `analyzer` name what made the vectors and the
    terms. Raises `Invalid(spec_invalid)` for a filter outside the filter language.
    """
    missing = [text for text in query_texts(spec) if text not in vectors]
    assert not missing or not vectors, f"evidence queries without a vector: {missing}"
    choices: dict[tuple[str, str], Choice] = {}
    filters: dict[str, Any] = {}
    seen: list[dict[str, Any]] = []
    for section in spec.sections:
        for item, selector in _selectors(section):
            choices[section.name, item] = _choice(selector, retrieval, seen, section.name, item)
        if isinstance(section, EvidenceSection) and (where := evidence_where(section)) is not None:
            filters[section.name] = _parse(where, retrieval, section.name, "")
    return CompiledSpec(
        spec=spec,
        fingerprint=fingerprint(spec, model=model, analyzer=analyzer),
        sections=tuple(sorted(spec.sections, key=lambda section: section.priority)),
        choices=choices,
        filters=filters,
        vectors=vectors,
    )


def evidence_where(section: EvidenceSection) -> dict[str, Any] | None:
    """Kinds, sources and filter of an evidence section as one filter in the API's form."""
    parts: list[dict[str, Any]] = []
    if section.kinds:
        parts.append({"in": ["kind", list(section.kinds)]})
    if section.sources:
        parts.append({"in": ["source", list(section.sources)]})
    if section.where is not None:
        parts.append(section.where)
    return parts[0] if len(parts) == 1 else {"and": parts} if parts else None


def _selectors(section: Section) -> list[tuple[str, Attribute | Metric | RecentSection]]:
    match section:
        case ProfileSection():
            return [(attribute.name, attribute) for attribute in section.attributes]
        case MetricsSection():
            return [(metric.name, metric) for metric in section.metrics]
        case RecentSection():
            return [("", section)]
    return []


def _choice(selector: Selector, retrieval: Retrieval, seen: list[dict[str, Any]], section: str, item: str) -> Choice:
    key, where = -1, None
    if selector.where is not None:
        where = _parse(selector.where, retrieval, section, item)
        if selector.where not in seen:
            seen.append(selector.where)
        key = seen.index(selector.where)
    return Choice(
        kinds=frozenset(selector.kinds) or None,
        sources=frozenset(selector.sources) or None,
        latest_by=selector.latest_by,
        where=where,
        where_key=key,
        phrases=tuple(phrase.lower() for phrase in selector.mentions),
    )


def _parse(where: dict[str, Any], retrieval: Retrieval, section: str, item: str) -> Any:
    try:
        return retrieval.parse_where(where)
    except Invalid as error:
        at = f"{section}.{item}" if item else section
        raise Invalid("spec_invalid", f"a filter is not of the filter language: {error.detail}", at=at) from error
