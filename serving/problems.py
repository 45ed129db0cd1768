"""Errors as problem details (RFC 9457). The only place that knows HTTP statuses.

A code has one status: from the table, else from its family. Errors of the store, of stored bytes and of
this program say their title alone: their details (keys, endpoints, causes) go to the log under the
request id, which the answer carries.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

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
    pointer,
)
from context_plane.wire import FAULTS_MAX
from serving.logs import FIELDS

log = logging.getLogger("context_plane.serving")

MEDIA_TYPE: Final = "application/problem+json"

FAMILIES: Final[dict[type[PlaneError], int]] = {
    Invalid: 422,
    Denied: 401,
    NotFound: 404,
    Conflict: 409,
    Unavailable: 503,
    Corrupt: 500,
}
STATUSES: Final[dict[str, int]] = {
    "malformed_json": 400,
    "encoding_invalid": 400,
    "cursor_invalid": 400,
    "snapshot_invalid": 400,
    "scope_missing": 403,
    "method_not_allowed": 405,
    "snapshot_expired": 410,
    "snapshot_erased": 410,
    "body_too_large": 413,
    "too_many_events": 413,
    "content_type_invalid": 415,
    "tail_full": 429,
    "rate_limited": 429,
    "internal": 500,
    "deadline_exceeded": 504,
}
"""Where a code does not follow its family."""

_HIDDEN: Final = frozenset({"object_not_found", "already_exists", "store_unavailable", "store_not_exclusive"})
"""Details of these name objects or endpoints of the store."""


class Internal(PlaneError):
    """A defect of this program, as the client sees it."""

    def __init__(self) -> None:
        super().__init__("internal", "an unexpected error; report the request id")


def status_of(error: PlaneError) -> int:
    if error.code in STATUSES:
        return STATUSES[error.code]
    return next((status for family, status in FAMILIES.items() if isinstance(error, family)), 500)


def body_of(error: PlaneError, request_id: str) -> dict[str, Any]:
    """The problem object. The request id is told only where the log has more to say."""
    hidden = error.code in _HIDDEN or isinstance(error, Corrupt | Internal)
    body: dict[str, Any] = {
        "type": f"urn:context-plane:problem:{error.code}",
        "title": CODES[error.code],
        "status": status_of(error),
        "detail": CODES[error.code] if hidden else error.detail,
        "code": error.code,
    }
    if error.faults:
        body["errors"] = [_fault(fault) for fault in error.faults]
    if hidden:
        log.error("request_id=%s %s", request_id, error, exc_info=error, extra=_named(request_id))
        body["request_id"] = request_id
    return body


def _named(request_id: str) -> dict[str, Any]:
    """For a line of JSON."""
    return {FIELDS: {"request_id": request_id}}


def response_of(error: PlaneError, request_id: str) -> Response:
    headers = {"cache-control": "no-store"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    status = status_of(error)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return Response(orjson.dumps(body_of(error, request_id)), status, headers, MEDIA_TYPE)


def unexpected(error: Exception, request_id: str) -> Response:
    """The answer to a defect: nothing of it but the request id."""
    name = type(error).__name__
    log.error("request_id=%s unexpected %s", request_id, name, exc_info=error, extra=_named(request_id))
    return response_of(Internal(), request_id)


def of_validation(errors: Sequence[Any], *, where: str) -> Invalid:
    """Pydantic's findings as one error with a fault each, the first `FAULTS_MAX`. `where`: what was read, for the
    message."""
    faults = [_finding(item) for item in errors[:FAULTS_MAX]]
    first = faults[0]
    return Invalid("query_invalid", f"{where}: {first.pointer or '/'}: {first.detail}", faults=faults)


async def on_plane_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PlaneError)
    return response_of(error, request.scope["request_id"])


async def on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return response_of(of_validation(error.errors(), where="the request"), request.scope["request_id"])


async def on_http(request: Request, error: Exception) -> Response:
    """What the framework raises itself: unknown routes and methods."""
    assert isinstance(error, HTTPException)
    problem: PlaneError
    allowed = ""
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _methods(request) or (error.headers or {}).get("Allow", "")
        problem = Invalid("method_not_allowed", f"the route takes {allowed}" if allowed else "use another method")
    elif error.status_code == HTTPStatus.NOT_FOUND:
        problem = NotFound("route_not_found", "no such route; see /docs. A / within an entity is sent as %2F")
    elif error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        problem = Invalid("query_invalid", "the request could not be read")
    else:
        problem = Internal()
    response = response_of(problem, request.scope["request_id"])
    if allowed:
        response.headers["allow"] = allowed
    return response


def _methods(request: Request) -> str:
    """Every method of the path, whichever routes take them."""
    known: Sequence[tuple[re.Pattern[str], set[str]]] = request.app.state.methods
    found = {method for pattern, methods in known if pattern.match(request.scope["path"]) for method in methods}
    return ", ".join(sorted(found))


def _fault(fault: Fault) -> dict[str, Any]:
    shown: dict[str, Any] = {"code": fault.code, "detail": fault.detail}
    if fault.line is not None:
        shown["line"] = fault.line
    if fault.pointer is not None:
        shown["pointer"] = fault.pointer
    return shown


def _finding(item: Any) -> Fault:
    detail = "unknown field; remove it" if item["type"] == "extra_forbidden" else str(item["msg"]).lower()
    return Fault("query_invalid", detail[:200], pointer=pointer(*item["loc"]))
