"""The protocol, by the official SDK: the server that lists and calls the tools, and what carries it.

Stateless: a request is answered by whichever process gets it, with one JSON body. A `Server` holds no tenant; who calls
is asked of `CallerOf` for every request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as ToolOut
from pydantic import BaseModel

from context_plane.errors import Unavailable
from serving.auth import Caller
from serving.mcp import tools

NAME: Final = "context-plane"
INSTRUCTIONS: Final = (
    "Context about the customers of one tenant. Start with get_context for an entity you know; use list_entities to "
    "find an id, search_context for details and for questions across entities, get_timeline for what happened when, "
    "explain_context for the stored lines behind a bundle. Everything is read-only. Cite facts by entity, day and id."
)
BODY_BYTES_MAX: Final = 2 * 1024 * 1024
"""Of one message: a search may name 5,000 entities."""
TIMEOUT_S: Final = 120.0
"""Of one message to a service; the longest deadline of a read is 60 s."""
_READS: Final = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)

Context: TypeAlias = ServerRequestContext[Any, Any]
CallerOf: TypeAlias = Callable[[Context], Awaitable[tuple[Caller, str]]]
"""Who calls, and the id of the request."""


def server(caller_of: CallerOf) -> Server[Any]:
    """The tools over a plane in this process."""
    listed = ListToolsResult(tools=[_described(tool) for tool in tools.TOOLS])

    async def list_tools(_: Context, __: PaginatedRequestParams | None) -> ListToolsResult:
        return listed

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
        caller, request_id = await caller_of(context)
        text, failed = await tools.call(caller, params.name, params.arguments or {}, request_id)
        return CallToolResult(content=[TextContent(type="text", text=text)], is_error=failed)

    return _made(list_tools, call_tool)


@asynccontextmanager
async def relay(url: str, key: str | None, tenant: str | None) -> AsyncIterator[Server[Any]]:
    """The tools of a service, as they are there: every message is handed on. Raises `Unavailable(not_ready)`."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers |= {"X-Tenant": tenant} if tenant else {}
    address = f"{url.rstrip('/')}/mcp"
    async with httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_S) as http:
        far = Client(streamable_http_client(address, http_client=http))
        try:
            await far.__aenter__()
        except Exception as error:
            detail = "the service does not answer as it should; check the URL, the key and the tenant"
            raise Unavailable("not_ready", detail, url=address, cause=str(error)) from error

        async def list_tools(_: Context, __: PaginatedRequestParams | None) -> ListToolsResult:
            return await far.list_tools(cache_mode="bypass")

        async def call_tool(_: Context, params: CallToolRequestParams) -> CallToolResult:
            return await far.call_tool(params.name, params.arguments)

        try:
            yield _made(list_tools, call_tool)
        finally:
            await far.__aexit__(None, None, None)


def over_http(made: Server[Any]) -> StreamableHTTPSessionManager:
    """Hosts and origins are checked by `serving.auth`, as for every route; JSON bodies keep web pages out."""
    return StreamableHTTPSessionManager(made, json_response=True, stateless=True, max_request_body_size=BODY_BYTES_MAX)


async def over_stdio(made: Server[Any]) -> None:
    """Serve until standard input ends."""
    async with stdio_server() as (incoming, outgoing):
        await made.run(incoming, outgoing, made.create_initialization_options())


def _made(list_tools: Any, call_tool: Any) -> Server[Any]:
    made: Server[Any] = Server(
        NAME, title="Context Plane", instructions=INSTRUCTIONS, on_list_tools=list_tools, on_call_tool=call_tool
    )
    made.middleware.clear()  # spans would name entities
    return made


def _described(tool: tools.Tool) -> ToolOut:
    return ToolOut(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=_schema(tool.arguments),
        annotations=_READS,
    )


def _schema(arguments: type[BaseModel]) -> dict[str, Any]:
    """Without the titles that repeat each name: a model reads every schema."""
    schema = arguments.model_json_schema()
    schema.pop("title", None)
    for field in schema["properties"].values():
        field.pop("title", None)
    return schema
