"""Planes over one store, as several processes would hold them, and a plain memory of what was written."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from context_plane.embed.open import MemoizedEmbedder
from context_plane.engine import Engine
from context_plane.ingest import Accepted
from context_plane.layout.batch import Visible
from context_plane.model import Delete, Event, Put, Write, add_days, day_start_us
from context_plane.plane import Plane, assemble
from context_plane.recall.values import SearchAnswer, SearchRequest, TimelineAnswer, TimelineRequest
from context_plane.settings import Settings
from context_plane.store import CountingStore, Store
from context_plane.store.faults import FaultyStore, Mishap, Operation
from tests.retrieval.world import DIM, embed

TENANT = "acme"
DAY = "2026-03-01"
SPEC = {
    "name": "law_v0",
    "version": 0,
    "description": "What the laws are tested with.",
    "budget_tokens": 120,
    "sections": [
        {
            "kind": "evidence",
            "name": "evidence",
            "title": "Evidence",
            "priority": 1,
            "share": 0.5,
            "lookback_days": 7,
            "query": "export fails",
            "limit": 3,
        },
        {"kind": "recent", "name": "recent", "title": "Recent", "priority": 2, "share": 0.5, "lookback_days": 7},
    ],
}


class MadeEmbedder:
    """Each distinct text has its own random unit vector; counts what it was asked for."""

    model = "made"
    dim = DIM

    def __init__(self) -> None:
        self.embedded = 0
        self.queries = 0

    async def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded += len(texts)
        return await asyncio.to_thread(embed, texts)

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        self.queries += 1
        return np.array(embed([text])[0])


@dataclass(slots=True)
class Faults:
    """What the store does to requests, switched while a test runs. First match wins."""

    rules: list[tuple[frozenset[Operation], str, Mishap, list[int]]] = field(default_factory=list)
    delay_s: float = 0.0

    def __call__(self, operation: Operation, key: str) -> Mishap | None:
        for operations, part, mishap, left in self.rules:
            if operation in operations and part in key and left[0] > 0:
                left[0] -= 1
                return mishap
        return Mishap(self.delay_s) if self.delay_s else None

    @contextmanager
    def on(self, part: str, mishap: Mishap, *operations: Operation, times: int = 1 << 30) -> Iterator[None]:
        """Requests of `operations` (default: reads) whose key contains `part` meet `mishap`."""
        chosen: frozenset[Operation] = frozenset(operations or ("get", "get_range", "get_ranges"))
        rule = (chosen, part, mishap, [times])
        self.rules.append(rule)
        try:
            yield
        finally:
            self.rules.remove(rule)


@dataclass(slots=True)
class Clock:
    """A wall and a monotonic clock that move when told to."""

    now_us: int = day_start_us("2026-04-01")

    def advance(self, seconds: float) -> None:
        self.now_us += int(seconds * 1_000_000)


@dataclass(slots=True)
class World:
    """One tenant's store, and everything written to it."""

    inner: Store
    folder: Path
    faults: Faults = field(default_factory=Faults)
    clock: Clock | None = None
    embedder: MadeEmbedder = field(default_factory=MadeEmbedder)
    truth: dict[tuple[str, str, str], Event] = field(default_factory=dict)
    _caches: Iterator[int] = field(default_factory=itertools.count)

    def plane(self, *, cache: Path | None = None, **settings: Any) -> Plane:
        """A process of its own: nothing cached, unless `cache` is a folder another plane filled."""
        specs = self.folder / "specs"
        specs.mkdir(parents=True, exist_ok=True)
        (specs / "law_v0.yaml").write_text(yaml.safe_dump(SPEC))
        cache = cache or self.folder / f"cache-{next(self._caches)}"
        settings = {"cache_dir": cache, "cache_disk_bytes": 1 << 28, "specs_dir": specs, **settings}
        store = CountingStore(FaultyStore(self.inner, self.faults))
        embedder = MemoizedEmbedder(self.embedder)
        engine = Engine(store, embedder)
        if self.clock is not None:
            clock = self.clock
            engine = replace(engine, now_us=lambda: clock.now_us, monotonic_s=lambda: clock.now_us / 1e6)
        return assemble(Settings(**settings), store, embedder, engine)

    async def write(self, plane: Plane, writes: Iterable[Write], *, visible: Visible = "now") -> Accepted:
        """Write, and remember what now holds."""
        writes = list(writes)
        accepted = await plane.write(TENANT, writes, body_bytes=1000, visible=visible)
        for write in writes:
            if isinstance(write, Put):
                self.truth[write.event.entity, write.event.day, write.event.id] = write.event
            else:
                self.truth.pop((write.entity, write.day, write.id), None)
        return accepted

    def events(self) -> list[Event]:
        return list(self.truth.values())

    def days(self) -> list[str]:
        return sorted({event.day for event in self.truth.values()})


def event(n: int, *, entity: str = "acct-01", day: str = DAY, text: str | None = None, **more: Any) -> Event:
    """A distinct event; every one holds the word `beacon`, so that one query finds them all."""
    ts_us = more.pop("ts_us", day_start_us(day) + (n % 86_000) * 1_000_000)
    attrs = more.pop("attrs", {"n": n})
    words = f"beacon number{n} " + ["export fails", "invoice question", "renewal talk"][n % 3]
    return Event(
        entity, ts_us, more.pop("id", f"e{n}"), more.pop("source", "zendesk"), more.pop("kind", "ticket"),
        text=words if text is None else text, attrs=attrs, **more,
    )  # fmt: skip


def puts(events: Iterable[Event]) -> list[Write]:
    return [Put(each) for each in events]


def delete_of(event: Event) -> Delete:
    return Delete(event.entity, event.ts_us, event.id)


def month_of(days: int, *, entities: int = 1, per_day: int = 1) -> list[Event]:
    """Events over consecutive days, each entity on each."""
    return [
        event(n, entity=f"acct-{e:02}", day=add_days(DAY, d))
        for n, (d, e, _) in enumerate(itertools.product(range(days), range(entities), range(per_day)))
    ]


BEACON = SearchRequest(text="beacon", mode="text", limit=1000, deadline_ms=20_000)


async def ids(plane: Plane, request: SearchRequest = BEACON, **more: Any) -> list[str]:
    """Sorted ids of everything the request finds, repeats kept."""
    answer = await plane.search(TENANT, replace(request, **more))
    assert not answer.partial
    return sorted(hit.id for hit in answer.hits)


def fingerprint(answer: SearchAnswer | TimelineAnswer) -> list[tuple[Any, ...]]:
    """Everything of an answer's events except the keys of objects, whose nonces differ between builds."""
    found = answer.hits if isinstance(answer, SearchAnswer) else answer.events
    return [
        (e.entity, e.id, e.ts_us, e.source, e.kind, e.text, repr(e.attrs), e.score, e.text_rank, e.vector_rank,
         e.text_score, e.vector_score, e.citation.line, e.citation.chars, e.citation.digest)
        for e in found
    ]  # fmt: skip


async def timeline(plane: Plane, entity: str, **more: Any) -> TimelineAnswer:
    return await plane.timeline(TENANT, TimelineRequest(entity, limit=1000, **more))
