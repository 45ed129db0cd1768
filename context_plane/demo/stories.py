"""The latent stories of the invented customers: what is going on at an account, and what it leaves behind.

A story sets how much an account uses, how that changes, how full its seats are, and which topics it talks
about. Two stories deserve a growth agent's contact; the others include look-alikes that share one sign with
them but not the rest (full seats without growth, a question about SSO from a form, a remark on the price).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Talk:
    """`count` activities (low, high) about `topic`, from day fraction `start` on; `tag`: what sales files it under."""

    topic: str
    count: tuple[int, int]
    tag: str
    start: float = 0.0
    forms: tuple[str, ...] = ("call", "email", "meeting", "note")


@dataclass(frozen=True, slots=True)
class Story:
    """`share` of accounts in percent; `activity`: chance of use on a weekday; `slope`: use at the end over the start;
    `seat_fill`: share of seats in use at the start; `tickets`: topic and (low, high); `contact`: the truth."""

    share: float
    activity: float
    slope: float
    seat_fill: tuple[float, float]
    talks: tuple[Talk, ...]
    tickets: Mapping[str, tuple[int, int]]
    contact: bool = False
    payment_fails: bool = False


_CALM: Final = Talk("check_in", (1, 3), "check-in")

STORIES: Final[Mapping[str, Story]] = {
    "expansion_ready": Story(
        3.0, 0.9, 2.6, (0.8, 0.88),
        (Talk("sso_request", (1, 2), "upgrade", 0.4), Talk("seats_needed", (1, 2), "upgrade", 0.5),
         Talk("upgrade_price", (1, 1), "upgrade", 0.65), Talk("check_in", (1, 1), "check-in")),
        {"sso_request": (0, 1), "small_question": (0, 1)}, contact=True,
    ),
    "at_risk": Story(
        2.0, 0.85, 0.2, (0.6, 0.8),
        (Talk("champion_left", (1, 2), "champion-change", 0.35), Talk("pricing_objection", (1, 2), "pricing", 0.5),
         Talk("competitor", (0, 1), "pricing", 0.6)),
        {"export_fails": (2, 3)}, contact=True,
    ),
    "full_but_flat": Story(4.0, 0.6, 1.0, (0.92, 1.0), (_CALM,), {"small_question": (0, 1)}),
    "curious": Story(
        4.0, 0.5, 1.0, (0.3, 0.6), (Talk("curious_sso", (1, 1), "upgrade"), _CALM), {"curious_sso": (0, 1)}
    ),
    "grumbling": Story(4.0, 0.55, 1.05, (0.5, 0.75), (Talk("price_grumble", (1, 2), "pricing"), _CALM), {}),
    "growing": Story(6.0, 0.6, 1.6, (0.25, 0.45), (_CALM,), {"small_question": (0, 2)}),
    "new_owner": Story(2.0, 0.5, 1.0, (0.4, 0.7), (Talk("champion_left", (1, 1), "champion-change"), _CALM), {}),
    "export_trouble": Story(5.0, 0.5, 0.95, (0.4, 0.7), (_CALM,), {"export_fails": (1, 2)}),
    "onboarding": Story(
        8.0, 0.35, 1.2, (0.1, 0.3), (Talk("onboarding_stuck", (1, 3), "onboarding"),), {"onboarding_stuck": (1, 2)}
    ),
    "payment_trouble": Story(
        4.0, 0.5, 1.0, (0.4, 0.8), (Talk("card_failed", (1, 2), "billing", 0.4),), {"card_failed": (0, 1)},
        payment_fails=True,
    ),
    "dormant": Story(
        18.0, 0.09, 0.8, (0.05, 0.2), (Talk("dormant_note", (0, 1), "check-in", forms=("email", "note")),), {}
    ),
    "healthy": Story(40.0, 0.52, 1.0, (0.4, 0.75), (_CALM,), {"small_question": (0, 1)}),
}  # fmt: skip
"""Shares sum to 100. Contact is due at 5 percent."""

PLANS: Final[Mapping[str, tuple[int, int, int]]] = {
    "Starter": (19, 5, 15),
    "Growth": (39, 16, 60),
    "Enterprise": (69, 61, 180),
}
"""Plan -> dollars per seat and month, fewest and most seats."""
