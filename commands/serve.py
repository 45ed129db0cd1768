"""`context-plane serve` and `up`: the read service, and the service with the Dagster UI beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.options import Store, settings_of

Host = Annotated[str, typer.Option(help="address to listen on")]
Port = Annotated[int, typer.Option(min=1, max=65_535)]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8080,
    workers: Annotated[int, typer.Option(min=1, max=64, help="processes")] = 1,
    store: Store = None,
) -> None:
    """Serve the HTTP API. A store without API keys is served on loopback only."""
    from serving.main import run

    run(settings_of(store), host, port, workers)


def up(
    port: Port = 8080,
    ui_port: Annotated[int, typer.Option(min=1, max=65_535, help="of the Dagster UI")] = 3000,
    dagster_home: Annotated[Path, typer.Option(help="runs and their logs")] = Path(".plane/dagster"),
    store: Store = None,
) -> None:
    """Serve the API and the Dagster UI until Ctrl-C, on loopback."""
    from commands.processes import serve_all

    serve_all(settings_of(store).store_url, port=port, ui_port=ui_port, dagster_home=dagster_home)
