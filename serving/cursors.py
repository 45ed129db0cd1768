"""Cursors: positions in an order, opaque to clients. base64url over JSON, bound to what was listed.

A cursor names no object and no version, so it outlives publishes. It carries nothing its reader may not
see, so it is checked, not signed: one of another listing is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any, Final

import orjson

from context_plane.errors import Invalid

CURSOR_CHARS_MAX: Final = 4_096
"""A name of 256 control characters takes six bytes each in JSON and a third more in base64: 2,079."""


def of_timeline(tenant: str, entity: str, order: str) -> tuple[str, ...]:
    """The listing of `GET …/timeline` and of the command of that name."""
    return ("timeline", tenant, entity, order)


def of_entities(tenant: str, prefix: str) -> tuple[str, ...]:
    """The listing of `GET …/entities` and of the command of that name."""
    return ("entities", tenant, prefix)


def write(listing: tuple[str, ...], position: list[str | int]) -> str:
    """`listing`: what makes two listings differ in order or content."""
    raw = orjson.dumps([_mark(listing), *position])
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def read(listing: tuple[str, ...], cursor: str, *types: type) -> list[Any]:
    """The position of a cursor of the same listing. Raises `Invalid(cursor_invalid)`."""
    try:
        if len(cursor) > CURSOR_CHARS_MAX:
            raise ValueError(len(cursor))
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        held = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error) as error:
        raise _invalid() from error
    if not isinstance(held, list) or len(held) != 1 + len(types) or held[0] != _mark(listing):
        raise _invalid()
    if any(type(value) is not kind for value, kind in zip(held[1:], types, strict=True)):
        raise _invalid()
    if any(isinstance(value, int) and value < 0 for value in held[1:]):
        raise _invalid()
    return held[1:]


def _mark(listing: tuple[str, ...]) -> str:
    return hashlib.sha256(orjson.dumps(listing)).hexdigest()[:16]


def _invalid() -> Invalid:
    return Invalid("cursor_invalid", "the cursor belongs to another listing; start without one")
