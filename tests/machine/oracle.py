"""What must be true, told by a dict: the log in its order, minus erased lives.

The oracle watches creates. The first object created under a log number is that number's batch for ever;
every tombstone is learned from the manifest that brought it. The state at a cut is then a fold over a dict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from context_plane.catalog.erasures import entity_hash
from context_plane.catalog.manifest import Manifest, Tombstone, decode
from context_plane.layout.batch import decode_body, decode_header
from context_plane.layout.keys import LogKey, ManifestKey, parse
from context_plane.model import Put, Write, event_digest, identity

DIGEST_CHARS = 32
"""Rows keep the first 16 bytes of an event's digest."""
Identity: TypeAlias = tuple[str, str, str]
State: TypeAlias = dict[Identity, str]
"""(entity, day, event id) -> event digest."""


@dataclass(slots=True)
class Oracle:
    batches: dict[int, tuple[str, list[Write]]] = field(default_factory=dict)
    """Log number -> (writer, writes), as first created."""
    numbers: dict[str, list[int]] = field(default_factory=dict)
    """Writer of a batch -> the numbers it was created under."""
    stones: dict[str, tuple[int, Tombstone]] = field(default_factory=dict)
    """Erasure -> (version that brought it, tombstone)."""
    erasure_key: str = ""
    newest_version: int = 0
    newest: Manifest | None = None
    acked: dict[str, int] = field(default_factory=dict)
    """Writer -> acknowledged number."""

    def created(self, key: str, data: bytes) -> None:
        typed = parse(key)
        if isinstance(typed, LogKey):
            header, offset = decode_header(data)
            self.numbers.setdefault(header.writer, []).append(typed.number)
            self.batches.setdefault(typed.number, (header.writer, decode_body(header, data[offset:])))
        elif isinstance(typed, ManifestKey) and typed.version > self.newest_version:
            manifest = decode(data)
            self.newest_version, self.newest = typed.version, manifest
            self.erasure_key = manifest.erasure_key
            for stone in manifest.tombstones:
                self.stones.setdefault(stone.erasure, (typed.version, stone))

    def acknowledge(self, writer: str, number: int) -> None:
        """An append returned: the batch must be the one of its number, and of no other."""
        self.acked[writer] = number
        assert self.numbers[writer] == [number], f"batch {writer} lies under {self.numbers[writer]}, acked {number}"
        assert self.batches[number][0] == writer, f"number {number} was used again by {writer}"

    @property
    def newest_acked(self) -> int:
        return max(self.acked.values(), default=0)

    def state(self, log_number: int, version: int) -> State:
        """What a read must see whose log ends at `log_number` and whose tombstones are those of `version`."""
        stones = [stone for brought, stone in self.stones.values() if brought <= version]
        events: State = {}
        for number in sorted(n for n in self.batches if n <= log_number):
            for write in self.batches[number][1]:
                if self._erased(stones, identity(write)[0], number):
                    continue
                if isinstance(write, Put):
                    events[identity(write)] = event_digest(write.event)[:DIGEST_CHARS]
                else:
                    events.pop(identity(write), None)
        return events

    def _erased(self, stones: Iterable[Tombstone], entity: str, number: int) -> bool:
        hashed = entity_hash(self.erasure_key, entity) if self.erasure_key else ""
        return any(stone.hash == hashed and number <= stone.log_number for stone in stones)
