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
from collections.abc import Callable
from pathlib import Path


class Folders:
    """Folders under `root`, by name, together at most `budget_bytes` as counted when one is added."""

    def __init__(self, root: Path, budget_bytes: int) -> None:
        self.root = root
        self.budget_bytes = budget_bytes
        self._lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, fill: Callable[[Path], None]) -> Path:
        """The folder of `name`; `fill` writes its files when it does not exist yet. Blocking."""
        target = self.root / hashlib.sha256(name.encode()).hexdigest()
        if target.exists():
            os.utime(target)
            return target
        scratch = Path(tempfile.mkdtemp(dir=self.root, prefix=".new-"))
        fill(scratch)
        try:
            scratch.rename(target)
        except OSError:
            shutil.rmtree(scratch, ignore_errors=True)  # another process was first
        with self._lock:
            self._evict(keep=target)
        return target

    def _evict(self, keep: Path) -> None:
        folders = sorted(
            (p for p in self.root.iterdir() if not p.name.startswith(".")), key=lambda p: p.stat().st_mtime
        )
        sizes = {folder: sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) for folder in folders}
        used = sum(sizes.values())
        for folder in folders:
            if used <= self.budget_bytes:
                break
            if folder != keep:
                shutil.rmtree(folder, ignore_errors=True)
                used -= sizes[folder]
