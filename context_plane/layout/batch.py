"""Log batches: what one ingest append made durable. Two zstd frames in one object. Format 1.

Frame 1 is the header, one JSON line, small enough that a bounded range read of the object shows
which days the batch touches; frame 2 holds the writes, one JSON line each: a canonical event, or
`{"op": "delete", "entity", "ts", "id"}`. Concatenated frames are one valid `.jsonl.zst` (RFC 8878).
`after_build` batches stay out of the searched tail. `writer` tells a lost response from a lost race.
`origins` (absent where there are none) are the audit of the writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

import orjson
import zstandard

from context_plane.errors import Corrupt, Invalid
from context_plane.layout.compression import compress, decompress
from context_plane.model import (
    Delete,
    Put,
    Write,
    canonical_json,
    day_of,
    day_start_us,
    event_from_record,
    event_record,
    format_time,
    identity,
    parse_time,
)

FORMAT: Final = 1
HEADER_READ_BYTES: Final = 64 * 1024
"""The first range read of a batch: most batches are wholly inside it, every header is, or `encode` refuses it."""
HEADER_BYTES_MAX: Final = 4 * 1024 * 1024
BATCH_RAW_BYTES_MAX: Final = 64 * 1024 * 1024
"""Uncompressed writes of one object. The largest request is below 48 MiB: vectors of one-digit numbers grow by 8/3."""
DAY_US: Final = 86_400_000_000

Visible: TypeAlias = Literal["now", "after_build"]


@dataclass(frozen=True, slots=True)
class WriteLine:
    """A write as stored: `line` is the event's line, which is also its line in a segment; None for a delete."""

    entity: str
    ts_us: int
    id: str
    line: bytes | None


@dataclass(frozen=True, slots=True)
class Origin:
    """A request that a batch holds the writes of: who sent it, a digest of its id, and counts. Nothing of an event.

    `writes` counts its deletes too."""

    actor: str
    request: str | None
    writes: int
    deletes: int


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """`days`: UTC day -> number of writes. `body_bytes`, `raw_bytes`: second frame, compressed and not.

    `requests`: hashes of the idempotency keys of the joined requests, so that a retry after a crash can
    find out that its first attempt was written.
    """

    writer: str
    created_us: int
    visible: Visible
    days: Mapping[str, int]
    writes: int
    body_bytes: int
    raw_bytes: int
    requests: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()

    @property
    def redacted(self) -> bool:
        """Emptied by an erasure; no append writes an empty batch."""
        return self.writes == 0


def lines_of(writes: Sequence[Write]) -> bytes:
    """The writes as a batch holds them, uncompressed: a line each."""
    return b"\n".join(canonical_json(_record(write)) for write in writes) + b"\n"


def encode(
    writes: Sequence[Write],
    *,
    writer: str,
    created_us: int,
    visible: Visible,
    requests: Sequence[str] = (),
    origins: Sequence[Origin] = (),
    lines: Sequence[bytes] = (),
) -> bytes:
    """At least one write. `lines`: what `lines_of` made of them, in their order, where it did so before.

    Raises `Invalid(body_too_large)` past `BATCH_RAW_BYTES_MAX` uncompressed, and where the writes lie on more days than
    a header of `HEADER_READ_BYTES` can name."""
    days: dict[str, int] = {}
    for write in writes:
        day = identity(write)[1]
        days[day] = days.get(day, 0) + 1
    raw = b"".join(lines) if lines else lines_of(writes)
    if len(raw) > BATCH_RAW_BYTES_MAX:
        detail = "the writes are more than a batch of the log holds; write them in several requests"
        raise Invalid("body_too_large", detail, bytes=len(raw), limit_bytes=BATCH_RAW_BYTES_MAX)
    body = compress(raw)
    header = {
        "format": FORMAT,
        "writer": writer,
        "created_us": created_us,
        "visible": visible,
        "days": days,
        "writes": len(writes),
        "body_bytes": len(body),
        "raw_bytes": len(raw),
        "requests": list(requests),
    }
    head = compress(canonical_json(header | _shown(origins)) + b"\n")
    if len(head) > HEADER_READ_BYTES:
        detail = "the writes lie on more days than the header of a batch can name; write them in several requests"
        raise Invalid("body_too_large", detail, days=len(days))
    return head + body


def redact(header: BatchHeader) -> bytes:
    """An empty batch under the same writer: what an erasure leaves of a built one, so its number stays taken
    a lost response or a retried request is still recognized, and who wrote is still told."""
    body = compress(b"")
    fields = {
        "format": FORMAT,
        "writer": header.writer,
        "created_us": header.created_us,
        "visible": header.visible,
        "days": {},
        "writes": 0,
        "body_bytes": len(body),
        "raw_bytes": 0,
        "requests": list(header.requests),
    }
    return compress(canonical_json(fields | _shown(header.origins)) + b"\n") + body


def _shown(origins: Sequence[Origin]) -> dict[str, Any]:
    return {"origins": [asdict(origin) for origin in origins]} if origins else {}


def decode_header(data: bytes) -> tuple[BatchHeader, int]:
    """Header from the object's first bytes, and the offset of the body. Raises `Corrupt`."""
    worker = zstandard.ZstdDecompressor().decompressobj()
    try:
        if not 0 <= zstandard.frame_content_size(data) <= HEADER_BYTES_MAX:
            raise Corrupt("corrupt_object", "a log header declares more than its limit", limit=HEADER_BYTES_MAX)
        raw = worker.decompress(data)
        if not worker.eof or len(raw) > HEADER_BYTES_MAX:
            raise Corrupt("corrupt_object", "a log header is truncated or over its limit", bytes=len(raw))
        fields = orjson.loads(raw)
    except (zstandard.ZstdError, orjson.JSONDecodeError) as error:
        raise Corrupt("corrupt_object", f"a log header does not decode: {error}") from error
    if fields.pop("format", None) != FORMAT:
        raise Corrupt("format_unknown", "a log batch of an unknown format")
    fields["requests"] = tuple(fields["requests"])
    fields["origins"] = tuple(Origin(**each) for each in fields.get("origins", ()))
    return BatchHeader(**fields), len(data) - len(worker.unused_data)


def decode_body(header: BatchHeader, body: bytes, *, day: str | None = None) -> list[Write]:
    """The writes in order; with `day`, those of that day alone, at a fraction of the cost of all."""
    lines = _lines(body) if day is None else _lines_of_day(body, day)
    writes = [_write(orjson.loads(line)) for line in lines]
    if day is not None:
        writes = [write for write in writes if identity(write)[1] == day]
    _check_count(header, day, len(writes))
    return writes


def decode_names(header: BatchHeader, body: bytes) -> list[tuple[str, str]]:
    """(entity, day) of each write, in order."""
    records = [orjson.loads(line) for line in _lines(body)]
    _check_count(header, None, len(records))
    return [(record["entity"], day_of(parse_time(record["ts"]))) for record in records]


def decode_lines(header: BatchHeader, body: bytes, *, day: str) -> list[WriteLine]:
    """The day's writes in order, for whoever moves them without looking inside: no vector is decoded."""
    first_us = day_start_us(day)
    stop_us = first_us + DAY_US
    found = []
    for line in _lines_of_day(body, day):
        record = orjson.loads(line)
        ts_us = parse_time(record["ts"])
        if first_us <= ts_us < stop_us:
            kept = None if record.get("op") == "delete" else line
            found.append(WriteLine(record["entity"], ts_us, record["id"], kept))
    _check_count(header, day, len(found))
    return found


def _lines(body: bytes) -> list[bytes]:
    return [line for line in decompress(body, size_max=BATCH_RAW_BYTES_MAX).split(b"\n") if line]


def _lines_of_day(body: bytes, day: str) -> list[bytes]:
    """Stored times are in UTC, so every line of the day holds these bytes; what else holds them, the caller drops."""
    mark = f'"ts":"{day}'.encode()
    return [line for line in _lines(body) if mark in line]


def _check_count(header: BatchHeader, day: str | None, found: int) -> None:
    if found != (header.writes if day is None else header.days.get(day, 0)):
        raise Corrupt("corrupt_object", "a log batch has another number of lines than its header says")


def _record(write: Write) -> dict[str, Any]:
    if isinstance(write, Put):
        return event_record(write.event)
    return {"op": "delete", "entity": write.entity, "ts": format_time(write.ts_us), "id": write.id}


def _write(record: dict[str, Any]) -> Write:
    if record.get("op") == "delete":
        return Delete(record["entity"], parse_time(record["ts"]), record["id"])
    return Put(event_from_record(record))
