"""Metrics beside a plain recomputation, and the rules of signals."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest

from context_plane.bundle.materialize import materialize
from context_plane.bundle.spec import Spec
from context_plane.model import Event, canonical_json
from tests.bundle.build import ENTITY, WordRetrieval, by_day, compiled, event

AS_OF = "2026-03-30"
EVENTS = [
    event("2026-03-05", "usage", None, {"n": 10, "plan": "Basic"}),
    event("2026-03-18", "usage", None, {"n": 4}),
    event("2026-03-20", "usage", None, {"n": 0.1}),
    event("2026-03-24T00:00:00Z", "usage", None, {"n": 0.2}),
    event("2026-03-28", "usage", None, {"n": True}),
    event("2026-03-30T23:59:59Z", "usage", None, {"n": 7, "plan": "Pro"}),
]


def body(sections: list[dict[str, Any]], events: list[Event] = EVENTS) -> Any:
    common = {"priority": 1, "share": 0.3}
    full = [
        {"name": f"s{n}", "title": "S", **common, **({} if s["kind"] == "signals" else {"lookback_days": 60}), **s}
        for n, s in enumerate(sections)
    ]
    document = {"name": "t_v1", "version": 1, "budget_tokens": 400, "sections": full}
    spec = Spec.model_validate_json(canonical_json(document))
    bundle = materialize(compiled(spec), ENTITY, AS_OF, by_day(events), WordRetrieval())
    assert bundle is not None
    return orjson.loads(bundle.body)


@pytest.mark.parametrize(
    ("metric", "expected", "text"),
    [
        ({"agg": "count", "windows": [7, 30]}, {"7d": 3, "30d": 6}, "m 3 in 7d, 6 in 30d"),
        ({"agg": "count", "attr": "plan"}, {"all": 2}, "m 2"),
        ({"agg": "sum", "attr": "n", "windows": [7, 14]}, {"7d": 7.2, "14d": 11.3}, "m 7.2 in 7d, 11.3 in 14d"),
        ({"agg": "mean", "attr": "n", "windows": [7]}, {"7d": 3.6}, "m 3.6 in 7d"),
        ({"agg": "last", "attr": "n"}, {"all": 7}, "m 7"),
        ({"agg": "delta", "attr": "n", "windows": [14]}, {"14d": -3}, "m -3 in 14d"),
        ({"agg": "trend", "attr": "n", "windows": [7]}, {"7d": round((7.2 - 4.1) / 4.1, 6)}, "m +76% in 7d"),
        ({"agg": "trend", "windows": [7]}, {"7d": 0.5}, "m +50% in 7d"),
    ],
)
def test_metrics_are_what_a_person_computes(metric: dict[str, Any], expected: dict[str, float], text: str) -> None:
    """The window of 7 days begins at 2026-03-24T00:00Z, inclusive; True is no number.

    Seen to fail with an exclusive window start, and when bools were summed.
    """
    found = body([{"kind": "metrics", "metrics": [{"name": "m", "kinds": ["usage"], **metric}]}])
    (item,) = found["sections"][0]["items"]
    assert item["values"] == pytest.approx(expected)
    assert item["text"] == text


def test_sums_do_not_depend_on_order_or_overflow() -> None:
    """Seen to fail with a plain sum of floats."""
    values = [1e16, 1.0, -1e16, 0.1]
    events = [event(f"2026-03-{n + 1:02d}", "usage", None, {"n": v}) for n, v in enumerate(values)]
    metric = {"kind": "metrics", "metrics": [{"name": "m", "agg": "sum", "attr": "n"}]}
    assert body([metric], events)["sections"][0]["items"][0]["values"]["all"] == math.fsum(values)
    huge = [event(f"2026-03-{n:02d}", "usage", None, {"n": 1.7e308}) for n in (1, 2)]
    assert body([metric], huge)["sections"] == []


def fired(rule: dict[str, Any]) -> bool:
    sections: list[dict[str, Any]] = [
        {"kind": "profile", "attributes": [{"name": "plan", "attr": "plan"}, {"name": "none", "attr": "absent"}]},
        {
            "kind": "metrics",
            "metrics": [
                {"name": "n", "agg": "sum", "attr": "n", "windows": [7]},
                {"name": "c", "agg": "count", "windows": [7]},
                {"name": "z", "agg": "count", "kinds": ["never"]},
            ],
        },
        {"kind": "signals", "signals": [{"name": "s", "when": rule, "text": "holds {plan}"}]},
    ]
    return "s" in body(sections)["signals"]


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ({"of": "n_7d", "op": "gte", "value": 7.2}, True),
        ({"of": "n_7d", "op": "gt", "value": 7.2}, False),
        ({"of": "plan", "op": "eq", "value": "Pro"}, True),
        ({"of": "plan", "op": "in", "value": ["Basic", "Enterprise"]}, False),
        ({"of": "plan", "op": "gt", "value": 3}, False),
        ({"of": "none", "op": "ne", "value": "x"}, False),
        ({"of": "z", "op": "eq", "value": 0}, True),
        ({"of": "n_7d", "per": "c_7d", "op": "lt", "value": 2.5}, True),
        ({"of": "n_7d", "per": "z", "op": "lt", "value": 2.5}, False),
        ({"all": [{"of": "z", "op": "eq", "value": 0}, {"of": "n_7d", "op": "lt", "value": 1}]}, False),
        ({"any": [{"of": "z", "op": "eq", "value": 1}, {"all": [{"of": "c_7d", "op": "eq", "value": 3}]}]}, True),
    ],
)
def test_rules(rule: dict[str, Any], holds: bool) -> None:
    assert fired(rule) is holds


def test_mentions_are_whole_words_in_any_case() -> None:
    """Seen to fail without the check of the neighbouring characters."""
    texts = ["The PRICE is too high", "priceless", "overprice", "price", None]
    events = [event(f"2026-03-{n + 1:02d}", "note", text) for n, text in enumerate(texts)]
    metric = {"kind": "metrics", "metrics": [{"name": "m", "agg": "count", "mentions": ["Price"]}]}
    assert body([metric], events)["sections"][0]["items"][0]["values"] == {"all": 2}
