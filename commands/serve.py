"""`context-plane serve` and `up`: the read service, and the service with the Dagster UI beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from commands import show
from commands.options import AsJson, Store, settings_of

LOG_FORMAT: Final = "CONTEXT_PLANE_LOG_FORMAT"
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

    --json tells where, before the first request; `GET /readyz` tells when."""
    from serving.main import run

    settings = settings_of(store)

    def announce(guarded: bool) -> None:
        if as_json:
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            show.json({"url": url, "store": settings.store_url, "workers": workers, "keys": guarded})

    run(settings, host, port, workers, log_format, announce=announce)


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

    serve_all(settings_of(store).store_url, port=port, ui_port=ui_port, dagster_home=dagster_home, as_json=as_json)
