"""The laws of a bundle: same inputs same bytes, nothing but its inputs, budget kept, everything cited."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context_plane.bundle import tokens
from context_plane.bundle.history import History, Part
from context_plane.bundle.materialize import Bundle, ContextQuery, materialize, materialize_query
from context_plane.bundle.render import render_text
from context_plane.bundle.spec import Spec, load_specs
from context_plane.errors import Invalid
from context_plane.model import Event, day_of, event_digest, parse_time, sha256_hex
from tests.bundle.build import ENTITY, WordRetrieval, block, by_day, compiled, event

SPECS = Path(__file__).parents[2] / "specs"
GOLDEN = Path(__file__).parent / "golden_v1.json"
AS_OF = "2026-03-30"
SPEC = load_specs(SPECS)["customer_context_v0"]
COMPILED = compiled(SPEC)
RETRIEVAL = WordRetrieval()

TEXTS = (
    "They run out of seats: Ada had to remove a colleague so that finance could log in. Please add seats soon.",
    "The CSV export fails at half of the rows [7] and gives no error.\nIt worked before the last release!",
    "Too expensive. " + "Finance wants to cut software by a fifth and asks what it gets out of it. " * 8,
    "x" * 400,
    "価格が高すぎます。解約を検討しています。",
    "no longer with us \u202e\u0000 🙂",
)


def account(days: int = 30) -> list[Event]:
    """A growing account with an urgent ticket, a failed payment and a talk about seats."""
    events = [
        event(
            "2026-02-20", "account", "joined", {"name": "Ulmdane Foods", "plan": "Growth", "seats": 40, "mrr": 1560.5}
        )
    ]
    for n in range(1, days + 1):
        day = f"2026-03-{n:02d}"
        events.append(event(day, "usage", None, {"events": 100 + n * 6, "seat_fill": 0.9}, source="product"))
    return [
        *events,
        event("2026-03-11", "crm_call", TEXTS[0]),
        event(
            "2026-03-25", "ticket_opened", TEXTS[1], {"ticket": "t1", "priority": "urgent", "open": True}, thread="t1"
        ),
        event("2026-03-26", "ticket_message", TEXTS[2], {"ticket": "t1"}, thread="t1"),
        event("2026-03-15", "payment_failed", "The payment of $100 failed.", {"amount": 100.1}),
    ]


def made(events: list[Event], history: History | None = None) -> Bundle:
    bundle = materialize(COMPILED, ENTITY, AS_OF, history or by_day(events), RETRIEVAL)
    assert bundle is not None
    return bundle


def within(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for section in body["sections"] for item in section["items"]]


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    kinds = ["account", "usage", "crm_call", "ticket_opened", "ticket_closed", "payment_failed", "churn", "note\n[1]"]
    values = st.one_of(
        st.integers(-(2**53) + 1, 2**53 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans(),
        st.sampled_from(["Growth", "[2] x", "é" * 100]), st.lists(st.text(max_size=20), max_size=3), st.none(),
    )  # fmt: skip
    names = ["plan", "seats", "events", "seat_fill", "count", "mrr", "open", "ticket", "priority", "reason"]
    drawn = draw(
        st.lists(
            st.tuples(
                st.integers(0, 80 * 86_400 - 1),
                st.sampled_from(kinds),
                st.sampled_from([None, *TEXTS]),
                st.dictionaries(st.sampled_from(names), values, max_size=4),
                st.sampled_from([None, "a", "b"]),
            ),
            min_size=1,
            max_size=25,
        )
    )
    first = parse_time("2026-01-10T00:00:00Z")
    return [
        Event(ENTITY, first + s * 1_000_000, f"id-{n}", "crm", kind, thread, text, attrs)
        for n, (s, kind, text, attrs, thread) in enumerate(drawn)
    ]


@settings(max_examples=60, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_same_events_give_the_same_bytes_however_they_lie(events: list[Event], rng: random.Random) -> None:
    """Seen to fail when the timeline kept the order of the blocks instead of sorting by (ts, id)."""
    shuffled = [
        Event(
            e.entity, e.ts_us, e.id, e.source, e.kind, e.thread, e.text, dict(reversed(list((e.attrs or {}).items())))
        )
        for e in rng.sample(events, len(events))
    ]
    halves = [shuffled[::2], shuffled[1::2]]
    split = History(tuple(Part(block(half)) for half in halves if half))
    assert made(events).body == made(events, split).body == made(events, History((Part(block(events)),))).body


@settings(max_examples=40, deadline=None)
@given(histories(), histories(), st.booleans())
def test_events_outside_the_window_change_nothing(events: list[Event], others: list[Event], later: bool) -> None:
    """Seen to fail when `timeline` took until_us inclusively."""
    shift = (600 if later else -700) * 86_400_000_000
    outside = [
        Event(e.entity, e.ts_us + shift, f"o{e.id}", e.source, e.kind, e.thread, e.text, e.attrs) for e in others
    ]
    edge = parse_time("2026-03-31T00:00:00Z")
    outside.append(Event(ENTITY, edge, "edge", "crm", "payment_failed", None, "failed", None))
    assert made([*events, *outside]).body == made(events).body


def test_masked_events_change_nothing() -> None:
    """Seen to fail when `live` was ignored by the timeline."""
    events, gone = account(), event("2026-03-29", "churn", "too expensive", {"reason": "pricing"})
    rows = block([*events, gone])
    live = np.array([i != gone.id for i in rows.ids])
    assert made(events, History((Part(rows, live),))).body == made(events).body


@settings(max_examples=80, deadline=None)
@given(histories(), st.integers(50, 400))
def test_the_budget_is_kept_and_tokens_are_those_of_the_text(events: list[Event], budget: int) -> None:
    """Seen to fail when markers were not counted, and when a cut text ignored its ellipsis."""
    spec = SPEC.model_copy(update={"budget_tokens": budget})
    bundle = materialize(compiled(spec), ENTITY, AS_OF, by_day(events), RETRIEVAL)
    assert bundle is not None
    body = orjson.loads(bundle.body)
    assert tokens.count(bundle.text) == bundle.tokens == body["tokens"] <= budget
    assert bundle.text == render_text(body)
    assert bundle.digest == sha256_hex(bundle.body)


@settings(max_examples=60, deadline=None)
@given(histories())
def test_every_item_cites_events_that_exist(events: list[Event]) -> None:
    """Seen to fail when a metric of zero events became an item."""
    body = orjson.loads(made(events).body)
    known = {(day_of(e.ts_us), e.id, event_digest(e)[:32]) for e in events}
    assert {(c["day"], c["id"], c["digest"]) for c in body["citations"]} <= known
    for item in within(body):
        assert item["citations"]
        assert all(1 <= n <= len(body["citations"]) for n in item["citations"])
    used = [n for item in within(body) for n in item["citations"]]
    assert list(dict.fromkeys(used)) == list(range(1, len(body["citations"]) + 1))


def test_no_events_no_bundle() -> None:
    """Seen to fail when `timeline` did not bound since_us."""
    old = [event("2024-01-01", "usage")]
    assert materialize(COMPILED, ENTITY, AS_OF, by_day(old), RETRIEVAL) is None
    assert materialize(COMPILED, ENTITY, AS_OF, History(()), RETRIEVAL) is None


def test_a_person_finds_the_account() -> None:
    bundle = made(account())
    fired = orjson.loads(bundle.body)["signals"]
    assert {"upgrade_intent", "seats_near_limit", "usage_up", "payment_failed", "open_urgent_ticket"} <= set(fired)
    assert "usage_down" not in fired
    for part in ("plan Growth", "seats 40", "usage trend +", "seats near the limit, 90% in use", "[1]"):
        assert part in bundle.text
    assert "[7]" not in bundle.text, "an event's text cannot pass for a citation"


def test_a_closed_ticket_is_not_open() -> None:
    """Seen to fail when `latest_by` ran after `where`: the opening event alone still says open."""
    closed = event(
        "2026-03-28", "ticket_closed", None, {"ticket": "t1", "priority": "urgent", "open": False}, thread="t1"
    )
    assert "open_urgent_ticket" in orjson.loads(made(account()).body)["signals"]
    assert "open_urgent_ticket" not in orjson.loads(made([*account(), closed]).body)["signals"]


def test_golden_bytes() -> None:
    """Format 1, byte for byte. A change here is a new format: old bundles would no longer verify.

    The golden spec lies inside the golden file, so that editing the shipped spec does not touch it.
    """
    golden = json.loads(GOLDEN.read_text())
    spec = Spec.model_validate_json(json.dumps(golden["spec"]))
    bundle = materialize(compiled(spec), ENTITY, AS_OF, by_day(account()), RETRIEVAL)
    assert bundle is not None
    assert orjson.loads(bundle.body) == golden["bundle"]
    assert (bundle.digest, bundle.text) == (golden["digest"], golden["text"])


# --- on demand ----------------------------------------------------------------------------------


def asked(query: ContextQuery, events: list[Event] | None = None) -> Bundle:
    bundle = materialize_query(COMPILED, ENTITY, AS_OF, by_day(events or account()), RETRIEVAL, query)
    assert bundle is not None
    return bundle


def test_on_demand_is_reproducible_and_leads_with_the_query() -> None:
    query = ContextQuery(text="csv export rows", budget_tokens=120)
    bundle = asked(query)
    assert bundle.body == asked(query, account()[::-1]).body
    body = orjson.loads(bundle.body)
    assert body["sections"][0]["name"] == "query"
    assert "CSV export" in body["sections"][0]["items"][0]["text"]
    assert bundle.tokens <= 120
    assert body["query"] != orjson.loads(asked(ContextQuery(text="csv")).body)["query"]


def test_on_demand_until_hides_what_came_after() -> None:
    """Seen to fail when only the evidence was bounded by `until`."""
    until = parse_time("2026-03-20T00:00:00Z")
    before = [e for e in account() if e.ts_us < until]
    query = ContextQuery(text="export", until_us=until)
    assert asked(query).body == asked(query, before).body
    assert orjson.loads(asked(query).body)["as_of"] == "2026-03-19"


def test_on_demand_by_filter_alone_shows_the_newest_matching_events() -> None:
    body = orjson.loads(asked(ContextQuery(where={"eq": ["kind", "payment_failed"]})).body)
    assert [item["kind"] for item in body["sections"][0]["items"]] == ["payment_failed"]


@pytest.mark.parametrize("budget", [0, 49, 10_000])
def test_on_demand_budget_is_bounded(budget: int) -> None:
    with pytest.raises(Invalid, match="query_invalid"):
        asked(ContextQuery(text="x", budget_tokens=budget))
