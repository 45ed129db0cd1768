"""Running the service: `run(settings, host, port, workers)`, for the command line.

A store without any API key is served on loopback only, and says so; on any other address the start is refused.
Workers share one bound socket; each opens its own plane, and ends when their supervisor does, however that happens.

The server library ends a start that fails with a code of its own, and the supervisor of workers with 0. So the address
and the plane are tried here first, where what is wrong is an error with a code of ours; what fails behind that is
`not_ready`.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import wait
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG, STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from context_plane.access import any_key
from context_plane.errors import Denied, Unavailable
from context_plane.settings import Settings
from serving import logs
from serving.address import check_address
from serving.app import create_app
from serving.logs import LogFormat
from serving.metrics import MULTIPROCESS_DIR

log = logging.getLogger("uvicorn.error")

DRAIN_S: Final = 30
"""A stopping process finishes the requests under way; the longest read deadline is 30 s."""
KEEP_ALIVE_S: Final = 75
"""Above the idle limit of common load balancers (60 s), so that they close first."""
BACKLOG: Final = 2048
COLLECT_AFTER: Final = (2_000, 10, 100)
"""Of Python's cycle collector: net new containers per young collection, young ones per middle, middle per full.

A middle one looks at 22,000 objects at most, some 3 ms. A full one looks at all that is cached and comes after two
million: warm reads leave next to no cycles behind, and it stops every request."""


def run(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8080,
    workers: int = 1,
    log_format: LogFormat = "text",
    *,
    announce: Callable[[bool], None] | None = None,
) -> None:
    """Serve until stopped. Raises `Denied(key_missing)` for an address beyond loopback over a store without keys,
    `Invalid(settings_invalid)` for one that cannot be listened on, what `plane.open` raises, and
    `Unavailable(not_ready)` when a server or worker does not start all the same, `KeyboardInterrupt` when interrupted.

    `announce` is told whether keys guard the store, as soon as the service listens."""
    loopback = is_loopback(host)
    own = logs.config(log_format)
    app = partial(create_app, settings, loopback=loopback, on_warm=settle_memory, log_requests=log_format == "json")
    config = uvicorn.Config(
        app if workers == 1 else partial(_of_a_worker, app),
        factory=True,
        host=host,
        port=port,
        workers=workers,
        backlog=BACKLOG,
        log_config=LOGGING_CONFIG if own is None else own,
        access_log=False,  # paths name entities
        server_header=False,
        proxy_headers=False,  # nothing here depends on the client's address
        ws="none",
        lifespan="on",  # a plane that does not open ends the process
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    check_address(host, port)
    guarded = asyncio.run(_tried(settings))
    check_exposure(guarded, host)  # by now logs have their form
    told = partial(announce, guarded) if announce is not None else None
    if workers == 1:
        _serve(config, told)
    else:
        _serve_by_workers(config, told)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, listening: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._listening is not None:
            self._listening()


def _serve(config: uvicorn.Config, listening: Callable[[], None] | None) -> None:
    try:
        _Server(config, listening).run()
    except SystemExit as error:
        if error.code == STARTUP_FAILURE:
            raise _not_started() from error
        raise


class _Supervisor(Multiprocess):
    """`interrupted`: by SIGINT, which a server alone ends by raising it again."""

    interrupted = False

    def handle_int(self) -> None:
        self.interrupted = True
        super().handle_int()


def _serve_by_workers(config: uvicorn.Config, listening: Callable[[], None] | None) -> None:
    with tempfile.TemporaryDirectory(prefix="context-plane-metrics-") as folder:
        os.environ[MULTIPROCESS_DIR] = folder  # read by the metrics library in the workers
        try:
            bound = config.bind_socket()
        except SystemExit as error:
            raise _not_started() from error
        bound.listen(BACKLOG)  # who comes before a worker has started waits for one
        if listening is not None:
            listening()
        supervisor = _Supervisor(config, sockets=[bound])
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise _not_started()
    if supervisor.interrupted:
        raise KeyboardInterrupt


def _of_a_worker(create: Callable[[], FastAPI]) -> FastAPI:
    """The app, in a process that ends with its supervisor: nobody else would end it, and it holds the port."""
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    return create()


def _end_with_supervisor() -> None:
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None, "runs in workers only"
    wait([supervisor.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)  # what is under way is finished


def _not_started() -> Unavailable:
    return Unavailable("not_ready", "the service did not start; the log above says why")


def settle_memory() -> None:
    """Keep what is loaded by now (170,000 objects, modules mostly) out of all later collections.

    Without it a full collection stops the process for 100 ms and more at a time of its own choosing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(configured: bool, host: str) -> None:
    """Raises `Denied(key_missing)` when anyone on the network could do everything."""
    if configured:
        return
    if not is_loopback(host):
        raise Denied(
            "key_missing",
            "the store has no API key, so the service binds to loopback only; make one with "
            "`context-plane keys create`, or serve on 127.0.0.1",
            host=host,
        )
    log.warning("no API key is configured: open mode, whoever can reach %s may do everything", host)


async def _tried(settings: Settings) -> bool:
    """Whether keys guard the store. Raises what keeps a plane from being opened."""
    from context_plane import plane

    async with plane.open(settings) as opened:
        return await any_key(opened.store)
