"""How long an answer to a model may be, and how what is longer is cut: at its end, and said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from context_plane.bundle import tokens
from context_plane.bundle.wording import fit

RESULT_TOKENS_MAX: Final = 3_000
"""Of one answer: a model reads several of them in one turn, and what is cut is a narrower question away."""
EVENT_CUT: Final = (
    "The first event is cut: it is longer than one answer. All of it is in the timeline of the API, and in export."
)


def within(
    head: Sequence[str], items: Sequence[str], narrow: str, *, also: Callable[[int], str | None] = lambda _: None
) -> str:
    """The head and as many items as the bound holds; of a first one that is longer by itself, its beginning. Says what
    was left out, and last what `also` says of the number of items shown."""

    def tail(count: int) -> list[str]:
        left_out = len(items) - count
        more = f"{left_out} more did not fit: {narrow}." if left_out else None
        return [line for line in (more, also(count)) if line]

    left = RESULT_TOKENS_MAX - sum(map(tokens.count, head))
    shown = 0
    for count, item in enumerate(items, 1):
        left -= tokens.count(item)
        if left < 0:
            break
        if sum(map(tokens.count, tail(count))) <= left:
            shown = count
    if shown or not items:
        return "\n".join([*head, *items[:shown], *tail(shown)])
    return bounded(head, items[0], [EVENT_CUT], tail(1))


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
