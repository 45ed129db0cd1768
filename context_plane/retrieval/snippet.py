"""Snippets: the part of a text that shows why it was found, as HTML with the matching words in `<b>`.

Everything but `<b>`, `</b>` and the ellipses is text of the event with `& < > " '` escaped, so a snippet
can be put into a page as it stands: an event's own markup is shown, never run. Words match when the
analyzer gives them a term of the query ("exports" is marked for "export").
"""

from __future__ import annotations

import html
from collections.abc import Collection
from typing import Final

import regex

from context_plane.index.analyzer import analyze

SNIPPET_CHARS: Final = 200
"""About two lines; the text itself can be asked for."""
SCAN_CHARS_MAX: Final = 8_192
"""How far into a text matches are looked for: chunks are shorter."""
_ELLIPSIS: Final = "…"
_WORD: Final = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:[-_.@/:#+&'’]?[\p{L}\p{M}\p{N}]+)*")


def snippet(text: str, terms: Collection[str], *, chars_max: int = SNIPPET_CHARS) -> str:
    """HTML of up to `chars_max` characters of `text` where most distinct `terms` occur; its beginning if none do."""
    scanned = text[:SCAN_CHARS_MAX]
    wanted = frozenset(terms)
    found = [(m.start(), m.end(), hit) for m in _WORD.finditer(scanned) if (hit := wanted.intersection(analyze(m[0])))]
    start = _window(found, chars_max)
    start, stop = _whole_words(text, start, min(len(text), start + chars_max))
    pieces, at = [], start
    for first, last, _ in found:
        if start <= first and last <= stop:
            pieces.append(f"{html.escape(text[at:first])}<b>{html.escape(text[first:last])}</b>")
            at = last
    body = ("".join(pieces) + html.escape(text[at:stop])).strip()
    return f"{_ELLIPSIS if start else ''}{body}{_ELLIPSIS if stop < len(text) else ''}"


def _window(found: list[tuple[int, int, frozenset[str]]], chars_max: int) -> int:
    """Start of the window with most distinct terms, then most matches, then the earliest; matches centred."""
    best, start = (0, 0), 0
    for n, (first, _, _) in enumerate(found):
        inside = [each for each in found[n:] if each[1] <= first + chars_max]
        score = (len(frozenset().union(*(each[2] for each in inside))), len(inside))
        if score > best:
            slack = chars_max - (inside[-1][1] - first) if inside else 0
            best, start = score, max(0, first - slack // 2)
    return start


def _whole_words(text: str, start: int, stop: int) -> tuple[int, int]:
    """The window without the words it would cut, unless one word fills it."""
    first, last = start, stop
    while 0 < first < stop and not text[first - 1].isspace():
        first += 1
    while start < last < len(text) and not text[last].isspace():
        last -= 1
    return (first, last) if first < last else (start, stop)
