"""What is refused before the protocol, in the protocol's words.

A problem (RFC 9457) is nothing to a client of MCP: it reads JSON alone. A call that cannot be served now is answered by
a tool error, for only these are sure to reach the model (MCP 2025-11-25, server/tools: clients should hand them on, and
may hand on other errors). Every other message, and whoever has no key that lets it in, gets a JSON-RPC error without an
id (basic/transports) under the status and with the header fields that the problem has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import Request, Response

from context_plane.errors import Denied, PlaneError
from serving.auth import CALLER, Caller
from serving.limits import body
from serving.mcp.tools import error_text
from serving.problems import response_of
from serving.service import service_of

CALL_BYTES_MAX: Final = 64 * 1024
"""Of a refused message that is read for its id: hundreds of entities. A longer one gets the error of all others."""
_INVALID_REQUEST: Final = -32_600
_INTERNAL_ERROR: Final = -32_603


async def refused(error: PlaneError, request: Request) -> Response:
    """The answer to a message that was not let in. Bodies of strangers are not read."""
    problem = response_of(error, request.scope["request_id"])
    told = orjson.loads(problem.body)
    text = error_text(error, told)
    headers = {name: value for name, value in problem.headers.items() if not name.startswith("content-")}
    called = None if isinstance(error, Denied) else await _called(request)
    if called is None:
        code = _INVALID_REQUEST if problem.status_code < HTTPStatus.INTERNAL_SERVER_ERROR else _INTERNAL_ERROR
        failure = {"code": code, "message": text, "data": told}
        return _answer({"id": None, "error": failure}, problem.status_code, headers)
    caller: Caller | None = request.scope.get(CALLER)
    if caller is not None:  # its rate pays nothing for a refusal
        request.scope[CALLER] = replace(caller, allowance=None)
    result = {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": True}
    return _answer({"id": called, "result": result}, HTTPStatus.OK, headers)


async def _called(request: Request) -> str | int | None:
    """The id of the tool call that the body is; None of all else."""
    try:
        async with body(request, service_of(request).ledger, bytes_max=CALL_BYTES_MAX) as raw:
            message = orjson.loads(raw)
    except (PlaneError, orjson.JSONDecodeError):
        return None
    match message:
        case {"method": "tools/call", "id": str() | int() as called}:
            return called
    return None


def _answer(message: Mapping[str, Any], status: int, headers: Mapping[str, str]) -> Response:
    return Response(orjson.dumps({"jsonrpc": "2.0", **message}), status, headers, "application/json")
