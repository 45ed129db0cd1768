"""Retrieval quality on HERB: does the right event come up for an agent's question about one entity?

Every question is asked of its own product. A result is a ranking of events; nDCG@10 and hit@10 (is any of
the ten right) are averaged over the questions. Systems:

- `bm25s_default`, `bm25s_same_parameters`: an independent BM25 (bm25s, Lucene's formula, Snowball stemmer,
  its English stop words) over whole events, with its own parameters and with ours;
- `text`, `vector`, `hybrid`: the plane's legs and their fusion, with its defaults;
- `..._without_threads`: the same, short messages indexed without the message before them;
- `..._brute_force`: the same rows scored one by one (`benchmarks.brute_force`). `recall_at_10` of a leg is the share
  of these ten that it found.

Fusion weights sum to 1, both at least 0.2. For each fusion method they are chosen by nDCG@10 on five products
(case `tuning`) and judged on the other five (`held_out`); `weights` rows show the choices, `hybrid` is the
plane's own default, `hybrid_tuned_...` the choice of each method. `difference` rows compare two systems
question by question, with the standard error of the mean.

What is held out is this choice of weights and nothing else: relative scores became the default method after
reciprocal ranks lost to text alone on both halves, and every method's held-out figures had been seen by then.
Chunk lengths, the length of a short message, stop words, k1 and b were chosen with all ten products in view
(some 50 settings), so `text` has no unseen data here, and a later change that is picked for its `held_out`
figure ends what those figures are worth.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean, stdev
from typing import Any, Final, TypeAlias

import bm25s  # type: ignore[import-untyped]  # has neither stubs nor py.typed
from Stemmer import Stemmer  # type: ignore[import-not-found]  # an extension module without stubs

from benchmarks import herb
from benchmarks.brute_force import BruteForce
from benchmarks.corpus import Leg
from benchmarks.herb import Question
from benchmarks.scenario import Row, Skipped
from context_plane.embed.static import StaticEmbedder
from context_plane.index.analyzer import term_counts
from context_plane.index.blocks import build_block, row_vectors, rows_to_embed
from context_plane.index.bm25 import Bm25Settings
from context_plane.index.rows import F32
from context_plane.model import Event, Vector
from context_plane.retrieval.fuse import Fusion, FusionMethod
from context_plane.retrieval.rank import RankQuery, rank
from context_plane.retrieval.scope import Part

SUMMARY: Final = "nDCG@10 and hit@10 on HERB: text, vector and hybrid beside an independent BM25"
DEPTH: Final = 10
LEGS: Final[tuple[Leg, ...]] = ("text", "vector", "hybrid")
METHODS: Final[tuple[FusionMethod, ...]] = ("relative_score", "reciprocal_rank")
TEXT_WEIGHTS: Final = (0.5, 0.6, 0.7, 0.75, 0.8)
"""Candidates for tuning; the vector leg gets the rest."""

Rank: TypeAlias = Callable[[Question], Sequence[str]]
"""The seam: a question in, ids of at most ten events of its product out, best first."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Everything ranked: events by product, their parts with and without threads, the questions' vectors."""

    events: Mapping[str, Sequence[Event]]
    parts: Mapping[str, Sequence[Part]]
    parts_without_threads: Mapping[str, Sequence[Part]]
    vectors: Mapping[str, Vector]
    rows: Mapping[str, BruteForce]


def run(*, quick: bool, seed: int) -> list[Row]:
    """One row per case and system. Nothing here is random: `seed` changes nothing. `quick`: one product a side."""
    folder = herb.data_folder()
    if folder is None:
        raise Skipped("HERB is not here: set CONTEXT_PLANE_EVAL_DATA to the folder that holds herb/")
    names = herb.products(folder)
    half = len(names) // 2
    tuning, held_out = (names[:1], names[half : half + 1]) if quick else (names[:half], names[half:])
    asked = [question for question in herb.questions(folder) if question.product in {*tuning, *held_out}]
    events = {name: herb.events(folder, name) for name in (*tuning, *held_out)}
    corpus = asyncio.run(build(events, asked))
    cases = {
        "all": asked,
        "tuning": [question for question in asked if question.product in tuning],
        "held_out": [question for question in asked if question.product in held_out],
    }
    tuned: dict[FusionMethod, Fusion] = {}
    weight_rows: list[Row] = []
    for method in METHODS:
        tuned[method], rows_of_method = _tuned(corpus, cases["tuning"], method)
        weight_rows += rows_of_method
    systems = _systems(corpus, tuned)
    scored = {system: _scores(asked, ranking) for system, ranking in systems.items()}
    found: dict[str, dict[str, float]] = {
        leg: {"recall_at_10": _recall(asked, systems[leg], systems[f"{leg}_brute_force"])} for leg in LEGS
    }
    rows = [
        {"case": case, "system": system, **_means(scores, chosen), **(found.get(system, {}) if case == "all" else {})}
        for case, chosen in cases.items()
        for system, scores in scored.items()
    ]
    return rows + _differences(cases, scored) + weight_rows + _by_type(asked, scored)


# --- systems ------------------------------------------------------------------------------------


def _systems(corpus: Corpus, tuned: Mapping[FusionMethod, Fusion]) -> dict[str, Rank]:
    own = Bm25Settings().default
    return {
        "bm25s_default": bm25s_rank(corpus.events),
        "bm25s_same_parameters": bm25s_rank(corpus.events, k1=own.k1, b=own.b),
        "text_without_threads": plane_rank(corpus, Fusion(mode="text"), threads=False),
        "text": plane_rank(corpus, Fusion(mode="text")),
        "vector": plane_rank(corpus, Fusion(mode="vector")),
        "hybrid_without_threads": plane_rank(corpus, Fusion(), threads=False),
        "hybrid": plane_rank(corpus, Fusion()),
        **{f"{leg}_brute_force": brute_force_rank(corpus, leg) for leg in LEGS},
    } | {f"hybrid_tuned_{method}": plane_rank(corpus, fusion) for method, fusion in tuned.items()}


def plane_rank(corpus: Corpus, fusion: Fusion, *, threads: bool = True) -> Rank:
    """The plane's own ranking over the days of a product."""
    parts_of = corpus.parts if threads else corpus.parts_without_threads

    def ranked(question: Question) -> list[str]:
        parts = parts_of[question.product]
        query = RankQuery(
            terms=tuple(term_counts(question.text).items()),
            vector=corpus.vectors[question.text],
            limit=DEPTH,
            fusion=fusion,
        )
        return [parts[hit.part].rows.ids[hit.event] for hit in rank(parts, query)]

    return ranked


def brute_force_rank(corpus: Corpus, leg: Leg) -> Rank:
    """What a leg should find, or the default fusion of both."""

    def ranked(question: Question) -> list[str]:
        return corpus.rows[question.product].rank(question.text, corpus.vectors[question.text], leg, DEPTH)

    return ranked


def bm25s_rank(events: Mapping[str, Sequence[Event]], **parameters: float) -> Rank:
    """bm25s over whole events, one index a product; events without a common term are no result."""
    stemmer = Stemmer("english")

    def terms(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    indexes = {}
    for product, own in events.items():
        indexes[product] = bm25s.BM25(method="lucene", **parameters)
        indexes[product].index(terms([event.text or "" for event in own]), show_progress=False)

    def ranked(question: Question) -> list[str]:
        rows, scores = indexes[question.product].retrieve(terms([question.text]), k=DEPTH, show_progress=False)
        own = events[question.product]
        return [own[row].id for row, score in zip(rows[0], scores[0], strict=True) if score > 0]

    return ranked


async def build(events: Mapping[str, Sequence[Event]], asked: Iterable[Question]) -> Corpus:
    """Blocks per product and day, as builds make them, and the vectors of the questions."""
    embedder = StaticEmbedder()
    vectors = {question.text: await embedder.embed_query(question.text) for question in asked}
    parts: dict[str, list[Part]] = {}
    bare: dict[str, list[Part]] = {}
    rows: dict[str, BruteForce] = {}
    for product, own in events.items():
        parts[product], bare[product] = [], []
        days: list[tuple[list[Event], F32]] = []
        for day, group in groupby(own, key=lambda event: event.day):
            of_day = list(group)
            embedded = await embedder.embed_documents(rows_to_embed(of_day))
            matrix = row_vectors(of_day, embedded, embedder.dim)
            days.append((of_day, matrix))
            parts[product].append(Part.of(build_block(product, day, of_day, matrix)))
            unthreaded = [replace(event, thread=None) for event in of_day]
            bare[product].append(Part.of(build_block(product, day, unthreaded, matrix)))
        rows[product] = BruteForce.of(days)
    return Corpus(events, parts, bare, vectors, rows)


# --- measures -----------------------------------------------------------------------------------

Scores: TypeAlias = Mapping[Question, tuple[float, float]]
"""(nDCG@10, hit@10) by question."""


def ndcg(found: Sequence[str], relevant: frozenset[str]) -> float:
    """Normalized discounted cumulative gain of the first ten, binary relevance (Järvelin & Kekäläinen 2002)."""
    gain = sum(1 / math.log2(place + 2) for place, each in enumerate(found[:DEPTH]) if each in relevant)
    return gain / sum(1 / math.log2(place + 2) for place in range(min(DEPTH, len(relevant))))


def hit(found: Sequence[str], relevant: frozenset[str]) -> float:
    """1 when any of the first ten is relevant."""
    return float(any(each in relevant for each in found[:DEPTH]))


def _recall(asked: Sequence[Question], ranking: Rank, wanted: Rank) -> float:
    """Share of the ten that one ranking finds among those of another, over all questions."""
    pairs = [({*ranking(question)}, {*wanted(question)}) for question in asked]
    return round(sum(len(found & best) for found, best in pairs) / max(1, sum(len(best) for _, best in pairs)), 4)


def _scores(asked: Sequence[Question], ranking: Rank) -> Scores:
    result = {}
    for question in asked:
        found = ranking(question)
        result[question] = (ndcg(found, question.citations), hit(found, question.citations))
    return result


def _means(scores: Scores, chosen: Sequence[Question]) -> dict[str, Any]:
    pairs = [scores[question] for question in chosen]
    return {
        "ndcg_at_10": round(fmean(pair[0] for pair in pairs), 4),
        "hit_at_10": round(fmean(pair[1] for pair in pairs), 4),
        "questions": len(pairs),
    }


def _tuned(corpus: Corpus, asked: Sequence[Question], method: FusionMethod) -> tuple[Fusion, list[Row]]:
    """The candidate weights with the best nDCG@10 on the tuning products, and what each candidate reached."""
    rows: list[Row] = []
    best, best_score = Fusion(), -1.0
    for weight in TEXT_WEIGHTS:
        fusion = Fusion(method=method, weight_text=weight, weight_vector=round(1 - weight, 2))
        means = _means(_scores(asked, plane_rank(corpus, fusion)), asked)
        rows.append({"case": "weights", "system": f"{method}: text {weight}, vector {fusion.weight_vector}", **means})
        if means["ndcg_at_10"] > best_score:
            best, best_score = fusion, means["ndcg_at_10"]
    return best, rows


def _differences(cases: Mapping[str, Sequence[Question]], scored: Mapping[str, Scores]) -> list[Row]:
    """Mean of nDCG@10 of one system less that of another over the same questions, with its standard error."""
    rows: list[Row] = []
    for first, second in (
        ("text", "bm25s_same_parameters"),
        ("text", "text_without_threads"),
        ("hybrid", "text"),
        *((leg, f"{leg}_brute_force") for leg in LEGS),
        *((f"hybrid_tuned_{method}", "text") for method in METHODS),
    ):
        for case, chosen in cases.items():
            gains = [scored[first][question][0] - scored[second][question][0] for question in chosen]
            rows.append(
                {
                    "case": f"difference, {case}",
                    "system": f"{first} - {second}",
                    "ndcg_at_10": round(fmean(gains), 4),
                    "standard_error": round(stdev(gains) / math.sqrt(len(gains)), 4),
                    "questions": len(gains),
                }
            )
    return rows


def _by_type(asked: Sequence[Question], scored: Mapping[str, Scores]) -> list[Row]:
    types = Counter(question.type for question in asked)
    return [
        {"case": f"type {name}", "system": system, **_means(scored[system], [q for q in asked if q.type == name])}
        for name in sorted(types)
        for system in ("bm25s_same_parameters", "text", "vector", "hybrid")
    ]
