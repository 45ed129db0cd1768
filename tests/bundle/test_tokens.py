"""Token counts: additive over white space, equal to the tokenizer's own on ordinary text."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import resources

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from context_plane.bundle import tokens, wording

WORDS = st.lists(st.sampled_from(["export", "fails,", "(since", "v2.10)", "unbelievably", "35%", "[12]", "Ünder"]))


@given(st.text(), st.text())
def test_counts_add_up_over_white_space(left: str, right: str) -> None:
    """The packing relies on it. Seen to fail when a whole text was handed to the tokenizer (control characters)."""
    assert tokens.count(f"{left} {right}") == tokens.count(left) + tokens.count(right)


@given(WORDS)
def test_ordinary_text_counts_as_the_tokenizer_does(words: list[str]) -> None:
    path = resources.files("context_plane") / "embed/minilm_static_256/tokenizer.json"
    tokenizer = Tokenizer.from_buffer(path.read_bytes())
    tokenizer.no_padding()
    text = " ".join(words)
    assert tokens.count(text) == len(tokenizer.encode(text, add_special_tokens=False).ids)


def test_a_blob_is_not_one_token() -> None:
    """Seen to fail with the plain tokenizer, for which a word of 101 characters is one unknown piece."""
    assert tokens.count("x" * 4_000) == 1_000
    assert tokens.count("") == 0


def test_counting_in_threads() -> None:
    texts = [f"word{n} export fails since v{n}" for n in range(200)]
    alone = tokens.count_batch(texts)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tokens.count, texts)) == alone


@given(st.text(), st.integers(10, 60))
def test_shortened_texts_keep_their_limit(text: str, limit: int) -> None:
    line = wording.one_line(text)
    assert len(wording.shorten(line, limit)) <= limit
    cut = wording.fit(line, limit)
    assert cut is None or tokens.count(cut) <= limit


def test_texts_are_cut_after_a_sentence_or_a_word() -> None:
    line = "The export fails. It has failed since Monday and nobody answers."
    assert wording.shorten(line, 30) == "The export fails. …"
    assert wording.shorten(line, 50) == "The export fails. It has failed since Monday and …"
    assert wording.fit(line, 8) == "The export fails. …"
    assert wording.focus(line, "who answers nobody") == "… It has failed since Monday and nobody answers."


def test_numbers_read_the_same_everywhere() -> None:
    shown = [wording.show_number(n) for n in (3, 3.14159, 2.0, -0.001, 1234567.891, 1e300)]
    assert shown == ["3", "3.14", "2", "0", "1234567.89", "1.000e+300"]
    assert [wording.show_percent(0.354), wording.show_percent(0.354, signed=True)] == ["35%", "+35%"]
    assert wording.show_percent(1.797693134862315e308, signed=True) == "+1.798e+310%"
    assert [wording.number(n) for n in (2.0, 0.1 + 0.2, 2**60, float("inf"))] == [2, 0.3, float(2**60), None]
