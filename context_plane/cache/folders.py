"""Unpacked shards: folders of files that libraries open by path, made once and shared by processes.

A folder appears by rename, complete. Past the budget the folders used longest ago are removed; an open
reader keeps its mapped files (POSIX), and a removed folder only costs unpacking it again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

SCRATCH_AGE_MAX_S: Final = 3600.0
"""A folder that was never finished is what a killed process left: nobody unpacks for an hour."""
_SCRATCH: Final = ".new-"


class Folders:
    """Folders under `root`, by name, together at most `budget_bytes` as counted when one is added."""

    def __init__(self, root: Path, budget_bytes: int) -> None:
        self.root = root
        self.budget_bytes = budget_bytes
        self._lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, fill: Callable[[Path], None]) -> Path:
        """The folder of `name`; `fill` writes its files when it does not exist yet. Blocking."""
        target = self._place(name)
        try:
            os.utime(target)
        except FileNotFoundError:
            pass
        else:
            return target
        scratch = Path(tempfile.mkdtemp(dir=self.root, prefix=_SCRATCH))
        try:
            fill(scratch)
            scratch.rename(target)
        except BaseException as error:
            shutil.rmtree(scratch, ignore_errors=True)
            if not (isinstance(error, OSError) and target.exists()):  # else another process was first
                raise
        with self._lock:
            self._evict(keep=target)
        return target

    def remove(self, name: str) -> None:
        """Forget a folder whose files do not open; the next `get` fills it again. Blocking."""
        shutil.rmtree(self._place(name), ignore_errors=True)

    def clear(self) -> None:
        """Forget every folder, other processes' too: those under construction go with them and are made again."""
        for folder in self.root.iterdir():
            shutil.rmtree(folder, ignore_errors=True)

    def _place(self, name: str) -> Path:
        return self.root / hashlib.sha256(name.encode()).hexdigest()

    def _evict(self, keep: Path) -> None:
        """Other processes may remove the same folders meanwhile: what is gone counts nothing."""
        found = sorted((_used(path) for path in self.root.iterdir()), key=lambda each: each[0])
        used = sum(size for _, size, _ in found)
        stale_s = time.time() - SCRATCH_AGE_MAX_S
        for used_s, size, folder in found:
            scratch = folder.name.startswith(_SCRATCH)
            if folder != keep and (used_s < stale_s if scratch else used > self.budget_bytes):
                shutil.rmtree(folder, ignore_errors=True)
                used -= size


def _used(folder: Path) -> tuple[float, int, Path]:
    """(last used, bytes, folder)."""
    try:
        sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
        return folder.stat().st_mtime, sum(sizes), folder
    except FileNotFoundError:
        return 0.0, 0, folder
