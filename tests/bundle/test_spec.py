"""Specs: the shipped one is valid, a wrong one says where and what to do, a fingerprint tells contents apart."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from context_plane.bundle.spec import Spec, fingerprint, load_specs, parse_spec
from context_plane.errors import Invalid
from tests.bundle.build import compiled

SPECS = Path(__file__).parents[2] / "specs"

MINIMAL: dict[str, Any] = {
    "name": "mini_v1",
    "version": 1,
    "budget_tokens": 100,
    "sections": [
        {
            "kind": "metrics", "name": "numbers", "title": "Numbers", "priority": 1, "share": 0.5, "lookback_days": 30,
            "metrics": [{"name": "tickets", "agg": "count", "kinds": ["ticket"], "windows": [7, 30]}],
        },
        {
            "kind": "signals", "name": "signals", "title": "Signals", "priority": 2, "share": 0.5, "signals": [
                {"name": "busy", "when": {"of": "tickets_7d", "op": "gte", "value": 3}, "text": "{tickets_7d} open"},
            ],
        },
    ],
}  # fmt: skip


def parsed(change: dict[str, Any] | None = None, *path: int | str) -> Spec:
    document = copy.deepcopy(MINIMAL)
    at: Any = document
    for step in path:
        at = at[step]
    at.update(change or {})
    return parse_spec(yaml.safe_dump(document).encode(), origin="mini_v1.yaml")


def test_the_shipped_specs_load_and_compile() -> None:
    specs = load_specs(SPECS)
    spec = specs["customer_context_v0"]
    assert {section.kind for section in spec.sections} == {"profile", "metrics", "signals", "evidence", "recent"}
    assert spec.budget_tokens == 200
    assert compiled(spec).fingerprint == compiled(spec).fingerprint


@pytest.mark.parametrize(
    ("change", "path", "pointer", "words"),
    [
        ({"colour": 1}, (), "/colour", "unknown field"),
        ({"budget_tokens": "200"}, (), "/budget_tokens", "integer"),
        ({"budget_tokens": 10}, (), "/budget_tokens", "50"),
        ({"version": 2}, (), "/", "customer_context_v2"),
        ({"agg": "median"}, ("sections", 0, "metrics", 0), "/sections/0/metrics/0/agg", "'count'"),
        ({"agg": "sum"}, ("sections", 0, "metrics", 0), "/sections/0/metrics/0", "needs an attr"),
        ({"windows": [900]}, ("sections", 0, "metrics", 0), "/sections/0/metrics/0/windows/0", "400"),
        ({"windows": [60]}, ("sections", 0, "metrics", 0), "/sections/0", "at least 60"),
        ({"kind": "facts"}, ("sections", 0), "/sections/0", "'profile'"),
        ({"share": 0.9}, ("sections", 0), "/", "more than 1"),
        ({"when": {"of": "ticket_7d", "op": "eq", "value": 1}}, ("sections", 1, "signals", 0), "/", "tickets_7d"),
        ({"text": "{tickets_7d.__class__}"}, ("sections", 1, "signals", 0), "/", "braces"),
        ({"when": {"of": "tickets_7d", "op": "gte", "value": "3"}}, ("sections", 1, "signals", 0),
         "/sections/1/signals/0/when", "number"),
    ],
)  # fmt: skip
def test_a_wrong_spec_says_where_and_what(
    change: dict[str, Any], path: tuple[int | str, ...], pointer: str, words: str
) -> None:
    with pytest.raises(Invalid) as caught:
        parsed(change, *path)
    assert caught.value.code == "spec_invalid"
    assert caught.value.faults[0].pointer == pointer
    assert words in caught.value.faults[0].detail


def test_other_defects_of_a_file_are_spec_invalid() -> None:
    for raw in (b"name: [", b"\xff\xfe\x00", b"- 1", b"x" * 70_000, b"a: !!python/object:os.system {}"):
        with pytest.raises(Invalid, match="spec_invalid"):
            parse_spec(raw, origin="x.yaml")


def test_a_filter_outside_the_language_is_refused_when_compiled() -> None:
    spec = parsed({"where": {"like": ["kind", "x"]}}, "sections", 0, "metrics", 0)
    with pytest.raises(Invalid, match=r"numbers\.tickets"):
        compiled(spec)


def test_a_file_is_named_like_its_spec(tmp_path: Path) -> None:
    (tmp_path / "other_v1.yaml").write_text(yaml.safe_dump(MINIMAL))
    with pytest.raises(Invalid, match="named otherwise"):
        load_specs(tmp_path)


def test_the_fingerprint_tells_contents_and_versions_apart() -> None:
    """Seen to fail when the fingerprint covered the name alone."""
    base = fingerprint(parsed(), model="m", analyzer="1")
    assert base == fingerprint(parsed(), model="m", analyzer="1")
    others = {
        fingerprint(parsed({"budget_tokens": 101}), model="m", analyzer="1"),
        fingerprint(parsed(), model="n", analyzer="1"),
        fingerprint(parsed(), model="m", analyzer="2"),
    }
    assert len(others | {base}) == 4
