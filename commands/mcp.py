"""`context-plane mcp`: the tools of an agent, over standard input and output."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from commands.options import Store, Tenant, opened, run, tenant_of


def mcp(
    url: Annotated[str | None, typer.Option(metavar="URL", help="through this service, not from a store")] = None,
    key: Annotated[str | None, typer.Option(envvar="CONTEXT_PLANE_KEY", help="API key for --url")] = None,
    tenant: Tenant = None,
    store: Store = None,
) -> None:
    """Serve five read tools to an agent on this machine (MCP over standard input and output).

    With --url, the key decides the tenant; --tenant names one for an operator key."""
    from serving.mcp.endpoint import serve_store, serve_url

    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # it would wait for the thread that reads input
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    async def work() -> None:
        if url is not None:
            await serve_url(url, key, tenant)
            return
        async with opened(store) as plane:
            await serve_store(plane, await tenant_of(plane, tenant))

    run(work())
