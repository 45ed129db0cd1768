"""Stores that benchmarks read: each corpus built once, in a folder that may outlive the run."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.corpus import Corpus
from benchmarks.service import build_store
from context_plane.index import analyzer, chunker, rows


@contextmanager
def bench_folder() -> Iterator[Path]:
    """Where stores are built: `CONTEXT_PLANE_BENCH_DIR` keeps them for the next run."""
    kept = os.environ.get("CONTEXT_PLANE_BENCH_DIR")
    if kept:
        folder = Path(kept).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="context-plane-") as name:
        yield Path(name)


def prepared(folder: Path, made: Corpus, *, seed: int) -> Path:
    """The store of a corpus, built where it is not there, or is of other formats or another shape."""
    home = folder / f"{made.name}-{len(made.events)}-{made.text}-{seed}"
    done, wanted = home / "built", f"{analyzer.ANALYZER} {chunker.CHUNKER} rows/{rows.FORMAT} {made.shape}"
    if not done.is_file() or done.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        asyncio.run(build_store((home / "store").as_uri(), home / "cache", made))
        done.write_text(wanted)
    return home / "store"
