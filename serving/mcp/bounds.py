"""How long an answer to a model may be, and how what is longer is cut: at its end, and said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from context_plane.bundle import tokens
from context_plane.bundle.wording import fit

RESULT_TOKENS_MAX: Final = 3_000
"""Of one answer: a model reads several of them in one turn, and what is cut is a narrower question away."""
EVENT_CUT: Final = (
    "The first event is cut: it is longer than one answer. All of it is in the timeline of the API, and in export."
)


def within(head: Sequence[str], items: Sequence[str], narrow: str, *, also: str | None = None) -> str:
    """The head and as many items as the bound holds; of a first one that is longer by itself, its beginning. Says what
    was left out."""
    tail = [also] if also else []
    left = RESULT_TOKENS_MAX - sum(map(tokens.count, [*head, _more(len(items), narrow), *tail]))
    shown: list[str] = []
    for item in items:
        left -= tokens.count(item)
        if left < 0:
            break
        shown.append(item)
    cut = [_more(len(items) - len(shown), narrow)] if len(shown) < len(items) else []
    if shown or not items:
        return "\n".join([*head, *shown, *cut, *tail])
    cut = [EVENT_CUT, _more(len(items) - 1, narrow)] if len(items) > 1 else [EVENT_CUT]
    return bounded(head, items[0], cut, tail)


def _more(count: int, narrow: str) -> str:
    return f"{count} more did not fit: {narrow}."


def bounded(head: Sequence[str], text: str, cut: Sequence[str], tail: Sequence[str]) -> str:
    """Head, text and tail within the bound: of a longer text its beginning, and then `cut`, which says so."""
    left = RESULT_TOKENS_MAX - sum(map(tokens.count, [*head, *tail]))
    if tokens.count(text) <= left:
        return "\n".join([*head, text, *tail])
    return "\n".join([*head, *_beginning(text, left - sum(map(tokens.count, cut))), *cut, *tail])


def _beginning(text: str, tokens_max: int) -> list[str]:
    """The first lines of a text, and of the one that does not fit its first words."""
    shown = []
    for line in text.split("\n"):
        fitting = fit(line, tokens_max)
        if fitting is not None:
            shown.append(fitting)
        if fitting != line:
            break
        tokens_max -= tokens.count(line)
    return shown
