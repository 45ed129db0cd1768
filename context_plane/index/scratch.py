"""Scratch folders for libraries that read and write by path (tantivy, Lance)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty local folder, removed afterwards.

    tantivy's watcher thread may create a lock file in the folder while it is being removed. That must cost a stray
    file in the system's temporary folder, not the build that had its answer already.
    """
    with tempfile.TemporaryDirectory(prefix="context-plane-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
