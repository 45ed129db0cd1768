"""Rendering: the prompt-ready text of a bundle, derived from its JSON alone. Pure.

One line says who and when; then each section. Facts stand in one line, neighbours with the same sources
share a marker; signals, evidence and events stand on lines of their own. `[n]` is the n-th citation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from context_plane.bundle import tokens, wording

INLINE: Final = frozenset({"profile", "metrics"})
ENTITY_CHARS_MAX: Final = 48
HEADER_PART_MAX: Final = 1 / 3
"""Of the budget. Ids in scripts the vocabulary lacks can cost a token a character; then the line is left out."""


def render_text(bundle: bytes | Mapping[str, Any], *, sources: bool = False) -> str:
    """Prompt-ready text. `sources` appends the citations, one a line, which the budget does not count."""
    body: Mapping[str, Any] = orjson.loads(bundle) if isinstance(bundle, bytes) else bundle
    head = header_text(body["entity"], body["as_of"], body["budget_tokens"])
    lines = [head] if head else []
    lines += [section_text(section) for section in body["sections"]]
    if sources:
        lines.append("Sources:")
        cited = enumerate(body["citations"], 1)
        lines += [f"[{n}] {source['day']} {wording.one_line(source['id'])}" for n, source in cited]
    return "\n".join(lines)


def header_text(entity: str, as_of: str, budget_tokens: int) -> str:
    line = f"{wording.shorten(wording.one_line(entity), ENTITY_CHARS_MAX)} as of {as_of}"
    return line if tokens.count(line) <= budget_tokens * HEADER_PART_MAX else ""


def title_text(title: str) -> str:
    return f"{title}:"


def section_text(section: Mapping[str, Any]) -> str:
    items: Sequence[Mapping[str, Any]] = section["items"]
    if section["kind"] not in INLINE:
        return "\n".join([title_text(section["title"]), *(f"{i['text']} {_markers(i['citations'])}" for i in items)])
    parts = []
    for n, item in enumerate(items):
        following = items[n + 1]["citations"] if n + 1 < len(items) else None
        parts.append(
            item["text"] if following == item["citations"] else f"{item['text']} {_markers(item['citations'])}"
        )
    return f"{title_text(section['title'])} {'; '.join(parts)}"


def _markers(citations: Sequence[int]) -> str:
    return "".join(f"[{n}]" for n in citations)
