"""The disk tier: bytes of objects and ranges under immutable keys, in one folder several processes share.

A file is a 32-byte SHA-256 of its payload, then the payload; a file that does not match is deleted and
reported as absent. Files appear by rename, so a reader sees all of one or nothing. Recency is the
file's mtime; eviction deletes the oldest files below 90 % of the budget. A file is born UNPROVEN_AGE_S old and its
first hit makes it young: what a scan brings goes before what anybody read again. Nothing is coordinated: two
processes may write or delete the same entry, and losing an entry only costs a fetch.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from context_plane.store.base import Body

LOW_WATER: Final = 0.9
"""Eviction frees a tenth at a time, so that it runs seldom."""
SCANS_PER_BUDGET: Final = 16
"""The folder is counted again each time this process wrote a 16th of the budget: other processes write too."""
TOUCH_AFTER_S: Final = 60.0
"""Recency is refreshed at most once a minute per entry: a hit is then one read, no write."""
UNPROVEN_AGE_S: Final = 86_400.0
"""An entry that was never hit counts as one last used a day ago: the day's reads outlive any scan."""
TOUCH_PROVEN_EVERY_S: Final = 300.0
"""How often a process refreshes what its memory answers, and the disk therefore never hears of."""
_HASH_BYTES: Final = 32


class DiskCache:
    """`budget_bytes` bounds the folder, whoever fills it: each process may overshoot by a 16th of it."""

    def __init__(self, folder: Path, budget_bytes: int, *, now_s: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.budget_bytes = budget_bytes
        self.evictions = 0
        self.refused = 0
        self._now_s = now_s
        self._touched_s = -TOUCH_PROVEN_EVERY_S
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self.used_bytes = sum(size for _, size, _ in self._scan())
        self._written_bytes = 0

    def has(self, name: str) -> bool:
        """Whether there is an entry, damaged or not: one look at the folder, some microseconds."""
        return self._path(name).exists()

    def get(self, name: str) -> memoryview | None:
        """The payload, or None when absent or damaged. Blocking."""
        path = self._path(name)
        try:
            data = memoryview(path.read_bytes())
        except OSError:
            return None
        payload = data[_HASH_BYTES:]
        if hashlib.sha256(payload).digest() != data[:_HASH_BYTES]:
            path.unlink(missing_ok=True)
            return None
        self._touch(path)
        return payload

    def put(self, name: str, payload: Body) -> None:
        """Keep a payload; larger than a tenth of the budget is not kept. Blocking. A full disk is no error."""
        if len(payload) > self.budget_bytes // 10:
            self.refused += 1
            return
        path = self._path(name)
        temporary = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            path.parent.mkdir(exist_ok=True)
            with temporary.open("wb") as out:
                out.write(hashlib.sha256(payload).digest())
                out.write(payload)
            born_s = self._now_s() - UNPROVEN_AGE_S
            os.utime(temporary, (born_s, born_s))
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            return
        with self._lock:
            self.used_bytes += _HASH_BYTES + len(payload)
            self._written_bytes += _HASH_BYTES + len(payload)
            due = self._written_bytes * SCANS_PER_BUDGET > self.budget_bytes
            full = due or self.used_bytes > self.budget_bytes
        if full:
            self._evict()

    def touch_due(self) -> bool:
        """Whether the process should `touch` what it answers from memory. Asked once, true once in a while."""
        now_s = self._now_s()
        if now_s - self._touched_s < TOUCH_PROVEN_EVERY_S:
            return False
        self._touched_s = now_s
        return True

    def touch(self, names: Iterable[str]) -> None:
        """These were used now; what is not here counts nothing. Blocking."""
        for name in names:
            self._touch(self._path(name))

    def delete(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def clear(self) -> None:
        for path, _, _ in self._scan():
            path.unlink(missing_ok=True)
        with self._lock:
            self.used_bytes = 0

    def _evict(self) -> None:
        """Count the folder, and when it is over its budget delete the entries used longest ago."""
        with self._lock:
            self._written_bytes = 0
            entries = sorted(self._scan(), key=lambda entry: entry[2])
            used = sum(size for _, size, _ in entries)
            over = used > self.budget_bytes
            for path, size, _ in entries if over else ():
                if used <= self.budget_bytes * LOW_WATER:
                    break
                path.unlink(missing_ok=True)
                self.evictions += 1
                used -= size
            self.used_bytes = used

    def _scan(self) -> list[tuple[Path, int, float]]:
        found = []
        for path in self.folder.glob("??/*"):
            try:
                stat = path.stat()
            except OSError:
                continue
            found.append((path, stat.st_size, stat.st_mtime))
        return found

    def _touch(self, path: Path) -> None:
        now_s = self._now_s()
        try:
            if now_s - path.stat().st_mtime > TOUCH_AFTER_S:
                os.utime(path, (now_s, now_s))
        except OSError:
            return

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.folder / digest[:2] / digest[2:]
