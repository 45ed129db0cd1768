"""`context-plane serve` and `up`: the read service, and the service with the Dagster UI beside it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from commands import show
from commands.options import AsJson, Store, opened, run, settings_of

if TYPE_CHECKING:
    from context_plane.plane import Plane

LOG_FORMAT: Final = "CONTEXT_PLANE_LOG_FORMAT"
FIRST_DAY: Final = "CONTEXT_PLANE_FIRST_DAY"
"""Of Dagster's partitions. By name: the module that reads it takes seconds to import; a test compares them."""
WARM_KEY: Final = "CONTEXT_PLANE_WARM_KEY"
"""With which the job `warm_services` asks. By name, too."""
DEMO_KEYS: Final = "demo/*/key"
"""Where the demo keeps the keys of its tenants, beside Dagster's folder."""
TENANTS_AT_ONCE: Final = 16
"""Manifests read side by side: hides the store's latency."""
Port = Annotated[int, typer.Option("--port", min=1, max=65_535, metavar="N", help="of the API")]


def serve(
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="to listen on")] = "127.0.0.1",
    port: Port = 8080,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, metavar="N", help="processes")] = 1,
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option("--log-format", envvar=LOG_FORMAT, help="json: a line for each request, and for what goes wrong"),
    ] = "text",
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Serve the HTTP API until it is stopped. A store without API keys is served on loopback only.

    --json tells where, once it listens; `GET /readyz` tells when it is ready."""
    from serving.main import run as run_service

    settings = settings_of(store)

    def announce(guarded: bool) -> None:
        if as_json:
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            show.json({"url": url, "store": settings.store_url, "workers": workers, "keys": guarded})

    run_service(settings, host, port, workers, log_format, announce=announce)


def up(
    port: Port = 8080,
    ui_port: Annotated[int, typer.Option("--ui-port", min=1, max=65_535, metavar="N", help="of the Dagster UI")] = 3000,
    dagster_home: Annotated[Path, typer.Option("--dagster-home", metavar="FOLDER", help="runs and their logs")] = Path(
        ".plane/dagster"
    ),
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Serve the API and the Dagster UI until Ctrl-C, on loopback.

    --json tells where, once both answer."""
    from commands.processes import serve_all

    async def asked() -> dict[str, str]:
        async with opened(store) as plane:
            return await environment_of_dagster(plane, dagster_home.parent)

    serve_all(
        settings_of(store).store_url,
        port=port,
        ui_port=ui_port,
        dagster_home=dagster_home,
        environment=run(asked()),
        as_json=as_json,
    )


async def environment_of_dagster(plane: Plane, folder: Path) -> dict[str, str]:
    """What the store tells of it, and `folder`, which has the demo's; what the environment says goes first."""
    found = {
        FIRST_DAY: os.environ.get(FIRST_DAY) or await first_month(plane),
        WARM_KEY: os.environ.get(WARM_KEY) or await reading_key(plane, folder),
    }
    return {name: value for name, value in found.items() if value}


async def reading_key(plane: Plane, folder: Path) -> str | None:
    """The newest key of a demo in `folder` that this store lets read; None where there is none."""
    from context_plane.access import is_token, load_key

    for token in _kept_by_demos(folder):
        key = await load_key(plane.engine.store, token.split("_")[1]) if is_token(token) else None
        if key is not None and key.live(plane.engine.now_us()) and "read" in key.scopes:
            return token
    return None


def _kept_by_demos(folder: Path) -> list[str]:
    paths = sorted(folder.glob(DEMO_KEYS), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.read_text().strip() for path in paths]


async def first_month(plane: Plane) -> str | None:
    """The first day of the month of the oldest event there is, built or not; None of a store without events.

    A month, so that somewhat older events have a partition too, and rolled months are whole.
    """
    from context_plane.errors import PlaneError
    from context_plane.fold import load_pending
    from context_plane.tenants import list_tenants

    gate = asyncio.Semaphore(TENANTS_AT_ONCE)

    async def one(tenant: str) -> list[str]:
        async with gate:
            try:
                pending = await load_pending(plane.engine, tenant)
            except PlaneError:  # the sensor says so, once it looks
                return []
        return [*pending.dirty, *pending.manifest.days, *(f"{month}-01" for month in pending.manifest.months)]

    found = await asyncio.gather(*(one(tenant) for tenant in await list_tenants(plane.engine.store)))
    oldest = min((day for days in found for day in days), default=None)
    return None if oldest is None else f"{oldest[:7]}-01"
