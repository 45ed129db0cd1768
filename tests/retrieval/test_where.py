"""The filter language means the same over columns as over single events, and refuses what is not of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context_plane.errors import Invalid
from context_plane.retrieval.columns import Columns
from context_plane.retrieval.where import DEPTH_MAX, NODES_MAX, OPERANDS_MAX, OPERATORS, evaluate, parse
from tests.retrieval.world import block_of, grouped, made_events, plain_where

EVENTS = next(iter(grouped(made_events(3, 300, days=1, entities=1)).values()))
COLUMNS = Columns(block_of(EVENTS))

STRINGS = st.sampled_from(
    ["zendesk", "ticket", "e1", "e", "acct-00", "10", "pro", "Pro*", "P*", "*o*", "[ep]*", "vip", ""]
)
NUMBERS = st.sampled_from([1, 5, 10, 10.0, 10.5, 0, -3, 40])
SCALARS = st.one_of(STRINGS, NUMBERS, st.booleans())
ATTRS = st.sampled_from(["attrs.seats", "attrs.tags", "attrs.plan", "attrs.absent"])
FIXED = st.sampled_from(["source", "kind", "id", "entity"])
TIMES = st.integers(0, 23).map(lambda hour: f"2026-03-01T{hour:02}:00:00+00:00")
ORDERS = st.sampled_from(["lt", "lte", "gt", "gte"])
EQUALS = st.sampled_from(["eq", "ne"])
MEMBERS = st.sampled_from(["in", "nin"])


def condition(operators: st.SearchStrategy[str], fields: st.SearchStrategy[str], values: st.SearchStrategy[Any]) -> Any:
    return st.builds(lambda op, field, value: {op: [field, value]}, operators, fields, values)


LEAVES = st.one_of(
    condition(EQUALS, ATTRS, SCALARS),
    condition(ORDERS, ATTRS, st.one_of(STRINGS, NUMBERS)),
    condition(EQUALS | ORDERS, FIXED, STRINGS),
    condition(EQUALS | ORDERS, st.just("ts"), TIMES),
    condition(MEMBERS, ATTRS, st.lists(SCALARS, max_size=4)),
    condition(MEMBERS, FIXED, st.lists(STRINGS, max_size=4)),
    condition(MEMBERS, st.just("ts"), st.lists(TIMES, max_size=4)),
    condition(st.sampled_from(["contains", "prefix", "glob"]), ATTRS | FIXED, STRINGS),
    condition(st.just("contains_any"), ATTRS | FIXED, st.lists(STRINGS, max_size=3)),
    ATTRS.map(lambda field: {"exists": field}),
    st.builds(lambda field, wanted: {"exists": [field, wanted]}, ATTRS | FIXED, st.booleans()),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"or": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=6,
)


@given(FILTERS)
@settings(max_examples=300, deadline=None)
def test_columns_answer_as_single_events_do(where: dict[str, Any]) -> None:
    """Fails when a boolean counts as a number, when a missing value passes `lt`, when `ne` forgets missing ones."""
    expected = [plain_where(where, event) for event in EVENTS]
    assert evaluate(parse(where), COLUMNS).tolist() == expected


@pytest.mark.parametrize(
    ("where", "pointer"),
    [
        ({"equals": ["source", "a"]}, "/where/equals"),
        ({"and": []}, "/where/and"),
        ({"and": [{"eq": ["source", "a"]}, {"eq": ["colour", "a"]}]}, "/where/and/1/eq/0"),
        ({"eq": ["source", 3]}, "/where/eq/1"),
        ({"eq": ["attrs.a", None]}, "/where/eq/1"),
        ({"eq": ["attrs.a", ["x"]]}, "/where/eq/1"),
        ({"eq": ["attrs.", "x"]}, "/where/eq/0"),
        ({"lt": ["attrs.a", True]}, "/where/lt/1"),
        ({"lt": ["attrs.a", float("nan")]}, "/where/lt/1"),
        ({"lt": ["attrs.a", 2**60]}, "/where/lt/1"),
        ({"in": ["source", "a"]}, "/where/in/1"),
        ({"in": ["source", ["a", 4]]}, "/where/in/1/1"),
        ({"gt": ["ts", "yesterday"]}, "/where/gt/1"),
        ({"gt": ["ts", 4]}, "/where/gt/1"),
        ({"prefix": ["ts", "2026"]}, "/where/prefix"),
        ({"glob": ["attrs.a", "x" * 2000]}, "/where/glob/1"),
        ({"exists": 3}, "/where/exists"),
        ({"eq": ["source"]}, "/where/eq"),
        ({"a/b~": 1}, "/where/a~1b~0"),
        ([], "/where"),
        ({"eq": ["source", "a"], "ne": ["kind", "b"]}, "/where"),
    ],
)
def test_a_defect_is_pointed_at(where: Any, pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(where)
    assert caught.value.code == "where_invalid"
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


def test_an_unknown_operator_is_told_the_known_ones() -> None:
    with pytest.raises(Invalid) as caught:
        parse({"like": ["source", "a"]})
    assert all(operator in caught.value.detail for operator in OPERATORS)


def test_depth_and_size_are_bounded() -> None:
    deep: dict[str, Any] = {"eq": ["source", "a"]}
    for _ in range(DEPTH_MAX - 1):
        deep = {"not": deep}
    parse(deep)
    with pytest.raises(Invalid):
        parse({"not": deep})
    leaf = {"eq": ["source", "a"]}
    parse({"or": [leaf] * (NODES_MAX - 1)})
    with pytest.raises(Invalid):
        parse({"or": [leaf] * NODES_MAX})


def test_the_values_of_all_lists_are_bounded_together() -> None:
    """Each looked-for part of a text is a pass over the texts, as a condition is. Seen to fail with each list bounded
    by itself."""
    half = {"in": ["source", ["a"] * (OPERANDS_MAX // 2)]}
    parse({"or": [half, half]})
    with pytest.raises(Invalid, match=f"{OPERANDS_MAX:,}"):
        parse({"or": [half, half, {"in": ["source", ["a"]]}]})
    parts = {"contains_any": ["id", ["a"] * (NODES_MAX // 2 - 1)]}
    parse({"or": [parts, parts]})
    with pytest.raises(Invalid, match="contains_any"):
        parse({"or": [parts, parts, parts]})


def test_rows_without_events_pass_nothing() -> None:
    from context_plane.index.rows import concat

    columns = Columns(concat([], day=None))
    for where in ({"eq": ["source", "a"]}, {"ne": ["attrs.x", 1]}, {"glob": ["id", "*"]}):
        assert np.array_equal(evaluate(parse(where), columns), np.zeros(0, np.bool_))
