"""The nouns everything else speaks in: event, day, digests, and the limits of an event.

Pure values and pure functions; no I/O, no clock. Times are integers: microseconds since
1970-01-01T00:00:00Z (`ts_us`). A day is the string `YYYY-MM-DD` of the UTC day.
Canonical JSON is UTF-8, keys sorted by code point, no insignificant white space, shortest float
representation (in the manner of RFC 8785); digests are SHA-256 over canonical bytes.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from context_plane.errors import Invalid

AttrValue: TypeAlias = str | int | float | bool | list[str] | None
Vector: TypeAlias = NDArray[np.float32]

ENTITY_BYTES_MAX: Final = 256
"""An entity or event id becomes part of keys and of every row; longer ones are not ids."""
TEXT_BYTES_MAX: Final = 256 * 1024
"""Long enough for an hour's transcript; longer texts belong in several events."""
ATTRS_MAX: Final = 64
ATTR_BYTES_MAX: Final = 16 * 1024
"""Attributes of one event, canonical JSON: they travel with every hit."""
VECTOR_DIM_MAX: Final = 4096
NORM_MIN: Final = 1e-15
"""Of a vector whose squares are normal numbers of float32."""
INT_ABS_MAX: Final = 2**53 - 1
"""Integers beyond this do not survive JSON readers that use doubles (RFC 8259, section 6)."""
REQUESTS_PER_S_MAX: Final = 100_000.0
BYTES_PER_S_MAX: Final = 1e12
"""Of a key or a tenant. Rates beyond what a process can do are mistakes of unit."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DAY_US: Final = 86_400_000_000
_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Event:
    """One dated fact about one entity. Identity is (entity, UTC day of ts, id)."""

    entity: str
    ts_us: int
    id: str
    source: str
    kind: str
    thread: str | None = None
    text: str | None = None
    attrs: Mapping[str, AttrValue] | None = None
    vector: Vector | None = None

    @property
    def day(self) -> str:
        return day_of(self.ts_us)

    @property
    def order(self) -> tuple[int, str]:
        """Position within its entity: (ts, id). Ids compare by code point."""
        return (self.ts_us, self.id)


@dataclass(frozen=True, slots=True)
class Put:
    """A write: this event is now the truth of its identity."""

    event: Event


@dataclass(frozen=True, slots=True)
class Delete:
    """A write: the identity no longer exists. `ts_us` only names the day."""

    entity: str
    ts_us: int
    id: str

    @property
    def day(self) -> str:
        return day_of(self.ts_us)


Write: TypeAlias = Put | Delete


def identity(write: Write) -> tuple[str, str, str]:
    """(entity, day, event id) of a write."""
    target = write.event if isinstance(write, Put) else write
    return (target.entity, day_of(target.ts_us), target.id)


# --- time ---------------------------------------------------------------------------------------


def day_of(ts_us: int) -> str:
    """UTC day of a time, `YYYY-MM-DD`."""
    return (dt.date(1970, 1, 1) + dt.timedelta(days=ts_us // _DAY_US)).isoformat()


def day_start_us(day: str) -> int:
    """First microsecond of a UTC day. Raises `Invalid(query_invalid)` for a malformed day."""
    if not _DAY.fullmatch(day):
        raise Invalid("query_invalid", "a day reads YYYY-MM-DD", day=day)
    try:
        return (dt.date.fromisoformat(day) - dt.date(1970, 1, 1)).days * _DAY_US
    except ValueError as error:
        raise Invalid("query_invalid", "a day reads YYYY-MM-DD", day=day) from error


def day_end_us(day: str) -> int:
    """First microsecond after a UTC day."""
    return day_start_us(day) + _DAY_US


def add_days(day: str, count: int) -> str:
    return (dt.date.fromisoformat(day) + dt.timedelta(days=count)).isoformat()


def days_between(first: str, last: str) -> list[str]:
    """Every day from first to last, both included; empty when last precedes first."""
    start, stop = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    return [(start + dt.timedelta(days=n)).isoformat() for n in range((stop - start).days + 1)]


def parse_time(text: str) -> int:
    """RFC 3339 time with an offset -> microseconds since 1970 UTC; digits past the sixth are cut.

    Raises `Invalid(ts_invalid)`.
    """
    try:
        if len(text) < 20 or text[10] not in "Tt ":
            raise ValueError(text)
        moment = dt.datetime.fromisoformat(text.upper())
        if moment.tzinfo is None:
            raise ValueError(text)
        delta = moment - _EPOCH
    except (ValueError, OverflowError) as error:
        raise Invalid(
            "ts_invalid", "not an RFC 3339 time with an offset, such as 2026-03-04T09:15:00Z", ts=text[:64]
        ) from error
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def format_time(ts_us: int) -> str:
    """Microseconds since 1970 -> RFC 3339 in UTC with `Z`; six fraction digits, or none when zero."""
    moment = _EPOCH + dt.timedelta(microseconds=ts_us)
    return moment.isoformat().replace("+00:00", "Z")


def format_edge(day: str, edge: Callable[[str], int]) -> str:
    """`day_start_us` or `day_end_us` of a day, as `format_time` writes it. Raises `Invalid(query_invalid)`."""
    try:
        return format_time(edge(day))
    except OverflowError as error:
        raise Invalid("query_invalid", "no time is written after 9999-12-31; name an earlier day", day=day) from error


# --- canonical bytes ----------------------------------------------------------------------------


def canonical_json(value: Any) -> bytes:
    """The one byte sequence of a JSON value. Non-finite floats never reach here (checked at the edge)."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def event_record(event: Event) -> dict[str, Any]:
    """The stored form of an event; absent fields are left out. `vector` is base64 of little-endian float32."""
    record: dict[str, Any] = {
        "entity": event.entity,
        "ts": format_time(event.ts_us),
        "id": event.id,
        "source": event.source,
        "kind": event.kind,
    }
    if event.thread is not None:
        record["thread"] = event.thread
    if event.text is not None:
        record["text"] = event.text
    if event.attrs:
        record["attrs"] = dict(event.attrs)
    if event.vector is not None:
        record["vector"] = base64.b64encode(event.vector.astype("<f4").tobytes()).decode()
    return record


def event_from_record(record: Mapping[str, Any]) -> Event:
    """Inverse of `event_record`; trusts its input (it was validated before it was stored)."""
    packed = record.get("vector")
    return Event(
        entity=record["entity"],
        ts_us=parse_time(record["ts"]),
        id=record["id"],
        source=record["source"],
        kind=record["kind"],
        thread=record.get("thread"),
        text=record.get("text"),
        attrs=record.get("attrs"),
        vector=None if packed is None else np.frombuffer(base64.b64decode(packed), dtype="<f4"),
    )


def event_digest(event: Event) -> str:
    """SHA-256, hex, of the canonical JSON of the stored form: what citations name."""
    return sha256_hex(canonical_json(event_record(event)))


def text_digest(text: str) -> bytes:
    """First 16 bytes of SHA-256 of the text: the key under which a computed vector is reused."""
    return hashlib.sha256(text.encode()).digest()[:16]


# --- names --------------------------------------------------------------------------------------


def check_tenant(tenant: str) -> str:
    if not _TENANT.fullmatch(tenant):
        raise Invalid("tenant_invalid", "a tenant name is 1-63 of a-z 0-9 and -", tenant=tenant[:80])
    return tenant


def check_entity(entity: str) -> str:
    _check_name(entity, "entity_invalid", "an entity")
    return entity


def check_event_id(event_id: str) -> str:
    _check_name(event_id, "id_invalid", "an event id")
    return event_id


def check_each(field: str, values: Iterable[str], check: Callable[[str], object]) -> None:
    """Check each of a body's list; what is raised names the field and the index."""
    for n, value in enumerate(values):
        try:
            check(value)
        except Invalid as error:
            error.located(field, n)
            raise


def _check_name(name: str, code: str, what: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise Invalid(code, f"{what} is UTF-8; lone surrogates are not") from error
    if not 1 <= size <= ENTITY_BYTES_MAX:
        raise Invalid(code, f"{what} is 1-{ENTITY_BYTES_MAX} bytes of UTF-8", bytes=size)


def unit(vector: Sequence[float] | NDArray[np.floating[Any]]) -> Vector:
    """L2-normalized float32 copy; the zero vector stays zero."""
    array = np.asarray(vector, dtype=np.float32)
    with np.errstate(over="ignore"):
        norm = math.sqrt(array.dot(array))
    if NORM_MIN < norm < math.inf:
        return array / np.float32(norm)
    wide = array.astype(np.float64)  # components whose squares float32 does not hold, or not exactly
    norm = math.sqrt(wide.dot(wide))
    return (wide / (norm or 1.0)).astype(np.float32)
