"""`POST /mcp`: agents are let in as on every route, or told why not, then the protocol takes the request.

A key of a tenant decides the tenant. An operator key, and a service without keys, reach every tenant: the header
`X-Tenant` names one. The protocol is loaded by the first request, in a thread, and kept by a task of its own until the
service ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from fastapi import Request
from starlette.types import Receive, Scope, Send

from context_plane.errors import Invalid, PlaneError
from serving.auth import CALLER, Caller, admit, authenticate, unknown_tenant
from serving.limits import Ledger
from serving.mcp.refusals import refused
from serving.metrics import Metrics
from serving.service import Service, service_of

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from context_plane.plane import Plane

log = logging.getLogger("context_plane.serving")

PATH: Final = "/mcp"
TENANT_HEADER: Final = "x-tenant"


class Endpoint:
    """ASGI. Answers within `running()`. `path`: what metrics call it."""

    path = PATH

    def __init__(self) -> None:
        self._ended = asyncio.Event()
        self._started: asyncio.Future[StreamableHTTPSessionManager] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._ended.clear()
        try:
            yield
        finally:
            self._ended.set()
            if self._keeper is not None:
                await self._keeper
            self._started = self._keeper = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        request = Request(scope, receive)
        try:
            scope[CALLER] = await _admitted(request)
        except PlaneError as error:
            await (await refused(error, request))(scope, receive, send)
            return
        await (await self._manager()).handle_request(scope, receive, send)

    async def _manager(self) -> StreamableHTTPSessionManager:
        if self._started is None:
            self._started = asyncio.get_running_loop().create_future()
            self._keeper = asyncio.create_task(self._keep(self._started))
        return await asyncio.shield(self._started)

    async def _keep(self, started: asyncio.Future[StreamableHTTPSessionManager]) -> None:
        """The SDK's tasks live and end in this one."""
        try:
            manager = await asyncio.to_thread(_loaded)
            async with manager.run():
                started.set_result(manager)
                await self._ended.wait()
        except Exception as error:
            self._started = None  # the next request tries again
            if not started.done():
                started.set_exception(error)
            else:
                log.exception("the MCP endpoint ended")


def _loaded() -> StreamableHTTPSessionManager:
    from serving.mcp import protocol

    async def caller_of(context: protocol.Context) -> tuple[Caller, str]:
        assert context.request is not None, "messages come by HTTP here"
        scope: dict[str, Any] = context.request.scope
        return scope[CALLER], scope["request_id"]

    return protocol.over_http(protocol.server(caller_of))


async def _admitted(request: Request) -> Caller:
    tenant = request.headers.get(TENANT_HEADER)
    key = await authenticate(service_of(request), request)
    if tenant is None:
        tenant = None if key is None else key.tenant
    if tenant is None:
        raise Invalid("tenant_invalid", "this key reaches every tenant; name one in the header X-Tenant")
    return await admit(request, tenant, "read")


async def serve_store(plane: Plane, tenant: str) -> None:
    """The tools over standard input and output, for whoever may read the store."""
    from serving.mcp import protocol

    service = Service.of(plane, ledger=Ledger(), metrics=Metrics(), loopback=True)

    async def caller_of(_: protocol.Context) -> tuple[Caller, str]:
        found = await service.tenants.get(tenant)
        if found is None:
            raise unknown_tenant()
        return Caller(service, found, None), "stdio"

    warming = asyncio.create_task(plane.warm_up())
    await protocol.over_stdio(protocol.server(caller_of))
    await asyncio.gather(warming, return_exceptions=True)


async def serve_url(url: str, key: str | None, tenant: str | None) -> None:
    """The tools of a service, over standard input and output."""
    from serving.mcp import protocol

    async with protocol.relay(url, key, tenant) as made:
        await protocol.over_stdio(made)
