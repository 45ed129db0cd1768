"""Where a long text is cut: the pieces that are embedded and scored, and that citations point at.

A text of up to `WHOLE_CHARS_MAX` characters is one chunk. A longer one is cut left to right, each time
at the best boundary between `CHUNK_CHARS_MIN` and `CHUNK_CHARS_MAX`: the last paragraph end, else the
last line end (a turn of a transcript), else the last sentence end, else the last white space, else the
last boundary between grapheme clusters (UAX 29). A rest that fits whole is the last chunk.

Chunks partition the text: no gap, no overlap, in order. Pure and deterministic; whatever changes a cut
of any text changes `CHUNKER`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import regex

CHUNKER: Final = "boundaries/1"
"""Recorded beside every index; see the module's theory."""
WHOLE_CHARS_MAX: Final = 1_000
"""About 200 tokens, below what sentence embedders are trained on."""
CHUNK_CHARS_MAX: Final = 800
"""Of the lengths tried on HERB (700 to 1,000, and uncut) BM25 by best chunk ranks best at this one."""
CHUNK_CHARS_MIN: Final = 400
"""Bounds the chunks of a text of n characters to n / 400 + 1."""

_LOOSE: Final = r"(?![\p{GCB=Extend}\p{GCB=SpacingMark}\p{GCB=ZWJ}])"
"""A cut never parts a character from marks or joiners that follow it."""
_BOUNDARIES: Final = tuple(
    regex.compile(pattern + _LOOSE, regex.V1)
    for pattern in (
        r"\n[^\S\n]*\n\s*+",
        r"\n\s*+",
        r"[.!?…][\"'”’)\]]{0,3}\s++|[。！？][」』”’）]{0,3}",
        r"\s++",
    )
)
_CLUSTER: Final = regex.compile(r"\X", regex.V1)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Characters `start` to `stop` (exclusive) of an event's text."""

    start: int
    stop: int


def chunk(text: str) -> list[Chunk]:
    """At least one chunk; the chunks in order cover the text exactly. An empty text has one empty chunk."""
    if len(text) <= WHOLE_CHARS_MAX:
        return [_whole(len(text))]
    chunks: list[Chunk] = []
    start = 0
    while len(text) - start > WHOLE_CHARS_MAX:
        stop = _cut(text, start)
        chunks.append(Chunk(start, stop))
        start = stop
    chunks.append(Chunk(start, len(text)))
    return chunks


@functools.lru_cache(maxsize=WHOLE_CHARS_MAX + 1)
def _whole(length: int) -> Chunk:
    """Chunks are immutable: those of short texts, nearly all of a tenant's, are shared."""
    return Chunk(0, length)


def _cut(text: str, start: int) -> int:
    """Where the chunk that begins at `start` ends: between its least and its greatest length."""
    first, last = start + CHUNK_CHARS_MIN, start + CHUNK_CHARS_MAX
    seen = last + 1  # one more than may be taken: whether a cluster ends at `last` shows in what follows
    for boundary in _BOUNDARIES:
        ends = [int(match.end()) for match in boundary.finditer(text, first, seen) if match.end() <= last]
        if ends:
            return ends[-1]
    ends = [int(match.end()) for match in _CLUSTER.finditer(text, start, seen) if first <= match.end() <= last]
    return ends[-1] if ends else last
