"""`context-plane demo`: its options, and the order of its acts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands import show
from commands.options import AsJson, Store, run, settings_of


def demo(
    customers: Annotated[
        int, typer.Option("--customers", min=1, max=100_000, metavar="N", help="invented customers")
    ] = 1_000,
    days: Annotated[
        int, typer.Option("--days", min=7, max=730, metavar="N", help="days of history, ending yesterday")
    ] = 30,
    tenant: Annotated[str, typer.Option("--tenant", metavar="NAME", help="theirs")] = "demo",
    folder: Annotated[Path, typer.Option("--folder", metavar="FOLDER", help="export, key and logs")] = Path(
        ".plane/demo"
    ),
    dagster_home: Annotated[Path, typer.Option("--dagster-home", metavar="FOLDER", help="runs and their logs")] = Path(
        ".plane/dagster"
    ),
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Invent customers, load and build their history, and let a growth agent pick whom to contact.

    Running it again uses what the store holds."""
    from commands.demo import stage
    from commands.demo.act import agent_run, live_write
    from commands.demo.report import Report
    from commands.processes import prepare_dagster, service
    from context_plane.client import Client

    settings = settings_of(store)
    report = Report(show.console(stderr=as_json))
    wanted = stage.Wanted(tenant, customers, days, folder / tenant, prepare_dagster(dagster_home))
    report.opening(settings.store_url)
    held = run(stage.look(settings, wanted))
    stage.export(wanted, held, report)
    with service(settings.store_url, log=folder / "service.log") as url:
        key = run(stage.access(settings, wanted))
        with Client(url, wanted.tenant, key) as client:
            stage.load(client, wanted, held, report)
            stage.build(settings, wanted, report)
            chosen = agent_run(client, settings, wanted, report)
            live_write(client, chosen, report)
    report.closing(wanted)
    if as_json:
        show.json(report.told)
