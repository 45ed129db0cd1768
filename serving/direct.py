"""The two reads that agents make all day, without the framework's router: a bundle, and a search.

Routing and solving dependencies cost four times what a bundle from memory does (benchmarks/profiles/http_warm.md).
Nothing is implemented twice: what a route's function, its admission and its query model say is called here as the
router would call it, and whatever is not plainly one of the two is the router's. A bundle from memory is kept for the
requests that follow (`serving.prepared`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from functools import lru_cache
from typing import Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from context_plane.errors import PlaneError
from serving import problems, read
from serving.auth import admit
from serving.headers import header_text
from serving.paths import entity_of
from serving.prepared import KeptAnswers
from serving.read import ContextQuery

QUERY_BYTES_MAX: Final = 256
QUERIES_KNOWN: Final = 1_024
"""Query strings whose reading is remembered, with at most this many bytes each: most are empty or `format=text`."""

_CONTEXT = re.compile(r"/v1/tenants/([^/]+)/entities/([^/]+)/context")
_SEARCH = re.compile(r"/v1/tenants/([^/]+)/search")


class Direct:
    """ASGI middleware, inside the envelope: what it does not answer goes on to `app`."""

    def __init__(self, app: ASGIApp, kept: KeptAnswers) -> None:
        self._app = app
        self._kept = kept
        self._routes = {route.endpoint: route for route in read.router.routes if isinstance(route, APIRoute)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] == "GET" and (found := _CONTEXT.fullmatch(scope["path"])):
            query = context_query(scope["query_string"])
            if query is None:
                await self._app(scope, receive, send)
                return
            scope["route"] = self._routes[read.get_context]
            answer = self._context(Request(scope, receive), found[1], found[2], query)
            await self._answer(answer, scope, receive, send)
        elif scope["method"] == "POST" and (found := _SEARCH.fullmatch(scope["path"])):
            scope["route"] = self._routes[read.search]
            await self._answer(_search(Request(scope, receive), found[1]), scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _context(self, request: Request, tenant: str, segment: str, query: ContextQuery) -> Response:
        caller = await admit(request, tenant, "read")
        bundle = await read.bundle_of(caller, entity_of(segment), query)
        response = read.bundle_response(bundle, query.format, header_text(request.scope, b"if-none-match"))
        self._kept.keep(request.scope, caller, query, bundle, response)
        return response

    async def _answer(self, answer: Awaitable[Response], scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await answer
        except PlaneError as error:
            response = problems.response_of(error, scope["request_id"])
        await response(scope, receive, send)


async def _search(request: Request, tenant: str) -> Response:
    return await read.search(request, await admit(request, tenant, "read"))


def context_query(raw: bytes) -> ContextQuery | None:
    """The query string as the router reads it; None where the router has something to say about it."""
    return _context_query(raw) if len(raw) <= QUERY_BYTES_MAX else None


@lru_cache(QUERIES_KNOWN)
def _context_query(raw: bytes) -> ContextQuery | None:
    items = QueryParams(raw).multi_items()
    fields = dict(items)
    if len(fields) < len(items):
        return None
    try:
        return ContextQuery.model_validate(fields)
    except ValidationError:
        return None
