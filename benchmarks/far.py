"""A corpus built into a SeaweedFS, and a proxy that makes it far.

Stores are built once, straight into SeaweedFS, and kept in `CONTEXT_PLANE_BENCH_DIR` (default: a folder of the
system's temporary one) under the digest of the code that decides their bytes: another code builds anew. One
process uses a kept store at a time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest.mock import patch

from benchmarks.corpus import Corpus, Question, corpus
from benchmarks.proxy import Proxy, proxy
from benchmarks.scenario import REPOSITORY
from benchmarks.service import TENANT, build_store, embedder_of
from context_plane import plane
from context_plane.settings import Settings
from tests.store.servers import Server, seaweedfs

PREFIX: Final = "cold"
OPEN_MONTHS: Final = 1
"""The newest months of a year stay day shards, as the running month always is."""
BUNDLE_DAYS: Final = 7
SPEC: Final = "customer_context_v0"
FORMATS: Final = (
    "context_plane/layout/*.py",
    "context_plane/index/rows.py",
    "context_plane/index/*_shard.py",
    "context_plane/index/blocks.py",
    "context_plane/index/chunker.py",
    "context_plane/index/analyzer.py",
    "context_plane/catalog/manifest.py",
    "specs/*.yaml",
    "benchmarks/corpus.py",
)
"""What decides a store's bytes."""


@dataclass(frozen=True, slots=True)
class World:
    """A built store behind a proxy. `url` is the same for both; the environment says through which."""

    corpus: Corpus
    questions: Sequence[Question]
    server: Server
    far: Proxy
    folder: Path

    @property
    def url(self) -> str:
        return self.server.url(PREFIX)

    @property
    def environment(self) -> dict[str, str]:
        """Of the processes that read through the proxy."""
        return self.server.environment | {"AWS_ENDPOINT_URL": self.far.endpoint}


@contextmanager
def world(
    shape: str, *, seed: int, quick: bool, bundles: bool = False, open_months: int = OPEN_MONTHS
) -> Iterator[World]:
    """The shape's store, built where it is not kept, behind a proxy that has no stalls yet.

    Of a shape that is rolled up, the newest `open_months` stay day shards.
    """
    made, questions = corpus(shape, seed=seed, quick=quick)
    name = f"{shape}{'-bundles' if bundles else ''}{'-quick' if quick else ''}-{seed}"
    with ExitStack() as stack:
        folder = stack.enter_context(_kept(name, f"{_format()}-{made.text}"))
        server = stack.enter_context(seaweedfs(folder))
        stack.enter_context(patch.dict(os.environ, server.environment))  # what builds in this process reads it
        done = folder / "built.json"
        if not done.exists():
            started_s = time.monotonic()
            asyncio.run(_build(server.url(PREFIX), folder / "cache", made, bundles, open_months))
            shutil.rmtree(folder / "cache", ignore_errors=True)
            done.write_text(json.dumps({"build_s": round(time.monotonic() - started_s, 1)}))
        far = stack.enter_context(proxy(server.endpoint, seed=seed))
        caches = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="context-plane-")))
        yield World(made, questions, server, far, caches)


@contextmanager
def _kept(name: str, version: str) -> Iterator[Path]:
    """The folder of a kept store: nobody else's meanwhile, and empty unless it was finished under this version."""
    default = Path(tempfile.gettempdir()) / "context-plane-bench"
    root = Path(os.environ.get("CONTEXT_PLANE_BENCH_DIR", default))
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = root / f"{name}-{version}"
        for other in root.glob(f"{name}-*"):
            finished = (other / "built.json").exists()
            if other.is_dir() and not (other == folder and finished):
                shutil.rmtree(other)
        yield folder


def _format() -> str:
    digest = hashlib.sha256()
    for path in sorted(path for pattern in FORMATS for path in REPOSITORY.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


async def _build(url: str, cache: Path, made: Corpus, bundles: bool, open_months: int) -> None:
    """Days, then what is merged of them: every month but the newest ones; then bundles."""
    days_only = dataclasses.replace(made, shape=dataclasses.replace(made.shape, rolled=False))
    await build_store(url, cache, days_only)
    days = made.days
    months = sorted({day[:7] for day in days})
    async with plane.open(
        Settings(store=url, cache_dir=cache, embedder=embedder_of(made)), probe_store=False
    ) as opened:
        if made.shape.rolled:
            for month in months[: len(months) - open_months]:
                await opened.roll_up(TENANT, month)
        if bundles:
            for day in days[-BUNDLE_DAYS:]:
                await opened.materialize(TENANT, SPEC, day)
