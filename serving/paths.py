"""Paths as they were sent. An entity may hold any character, `/` and `..` included.

Routing sees the percent-encoded path (ASGI `raw_path`), one segment per name, so `%2F` never becomes a separator;
each name is decoded once, by the dependency that takes it. A segment is first brought to one spelling, so that
`events%3Adelete` is `events:delete`.
"""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from fastapi import Depends, Path

from context_plane.errors import Invalid
from context_plane.model import check_entity

_KEPT: Final = ":@!$&'()*+,;=~"
"""Characters of a path segment that need no escape (RFC 3986, 3.3)."""

_CANONICAL = re.compile(rb"[A-Za-z0-9_.\-/:@!$&'()*+,;=~]*")
"""Paths that decoding and encoding leave as they are: nearly all."""


def canonical_path(raw_path: bytes) -> str:
    """The path with every segment decoded and encoded again; separators stay as they were sent."""
    if _CANONICAL.fullmatch(raw_path):
        return raw_path.decode()
    return "/".join(quote_from_bytes(unquote_to_bytes(part), safe=_KEPT) for part in raw_path.split(b"/"))


async def entity(
    entity: Annotated[str, Path(description="percent-encoded: `/` is `%2F`", examples=["acct-0042"])],
) -> str:
    """The entity of the path, decoded. Raises `Invalid(entity_invalid)`."""
    return entity_of(entity)


def entity_of(segment: str) -> str:
    """The entity that a segment of a canonical path names. Raises `Invalid(entity_invalid)`."""
    try:
        return check_entity(unquote_to_bytes(segment).decode())
    except UnicodeDecodeError as error:
        raise Invalid("entity_invalid", "an entity is percent-encoded UTF-8") from error


Entity = Annotated[str, Depends(entity)]
