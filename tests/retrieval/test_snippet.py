"""A snippet shows where the words are, and can be put into a page as it stands."""

from __future__ import annotations

import html
import re

from hypothesis import given
from hypothesis import strategies as st

from context_plane.index.analyzer import term_counts
from context_plane.retrieval.snippet import SNIPPET_CHARS, snippet

TEXT = "Filler words here. " * 40 + "Since the upgrade exports fail for large reports. " + "More filler follows. " * 40


def test_matching_words_are_marked_in_every_form() -> None:
    shown = snippet(TEXT, term_counts("export fails after upgrade"))
    assert "<b>upgrade</b> <b>exports</b> <b>fail</b>" in shown
    assert shown.startswith("…")
    assert shown.endswith("…")


def test_markup_of_the_text_is_escaped() -> None:
    shown = snippet('<script>alert("export")</script> & more', ["export"])
    assert shown == "&lt;script&gt;alert(&quot;<b>export</b>&quot;)&lt;/script&gt; &amp; more"


def test_a_text_without_matches_shows_its_beginning() -> None:
    assert snippet("short text", ["absent"]) == "short text"
    assert snippet("", ["absent"]) == ""
    assert snippet(TEXT, []).startswith("Filler words here.")


@given(st.text(), st.lists(st.sampled_from(["export", "a", "b1", "日本"]), max_size=3))
def test_nothing_but_the_marks_is_markup(text: str, terms: list[str]) -> None:
    """Fails when a piece between two matches is not escaped."""
    shown = snippet(text, terms)
    bare = re.sub(r"</?b>", "", shown)
    assert "<" not in bare
    assert ">" not in bare
    inside = html.unescape(bare).strip("…").strip()
    assert inside in text or text.strip().strip("…").strip() in text
    assert len(html.unescape(bare)) <= SNIPPET_CHARS + 2
