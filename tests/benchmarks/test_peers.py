"""Every peer answers what it was asked: near rows, within the filter, with the word; else its figures say nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.corpus import SHAPES, Corpus, Question, exact
from benchmarks.peers import PEERS, Absent, Peer, Unsupported, open_peer, open_peers
from benchmarks.peers.base import Matrix, nearest, probes, recall, widened
from context_plane.model import Event

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of other engines' libraries, not ours to mend
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ROWS, DIM, ENTITIES = 500, 32, 20
HOUR_US = 3_600_000_000
WORDS = ("invoice", "renewal", "outage", "shipment", "pricing", "contract", "escalation", "training")


def small() -> Corpus:
    """500 rows of 20 entities, an hour apart; row 321 alone speaks of a zeppelin."""
    random = np.random.default_rng(7)
    vectors: Matrix = random.standard_normal((ROWS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [" ".join(WORDS[place] for place in random.integers(0, len(WORDS), 12)) for _ in range(ROWS)]
    texts[321] += " zeppelin"
    events = [
        Event(entity=f"o'acct {n % ENTITIES}", ts_us=n * HOUR_US, id=f"e{n:07d}", source="crm", kind="note", text=text)
        for n, text in enumerate(texts)
    ]
    return Corpus("small", events, vectors, DIM, "demo", True, SHAPES["vector_warm"])


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return small()


@pytest.fixture(scope="module", params=sorted(PEERS))
def peer(request: pytest.FixtureRequest, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    try:
        opened = open_peer(request.param)
    except Absent as reason:
        pytest.skip(str(reason))
    try:
        opened.load(tmp_path_factory.mktemp(request.param), corpus)
        yield opened
    finally:
        opened.close()


def test_vectors_rank_as_brute_force(peer: Peer, corpus: Corpus) -> None:
    """Seen to fail with the sign of a peer's distance turned."""
    queries = probes(corpus.vectors)
    wanted = [nearest(corpus.vectors, query, 10) for query in queries]
    assert recall([peer.vector(Question(None, query), 10) for query in queries], wanted) >= 0.95


def test_only_rows_within_the_filter_are_found(peer: Peer, corpus: Corpus) -> None:
    """Every leg, a full answer; vectors those of brute force over the rows that pass."""
    entities, since_us, until_us = ("o'acct 3", "o'acct 7", "nobody"), 100 * HOUR_US, 400 * HOUR_US
    allowed = [
        n for n, event in enumerate(corpus.events) if event.entity in entities and since_us <= event.ts_us < until_us
    ]
    assert len(allowed) == 30
    for query in probes(corpus.vectors)[:10]:
        question = Question("invoice renewal outage", query, entities, since_us, until_us)
        exact = [allowed[place] for place in nearest(corpus.vectors[allowed], query, 10)]
        assert recall([peer.vector(question, 10)], [exact]) >= 0.9
        for answer in (peer.text, peer.hybrid):
            try:
                found = answer(question, 10)
            except Unsupported:
                assert peer.NAME == "chroma"
                continue
            assert len(found) == len(set(found)) == 10
            assert set(found) <= set(allowed)


def test_a_range_of_times_alone_filters(peer: Peer, corpus: Corpus) -> None:
    """Seen to fail for DuckDB with its vector index, and for Qdrant with no scan of what a filter leaves: both then
    filter what they have found, and too few rows come back."""
    question = Question(None, corpus.vectors[0], None, 490 * HOUR_US, None)
    assert set(peer.vector(question, 10)) == set(range(490, 500))
    question = Question(None, corpus.vectors[0], None, None, 10 * HOUR_US)
    assert set(peer.vector(question, 10)) == set(range(10))


def test_a_rare_word_is_found_first(peer: Peer, corpus: Corpus) -> None:
    """Among rows that hold the question's other words; and punctuation is no operator of a query language."""
    question = Question("zeppelin invoice?", corpus.vectors[321])
    try:
        assert peer.text(question, 10)[0] == 321
        assert peer.hybrid(question, 10)[0] == 321
        assert peer.text(Question('who\'s "zeppelin" (AND -not: it*)?', None), 1) == [321]
    except Unsupported:
        assert peer.NAME == "chroma"


def test_a_build_is_timed_by_stage(peer: Peer) -> None:
    assert peer.built.total_s == sum(peer.built.seconds.values()) > 0
    assert peer.built.settings


def test_who_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is left out silently."""

    def missing(name: str) -> object:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr("benchmarks.peers.base.import_module", missing)
    opened = open_peers()
    assert [entry[0] for entry in opened if isinstance(entry, tuple)] == list(PEERS)
    assert all("needs .[bench]" in entry[1] for entry in opened if isinstance(entry, tuple))
    with pytest.raises(KeyError):
        open_peers(["nobody"])


def test_a_search_is_widened_until_it_finds() -> None:
    """The least width that reaches the aim, on the questions given or else on probes; the end where none does."""
    corpus = small()
    asked: list[int] = []

    def search(question: Question, width: int) -> list[int]:
        asked.append(width)
        return exact(corpus, [question], leg="vector")[0][: width // 4]

    tuning = [Question(None, corpus.vectors[0], ("o'acct 1",)), Question("words alone", None)]
    assert widened(search, corpus, tuning, 10, 1000) == 40
    assert asked == [10, 20, 40]
    assert widened(search, corpus, (), 10, 1000) == 40
    assert widened(lambda question, width: [], corpus, (), 10, 100) == 100
