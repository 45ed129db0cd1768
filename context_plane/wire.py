"""The event as it arrives: validation of JSON objects into writes. Pure; the edge of the engine.

`parse_event` accepts exactly the event of the HTTP contract and raises `Invalid` with a stable code and where in the
event it is; `parse_ndjson` and `parse_objects` add where in the body (line or JSON pointer) and stop at FAULTS_MAX
faults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import islice
from typing import Any, Final

import numpy as np
import orjson

from context_plane.errors import Fault, Invalid, pointer
from context_plane.model import (
    ATTR_BYTES_MAX,
    ATTRS_MAX,
    INT_ABS_MAX,
    TEXT_BYTES_MAX,
    VECTOR_DIM_MAX,
    AttrValue,
    Delete,
    Event,
    Put,
    Vector,
    Write,
    canonical_json,
    check_entity,
    check_event_id,
    event_record,
    parse_time,
    sha256_hex,
)

HORIZON_US: Final = 2 * 86_400_000_000
"""Events may lie two days ahead of now: as far as the daily partitions reach."""
FAULTS_MAX: Final = 20
"""Enough to see a pattern; the whole request is refused anyway."""
NAME_BYTES_MAX: Final = 128
"""`source`, `kind`, attribute names."""
THREAD_BYTES_MAX: Final = 256

_FIELDS: Final = frozenset({"id", "entity", "ts", "source", "kind", "thread", "text", "attrs", "vector", "op"})
_FIELD_OF: Final = {"entity_invalid": "entity", "id_invalid": "id", "ts_invalid": "ts"}
"""Of the codes that `model` raises, which knows of no field."""


def parse_event(obj: object, *, now_us: int, dim: int | None = None, horizon_us: int = HORIZON_US) -> Write:
    """One JSON object -> a write. `dim`: required length of a caller-supplied vector, when known.

    Raises `Invalid` with the first defect found; the detail says which field and what to do.
    """
    if not isinstance(obj, Mapping):
        raise Invalid("malformed_event", "an event is a JSON object", got=type(obj).__name__)
    unknown = obj.keys() - _FIELDS
    if unknown:
        name = min(unknown)
        raise Invalid("malformed_event", "unknown field; put it into attrs", field=name).located(name)
    entity = check_entity(_string(obj, "entity"))
    ts_us = _ts(obj, now_us, horizon_us)
    op = obj.get("op", "put")
    if op not in ("put", "delete"):
        raise Invalid("malformed_event", "op is put or delete", field="op", got=op).located("op")
    if op == "delete":
        return Delete(entity, ts_us, check_event_id(_string(obj, "id")))
    event = Event(
        entity=entity,
        ts_us=ts_us,
        id="",
        source=_string(obj, "source", bytes_max=NAME_BYTES_MAX),
        kind=_string(obj, "kind", bytes_max=NAME_BYTES_MAX),
        thread=_optional(obj, "thread", THREAD_BYTES_MAX, "malformed_event"),
        text=_optional(obj, "text", TEXT_BYTES_MAX, "text_too_long"),
        attrs=_attrs(obj.get("attrs")),
        vector=_vector(obj.get("vector"), dim),
    )
    given = obj.get("id")
    event_id = _default_id(event) if given is None else check_event_id(_string(obj, "id"))
    return Put(_with_id(event, event_id))


def parse_delete(obj: object, *, now_us: int, horizon_us: int = HORIZON_US) -> Delete:
    """`{"entity", "ts", "id"}` -> a delete. Raises `Invalid`."""
    if not isinstance(obj, Mapping) or obj.keys() - {"entity", "ts", "id"}:
        raise Invalid("malformed_event", "a delete is an object of entity, ts and id")
    entity = check_entity(_string(obj, "entity"))
    return Delete(entity, _ts(obj, now_us, horizon_us), check_event_id(_string(obj, "id")))


def parse_ndjson(
    body: bytes, *, now_us: int, events_max: int, dim: int | None = None, horizon_us: int = HORIZON_US
) -> list[Write]:
    """Newline-delimited JSON -> writes; blank lines are skipped. All or nothing: raises `Invalid` with faults."""
    lines = list(islice(((n, line) for n, line in enumerate(BytesIO(body), start=1) if line.strip()), events_max + 1))
    _check_count(len(lines), events_max)
    writes: list[Write] = []
    faults: list[Fault] = []
    for number, line in lines:
        try:
            writes.append(parse_event(_loads(line), now_us=now_us, dim=dim, horizon_us=horizon_us))
        except Invalid as error:
            faults.append(Fault(error.code, error.detail, line=number))
            if len(faults) == FAULTS_MAX:
                break
    _raise(faults)
    return writes


def parse_objects(
    objects: Sequence[object],
    *,
    now_us: int,
    events_max: int,
    dim: int | None = None,
    horizon_us: int = HORIZON_US,
    deletes: bool = False,
) -> list[Write]:
    """The JSON form `{"events": [...]}`, already decoded -> writes. Raises `Invalid` with JSON pointers."""
    _check_count(len(objects), events_max)
    writes: list[Write] = []
    faults: list[Fault] = []
    for index, obj in enumerate(objects):
        try:
            if deletes:
                writes.append(parse_delete(obj, now_us=now_us, horizon_us=horizon_us))
            else:
                writes.append(parse_event(obj, now_us=now_us, dim=dim, horizon_us=horizon_us))
        except Invalid as error:
            faults.append(Fault(error.code, error.detail, pointer=pointer("events", index) + _within(error)))
            if len(faults) == FAULTS_MAX:
                break
    _raise(faults)
    return writes


def event_json(event: Event, *, vector: bool = False) -> dict[str, Any]:
    """The event as the API returns it (timelines, exports): every field, absent ones as null."""
    record = event_record(event)
    packed = record.pop("vector", None)
    shown = {"thread": None, "text": None, "attrs": {}} | record
    if vector:
        shown["vector"] = None if packed is None or event.vector is None else [float(x) for x in event.vector]
    return shown


def export_line(event: Event) -> bytes:
    """The event as a line of an export, which reads back as the same event."""
    return orjson.dumps(event_json(event, vector=event.vector is not None), option=orjson.OPT_APPEND_NEWLINE)


def _default_id(event: Event) -> str:
    record = event_record(event)
    del record["id"]
    return sha256_hex(canonical_json(record))[:32]


def _with_id(event: Event, event_id: str) -> Event:
    return Event(
        event.entity,
        event.ts_us,
        event_id,
        event.source,
        event.kind,
        event.thread,
        event.text,
        event.attrs,
        event.vector,
    )


def _loads(line: bytes) -> object:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if b"NaN" in line or b"Infinity" in line:
            raise Invalid("number_not_finite", f"NaN and Infinity are not JSON; send null: {error}") from error
        raise Invalid("malformed_json", f"the line is not JSON: {error}") from error


def _check_count(count: int, events_max: int) -> None:
    if count > events_max:
        raise Invalid("too_many_events", "split the request", limit=events_max)
    if count == 0:
        raise Invalid("malformed_event", "the request holds no events; send at least one line")


def _within(error: Invalid) -> str:
    """The pointer of a defect within its event; empty where it is the event itself."""
    if error.faults:
        return error.faults[0].pointer or ""
    return pointer(_FIELD_OF[error.code]) if error.code in _FIELD_OF else ""


def _raise(faults: list[Fault]) -> None:
    if faults:
        first = faults[0]
        where = f"line {first.line}" if first.line is not None else first.pointer
        raise Invalid(first.code, f"nothing was accepted; {where}: {first.detail}", faults=faults)


def _string(obj: Mapping[str, Any], field: str, *, bytes_max: int | None = None) -> str:
    value = obj.get(field)
    if not isinstance(value, str) or not value:
        raise Invalid("malformed_event", f"{field} is a non-empty string", field=field).located(field)
    if bytes_max is not None and len(value.encode("utf-8", "surrogatepass")) > bytes_max:
        raise Invalid("malformed_event", f"{field} is at most {bytes_max} bytes", field=field).located(field)
    return value


def _optional(obj: Mapping[str, Any], field: str, bytes_max: int, code: str) -> str | None:
    value = obj.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Invalid("malformed_event", f"{field} is a string or null", field=field).located(field)
    size = len(value.encode("utf-8", "surrogatepass"))
    if size > bytes_max:
        detail = f"{field} is at most {bytes_max} bytes; split it into several events"
        raise Invalid(code, detail, bytes=size).located(field)
    return value


def _ts(obj: Mapping[str, Any], now_us: int, horizon_us: int) -> int:
    ts_us = parse_time(_string(obj, "ts"))
    if not 0 <= ts_us <= now_us + horizon_us:
        detail = "event times run from 1970 to the horizon ahead of now"
        raise Invalid("ts_out_of_range", detail, ts=obj["ts"], field="ts").located("ts")
    return ts_us


def _attrs(value: object) -> Mapping[str, AttrValue] | None:
    if value is None or value == {}:
        return None
    if not isinstance(value, Mapping):
        raise Invalid("attrs_invalid", "attrs is an object", field="attrs").located("attrs")
    if len(value) > ATTRS_MAX:
        raise Invalid("attrs_invalid", f"at most {ATTRS_MAX} attributes", got=len(value)).located("attrs")
    for name, item in value.items():
        if not 1 <= len(name.encode()) <= NAME_BYTES_MAX:
            detail = f"an attribute name is 1-{NAME_BYTES_MAX} bytes"
            raise Invalid("attrs_invalid", detail, field=f"attrs.{name[:40]}").located("attrs", name)
        _check_attr(name, item)
    if len(canonical_json(value)) > ATTR_BYTES_MAX:
        raise Invalid("attrs_invalid", f"attributes are at most {ATTR_BYTES_MAX} bytes together").located("attrs")
    return dict(value)


def _check_attr(name: str, item: object) -> None:
    match item:
        case None | bool() | str():
            return
        case int():
            if abs(item) > INT_ABS_MAX:
                raise _bad_attr("attrs_invalid", "integers are within 2^53; send it as a string", name)
        case float():
            if not math.isfinite(item):
                raise _bad_attr("number_not_finite", "numbers are finite; send null", name)
        case list():
            odd = next((n for n, part in enumerate(item) if not isinstance(part, str)), None)
            if odd is not None:
                raise _bad_attr("attrs_invalid", "a list holds strings only", name, odd)
        case _:
            raise _bad_attr("attrs_invalid", "attrs are flat: flatten the object", name)


def _bad_attr(code: str, detail: str, name: str, *index: int) -> Invalid:
    return Invalid(code, detail, field=f"attrs.{name}").located("attrs", name, *index)


def _vector(value: object, dim: int | None) -> Vector | None:
    if value is None:
        return None
    if not isinstance(value, list) or not 1 <= len(value) <= VECTOR_DIM_MAX:
        detail = f"a vector is a list of 1 to {VECTOR_DIM_MAX} numbers"
        raise Invalid("vector_invalid", detail, field="vector").located("vector")
    odd = next((n for n, x in enumerate(value) if not isinstance(x, int | float) or isinstance(x, bool)), None)
    if odd is not None:
        raise Invalid("vector_invalid", "a vector holds numbers only", field="vector").located("vector", odd)
    if dim is not None and len(value) != dim:
        detail = "a vector has the tenant's dimension"
        raise Invalid("vector_invalid", detail, got=len(value), dimension=dim).located("vector")
    with np.errstate(over="ignore"):
        array = np.asarray(value, dtype=np.float64).astype(np.float32)
    finite = np.isfinite(array)
    if not finite.all():
        detail = "vector components are finite float32"
        raise Invalid("number_not_finite", detail, field="vector").located("vector", int(finite.argmin()))
    return array
