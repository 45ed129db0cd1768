"""The protocol, by the official SDK: the server that lists and calls the tools, and what carries it.

Stateless: a request is answered by whichever process gets it, with one JSON body. A `Server` holds no tenant; who calls
is asked of `CallerOf` for every request.
"""

from __future__ import annotations

import logging
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
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    ListToolsRequest,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as ToolOut
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel

from context_plane.errors import CODES, Unavailable
from serving.auth import Caller
from serving.mcp import tools
from serving.problems import body_of

log = logging.getLogger("context_plane.serving")

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
    """The tools of a service, as they are there: every message is handed on, by a client of its own, for one whose
    connection broke is of no more use. The service has to be there at first: raises `Unavailable(not_ready)`."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers |= {"X-Tenant": tenant} if tenant else {}
    address = f"{url.rstrip('/')}/mcp"
    async with httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_S) as http:

        def far(mode: str) -> Client:
            return Client(streamable_http_client(address, http_client=http), mode=mode)

        try:
            async with far("auto") as first:
                version = first.protocol_version
        except Exception as error:
            detail = "the service does not answer as it should; check the URL, the key and the tenant"
            raise Unavailable("not_ready", detail, url=address, cause=_cause(error)) from error
        mode = version if version in MODERN_PROTOCOL_VERSIONS else "legacy"

        async def list_tools(_: Context, __: PaginatedRequestParams | None) -> ListToolsResult:
            try:
                async with far(mode) as client:
                    return await client.session.send_request(ListToolsRequest(), ListToolsResult)
            except Exception as error:
                raise MCPError(INTERNAL_ERROR, _said(error)) from error

        async def call_tool(_: Context, params: CallToolRequestParams) -> CallToolResult:
            handed = CallToolRequest(params=CallToolRequestParams(name=params.name, arguments=params.arguments))
            try:
                async with far(mode) as client:
                    return await client.session.send_request(handed, CallToolResult)
            except Exception as error:
                return CallToolResult(content=[TextContent(type="text", text=_said(error))], is_error=True)

        yield _made(list_tools, call_tool)


def over_http(made: Server[Any]) -> StreamableHTTPSessionManager:
    """Hosts and origins are checked by `serving.auth`, as for every route; JSON bodies keep web pages out."""
    return StreamableHTTPSessionManager(made, json_response=True, stateless=True, max_request_body_size=BODY_BYTES_MAX)


async def over_stdio(made: Server[Any]) -> None:
    """Serve until standard input ends. Raises `BrokenPipeError` where nobody reads the answers any more."""
    try:
        async with stdio_server() as (incoming, outgoing):
            await made.run(incoming, outgoing, made.create_initialization_options())
    except BaseExceptionGroup as group:
        if isinstance(_cause(group), BrokenPipeError):
            raise BrokenPipeError from group
        raise


def _cause(error: BaseException) -> BaseException:
    """What broke first: the SDK's task groups wrap it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _said(error: Exception) -> str:
    """What became of a message that was handed on: in the service's own words, if these are its."""
    cause = _cause(error)
    if isinstance(cause, MCPError) and isinstance(cause.data, dict) and cause.data.get("code") in CODES:
        return cause.message
    log.warning("the service did not answer a message: %s: %s", type(cause).__name__, cause)
    gone = Unavailable("not_ready", "the service does not answer as it should; it may be starting")
    return tools.error_text(gone, body_of(gone, "stdio"))


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
