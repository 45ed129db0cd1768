"""Running the service: `run(settings, host, port, workers)`, for the command line.

A store without any API key is served on loopback only, and says so; on any other address the start is refused.
Workers share one bound socket; each opens its own plane.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Final

import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.supervisors import Multiprocess

from context_plane.access import any_key
from context_plane.errors import Denied
from context_plane.settings import Settings, store_options_from_environment
from context_plane.store import open_store
from serving import logs
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
    """Serve until stopped. Raises `Denied(key_missing)` for an address beyond loopback over a store without keys.

    `announce` is told whether keys guard the store, before the first request can come."""
    loopback = is_loopback(host)
    own = logs.config(log_format)
    config = uvicorn.Config(
        partial(create_app, settings, loopback=loopback, on_warm=settle_memory, log_requests=log_format == "json"),
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
    guarded = asyncio.run(_configured(settings))
    check_exposure(guarded, host)  # by now logs have their form
    if announce is not None:
        announce(guarded)
    if workers == 1:
        uvicorn.Server(config).run()
        return
    with tempfile.TemporaryDirectory(prefix="context-plane-metrics-") as folder:
        os.environ[MULTIPROCESS_DIR] = folder  # read by the metrics library in the workers
        Multiprocess(config, sockets=[config.bind_socket()]).run()


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


async def _configured(settings: Settings) -> bool:
    store = open_store(settings.store_url, options=store_options_from_environment())
    try:
        return await any_key(store)
    finally:
        await store.aclose()
