"""Short messages carry the message before them; nothing crosses a thread, a day or an entity."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_plane.index.chunker import WHOLE_CHARS_MAX
from context_plane.index.threads import SHORT_TEXT_CHARS_MAX, bm25_texts
from context_plane.model import Event, day_start_us

NOON = day_start_us("2026-03-04") + 43_200_000_000
ASKED = Event("acct-1", NOON, "1", "slack", "message", thread="t", text="Shall we export as Parquet?")
ANSWER = Event("acct-1", NOON + 1, "2", "slack", "message", thread="t", text="Yes, let's do that")
LONG = "a long answer that stands for itself " * 10

EVENTS = st.lists(
    st.builds(
        Event,
        entity=st.sampled_from(["acct-1", "acct-2"]),
        ts_us=st.integers(NOON - 86_400_000_000, NOON + 86_400_000_000),
        id=st.uuids().map(str),
        source=st.just("slack"),
        kind=st.just("message"),
        thread=st.sampled_from([None, "t", "u"]),
        text=st.sampled_from([None, "", " ", "yes", "which one?", LONG, "x" * 3_000]),
    ),
    max_size=20,
).map(lambda events: sorted(events, key=lambda event: (event.entity, event.order)))


def test_a_short_message_carries_the_one_before() -> None:
    assert bm25_texts([ASKED, ANSWER]) == [ASKED.text, f"{ASKED.text}\n{ANSWER.text}"]


def test_only_one_message_back() -> None:
    third = replace(ANSWER, id="3", ts_us=NOON + 2, text="Great")
    assert bm25_texts([ASKED, ANSWER, third])[2] == f"{ANSWER.text}\nGreat"


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, entity="acct-0"),
        replace(ASKED, ts_us=NOON - 86_400_000_000),
        replace(ASKED, thread="u"),
        replace(ASKED, thread=None),
        replace(ASKED, text=None),
        replace(ASKED, text=" "),
    ],
)
def test_nothing_crosses_an_entity_a_day_or_a_thread(other: Event) -> None:
    """Law 3 needs the day: a day's index depends on that day alone. Seen to fail with the thread as only key."""
    assert bm25_texts([other, ANSWER])[1] == ANSWER.text


def test_a_long_message_stands_for_itself() -> None:
    first = "x" * SHORT_TEXT_CHARS_MAX
    assert bm25_texts([ASKED, replace(ANSWER, text=first)])[1] == first


def test_a_message_without_text_gets_none() -> None:
    assert bm25_texts([ASKED, replace(ANSWER, text=None), replace(ANSWER, id="3", text="")]) == [ASKED.text, "", ""]


@given(EVENTS)
def test_joined_texts_are_bounded_and_end_with_their_own(events: list[Event]) -> None:
    for event, text in zip(events, bm25_texts(events), strict=True):
        own = event.text or ""
        assert text.endswith(own)
        assert len(text) <= len(own) + WHOLE_CHARS_MAX + 1


@given(EVENTS)
def test_each_day_of_an_entity_stands_alone(events: list[Event]) -> None:
    whole = dict(zip(((event.entity, event.id) for event in events), bm25_texts(events), strict=True))
    for entity, day in {(event.entity, event.day) for event in events}:
        part = [event for event in events if (event.entity, event.day) == (entity, day)]
        assert bm25_texts(part) == [whole[event.entity, event.id] for event in part]
