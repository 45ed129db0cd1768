"""Answers that are no success, as the errors they stand for (RFC 9457), by family: what the caller does next."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson

from context_plane.errors import (
    CODES,
    Conflict,
    Corrupt,
    Denied,
    Fault,
    Invalid,
    NotFound,
    PlaneError,
    Unavailable,
)

_FAMILIES: Final[Mapping[int, type[PlaneError]]] = {
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    429: Unavailable,
}
_CORRUPT: Final = frozenset({"corrupt_object", "format_unknown"})


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> PlaneError:
    """The error of an answer. One that no context plane wrote is `Unavailable(internal)`."""
    try:
        return error_of_problem(orjson.loads(body), retry_after_s=_retry_after_s(headers))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        detail = "the answer is not from a context plane; check the URL"
        return Unavailable("internal", detail, retry_after_s=_retry_after_s(headers), status=status)


def error_of_problem(problem: Mapping[str, Any], *, retry_after_s: float | None = None) -> PlaneError:
    """The error of a problem object, with its faults. A newer service's code is `internal`, told in the detail."""
    code, detail, status = str(problem["code"]), str(problem.get("detail") or problem.get("title")), problem["status"]
    faults = [
        Fault(str(each["code"]), str(each["detail"]), line=each.get("line"), pointer=each.get("pointer"))
        for each in problem.get("errors") or ()
    ]
    if code not in CODES:
        code, detail = "internal", f"{code}: {detail}"
    family = _FAMILIES.get(status, Unavailable if status >= 500 else Invalid)
    if code in _CORRUPT:
        family = Corrupt
    named = {"request_id": problem["request_id"]} if problem.get("request_id") else {}
    return family(code, detail, faults=faults, retry_after_s=retry_after_s, **named)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds or as a date (RFC 9110, 10.2.3); None when absent or unreadable."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
