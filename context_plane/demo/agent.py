"""The growth agent of the demonstration: which customers to contact, and why. A pure function of bundles.

It reads what every agent could: the named signals of a bundle, their texts and citations. A play is a reason
to call; it counts only when its signs come together, for each sign alone has harmless causes (full seats
without growth, a question about SSO from a form, a remark on the price). No text is interpreted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

CONTACT_SCORE_MIN: Final = 3.0
"""A play's leading sign and two more: with one more alone, look-alikes come along."""
REASONS_MAX: Final = 4
CITATIONS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Play:
    """`weights`: signal -> points for this play; `needs`: signals without which it is not considered."""

    headline: str
    weights: Mapping[str, float]
    needs: frozenset[str]


PLAYS: Final[Mapping[str, Play]] = {
    "expand": Play(
        "offer the larger plan",
        {"upgrade_intent": 1.5, "seats_near_limit": 1.0, "usage_up": 1.0, "usage_down": -1.5, "payment_failed": -1.0},
        frozenset({"upgrade_intent"}),
    ),
    "save": Play(
        "call before the renewal",
        {
            "usage_down": 1.5,
            "champion_left": 1.0,
            "pricing_objection": 1.0,
            "export_failing": 1.0,
            "usage_up": -1.5,
            "payment_failed": -0.5,
        },
        frozenset({"usage_down"}),
    ),
}
"""Names of signals are those of the spec `customer_context_v0`."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One customer judged. `play` None: no reason to call. `citations`: the bundle's, behind the reasons."""

    entity: str
    score: float
    play: str | None
    reasons: tuple[str, ...]
    citations: tuple[Mapping[str, Any], ...]

    @property
    def contact(self) -> bool:
        return self.score >= CONTACT_SCORE_MIN


def score(bundle: Mapping[str, Any]) -> Ranked:
    """Judge one bundle by its best play. Reasons: the texts of the signals that spoke for it, strongest first."""
    signals = {str(item["name"]): item for item in items_of(bundle, "signals")}
    points = {name: _points(play, signals) for name, play in PLAYS.items()}
    best = max(points, key=lambda name: points[name])
    entity = str(bundle["entity"])
    if points[best] <= 0:
        return Ranked(entity, 0.0, None, (), ())
    weights = PLAYS[best].weights
    speaking = sorted((name for name in signals if weights.get(name, 0) > 0), key=lambda name: (-weights[name], name))
    told = [signals[name] for name in speaking[:REASONS_MAX]]
    # Items cite by number, counted from 1, into the bundle's own list.
    numbers = dict.fromkeys(number for item in told for number in item["citations"])
    cited = tuple(bundle["citations"][number - 1] for number in list(numbers)[:CITATIONS_MAX])
    return Ranked(entity, points[best], best, tuple(str(item["text"]) for item in told), cited)


def rank(bundles: Iterable[Mapping[str, Any]]) -> list[Ranked]:
    """Every customer worth contacting, best first; equal scores by entity."""
    judged = (score(bundle) for bundle in bundles)
    return sorted((one for one in judged if one.contact), key=lambda one: (-one.score, one.entity))


def items_of(bundle: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    """Items of the sections of a kind."""
    for section in bundle["sections"]:
        if section["kind"] == kind:
            yield from section["items"]


def _points(play: Play, signals: Mapping[str, object]) -> float:
    if not play.needs <= signals.keys():
        return 0.0
    return sum(weight for name, weight in play.weights.items() if name in signals)
