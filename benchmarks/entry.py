"""What the benchmarks start as a service: the product's own, with two routes beside it, or a bare ASGI app.

The product runs through `serving.main.run`, so every server setting is its own; only the app is wrapped:

    POST /bench/empty-caches    forget everything cached, known cuts included; `?access=1`: keys and tenants too
    POST /bench/peak-memory     answers the peak of resident memory in MiB since the last such call

    python -m benchmarks.entry HOST PORT [BODY_FILE]    with a body file: answers every request with its bytes
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from context_plane.settings import Settings
from serving import app as product
from serving import main as server
from serving.service import Service

PREFIX: Final = "/bench/"
READY: Final = "/readyz"
_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"


class Benched:
    """The product's app and the routes of the benchmark."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            await answer(send, orjson.dumps(await self._did(scope["path"], scope["query_string"])))
        else:
            await self._app(scope, receive, send)

    async def _did(self, path: str, query: bytes) -> dict[str, float]:
        if path == f"{PREFIX}empty-caches":
            held: Service = self._app.state.service
            await held.plane.empty_caches()
            if query == b"access=1":
                self._app.state.service = Service.of(
                    held.plane, ledger=held.ledger, metrics=held.metrics, loopback=held.loopback
                )
            return {}
        return {"peak_mb": peak_mb()}


def peak_mb() -> float:
    """Peak of resident memory in MiB since the last call, or since the start (Linux)."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    _CLEAR.write_text(_RESET_PEAK)
    return round(int(line.split()[1]) / 1024, 1)


def create_app(settings: Settings, **options: Any) -> ASGIApp:
    return Benched(product.create_app(settings, **options))


def bare_app(body: bytes) -> ASGIApp:
    """Reads each request whole and answers `body`: what the server and the client cost by themselves."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        await answer(send, b"{}" if scope["path"] == READY else body)

    return app


async def answer(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _bare(body: bytes, settings: Settings, **options: Any) -> ASGIApp:
    server.settle_memory()
    return bare_app(body)


def main(arguments: list[str]) -> None:
    host, port, *files = arguments
    app = partial(_bare, Path(files[0]).read_bytes()) if files else create_app
    vars(server)["create_app"] = app
    server.run(Settings(), host, int(port))


if __name__ == "__main__":
    main(sys.argv[1:])
