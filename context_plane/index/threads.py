"""What BM25 sees of a message: a short one is indexed together with the message before it.

"Yes, let's do that" shares no word with the question it answers. A message of a thread that is shorter
than `SHORT_TEXT_CHARS_MAX` is therefore indexed as the previous message of its thread, a line end, and its
own text. Only within one entity, thread and UTC day, so that a day's index depends on that day alone.
Longer messages stand for themselves: joining harms them. Vectors and citations stay the message's own.

Pure. Whatever changes a text changes `THREADS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from context_plane.index.chunker import chunk
from context_plane.model import Event

THREADS: Final = "previous/1"
"""Recorded beside every index; see the module's theory."""
SHORT_TEXT_CHARS_MAX: Final = 160
"""What joining is worth on HERB: `text` beside `text_without_threads` in benchmarks/results/quality.json."""


def bm25_texts(events: Sequence[Event]) -> list[str]:
    """One text per event, for events ascending by (ts, id) within each entity; empty for an event without text.

    Of a previous message that is cut into chunks, the last chunk is taken, which bounds the joined text.
    """
    before: dict[tuple[str, str, str], str] = {}
    texts: list[str] = []
    for event in events:
        own = event.text or ""
        texts.append(own)
        if event.thread is None or not own.strip():
            continue
        conversation = (event.entity, event.day, event.thread)
        previous = before.get(conversation)
        if previous is not None and len(own) < SHORT_TEXT_CHARS_MAX:
            texts[-1] = f"{previous}\n{own}"
        before[conversation] = own[chunk(own)[-1].start :]
    return texts
