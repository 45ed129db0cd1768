"""The budget: which candidates enter a bundle. Deterministic; the result never exceeds the budget.

Sections are visited by priority. Each may use its share plus what the sections before it left. An item goes
in whole or not at all; only the text of an event may be cut, at the end of a sentence or a word. A second
round in the same order offers what is left over to items that did not fit, and to texts that were cut.
Costs are those of the rendered text: title, items, separators, citation markers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from context_plane.bundle import tokens, wording
from context_plane.bundle.facts import Candidate
from context_plane.bundle.render import INLINE, title_text

CUT_TOKENS_MIN: Final = 10
"""A shorter piece of a text says nothing; the item is dropped instead."""
MARKERS_SHORT_MAX: Final = 99
MARKER_TOKENS: Final = (3, 6)
"""Tokens of one marker such as [7]: with at most 99 citations, and with any number of them."""
SEPARATOR_TOKENS: Final = 1


@dataclass(slots=True)
class Draft:
    """One section while it is packed; `chosen` maps a candidate's number to its text, whole or cut."""

    kind: str
    title: str
    share: float
    candidates: Sequence[Candidate]
    chosen: dict[int, str] = field(default_factory=dict)
    costs: dict[str, int] = field(default_factory=dict)

    def items(self) -> list[tuple[Candidate, str]]:
        return [(self.candidates[n], self.chosen[n]) for n in sorted(self.chosen)]

    def cost(self, chosen: Mapping[int, str], marker: int) -> int:
        if not chosen:
            return 0
        total = self._count(title_text(self.title))
        previous: tuple[int, ...] | None = None
        for n in sorted(chosen):
            cites = self.candidates[n].cites
            total += self._count(chosen[n]) + marker * len(cites)
            if self.kind in INLINE:
                if previous is not None:
                    total += SEPARATOR_TOKENS
                if previous == cites:  # neighbours share one marker
                    total -= marker * len(cites)
                previous = cites
        return total

    def _count(self, text: str) -> int:
        if text not in self.costs:
            self.costs[text] = tokens.count(text)
        return self.costs[text]


def pack(drafts: Sequence[Draft], budget: int, header: int) -> None:
    """Fill each draft's `chosen`, in place. `drafts` stand by priority; `header` tokens are spent already."""
    cited = {position for draft in drafts for candidate in draft.candidates for position in candidate.cites}
    marker = MARKER_TOKENS[len(cited) > MARKERS_SHORT_MAX]
    shown: set[int] = set()
    left, carried = budget - header, 0
    for draft in drafts:
        allowance = min(left, int(draft.share * budget + 1e-9) + carried)
        used = _fill(draft, allowance, marker, shown)
        carried, left = allowance - used, left - used
    for draft in drafts:
        before = draft.cost(draft.chosen, marker)
        left -= _fill(draft, before + left, marker, shown) - before


def _fill(draft: Draft, limit: int, marker: int, shown: set[int]) -> int:
    """Take candidates in order while they fit; returns what the section then costs."""
    for n, candidate in enumerate(draft.candidates):
        present = draft.chosen.get(n)
        if present == candidate.text or (present is None and candidate.shows in shown):
            continue
        text = _fitting(draft, n, candidate, limit, marker)
        if text is None:
            continue
        draft.chosen[n] = text
        if candidate.shows is not None:
            shown.add(candidate.shows)
    return draft.cost(draft.chosen, marker)


def _fitting(draft: Draft, n: int, candidate: Candidate, limit: int, marker: int) -> str | None:
    """The candidate's text, or the longest sound beginning of it, that keeps the section within the limit."""
    over = draft.cost({**draft.chosen, n: candidate.text}, marker) - limit
    if over <= 0:
        return candidate.text
    if candidate.body is None:
        return None
    allowed = tokens.count(candidate.body) - over
    if allowed < CUT_TOKENS_MIN:
        return None
    cut = wording.fit(candidate.body, allowed)
    return None if cut is None else candidate.prefix + cut
