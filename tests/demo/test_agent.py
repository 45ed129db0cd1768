"""The growth agent: signs must come together, and reasons carry their citations."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from context_plane.demo.agent import CONTACT_SCORE_MIN, PLAYS, rank, score

NAMES = sorted({name for play in PLAYS.values() for name in play.weights})


def bundle(entity: str, *names: str) -> dict[str, Any]:
    items = [{"name": name, "text": f"because {name}", "citations": [n]} for n, name in enumerate(names, 1)]
    return {
        "entity": entity,
        "sections": [
            {"name": "profile", "kind": "profile", "items": []},
            {"name": "signals", "kind": "signals", "items": items},
        ],
        "citations": [{"day": "2026-03-04", "id": name, "digest": "0"} for name in names],
    }


@given(st.sampled_from(NAMES))
def test_no_sign_alone_is_a_reason_to_call(name: str) -> None:
    assert not score(bundle("a", name)).contact


def test_signs_that_come_together_are() -> None:
    ranked = score(bundle("a", "usage_up", "seats_near_limit", "upgrade_intent"))
    assert (ranked.play, ranked.contact) == ("expand", True)
    assert ranked.reasons == ("because upgrade_intent", "because seats_near_limit", "because usage_up")
    assert [cited["id"] for cited in ranked.citations] == ["upgrade_intent", "seats_near_limit", "usage_up"]


@given(st.sets(st.sampled_from(NAMES)))
def test_every_reason_is_a_signal_of_the_bundle(names: set[str]) -> None:
    ranked = score(bundle("a", *names))
    assert set(ranked.reasons) <= {f"because {name}" for name in names}
    assert ranked.reasons == tuple(f"because {cited['id']}" for cited in ranked.citations)
    assert (ranked.play is None) == (not ranked.reasons) == (ranked.score == 0)


def test_the_best_come_first_and_the_rest_is_left_out() -> None:
    ranked = rank(
        [
            bundle("calm"),
            bundle("b", "usage_down", "champion_left", "pricing_objection"),
            bundle("c", "usage_down", "champion_left", "pricing_objection", "export_failing"),
            bundle("a", "usage_down", "champion_left", "pricing_objection"),
        ]
    )
    assert [one.entity for one in ranked] == ["c", "a", "b"]
    assert all(one.score >= CONTACT_SCORE_MIN for one in ranked)
