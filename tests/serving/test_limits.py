"""The limits of an event that the OpenAPI document, the page and the titles of codes tell are those that hold."""

from __future__ import annotations

import re
import tracemalloc

import pytest

from context_plane.errors import CODES, Invalid
from context_plane.model import ATTR_BYTES_MAX, ATTRS_MAX, ENTITY_BYTES_MAX, TEXT_BYTES_MAX, parse_time
from context_plane.wire import NAME_BYTES_MAX, THREAD_BYTES_MAX, parse_event, parse_ndjson
from serving.limits import EVENTS_BODY_BYTES_MAX, EVENTS_MAX
from serving.wire import EventBody
from tests.pages import ROOT
from tests.serving.conftest import event

NOW_US = parse_time("2026-03-05T00:00:00Z")


def numbers(field: str, form: str) -> list[int]:
    """What the document tells of a field."""
    found = re.search(form, EventBody.model_fields[field].description or "")
    assert found is not None
    return [int(number) for number in found.groups()]


@pytest.mark.parametrize("field", ["entity", "source", "kind", "id", "thread"])
def test_the_length_that_the_document_tells_is_the_one_that_holds(field: str) -> None:
    """Seen to fail with 256 told of sources and kinds."""
    [bytes_max] = numbers(field, r"(\d+) bytes")
    parse_event(event(**{field: "é" * (bytes_max // 2)}), now_us=NOW_US)
    with pytest.raises(Invalid):
        parse_event(event(**{field: "é" * (bytes_max // 2) + "x"}), now_us=NOW_US)


def test_what_the_document_tells_of_attributes_and_texts_is_what_holds() -> None:
    """Seen to fail with the sizes left out."""
    [count, name_max, kib] = numbers("attrs", r"up to (\d+), .* 1-(\d+) bytes, and (\d+) KiB")
    [text_kib] = numbers("text", r"(\d+) KiB")
    most = {f"{n:02}" + "n" * (name_max - 2): n for n in range(count)}
    held = {"n": "x" * (kib * 1024 - len('{"n":""}'))}
    for attrs in (most, held):
        parse_event(event(attrs=attrs), now_us=NOW_US)
    for attrs in ({**most, "n": 1}, {"n" * (name_max + 1): 1}, {"n": held["n"] + "x"}):
        with pytest.raises(Invalid, match="attrs_invalid"):
            parse_event(event(attrs=attrs), now_us=NOW_US)
    parse_event(event(text="x" * text_kib * 1024), now_us=NOW_US)
    with pytest.raises(Invalid, match="text_too_long"):
        parse_event(event(text="x" * (text_kib * 1024 + 1)), now_us=NOW_US)


def test_titles_and_pages_tell_the_same_limits() -> None:
    """Titles of codes are words. Seen to fail with a limit changed."""
    page = (ROOT / "docs" / "api.md").read_text()
    for code, words in {
        "entity_invalid": f"1-{ENTITY_BYTES_MAX} bytes",
        "id_invalid": f"1-{ENTITY_BYTES_MAX} bytes",
        "text_too_long": f"{TEXT_BYTES_MAX // 1024} KiB",
        "attrs_invalid": f"{ATTRS_MAX} keys",
        "too_many_events": f"{EVENTS_MAX:,} events",
    }.items():
        assert words in CODES[code]
    for words in (
        f"{EVENTS_MAX:,} events and {EVENTS_BODY_BYTES_MAX // 1024**2} MiB",
        f"`entity` and `id` hold 1-{ENTITY_BYTES_MAX} bytes",
        f"`source` and `kind` 1-{NAME_BYTES_MAX}",
        f"`thread` up to {THREAD_BYTES_MAX}",
        f"`text` up to {TEXT_BYTES_MAX // 1024} KiB",
        f"up to {ATTRS_MAX}, with names of 1-{NAME_BYTES_MAX} bytes, and {ATTR_BYTES_MAX // 1024} KiB",
    ):
        assert words in page, words


def test_lines_are_counted_before_they_are_held() -> None:
    """Seen to fail with all lines split first."""
    body = b"1\n" * 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match="too_many_events"):
            parse_ndjson(body, now_us=0, events_max=EVENTS_MAX)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(body)
    finally:
        tracemalloc.stop()
