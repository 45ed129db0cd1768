"""What a process's cache did since start, and what it holds now."""

from __future__ import annotations

from dataclasses import dataclass, field

from context_plane.cache.admission import Memory
from context_plane.cache.disk import DiskCache


@dataclass(slots=True)
class CacheStats:
    """Counts since start. Reads that join a fetch under way are misses of memory, and one read of what is below."""

    memory: Memory = field(repr=False)
    disk: DiskCache | None = field(repr=False)
    memory_hits: int = 0
    memory_misses: int = 0
    disk_hits: int = 0
    misses: int = 0
    """Reads that neither tier answered: fetched from the store."""
    bytes_fetched: int = 0
    prefetched: int = 0
    """Of `misses`: what was fetched ahead of any read that asked for it."""
    prefetched_bytes: int = 0

    @property
    def memory_bytes(self) -> int:
        return self.memory.used_bytes

    @property
    def memory_evictions(self) -> int:
        return self.memory.evictions

    @property
    def memory_refused(self) -> int:
        return self.memory.refused

    @property
    def pinned_bytes(self) -> int:
        return self.memory.pinned_bytes

    @property
    def disk_bytes(self) -> int:
        """In the shared folder, as this process last counted it."""
        return self.disk.used_bytes if self.disk else 0

    @property
    def disk_evictions(self) -> int:
        """By this process; others evict from the same folder."""
        return self.disk.evictions if self.disk else 0

    @property
    def disk_refused(self) -> int:
        return self.disk.refused if self.disk else 0

    @property
    def memory_hit_ratio(self) -> float:
        """0 to 1; 0 before the first read."""
        return self.memory_hits / max(1, self.memory_hits + self.memory_misses)

    @property
    def disk_hit_ratio(self) -> float:
        """Of what memory did not answer."""
        return self.disk_hits / max(1, self.disk_hits + self.misses)
