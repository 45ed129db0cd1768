"""The analyzer: golden terms, and the laws every index leans on."""

from __future__ import annotations

import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from context_plane.index.analyzer import ANALYZER, STOP_WORDS, TERM_CHARS_MAX, analyze, term_counts


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("  \n\t\x00", []),
        ("Exports failing; the EXPORT failed", ["export", "fail", "export", "fail"]),
        ("customer's customers’ it's don't", ["custom", "custom", "don't"]),
        ("zd-8812", ["zd-8812", "zd", "8812"]),
        ("A-2e4581.", ["a-2e4581", "2e4581"]),
        ("mail Joe.Doe@acme.com!", ["mail", "joe.doe@acme.com", "joe", "doe", "acm", "com"]),
        ("v2.10 at 3,000", ["v2.10", "v2", "10", "3", "000"]),
        ("well-known and/or", ["well", "known"]),
        ("snake_case_2", ["snake_case_2", "snake", "case", "2"]),
        ("naïve Straße", ["naïv", "strass"]),
        ("ｆｕｌｌ ﬁle Ⅷ ℡", ["full", "file", "viii", "tel"]),
        ("東京都の天気。日", ["東京", "京都", "都の", "の天", "天気", "日"]),
        ("iPhone15が好き", ["iphone15", "が好", "好き"]),
        ("한국어 검색", ["한국", "국어", "검색"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("😀 👩‍👩‍👧 — …", []),
    ],
)
def test_golden_terms(text: str, terms: list[str]) -> None:
    """These are the terms of `snowball-en/1`: when one changes, so must `ANALYZER`."""
    assert ANALYZER == "snowball-en/1"
    assert analyze(text) == terms


@given(st.text(max_size=300))
def test_terms_are_bounded_and_never_stop_words(text: str) -> None:
    for term in analyze(text):
        assert 1 <= len(term) <= TERM_CHARS_MAX
        assert not any(character.isspace() for character in term)
        assert term not in STOP_WORDS or term not in unicodedata.normalize("NFKC", text).casefold().split()


@given(st.text(max_size=300))
@example("℡")
@example("ﬁrst ½")
def test_forms_of_a_text_have_the_same_terms(text: str) -> None:
    """Compatibility forms agree. Seen to fail (with the examples above) when the first NFKC is left out."""
    assert analyze(text) == analyze(unicodedata.normalize("NFKC", text))


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=200))
def test_case_does_not_matter(text: str) -> None:
    assert analyze(text.upper()) == analyze(text) == analyze(text.lower())


@given(st.lists(st.text(max_size=60), max_size=5))
def test_lines_are_analyzed_one_by_one(lines: list[str]) -> None:
    """No term crosses a line, so a text joined from two has the terms of both."""
    assert analyze("\n".join(lines)) == [term for line in lines for term in analyze(line)]


@given(st.text(max_size=200))
def test_counts_are_the_terms_counted(text: str) -> None:
    counts = term_counts(text)
    assert counts == Counter(analyze(text))
    assert list(counts) == list(dict.fromkeys(analyze(text)))


def test_encoded_data_gives_no_term() -> None:
    assert analyze("x" * (TERM_CHARS_MAX + 1)) == []
    assert analyze(f"see {'ab3' * 1000} now") == ["see", "now"]


def test_threads_agree() -> None:
    """Terms are the same from every thread: a stemmer keeps state, so each thread has its own."""
    texts = [f"customers running exports {number} times, generously" for number in range(2_000)]
    expected = [analyze(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(analyze, texts)) == expected


@given(st.text(alphabet="ab1'’-_.@/:#+& \n", max_size=80))
def test_ascii_texts_are_split_as_all_others_are(text: str) -> None:
    """A letter of another script at the end changes the pattern that splits, and no term of the ASCII text.

    Seen to fail without the apostrophes in the ASCII pattern.
    """
    assert analyze(f"{text}\né") == [*analyze(text), "é"]
