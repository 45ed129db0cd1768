"""What a peer is: another engine that holds the same rows and answers the same questions.

A peer is a class with a NAME that opens its library in its constructor and raises `Absent` where that library
is not installed. It numbers rows by their place in the corpus and answers with those numbers, best first.
Nothing here times a question: whoever measures does. Building is timed by the peer itself, by stage, because
tuning and warming, which follow in the same call, belong to nobody's build.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import Corpus, Question, exact

Matrix: TypeAlias = NDArray[np.float32]
Setting: TypeAlias = str | int | float

RRF_K: Final = 60
"""Reciprocal rank fusion's constant (Cormack, Clarke, Büttcher 2009), and every documented example's."""
LEG_DEPTH: Final = 4
"""Rows each leg gives to fusion, in multiples of k: what pgvector's own hybrid example does (20 for 5)."""
RECALL_AIM: Final = 0.97
"""A peer is tuned to this recall@10, so that on questions not tuned with it keeps the 0.95 at which it counts."""
PROBES: Final = 100
"""Enough that one row more or less found moves the measured recall by a thousandth."""
PROBE_NOISE: Final = 0.5
"""Length of the step from a row to its probe: near the data, as questions are, yet not the row itself."""


class Absent(Exception):
    """The peer cannot run here; the message says what is missing."""


class Unsupported(Exception):
    """The peer has no ranked answer of this kind; the message says why."""


class Peer(Protocol):
    """`load` once, then any number of questions, then `close`. Answers: at most k row numbers, best first.

    A question's entities and [since_us, until_us) restrict the rows before the best k are taken.
    """

    NAME: ClassVar[str]

    @property
    def built(self) -> Built:
        """What the load took and which settings the peer runs with."""
        ...

    def load(self, folder: Path, corpus: Corpus, tuning: Sequence[Question] = ()) -> None:
        """Ingests rows, texts and vectors, builds every index, tunes, warms. `folder` is the peer's own.

        `tuning`: questions like those that will be asked, best not among them, by which an approximate search is
        widened; without them it is widened on probes near rows, which questions made of a few words are not.
        """
        ...

    def text(self, question: Question, k: int) -> list[int]: ...

    def vector(self, question: Question, k: int) -> list[int]: ...

    def hybrid(self, question: Question, k: int) -> list[int]: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Built:
    """Seconds of each stage of a load (`rows`, `text`, `vector`, `filters`), and the settings reported with results."""

    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Setting] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    @property
    def total_s(self) -> float:
        """Seconds from rows in memory to every index built, without tuning and warming."""
        return sum(self.seconds.values())


def library(name: str) -> Any:
    """An optional library; untyped, because types must check where it is not installed. Raises `Absent`."""
    try:
        return import_module(name)
    except ImportError as error:
        raise Absent(f"needs .[bench]: {error}") from error


def probes(vectors: Matrix) -> Matrix:
    """Unit vectors near rows drawn by a fixed seed: what a peer is tuned with. [min(PROBES, N), D] float32."""
    random = np.random.default_rng(0)
    rows = vectors[random.choice(len(vectors), min(PROBES, len(vectors)), replace=False)]
    step = random.standard_normal(rows.shape).astype(np.float32)
    near = rows + PROBE_NOISE * step / np.linalg.norm(step, axis=1, keepdims=True)
    unit: Matrix = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    return unit


def nearest(vectors: Matrix, query: Matrix, k: int) -> list[int]:
    """The k rows with the greatest inner product with `query`, exactly; ties by row number."""
    scores = vectors @ query
    return [int(row) for row in np.argsort(-scores, kind="stable")[:k]]


def recall(found: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> float:
    """Share of the wanted rows that were found, over all questions."""
    hits = sum(len(set(some) & set(all_)) for some, all_ in zip(found, wanted, strict=True))
    return hits / max(1, sum(map(len, wanted)))


def widened(
    search: Callable[[Question, int], list[int]], corpus: Corpus, tuning: Sequence[Question], start: int, end: int
) -> int:
    """The least of start, 2 start, 4 start ... below `end` with which `search(question, width)`, which finds ten
    rows, reaches `RECALL_AIM` within the questions' filters.

    `end` where none does: the results then say which recall the peer has.
    """
    asked = [question for question in tuning if question.vector is not None]
    asked = asked or [Question(text=None, vector=vector) for vector in probes(corpus.vectors)]
    wanted = exact(corpus, asked, leg="vector", k=10)
    width = start
    while width < end:
        if recall([search(question, width) for question in asked], wanted) >= RECALL_AIM:
            return width
        width *= 2
    return end


def query_vector(question: Question) -> Matrix:
    """The question's vector. Raises `Unsupported` where it has none: peers do not embed."""
    if question.vector is None:
        raise Unsupported("the question has no vector")
    return question.vector


def query_text(question: Question) -> str:
    """The question's text. Raises `Unsupported` where it has none."""
    if question.text is None:
        raise Unsupported("the question has no text")
    return question.text


def is_filtered(question: Question) -> bool:
    return question.entities is not None or question.since_us is not None or question.until_us is not None
