"""Dates in questions become windows: what each form names, and what is no date."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_plane.model import day_of, day_start_us, parse_time
from context_plane.retrieval.when import PHRASES_MAX, window_of
from serving.wire import SearchBody

API = Path(__file__).resolve().parents[2] / "docs/api.md"
NOW = parse_time("2024-03-13T15:30:00Z")  # a Wednesday


def shown(text: str, now_us: int = NOW) -> tuple[str | None, str | None] | None:
    found = window_of(text, now_us)
    if found is None:
        return None
    return tuple(None if us is None else day_of(us) for us in (found.since_us, found.until_us))  # type: ignore[return-value]  # a pair


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("what did they ask today?", "2024-03-13", "2024-03-14"),
        ("what broke yesterday", "2024-03-12", "2024-03-13"),
        ("the call the day before yesterday", "2024-03-11", "2024-03-12"),
        ("tickets of last week", "2024-03-04", "2024-03-11"),
        ("who complained this week", "2024-03-11", "2024-03-18"),
        ("Last month's invoices", "2024-02-01", "2024-03-01"),
        ("this quarter", "2024-01-01", "2024-04-01"),
        ("last quarter", "2023-10-01", "2024-01-01"),
        ("last year", "2023-01-01", "2024-01-01"),
        ("in the last 30 days", "2024-02-12", "2024-03-14"),
        ("over the past two weeks", "2024-02-28", "2024-03-14"),
        ("during the past month", "2024-02-13", "2024-03-14"),
        ("3 days ago", "2024-03-10", "2024-03-11"),
        ("a couple of weeks ago", "2024-02-26", "2024-03-04"),
        ("two months ago", "2024-01-01", "2024-02-01"),
        ("in May 2023", "2023-05-01", "2023-06-01"),
        ("in May", "2023-05-01", "2023-06-01"),
        ("in january", "2024-01-01", "2024-02-01"),
        ("in march", "2024-03-01", "2024-04-01"),
        ("Sept. 2022", "2022-09-01", "2022-10-01"),
        ("in 2022", "2022-01-01", "2023-01-01"),
        ("Q3 2024", "2024-07-01", "2024-10-01"),
        ("Q4", "2023-10-01", "2024-01-01"),
        ("the third quarter of 2021", "2021-07-01", "2021-10-01"),
        ("on 2024-01-05", "2024-01-05", "2024-01-06"),
        ("in 2024-01", "2024-01-01", "2024-02-01"),
        ("on May 17, 2023", "2023-05-17", "2023-05-18"),
        ("on the 17th of May 2023", "2023-05-17", "2023-05-18"),
        ("on 17 May", "2023-05-17", "2023-05-18"),
        ("on Feb 29", "2024-02-29", "2024-03-01"),
        ("on Monday", "2024-03-11", "2024-03-12"),
        ("last Wednesday", "2024-03-06", "2024-03-07"),
        ("on Wednesday", "2024-03-13", "2024-03-14"),
        ("since Monday", "2024-03-11", None),
        ("since wednesday", "2024-03-13", None),
        ("since last Wednesday", "2024-03-06", None),
        ("before Friday", None, "2024-03-08"),
        ("prior to Tuesday", None, "2024-03-12"),
        ("until Tuesday", None, "2024-03-13"),
        ("after Monday", "2024-03-12", None),
        ("later than Wednesday", "2024-03-07", None),
        ("since Monday until Tuesday", "2024-03-11", "2024-03-13"),
        ("last weekend", "2024-03-09", "2024-03-11"),
        ("since May 2023", "2023-05-01", None),
        ("since last week", "2024-03-04", None),
        ("after 2024-01-05", "2024-01-06", None),
        ("before Q2 2023", None, "2023-04-01"),
        ("until yesterday", None, "2024-03-13"),
        ("between March and May 2022", "2022-03-01", "2022-06-01"),
        ("from Nov to Feb 2022", "2021-11-01", "2022-03-01"),
        ("from May to July 2023", "2023-05-01", "2023-08-01"),
        ("between January 2023 and March 2023", "2023-01-01", "2023-04-01"),
        ("since May 2023 until July 2023", "2023-05-01", "2023-08-01"),
        ("May 2023 or June 2023", "2023-05-01", "2023-07-01"),
        ("last 9999 years", "1970-01-01", "2024-03-14"),
    ],
)
def test_what_a_date_names(text: str, since: str | None, until: str | None) -> None:
    assert shown(text) == (since, until)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "why does the export fail",
        "they may leave, and may not come back",
        "this may be a bug",
        "march on and to march further",
        "the other 5 may have left",
        "may 5 customers use it",
        "the monday call, and Tuesday's",
        "after Mondays",
        "order 2023 of part 2024",
        "on 2023-02-31",
        "in version 2024x",
        "the second ticket",
        "after July 2023 and before May 2023",
        "q5 results",
        "in 1850",
    ],
)
def test_what_is_no_date(text: str) -> None:
    """Seen to fail with "may" a month, and "monday" a day, wherever they stand."""
    assert window_of(text, NOW) is None


def test_every_date_that_the_documents_name_is_read() -> None:
    """Quoted in docs/api.md, and in the API's own description. Seen to fail with no weekday behind "since"."""
    named = re.search(r"`\"resolve_time\": true` reads the dates of the text \((.*?)\)", API.read_text(), re.DOTALL)
    described = re.search(r"\((.*?)\)", SearchBody.model_fields["resolve_time"].description or "")
    assert named is not None
    assert described is not None
    phrases = [*re.findall(r'"([^"]+)"', named[1]), *described[1].split(", ")]
    assert len(phrases) > 5
    for phrase in phrases:
        found = window_of(f"what failed {phrase}, and where?", NOW)
        assert found is not None, phrase


def test_the_phrases_are_told_and_bounded() -> None:
    found = window_of("was it Last Week, or in May 2023?", NOW)
    assert found is not None
    assert found.phrases == ("Last Week", "May 2023")
    many = window_of(" and ".join(f"in {1990 + n}" for n in range(20)), NOW)
    assert many is not None
    assert len(many.phrases) == PHRASES_MAX


WORDS = st.sampled_from(
    [
        "last", "past", "this", "week", "month", "year", "quarter", "q1", "may", "march", "2023", "1970", "2099",
        "9999", "of", "in", "since", "before", "until", "and", "to", "12", "31st", "ago", "days", "two",
        "monday", "yesterday", "2024-02-30", "february", "29", "weekend", "a", "couple",
    ]
)  # fmt: skip


@given(st.lists(WORDS | st.text(max_size=6), max_size=12).map(" ".join), st.integers(-(2**40), 253_402_300_799_000_000))
def test_any_text_gives_the_same_window_again_or_none(text: str, now_us: int) -> None:
    """No text breaks it, and what it gives is a window of whole days. Seen to fail at the ends of the calendar."""
    found = window_of(text, now_us)
    assert found == window_of(text, now_us)
    if found is None:
        return
    for us in (found.since_us, found.until_us):
        assert us is None or us == day_start_us(day_of(us))
    assert found.since_us is None or found.until_us is None or 0 <= found.since_us < found.until_us


@given(st.dates(dt.date(1971, 1, 1), dt.date(2098, 12, 31)), st.sampled_from(["%Y-%m-%d", "%B %d, %Y", "%d %b %Y"]))
def test_a_written_day_is_that_day(day: dt.date, form: str) -> None:
    assert shown(f"what happened on {day.strftime(form)}?") == (day.isoformat(), (day + dt.timedelta(1)).isoformat())
