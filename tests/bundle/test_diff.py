"""What a build changes is counted by entity, and told by section and citation. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_plane.bundle import diff
from context_plane.bundle.diff import Difference, compare_bytes, decode_table, differences, encode_table
from context_plane.catalog.manifest import BundleChanges
from context_plane.errors import Corrupt
from context_plane.layout.compression import compress
from context_plane.model import canonical_json


@dataclass(frozen=True)
class Held:
    digest: str
    tokens: int


SIDES = st.dictionaries(
    st.sampled_from("abcdef"), st.builds(Held, st.sampled_from(["x", "y"]), st.integers(0, 9)), max_size=6
)


@given(SIDES, SIDES)
def test_every_entity_is_counted_once_and_sides_can_be_exchanged(
    before: dict[str, Held], after: dict[str, Held]
) -> None:
    found = differences(before, after)
    told = found.changes(0)
    assert told.added + told.changed + told.unchanged == len(after)
    assert told.removed + told.changed + told.unchanged == len(before)
    assert (told.tokens_before, told.tokens_after) == tuple(sum(x.tokens for x in s.values()) for s in (before, after))
    back = differences(after, before).changes(0)
    assert (back.added, back.removed, back.changed) == (told.removed, told.added, told.changed)
    assert [each.entity for each in found.differences] == sorted(
        e for e in {*before, *after} if not same(before, after, e)
    )
    assert 0 <= told.share <= 1


def same(before: dict[str, Held], after: dict[str, Held], entity: str) -> bool:
    return entity in before and entity in after and before[entity].digest == after[entity].digest


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        (BundleChanges(), 0.0),
        (BundleChanges(added=9), 0.0),
        (BundleChanges(added=9, unchanged=3), 0.0),
        (BundleChanges(changed=1, removed=1, unchanged=2), 0.5),
        (BundleChanges(removed=2), 1.0),
    ],
)
def test_new_entities_change_nothing_that_readers_have(changes: BundleChanges, share: float) -> None:
    assert changes.share == share


def body(sections: dict[str, list[tuple[str, list[int]]]], cited: list[str], **signals: int) -> bytes:
    made: dict[str, Any] = {
        "sections": [
            {"name": name, "items": [{"text": text, "citations": numbers} for text, numbers in items]}
            for name, items in sections.items()
        ],
        "citations": [{"day": "2026-03-01", "id": id, "digest": "d"} for id in cited],
        "signals": signals,
    }
    return canonical_json(made)


CHANGED = Difference("a", "changed", 3, 4)


def test_a_section_changes_with_its_words_or_the_events_it_cites() -> None:
    """Seen to fail when numbers of citations were compared: a new first event renumbers all the others."""
    old = body({"recent": [("one", [1])], "profile": [("p", [2])], "gone": [("g", [1])]}, ["e1", "e2"])
    new = body({"evidence": [("new", [1])], "recent": [("one", [2])], "profile": [("p", [1])]}, ["e0", "e1"])
    told = compare_bytes(CHANGED, old, new)
    assert told.fields == ("evidence", "gone", "profile"), "recent says the same of the same event"
    assert (told.citations_added, told.citations_removed) == (1, 1)
    assert (told.tokens_before, told.tokens_after) == (3, 4)
    assert compare_bytes(CHANGED, old, old).fields == ()


def test_signals_are_a_field_of_their_own() -> None:
    assert compare_bytes(CHANGED, body({}, [], hot=1), body({}, [], hot=2)).fields == ("signals",)


def test_the_table_lists_a_bounded_number_and_counts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff, "COMPARED_MAX", 2)
    found = differences({name: Held("x", 1) for name in "abc"}, {name: Held("y", 1) for name in "bcd"})
    assert found.to_compare == ["b", "c"]
    table = decode_table(encode_table("s_v0", "2026-03-01", found.changes(2), found.differences))
    assert [row["entity"] for row in table["entities"]] == ["a", "b"]
    assert (table["differences"], table["changes"]["changed"], table["as_of"]) == (4, 2, "2026-03-01")


def test_a_table_of_another_format_is_refused() -> None:
    with pytest.raises(Corrupt, match="format_unknown"):
        decode_table(compress(b'{"format":2}'))
