"""The app: routes, problems, and the envelope around every request.

`create_app` wires; the plane is opened by the lifespan, so importing and creating cost no I/O. The envelope
gives each request an id, routes it by its raw path, bounds how many are in flight, times it by route, and turns
what nobody caught into a problem.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from context_plane.errors import PlaneError, Unavailable
from context_plane.settings import Settings
from serving import admin, api_page, audit, batch, changes, erasures, explorer, export, problems, read, warm, why, write
from serving.auth import CALLER, KEY_ID, Caller, bearer
from serving.describe import describe
from serving.direct import Direct
from serving.headers import header
from serving.limits import Ledger
from serving.mcp.endpoint import PATH as MCP_PATH
from serving.mcp.endpoint import Endpoint
from serving.metrics import Metrics
from serving.observer import Observer
from serving.paths import canonical_path
from serving.prepared import NOSNIFF, KeptAnswers, Prepared, RequestIds
from serving.service import Service
from serving.tracing import TRACER, Tracing, open_provider

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from context_plane.plane import Plane

log = logging.getLogger("context_plane.serving")

API_VERSION: Final = "v1"
ROUTERS: Final = (
    write.router,
    read.router,
    batch.router,
    changes.router,
    export.router,
    why.router,
    warm.router,
    erasures.router,
    admin.router,
    admin.tenants,
    audit.router,
)
"""Of the contract: what asks for a key."""
OPEN_ROUTERS: Final = (admin.process, explorer.router)
"""What needs none, and holds no data."""
DESCRIPTION: Final = """
The context store and context cache for AI agents: context per entity, built ahead of time, cited, served in one read.
Errors are `application/problem+json` with a stable `code`. Times are RFC 3339, answered in UTC.
"""


def create_app(
    settings: Settings,
    *,
    loopback: bool = False,
    on_warm: Callable[[], None] | None = None,
    log_requests: bool = False,
    tracer: Tracer | None = None,
) -> FastAPI:
    """The service over the plane of `settings`. `loopback`: the caller binds the socket to loopback only.

    `on_warm` is called once, when everything that requests would wait for at first is loaded. `log_requests`: a line
    for each. `tracer`: of spans; None: as the `OTEL_*` variables say."""
    ledger, metrics, kept, tracing = Ledger(), Metrics(), KeptAnswers(), Tracing(tracer)
    agents = Endpoint()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        from context_plane import plane

        app.state.explorer = explorer.load()
        with suppress(asyncio.CancelledError):  # a server told twice to end: nothing is waited for
            async with _traced(tracing), plane.open(settings) as opened:
                metrics.watch(opened)
                service = app.state.service = Service.of(opened, ledger=ledger, metrics=metrics, loopback=loopback)
                warming = asyncio.create_task(_warm(opened, on_warm))
                async with agents.running():
                    yield
                app.state.service = None
                await service.aclose()
                kept.clear()
                await asyncio.gather(warming, return_exceptions=True)

    app = _App(
        title="Context Plane",
        version=API_VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # spans would name paths, and so entities
        exception_handlers={
            PlaneError: problems.on_plane_error,
            RequestValidationError: problems.on_validation,
            HTTPException: problems.on_http,
        },
    )
    for router in ROUTERS:
        app.include_router(router, dependencies=[Depends(bearer)])
    for router in OPEN_ROUTERS:
        app.include_router(router)
    api_page.add(app)
    app.router.routes.append(Route(MCP_PATH, agents, methods=["POST"], include_in_schema=False))
    app.state.methods = [
        (route.path_regex, route.methods)
        for router in (*ROUTERS, *OPEN_ROUTERS)
        for route in router.routes
        if isinstance(route, APIRoute)
    ]
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    app.ledger, app.kept, app.observer = ledger, kept, Observer(metrics, tracing, log_requests=log_requests)
    return app


@asynccontextmanager
async def _traced(tracing: Tracing) -> AsyncIterator[None]:
    """Traces as the environment asks, unless a tracer was given. What is not sent yet is sent at the end."""
    provider = None if tracing.tracer is not None else open_provider(os.environ)
    if provider is None:
        yield
        return
    tracing.tracer = provider.get_tracer(TRACER)
    try:
        yield
    finally:
        tracing.tracer = None
        await asyncio.to_thread(provider.shutdown)


class _App(FastAPI):
    """The framework inside our envelope, without its own outermost layer, which answers what nobody caught."""

    ledger: Ledger
    kept: KeptAnswers
    observer: Observer

    def build_middleware_stack(self) -> ASGIApp:
        stack = super().build_middleware_stack()
        assert isinstance(stack, ServerErrorMiddleware), "the framework's outermost layer"
        ids = RequestIds()
        enveloped = Envelope(Direct(stack.app, self.kept), ids, ledger=self.ledger, observer=self.observer)
        return Prepared(enveloped, self.kept, ids, ledger=self.ledger, observer=self.observer)


async def _warm(opened: Plane, on_warm: Callable[[], None] | None) -> None:
    await opened.warm_up()
    if on_warm is not None:
        on_warm()


class Envelope:
    """ASGI middleware, outermost of ours. Pure ASGI: a wrapper per request would buffer the streams."""

    def __init__(self, app: ASGIApp, ids: RequestIds, *, ledger: Ledger, observer: Observer) -> None:
        self._app = app
        self._ids = ids
        self._ledger = ledger
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["request_id"] = self._ids.of(header(scope, b"x-request-id") or b"").decode()
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        scope["path"] = canonical_path(raw_path.partition(b"?")[0])
        sent = _Sent(scope, send)
        started_s = time.perf_counter()
        begun = self._observer.begin(scope)
        try:
            await self._serve(scope, receive, sent)
        finally:
            self._observer.end(
                begun,
                method=scope["method"] if scope["method"] in _METHODS else "other",
                route=getattr(scope.get("route"), "path", "none"),
                status=sent.status,
                cache=sent.cache,
                seconds=time.perf_counter() - started_s,
                request_id=sent.request_id,
                key=scope.get(KEY_ID),
            )

    async def _serve(self, scope: Scope, receive: Receive, sent: _Sent) -> None:
        bounded = scope["path"].startswith(("/v1/", MCP_PATH))
        try:
            if bounded:
                self._ledger.enter()
        except PlaneError as error:
            await problems.response_of(error, sent.request_id)(scope, receive, sent)
            return
        try:
            await self._app(scope, receive, sent)
        except ClientDisconnect:
            sent.status = 499
        except asyncio.CancelledError:
            if sent.started or not _ended():
                raise
            await problems.response_of(_stopping(), sent.request_id)(scope, receive, sent)
        except Exception as error:
            if sent.started:
                raise  # the server closes the connection: a cut answer must not look complete
            await problems.unexpected(error, sent.request_id)(scope, receive, sent)
        finally:
            if bounded:
                self._ledger.leave()
            caller: Caller | None = scope.get(CALLER)
            if caller is not None:
                self._ledger.leave_tenant(caller.name)


def _ended() -> bool:
    """Whether it is this very request that was cancelled, as the server does with what outlasts its own end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _stopping() -> Unavailable:
    detail = "the service ended before the answer was complete; retry what may be done twice"
    return Unavailable("stopping", detail, retry_after_s=1.0)


_METHODS: Final = frozenset({"GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"})


class _Sent:
    """`send`, watched: status, cache temperature, bytes, and the headers every answer has (nothing else sets them)."""

    __slots__ = ("_scope", "_send", "cache", "request_id", "started", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id: str = scope["request_id"]
        self.status = 499
        """Until an answer starts: the client went away."""
        self.cache = "none"
        self.started = False
        self._scope = scope
        self._send = send

    async def __call__(self, message: Message) -> None:
        caller: Caller | None = self._scope.get(CALLER)
        allowance = None if caller is None else caller.allowance
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            for name, value in message["headers"]:
                if name == b"x-cache":
                    self.cache = value.decode()
            message["headers"] = [*message["headers"], (b"x-request-id", self.request_id.encode()), NOSNIFF]
            if allowance is not None:
                message["headers"] += allowance.fields()
        elif allowance is not None and self.status != 429:  # a refusal that is paid would put off its own retry
            allowance.spend(len(message.get("body", b"")))
        await self._send(message)
