"""What is searched and what is asked: seeded events, vectors and questions of each shape, and their exact answers.

An event is one index row: its text fits one chunk and it belongs to no thread. Texts are HERB's, cut at chunks
(`text: herb`), else sentences of the demo's grammar (`demo`); a shape with more events than there are pieces
joins sentences of them at random, as long as the pieces are. Events are spread evenly at random over entities
and days; event n has the id `e{n:07d}` and they ascend by time. The default model's vectors are the texts' own;
those of another dimension are clustered unit vectors, and a question's lies near one event's.

A question is one of HERB's own, or four to nine consecutive words of a random event; no two are equal.
Rolled shapes lie in closed months whose days are merged, the others are as many day shards as days.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks import herb
from benchmarks.texts import Source, joined, pieces_of
from context_plane.embed.static import StaticEmbedder
from context_plane.index.analyzer import term_counts
from context_plane.index.bm25 import Bm25Settings
from context_plane.index.rows import F32
from context_plane.model import Event, Vector, add_days, day_start_us, unit
from context_plane.retrieval.fuse import WEIGHT_TEXT, WEIGHT_VECTOR

Leg: TypeAlias = Literal["text", "vector", "hybrid"]
Mask: TypeAlias = NDArray[np.bool_]
Scores: TypeAlias = NDArray[np.float64]
"""[events]; minus infinity where an event is out of scope or not found."""
FIRST_DAY: Final = "2025-03-01"
DAY_US: Final = 86_400_000_000
QUESTIONS: Final = 2_000
QUICK_QUESTIONS: Final = 200
QUICK_SHARE: Final = 10
"""A quick corpus has a tenth of the events and of the entities."""
QUICK_EVENTS_MAX: Final = 5_000
QUICK_DAYS_MAX: Final = 5
"""Most of the time of building a small day is fixed."""
CLUSTER_EVENTS: Final = 50
NOISE: Final = 0.8
"""Length of the noise beside a unit centre: members of a cluster have a cosine of about 0.6."""
COSINE_QUESTIONS: Final = 16
"""Questions multiplied with the vectors of a tenant at once."""
TIE: Final = 1e-5
"""Scores that differ by less are equal: of one text, added up in another order."""
QUERY_NOISE: Final = 0.5
"""Beside the event asked about: a cosine of about 0.9."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`dim` None: the default model embeds the texts. `scope`: entities a question names, 0 for the whole tenant;
    `window_days`: length of its time range, 0 for none. `rolled`: closed months are merged."""

    events: int
    entities: int
    days: int
    dim: int | None = None
    first_day: str = FIRST_DAY
    scope: int = 0
    window_days: int = 0
    rolled: bool = False


SHAPES: Final[dict[str, Shape]] = {
    "vector_warm": Shape(10_000, 200, 30, dim=64),
    "text_warm": Shape(10_000, 200, 30),
    "hybrid_warm": Shape(10_000, 200, 30),
    "vector_100k": Shape(100_000, 1_000, 31, dim=100, rolled=True),
    "hybrid_filters": Shape(100_000, 1_000, 31, dim=384, scope=500, window_days=10, rolled=True),
    "hybrid_cold": Shape(10_000, 200, 30, scope=1),
    "bundle_warm": Shape(10_000, 1_000, 30),
    "entity_cold_1": Shape(1_000, 200, 1, scope=1),
    "entity_cold_30": Shape(10_000, 200, 30, scope=1),
    "entity_cold_365": Shape(20_000, 50, 365, first_day="2025-01-01", scope=1, rolled=True),
    "tenant_cold": Shape(300_000, 1_000, 30),
    "build": Shape(100_000, 1_000, 10, dim=384),
    "build_entities": Shape(100_000, 10_000, 10, dim=384),
    "fleet": Shape(60_000, 10_050, 1, dim=64),
    "tenant_1m": Shape(1_000_000, 2_000, 31, dim=384, rolled=True),
}


@dataclass(frozen=True, slots=True)
class Corpus:
    """`vectors`: float32 [len(events), dim], unit rows in event order. Events carry theirs where `given`."""

    name: str
    events: list[Event]
    vectors: F32
    dim: int
    text: Source
    given: bool
    shape: Shape

    @property
    def days(self) -> list[str]:
        return sorted({event.day for event in self.events})

    @property
    def described(self) -> dict[str, str | int]:
        """What a result row says of it."""
        layout = "closed months, rolled up" if self.shape.rolled else "day shards"
        entities = len({event.entity for event in self.events})
        sizes = {"events": len(self.events), "dim": self.dim, "entities": entities, "days": len(self.days)}
        return {**sizes, "layout": layout, "text": self.text}


@dataclass(frozen=True, slots=True)
class Question:
    """`vector`: float32 [dim], unit length. The window is since_us <= ts < until_us."""

    text: str | None
    vector: Vector | None
    entities: tuple[str, ...] | None = None
    since_us: int | None = None
    until_us: int | None = None


def index_of(event_id: str) -> int:
    """Place in `Corpus.events` of an event found."""
    return int(event_id[1:])


def corpus(shape: str, *, seed: int, quick: bool, questions: int | None = None) -> tuple[Corpus, list[Question]]:
    """Same arguments and the same data beside the repository: the same events and questions.

    `questions`: how many, when not the usual number. Not to be called inside an event loop.
    """
    wanted = _quick(SHAPES[shape]) if quick else SHAPES[shape]
    rng = Random(f"{seed}:{shape}")
    pieces, source = pieces_of(seed)
    rng.shuffle(pieces)
    texts = pieces[: wanted.events]
    texts += itertools.islice(joined(rng, pieces), wanted.events - len(texts))
    vectors = asyncio.run(StaticEmbedder().embed_documents(texts)) if wanted.dim is None else None
    if vectors is None:
        assert wanted.dim is not None
        vectors = _clustered(np.random.default_rng(seed), wanted.events, wanted.dim)
    given = wanted.dim is not None
    events = _events(rng, wanted, texts, vectors if given else None)
    made = Corpus(shape, events, vectors, vectors.shape[1], source, given, wanted)
    return made, _questions(rng, seed, made, questions or (QUICK_QUESTIONS if quick else QUESTIONS))


def _quick(shape: Shape) -> Shape:
    events = min(QUICK_EVENTS_MAX, shape.events // QUICK_SHARE)
    entities, days = max(2, shape.entities // QUICK_SHARE), min(shape.days, QUICK_DAYS_MAX)
    scope = shape.scope if shape.scope <= 1 else entities // 2
    return Shape(events, entities, days, shape.dim, shape.first_day, scope, shape.window_days, shape.rolled)


# --- events, vectors, questions -----------------------------------------------------------------


@cache
def _entities(count: int) -> tuple[str, ...]:
    """Made once: questions name hundreds of them each."""
    return tuple(f"acct-{n:04d}" for n in range(count))


def _events(rng: Random, shape: Shape, texts: Sequence[str], vectors: F32 | None) -> list[Event]:
    first_us, kinds, names = (
        day_start_us(shape.first_day),
        ("message", "document", "ticket", "call"),
        _entities(shape.entities),
    )
    times = sorted(first_us + rng.randrange(shape.days * DAY_US) for _ in texts)
    return [
        Event(
            entity=names[rng.randrange(shape.entities)],
            ts_us=ts_us,
            id=f"e{n:07d}",
            source=rng.choice(("slack", "crm", "zendesk")),
            kind=rng.choice(kinds),
            text=text,
            attrs={"priority": rng.choice(("low", "normal", "high")), "seats": rng.randrange(500)},
            vector=None if vectors is None else vectors[n],
        )
        for n, (ts_us, text) in enumerate(zip(times, texts, strict=True))
    ]


def _clustered(rng: np.random.Generator, count: int, dim: int) -> F32:
    """float32 [count, dim] unit rows around `count / CLUSTER_EVENTS` centres."""
    centres = _unit_rows(rng.standard_normal((max(1, count // CLUSTER_EVENTS), dim), np.float32))
    noise = rng.standard_normal((count, dim), np.float32) * np.float32(NOISE / dim**0.5)
    return _unit_rows(centres[rng.integers(len(centres), size=count)] + noise)


def _unit_rows(rows: F32) -> F32:
    made: F32 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made


def _questions(rng: Random, seed: int, corpus: Corpus, count: int) -> list[Question]:
    folder = herb.data_folder()
    own = [] if folder is None else [question.text for question in herb.questions(folder)][: count // 4]
    asked = {text: rng.randrange(len(corpus.events)) for text in own}
    while len(asked) < count:
        n = rng.randrange(len(corpus.events))
        words = (corpus.events[n].text or "").split()
        length = rng.randint(4, 9)
        start = rng.randrange(max(1, len(words) - length + 1))
        asked.setdefault(" ".join(words[start : start + length]), n)
    texts = list(asked)
    rng.shuffle(texts)
    vectors = _query_vectors(np.random.default_rng([seed, 1]), corpus, texts, [asked[text] for text in texts])
    return [
        Question(text, vector, *_scope(rng, corpus, corpus.events[asked[text]]))
        for text, vector in zip(texts, vectors, strict=True)
    ]


def _query_vectors(rng: np.random.Generator, corpus: Corpus, texts: Sequence[str], about: Sequence[int]) -> F32:
    if not corpus.given:
        return asyncio.run(StaticEmbedder().embed_documents(texts))
    noise = rng.standard_normal((len(about), corpus.dim), np.float32) * np.float32(QUERY_NOISE / corpus.dim**0.5)
    return np.stack([unit(row) for row in corpus.vectors[list(about)] + noise])


def _scope(rng: Random, corpus: Corpus, event: Event) -> tuple[tuple[str, ...] | None, int | None, int | None]:
    """(entities, since, until) of a question about an event: the event lies in it."""
    shape, entities, since_us, until_us = corpus.shape, None, None, None
    if shape.scope:
        names = rng.sample(_entities(shape.entities), shape.scope)
        if event.entity not in names:
            names[0] = event.entity
        entities = tuple(sorted(names))
    if shape.window_days:
        days = min(shape.window_days, max(1, shape.days // 2))
        latest = shape.days - days
        of_event = (event.ts_us - day_start_us(shape.first_day)) // DAY_US
        start = rng.randint(max(0, of_event - days + 1), min(latest, of_event))
        since_us = day_start_us(add_days(shape.first_day, start))
        until_us = since_us + days * DAY_US
    return entities, since_us, until_us


# --- exact answers ------------------------------------------------------------------------------


def exact(
    corpus: Corpus, questions: Sequence[Question], *, leg: Leg, k: int = 10, tied: bool = False
) -> list[list[int]]:
    """The best `k` events of each question by brute force over the events in its scope, best first.

    Text is BM25 with the product's analyzer and parameters and the scope's statistics, vectors are float32
    cosines; hybrid adds each leg's scores relative to its best, as the product fuses by default. Ties: newest first.
    `tied`: and all that score as the last of them does, and are as right: texts repeat among so many events.
    """
    search = _Exact(corpus, questions if leg != "vector" else ())
    found = []
    for start in range(0, len(questions), COSINE_QUESTIONS):
        block = questions[start : start + COSINE_QUESTIONS]
        vectors = [_asked(question) if leg != "text" else None for question in block]
        whole = [v for v, question in zip(vectors, block, strict=True) if v is not None and question.entities is None]
        columns = iter((corpus.vectors @ np.stack(whole, axis=1)).T if whole else ())
        for question, asked in zip(block, vectors, strict=True):
            scope = search.scope(question)
            text = search.text(question, scope) if leg != "vector" else _nothing(scope)
            vector = _nothing(scope)
            if asked is not None:
                vector[scope] = next(columns)[scope] if question.entities is None else corpus.vectors[scope] @ asked
            found.append(
                _top(_fused(text, vector) if leg == "hybrid" else text if leg == "text" else vector, k, tied=tied)
            )
    return found


def _asked(question: Question) -> Vector:
    assert question.vector is not None, "the leg needs a vector"
    return question.vector


def _nothing(scope: Mask) -> Scores:
    return np.full(len(scope), -np.inf)


def _fused(text: Scores, vector: Scores) -> Scores:
    """Weighted shares of each leg's best, added over every event that a leg has found."""
    fused = np.where(np.isfinite(text) | np.isfinite(vector), 0.0, -np.inf)
    for scores, weight in ((text, WEIGHT_TEXT), (vector, WEIGHT_VECTOR)):
        best = scores.max(initial=0.0)
        if best > 0:
            fused += weight * np.maximum(scores, 0) / best
    return fused


class _Exact:
    """Postings of the terms that are asked for, and what a scope is cut by."""

    def __init__(self, corpus: Corpus, questions: Iterable[Question]) -> None:
        self._corpus = corpus
        names = sorted({event.entity for event in corpus.events})
        self._code = {name: n for n, name in enumerate(names)}
        self._entity = np.array([self._code[event.entity] for event in corpus.events], np.int32)
        self._ts_us = np.array([event.ts_us for event in corpus.events], np.int64)
        wanted = {term for question in questions for term in term_counts(question.text or "")}
        held: dict[str, list[tuple[int, int]]] = {term: [] for term in wanted}
        self._lengths = np.zeros(len(corpus.events), np.float64)
        for n, event in enumerate(corpus.events if wanted else ()):
            counts = term_counts(event.text or "")
            self._lengths[n] = sum(counts.values())
            for term in counts.keys() & wanted:
                held[term].append((n, counts[term]))
        self._postings = {term: np.array(found, np.int64).reshape(-1, 2) for term, found in held.items()}

    def scope(self, question: Question) -> Mask:
        mask = np.ones(len(self._entity), np.bool_)
        if question.entities is not None:
            wanted = np.zeros(len(self._code), np.bool_)
            wanted[[self._code[name] for name in question.entities if name in self._code]] = True
            mask &= wanted[self._entity]
        if question.since_us is not None and question.until_us is not None:
            mask &= (self._ts_us >= question.since_us) & (self._ts_us < question.until_us)
        return mask

    def text(self, question: Question, scope: Mask) -> Scores:
        params, lengths = Bm25Settings().default, self._lengths[scope]
        rows, mean = np.count_nonzero(lengths), lengths.sum() / max(1, np.count_nonzero(lengths))
        scores = np.zeros(len(scope))
        for term, count in term_counts(question.text or "").items():
            row, tf = self._postings[term].T
            row, tf = row[scope[row]], tf[scope[row]]
            idf = np.log1p((rows - len(row) + 0.5) / (len(row) + 0.5))
            norm = params.k1 * (1 - params.b + params.b * self._lengths[row] / mean) if len(row) else 1.0
            scores[row] += count * idf * tf / (tf + norm)
        return np.where(scores > 0, scores, -np.inf)


def _top(scores: Scores, k: int, *, tied: bool = False) -> list[int]:
    """Places of the best `k` finite scores, best first; of equal ones the latest, as events ascend by time. `tied`:
    and those within `TIE` of the last."""
    if k < len(scores):
        rows = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k] - TIE * tied)
    else:
        rows = np.arange(len(scores))
    rows = rows[np.isfinite(scores[rows])]
    return [int(n) for n in rows[np.lexsort((-rows, -scores[rows].astype(np.float32)))][: None if tied else k]]
