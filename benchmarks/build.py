"""Build: 100,000 events of 384 dimensions over ten days become segments, three shards a day, and bundles.

Callers bring the vectors, so no side embeds. Events are written as a bulk load does (`visible=after_build`, in
batches) and built day by day in one process, over a local folder that syncs what it acknowledges. `build` is the
whole of it, as `context-plane build` runs it; the artefacts are then made once more, one by one from what the ones
before stored, as the scheduler's steps do, to say where the time goes. LanceDB ingests the same rows in memory and
builds its text, vector and filter indexes with the settings of its documentation; it makes no counterpart of entity
shards and bundles. Bundles are those of the last day under the shipped spec.

Memory is the peak of a child process less what it held before the build began (the corpus and the libraries); a
second corpus has ten times the entities and as many events.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from benchmarks.corpus import Corpus, corpus
from benchmarks.peers.base import Absent
from benchmarks.peers.lance import LanceDb
from benchmarks.scenario import REPOSITORY, Row
from context_plane.bundle.compiled import CompiledSpec, compile_spec
from context_plane.bundle.spec import Spec, query_texts
from context_plane.catalog.head import load_head
from context_plane.embed.given import GivenEmbedder
from context_plane.embed.open import MemoizedEmbedder
from context_plane.fold import fold_day
from context_plane.index.analyzer import ANALYZER
from context_plane.materialize import materialize_day
from context_plane.model import Event, Put
from context_plane.plane import Plane, assemble
from context_plane.publish import publish_staged
from context_plane.reindex import build_day, index_entities, index_fulltext, index_vectors
from context_plane.retrieval.evidence import Evidence
from context_plane.settings import Settings
from context_plane.staging import load_staged
from context_plane.store import CountingStore, open_store

SUMMARY: Final = "100k events to segments, shards and bundles beside LanceDB's indexes: events/s, peak memory"
BATCH_EVENTS: Final = 5_000
"""Events of one bulk request: what the command line's loads send."""
TENANT: Final = "bench"
SHAPES: Final = ("build", "build_entities")
CLEAR: Final = Path("/proc/self/clear_refs")
STATUS: Final = Path("/proc/self/status")
T = TypeVar("T")


def run(*, quick: bool, seed: int) -> list[Row]:
    """Rows of the whole build, of each artefact, of LanceDB, and of the memory with ten times the entities."""
    whole = {shape: _child("plane", shape, quick=quick, seed=seed) for shape in SHAPES}
    rows = [row for made in whole.values() for row in made]
    rows += _child("steps", "build", quick=quick, seed=seed)
    rows += [row for shape in SHAPES for row in _child("lancedb", shape, quick=quick, seed=seed)]
    few, many = (next(row for row in whole[shape] if row["case"].startswith("build")) for shape in SHAPES)
    ratio = round(many["peak_mb"] / max(1.0, few["peak_mb"]), 4)
    case = f"peak memory of {many['entities']:,} entities over {few['entities']:,}"
    return [*rows, {"case": case, "system": "context-plane", "ratio_of_peak": ratio}]


def _child(system: str, shape: str, *, quick: bool, seed: int) -> list[dict[str, Any]]:
    """Rows of one measurement, in a process of its own: its peak is nobody else's."""
    arguments = [system, shape, str(int(quick)), str(seed)]
    command = [sys.executable, "-m", "benchmarks.build", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True)
    rows: list[dict[str, Any]] = orjson.loads(done.stdout.splitlines()[-1])
    return rows


# --- in the child -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Clock:
    """Seconds and peak memory above the start, by name of what was done."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    base_mb: float = field(default_factory=lambda: _memory_mb("VmRSS:"))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        CLEAR.write_text("5")  # forgets the peak
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), _memory_mb("VmHWM:") - self.base_mb)

    async def timed(self, name: str, work: Awaitable[T]) -> T:
        with self.stage(name):
            return await work


def main(arguments: Sequence[str]) -> None:
    system, shape, quick, seed = arguments
    made, _ = corpus(shape, seed=int(seed), quick=bool(int(quick)), questions=1)
    with tempfile.TemporaryDirectory(prefix="context-plane-build-", ignore_cleanup_errors=True) as folder:
        rows = _lancedb(made, Path(folder)) if system == "lancedb" else asyncio.run(_plane(system, made, Path(folder)))
    sys.stdout.write(orjson.dumps([made.described | row for row in rows]).decode() + "\n")


async def _plane(system: str, made: Corpus, folder: Path) -> list[dict[str, Any]]:
    import lancedb  # noqa: F401  # loaded by either side before its clock starts

    store = CountingStore(open_store((folder / "store").as_uri()))
    embedder = MemoizedEmbedder(GivenEmbedder("bench", made.dim))
    plane = assemble(Settings(cache_dir=folder / "cache"), store, embedder)
    spec = _spec(plane, made)
    clock = _Clock()
    await clock.timed("ingest", _ingest(plane, made.events))
    await (_steps if system == "steps" else _whole)(plane, made.days, clock)
    await clock.timed("bundles", materialize_day(plane.engine, plane.reader, TENANT, spec, made.days[-1]))
    head = await load_head(store, TENANT)
    assert sum(entry.shards.events for entry in head.days.values() if entry.shards) == len(made.events)
    await store.aclose()
    written = {"puts": store.total.puts, "bytes_written": store.total.bytes_written}
    rows = [_row(made, f"artefact: {name}", name, clock) for name in clock.seconds]
    if system == "steps":
        return [row for row in rows if "ingest" not in row["case"] and "bundles" not in row["case"]]
    total = sum(clock.seconds.values())
    peak = max(clock.peak_mb.values())
    case = f"build: ingest, shards, bundles, {made.shape.entities:,} entities"
    shards_s = clock.seconds["ingest"] + clock.seconds["shards"]
    return [_result(made, case, total, peak) | {"without_bundles_s": round(shards_s, 3)} | written, *rows]


async def _ingest(plane: Plane, events: Sequence[Event]) -> None:
    for start in range(0, len(events), BATCH_EVENTS):
        writes = [Put(event) for event in events[start : start + BATCH_EVENTS]]
        await plane.write(TENANT, writes, body_bytes=BATCH_EVENTS * 4096, visible="after_build")


async def _whole(plane: Plane, days: Sequence[str], clock: _Clock) -> None:
    for day in days:
        await clock.timed("shards", build_day(plane.engine, TENANT, day))


async def _steps(plane: Plane, days: Sequence[str], clock: _Clock) -> None:
    for day in days:
        await clock.timed("fold", fold_day(plane.engine, TENANT, day))
        await clock.timed("vectors", index_vectors(plane.engine, tenant=TENANT, day=day))
        await clock.timed("entity shard", index_entities(plane.engine, tenant=TENANT, day=day))
        await clock.timed("full text", index_fulltext(plane.engine, tenant=TENANT, day=day))
        await clock.timed("publish", publish_staged(plane.engine, await load_staged(plane.engine.store, TENANT, day)))


def _spec(plane: Plane, made: Corpus) -> CompiledSpec:
    """The shipped spec; its evidence queries carry vectors of the corpus, since nothing embeds here."""
    spec: Spec = next(iter(plane.specs.values()))
    vectors = {text: made.vectors[n] for n, text in enumerate(query_texts(spec))}
    return compile_spec(spec, Evidence(), model=plane.engine.embedder.model, analyzer=ANALYZER, vectors=vectors)


def _lancedb(made: Corpus, folder: Path) -> list[dict[str, Any]]:
    """LanceDB's rows; one that says why, where it cannot run."""
    try:
        peer = LanceDb()
    except Absent as reason:
        return [{"case": "indexes", "system": LanceDb.NAME, "skipped": str(reason)}]
    clock = _Clock()
    with clock.stage("load"):
        peer.load(folder, made)
    seconds = peer.built.seconds
    peer.close()
    stages = [_result(made, f"artefact: {name}", took, None) for name, took in seconds.items()]
    whole = _result(made, "indexes: rows, text, vector, filters", sum(seconds.values()), clock.peak_mb["load"])
    return [row | {"system": LanceDb.NAME} for row in (whole, *stages)]


def _row(made: Corpus, case: str, name: str, clock: _Clock) -> dict[str, Any]:
    return _result(made, f"{case}, {made.shape.entities:,} entities", clock.seconds[name], clock.peak_mb[name])


def _result(made: Corpus, case: str, seconds: float, peak_mb: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"case": case, "system": "context-plane", "where": "in_process"}
    row |= {"seconds": round(seconds, 3), "events_per_s": round(len(made.events) / max(seconds, 1e-9), 1)}
    return row if peak_mb is None else row | {"peak_mb": round(peak_mb, 1)}


def _memory_mb(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
