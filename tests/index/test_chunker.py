"""The chunker: chunks partition the text, have bounded lengths and number, and cut at boundaries."""

from __future__ import annotations

from itertools import pairwise

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from context_plane.index.chunker import CHUNK_CHARS_MAX, CHUNK_CHARS_MIN, WHOLE_CHARS_MAX, Chunk, chunk
from context_plane.model import TEXT_BYTES_MAX

PIECES = st.sampled_from(
    ["word ", "Sentence ends. ", "Ann: yes?\n", "\n\n", "東京都。", "é", "👩‍👩‍👧", "x" * 90, " ", "\r\n", "🇫🇷", "क्षि"]
)
TEXTS = st.lists(st.tuples(PIECES, st.integers(1, 40)), max_size=25).map(
    lambda runs: "".join(piece * times for piece, times in runs)
)


@settings(deadline=None)
@given(TEXTS | st.text(max_size=3_000))
def test_chunks_partition_the_text_within_bounds(text: str) -> None:
    chunks = chunk(text)
    assert chunks[0].start == 0
    assert chunks[-1].stop == len(text)
    assert all(before.stop == after.start for before, after in pairwise(chunks))
    for each in chunks[:-1]:
        assert CHUNK_CHARS_MIN <= each.stop - each.start <= CHUNK_CHARS_MAX
    assert len(chunks) == 1 or 0 < chunks[-1].stop - chunks[-1].start <= WHOLE_CHARS_MAX
    assert chunk(text) == chunks


@settings(deadline=None)
@given(TEXTS)
@example("x" + "👩‍👩‍👧" * 400)
@example("x" + "e\u0301" * 900)
@example("x" * 799 + "\r\n" * 300)
@example("x" * 798 + " \u0301" + "x" * 900)
def test_cuts_keep_grapheme_clusters_whole(text: str) -> None:
    """Seen to fail when the last resort is a plain cut at the greatest length."""
    clusters = {match.end() for match in regex.finditer(r"\X", text)}
    assert {each.stop for each in chunk(text) if text} <= clusters


@given(st.text(max_size=WHOLE_CHARS_MAX))
def test_a_short_text_is_one_chunk(text: str) -> None:
    assert chunk(text) == [Chunk(0, len(text))]


@pytest.mark.parametrize(
    ("separator", "worse"), [("\n\n", "\n"), ("\n", ". "), (". ", " "), (" ", "x"), ("。", "x"), ("!” ", " ")]
)
def test_the_best_boundary_wins(separator: str, worse: str) -> None:
    filler = ("y" * 9 + worse) * (WHOLE_CHARS_MAX // 9)
    head = filler[: CHUNK_CHARS_MIN + 50].rstrip() + separator
    assert chunk(head + filler)[0] == Chunk(0, len(head))


def test_an_endless_cluster_is_cut_all_the_same() -> None:
    assert len(chunk("e" + "\u0301" * 5_000)) >= 5


@pytest.mark.parametrize("piece", ["x", "word ", "\n", " ", ".", "\u0301", "Ann: yes. ", "。", "\r\n"])
def test_the_longest_text_has_a_bounded_number_of_chunks(piece: str) -> None:
    text = piece * (TEXT_BYTES_MAX // len(piece.encode()))
    assert len(chunk(text)) <= len(text) // CHUNK_CHARS_MIN + 1
