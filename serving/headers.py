"""Headers of a request as the server hands them on: names in lower case, values as they were sent."""

from __future__ import annotations

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first of that name, without the view of all headers that the framework makes for each request."""
    for own, value in scope["headers"]:
        if own == name:
            found: bytes = value
            return found
    return None


def header_text(scope: Scope, name: bytes, default: str = "") -> str:
    """The same as text."""
    found = header(scope, name)
    return default if found is None else found.decode("latin-1")
