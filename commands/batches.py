"""From export files to requests: bounded batches of NDJSON, the same ones each time.

A batch never spans files and is cut by count and size alone, so loading a file again makes the same
requests under the same idempotency keys: nothing is written twice within their 24 hours.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson

from context_plane.model import Write, sha256_hex
from context_plane.sources.mapping import SourceMapping
from context_plane.sources.read import Reject, Row, read_events
from context_plane.wire import HORIZON_US, parse_event

EVENTS_MAX: Final = 10_000
BYTES_MAX: Final = 12 * 1024 * 1024
"""A request holds at most 16 MiB decoded; one event of the largest size more still fits."""

RejectGroup: TypeAlias = tuple[str, str, str]
"""(file, code, column or `-`)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One request. `rows`: rows of the file behind it, filtered ones included."""

    file: str
    number: int
    ndjson: bytes
    writes: tuple[Write, ...]
    rows: int

    def idempotency_key(self, *, visible: str, salt: str = "") -> str:
        """Of the file's place and content: what was changed is another request."""
        parts = f"{self.file}\n{self.number}\n{visible}\n{salt}\n{sha256_hex(self.ndjson)}"
        return f"ingest-{hashlib.sha256(parts.encode()).hexdigest()}"


@dataclass(slots=True)
class Tally:
    """What became of the rows so far. `groups`: rejects that look alike; `examples`: the first of each."""

    rows: int = 0
    events: int = 0
    rejects: int = 0
    days: set[str] = field(default_factory=set)
    groups: Counter[RejectGroup] = field(default_factory=Counter)
    examples: dict[RejectGroup, Reject] = field(default_factory=dict)

    def reject(self, reject: Reject) -> None:
        self.rejects += 1
        group = (reject.file, reject.code, reject.column or "-")
        self.groups[group] += 1
        self.examples.setdefault(group, reject)


def batches(
    mapping: SourceMapping | None,
    files: Sequence[Path],
    *,
    now_us: int,
    dim: int | None,
    rejects_max: int | None,
    horizon_us: int = HORIZON_US,
) -> Iterator[Batch | Reject]:
    """Batches and rejects of all files, in order. Blocking. Raises what `read_events` raises."""
    made = _Maker()
    parsed: list[Write] = []

    def validate(event: dict[str, Any]) -> None:
        parsed.append(parse_event(event, now_us=now_us, dim=dim, horizon_us=horizon_us))

    for outcome in read_events(mapping, files, validate=validate, rejects_max=rejects_max):
        accepted = list(parsed)
        parsed.clear()
        match outcome:
            case Row():
                yield from made.add(outcome, accepted)
            case Reject():
                yield outcome
    yield from made.rest()


class _Maker:
    def __init__(self) -> None:
        self._file = ""
        self._number = 0
        self._lines: list[bytes] = []
        self._writes: list[Write] = []
        self._bytes = 0
        self._rows = 0

    def add(self, row: Row, writes: Sequence[Write]) -> Iterator[Batch]:
        lines = [orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in row.events]
        size = sum(map(len, lines))
        full = len(self._lines) + len(lines) > EVENTS_MAX or self._bytes + size > BYTES_MAX
        if full or row.file != self._file:
            yield from self.rest()
        if row.file != self._file:
            self._file, self._number = row.file, 0
        self._lines += lines
        self._writes += writes
        self._bytes += size
        self._rows += 1

    def rest(self) -> Iterator[Batch]:
        if self._lines:
            yield Batch(self._file, self._number, b"".join(self._lines), tuple(self._writes), self._rows)
            self._number += 1
        self._lines, self._writes, self._bytes, self._rows = [], [], 0, 0


def row_count(path: Path) -> int:
    """Rows of a file, about: for a progress bar. Line breaks inside cells count."""
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)
    with path.open("rb") as stream:
        lines = sum(part.count(b"\n") for part in iter(lambda: stream.read(1 << 20), b""))
    return max(0, lines - (path.suffix.lower() == ".csv"))
