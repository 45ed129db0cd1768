"""`context-plane demo`: its options, and the order of its acts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.options import Store, run, settings_of


def demo(
    customers: Annotated[int, typer.Option(min=1, max=100_000, help="invented customers")] = 1_000,
    days: Annotated[int, typer.Option(min=7, max=730, help="days of history, ending yesterday")] = 30,
    tenant: Annotated[str, typer.Option(metavar="NAME")] = "demo",
    folder: Annotated[Path, typer.Option(help="export, key and logs")] = Path(".plane/demo"),
    dagster_home: Annotated[Path, typer.Option(help="runs and their logs")] = Path(".plane/dagster"),
    store: Store = None,
) -> None:
    """Invent customers, load and build their history, and let a growth agent pick whom to contact.

    Running it again uses what the store holds."""
    from commands.demo import stage
    from commands.demo.act import agent_run, live_write
    from commands.demo.report import Report
    from commands.processes import prepare_dagster, service

    settings = settings_of(store)
    report = Report()
    wanted = stage.Wanted(tenant, customers, days, folder / tenant, prepare_dagster(dagster_home))
    report.opening(settings.store_url)
    held = run(stage.look(settings, wanted))
    stage.export(wanted, held, report)
    with service(settings.store_url, log=folder / "service.log") as url:
        key = run(stage.access(settings, wanted))
        with stage.client(url, wanted, key) as client:
            stage.load(client, wanted, held, report)
            stage.build(settings, wanted, report)
            chosen = agent_run(client, settings, wanted, report)
            live_write(client, chosen, report)
    report.closing(wanted)
