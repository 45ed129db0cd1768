"""The real service on a real socket, in a thread of its own, behind a door that can fail as networks do."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

import orjson
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from context_plane.client import AsyncClient, Client, Event
from context_plane.errors import Unavailable
from context_plane.settings import Settings
from serving.app import create_app
from serving.problems import response_of

T = TypeVar("T")
FaceName: TypeAlias = Literal["blocking", "asyncio"]

DAY = "2026-03-04"


def event(number: int, entity: str = "acct-1", text: str = "export fails after the upgrade") -> Event:
    """Of that day, at the minute of its number."""
    ts = dt.datetime(2026, 3, 4, 9, number, tzinfo=dt.UTC)
    return {"entity": entity, "ts": ts, "source": "zendesk", "kind": "ticket", "id": f"e{number}", "text": text}


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with a problem, before the service sees the request."""

    code: str = "rate_limited"
    retry_after_s: float | None = 3.0


@dataclass(frozen=True, slots=True)
class Overloaded:
    """What a load balancer without a healthy service answers."""

    status: int = 503
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Lose:
    """The service does what it is asked, and the connection breaks after so many parts of its answer."""

    parts: int = 0


@dataclass(frozen=True, slots=True)
class Shorten:
    """What stands between ends a stream after so many bytes, as if that were all of it."""

    length: int


Fault: TypeAlias = Refuse | Overloaded | Lose | Shorten


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    query: str

    def json(self) -> Any:
        return orjson.loads(self.body)


class Broken(Exception):
    """Raised into the server, which then closes the connection."""


class Door:
    """ASGI: notes every request, and answers the next ones by the faults that wait."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.faults: deque[Fault] = deque()
        self.seen: list[Seen] = []
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.loop = asyncio.get_running_loop()
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append(
            Seen(scope["method"], scope["raw_path"].decode(), headers, body, scope["query_string"].decode())
        )
        match self.faults.popleft() if self.faults else None:
            case Refuse(code, after_s):
                refusal = response_of(Unavailable(code, "refused by the test", retry_after_s=after_s), "r-1")
                await refusal(scope, receive, send)
            case Overloaded(status, after):
                fields = [] if after is None else [(b"retry-after", after.encode())]
                await send({"type": "http.response.start", "status": status, "headers": fields})
                await send({"type": "http.response.body", "body": b"<html>overloaded</html>"})
            case Lose(parts):
                await self._app(scope, _replay(body, receive), _cut(send, parts))
            case Shorten(length):
                await self._app(scope, _replay(body, receive), _shortened(send, length))
            case None:
                await self._app(scope, _replay(body, receive), send)


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        part: bytes = message.get("body", b"")
        body += part
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body once more, then what follows."""
    held = [body]

    async def replayed() -> Message:
        return {"type": "http.request", "body": held.pop(), "more_body": False} if held else await receive()

    return replayed


def _cut(send: Send, parts: int) -> Send:
    left = parts

    async def cut(message: Message) -> None:
        nonlocal left
        if message["type"] == "http.response.start" and parts == 0:
            length = [(b"content-length", b"1000")]
            await send({"type": "http.response.start", "status": message["status"], "headers": length})
            return
        if message["type"] == "http.response.body":
            if left == 0:
                raise Broken
            left -= 1
        await send(message)

    return cut


def _shortened(send: Send, length: int) -> Send:
    left = length

    async def shortened(message: Message) -> None:
        nonlocal left
        if message["type"] == "http.response.start":
            await send(message)
        elif left > 0:
            part = message["body"][:left]
            left -= len(part)
            await send({"type": "http.response.body", "body": part, "more_body": left > 0})

    return shortened


@dataclass(frozen=True, slots=True)
class Live:
    """A running service, in open mode."""

    url: str
    app: FastAPI
    door: Door
    slept: list[float] = field(default_factory=list)
    """What the clients of `face` waited, without waiting."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """In the service's own event loop."""
        assert self.door.loop is not None
        return asyncio.run_coroutine_threadsafe(work, self.door.loop).result()

    def build(self, tenant: str, *days: str) -> None:
        self.run(self.app.state.service.plane.build(tenant, list(days)))


@dataclass(frozen=True, slots=True)
class Face:
    """Both clients behind one way to call them: a test of a law holds for either."""

    client: Client | AsyncClient

    async def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """The method's result; the list of what its iterator gives."""
        method = getattr(self.client, name)
        if isinstance(self.client, Client):

            def call() -> Any:
                made = method(*args, **kwargs)
                return list(made) if isinstance(made, Iterator) else made

            return await asyncio.to_thread(call)
        made = method(*args, **kwargs)
        return [item async for item in made] if isinstance(made, AsyncIterator) else await made


@asynccontextmanager
async def face(live: Live, name: FaceName, tenant: str, key: str | None = None) -> AsyncIterator[Face]:
    async def nap(seconds: float) -> None:
        live.slept.append(seconds)

    if name == "blocking":
        with Client(live.url, tenant, key, sleep=live.slept.append) as blocking:
            yield Face(blocking)
    else:
        async with AsyncClient(live.url, tenant, key, sleep=nap) as asynchronous:
            yield Face(asynchronous)


@contextmanager
def serving(settings: Settings, port: int = 0) -> Iterator[Live]:
    """A service on loopback until the block ends. Port 0: a free one."""
    app = create_app(settings, loopback=True)
    door = Door(app)
    config = uvicorn.Config(door, host="127.0.0.1", port=port, log_config=None, ws="none", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="service")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Live(f"http://127.0.0.1:{port}", app, door)
    finally:
        server.should_exit = True
        thread.join()
