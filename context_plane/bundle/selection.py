"""Selection: which events of a timeline a selector takes. Pure; each distinct filter is evaluated once."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterable

from context_plane.bundle.compiled import Choice
from context_plane.bundle.history import Entry, Retrieval, Timeline, event_columns
from context_plane.index.rows import Rows


class Selection:
    """Runs the choices of one spec over one entity's timeline; keeps what several of them need."""

    def __init__(self, line: Timeline, entity: str, retrieval: Retrieval) -> None:
        self._line = line
        self._entity = entity
        self._retrieval = retrieval
        self._passed: dict[int, list[bool]] = {}

    def positions(self, choice: Choice, first: int = 0) -> list[int]:
        """Positions of the chosen events from `first` on, ascending."""
        kinds, sources = choice.kinds, choice.sources
        chosen: Iterable[int] = [
            n
            for n, entry in enumerate(self._line.entries[first:], first)
            if (kinds is None or entry.kind in kinds) and (sources is None or entry.source in sources)
        ]
        if choice.latest_by is not None and chosen:
            chosen = self._latest(choice.latest_by, chosen)
        if choice.where is not None and chosen:
            passed = self._filter(choice)
            chosen = [n for n in chosen if passed[n]]
        if choice.phrases and chosen:
            mentioned = self._mentions(choice.phrases)
            chosen = [n for n in chosen if n in mentioned]
        return list(chosen)

    def _latest(self, by: str, chosen: Iterable[int]) -> list[int]:
        last: dict[object, int] = {}
        for n in chosen:
            value = _group(self._line.entries[n], by)
            if value is not None:
                last[value] = n
        return sorted(last.values())

    def _filter(self, choice: Choice) -> list[bool]:
        passed = self._passed.get(choice.where_key)
        if passed is None:
            passed = self._retrieval.matches(choice.where, self._columns).tolist()
            if choice.where_key >= 0:
                self._passed[choice.where_key] = passed
        return passed

    @functools.cached_property
    def _columns(self) -> Rows:
        return event_columns(self._line, self._entity)

    @functools.cached_property
    def _lowered(self) -> tuple[str, list[int]]:
        """All texts in lower case as one string, and where each begins: one search covers every event."""
        starts, parts, at = [], [], 0
        for entry in self._line.entries:
            text = (entry.text or "").lower()
            starts.append(at)
            parts.append(text)
            at += len(text) + 1
        return "\n".join(parts), starts

    def _mentions(self, phrases: tuple[str, ...]) -> set[int]:
        blob, starts = self._lowered
        found: set[int] = set()
        for phrase in phrases:
            at = blob.find(phrase)
            while at >= 0:
                end = at + len(phrase)
                if not blob[at - 1 : at].isalnum() and not blob[end : end + 1].isalnum():
                    found.add(bisect.bisect_right(starts, at) - 1)
                at = blob.find(phrase, end)
        return found


def _group(entry: Entry, by: str) -> object:
    """What an event is grouped by: its type with the value, so that 1 and true stay apart."""
    value = entry.thread if by == "thread" else entry.attrs.get(by[len("attrs.") :])
    return None if value is None else (type(value).__name__, str(value))
