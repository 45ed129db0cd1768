"""BM25: parity with brute force and with `bm25s`, and independence from how rows are stored."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import bm25s  # type: ignore[import-untyped]  # has neither stubs nor py.typed
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from context_plane.index.bm25 import Bm25Params, Bm25Settings, Postings, ScopeStatistics, bm25_rows

Document = list[str]
DOCUMENTS = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=30), min_size=1, max_size=25)
QUERIES = st.lists(st.sampled_from("abcdefghz"), min_size=1, max_size=6).map(lambda terms: list(Counter(terms).items()))


def bm25_scores(query: Any, postings: Postings, lengths: Any, k1: Any, b: Any, stats: ScopeStatistics) -> Any:
    """Scores of every row, zero where no query term occurs."""
    dense = np.zeros(len(lengths), np.float32)
    rows, scores = bm25_rows(query, postings, lengths, k1, b, stats)
    dense[rows] = scores
    return dense


def index_of(documents: Sequence[Document]) -> tuple[Postings, NDArray[np.float32], ScopeStatistics]:
    """Postings, lengths and statistics of documents given as terms."""
    rows: dict[str, list[int]] = {}
    counts: dict[str, list[int]] = {}
    for row, document in enumerate(documents):
        for term, count in Counter(document).items():
            rows.setdefault(term, []).append(row)
            counts.setdefault(term, []).append(count)
    arrays = {term: (np.array(rows[term], np.int32), np.array(counts[term], np.uint16)) for term in rows}
    lengths = np.array([len(document) for document in documents], dtype=np.float32)
    df = {term: len(found) for term, found in rows.items()}
    return arrays.get, lengths, ScopeStatistics(len(documents), sum(map(len, documents)), df)


def brute_force(documents: Sequence[Document], query: Sequence[tuple[str, int]], k1: float, b: float) -> list[float]:
    """The formula, document by document, from the documents themselves."""
    mean = sum(map(len, documents)) / len(documents) or 1.0
    scores = []
    for document in documents:
        score = 0.0
        for term, count in query:
            df = sum(term in other for other in documents)
            tf = document.count(term)
            idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
            score += count * idf * tf / (tf + k1 * (1 - b + b * len(document) / mean)) if tf else 0.0
        scores.append(score)
    return scores


@given(DOCUMENTS, QUERIES, st.floats(0, 3), st.floats(0, 1))
def test_equals_brute_force(documents: list[Document], query: list[tuple[str, int]], k1: float, b: float) -> None:
    postings, lengths, stats = index_of(documents)
    scores = bm25_scores(query, postings, lengths, k1, b, stats)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, brute_force(documents, query, k1, b), rtol=1e-6)


@settings(deadline=None, max_examples=40)
@given(DOCUMENTS.filter(lambda documents: all(documents)), QUERIES)
def test_equals_bm25s_on_the_same_terms(documents: list[Document], query: list[tuple[str, int]]) -> None:
    """An independent implementation; it leaves out terms it has never seen, and so do we."""
    postings, lengths, stats = index_of(documents)
    reference = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    reference.index(documents, show_progress=False)
    terms = [term for term, count in query for _ in range(count) if term in stats.df]
    expected = reference.get_scores(terms) if terms else np.zeros(len(documents))
    np.testing.assert_allclose(bm25_scores(query, postings, lengths, 0.9, 0.4, stats), expected, rtol=1e-5, atol=1e-6)


@given(DOCUMENTS, QUERIES, st.data())
def test_scores_do_not_depend_on_the_split_of_rows(
    documents: list[Document], query: list[tuple[str, int]], data: st.DataObject
) -> None:
    """One index over all rows equals many shards under merged statistics, bit for bit.

    Seen to fail when each shard is scored with its own statistics.
    """
    postings, lengths, stats = index_of(documents)
    whole = bm25_scores(query, postings, lengths, 0.9, 0.4, stats)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(documents)), max_size=3)))
    bounds = zip([0, *cuts], [*cuts, len(documents)], strict=True)
    shards = [index_of(documents[start:stop]) for start, stop in bounds]
    merged = ScopeStatistics.merge(shard_stats for _, _, shard_stats in shards)
    assert merged == stats
    parts = [bm25_scores(query, found, size, 0.9, 0.4, merged) for found, size, _ in shards]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_statistics_add_in_any_grouping(a: list[Document], b: list[Document], c: list[Document]) -> None:
    x, y, z = (index_of(documents)[2] for documents in (a, b, c))
    assert (x + y) + z == x + (y + z) == ScopeStatistics.merge([z, x, y]) == index_of(a + b + c)[2]


def test_rows_of_several_kinds_keep_their_parameters() -> None:
    documents = [["a", "b"], ["a"] * 5, ["b", "c", "a"]]
    settings_by_kind = Bm25Settings(by_kind={"article": Bm25Params(1.5, 0.75)})
    kinds = ["chat", "article", "chat"]
    postings, lengths, stats = index_of(documents)
    mixed = bm25_scores([("a", 1)], postings, lengths, *settings_by_kind.arrays(kinds), stats)
    for row, kind in enumerate(kinds):
        params = settings_by_kind.of(kind)
        alone = bm25_scores([("a", 1)], postings, lengths, params.k1, params.b, stats)
        assert mixed[row] == alone[row]
    assert settings_by_kind.of("article") != settings_by_kind.of("chat")


def test_an_empty_scope_scores_nothing() -> None:
    stats = ScopeStatistics.merge([])
    assert bm25_scores([("a", 1)], lambda term: None, np.zeros(0, np.float32), 0.9, 0.4, stats).shape == (0,)
    assert not bm25_scores([("a", 1)], lambda term: None, np.zeros(3, np.float32), 0.9, 0.4, stats).any()
