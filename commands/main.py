"""`context-plane`: the commands and their order in the help. Commands import what they need when they run."""

from __future__ import annotations

from typing import Final

import typer

from commands import inspect, keys, load, read, serve
from commands.demo import command as demo
from commands.erase import erase
from commands.outcome import INTERRUPTED, fail

app: Final = typer.Typer(
    name="context-plane",
    help="The context store and context cache for AI agents: entity-first, built ahead of time, served in one read.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command("demo")(demo.demo)
app.command("up")(serve.up)
app.command("serve")(serve.serve)
app.command("ingest")(load.ingest)
app.command("build")(load.build)
app.command("rollup")(load.rollup)
app.command("search")(read.search)
app.command("context")(read.context)
app.command("timeline")(read.timeline)
app.command("entities")(read.entities)
app.command("snapshot")(read.snapshot)
app.command("export")(read.export)
app.command("erase")(erase)
app.add_typer(keys.app, name="keys")
app.command("doctor")(inspect.doctor)


def main() -> None:
    """The program. Every error ends in one line and an exit code."""
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:  # the rim of the process: nothing may end in a traceback
        fail(error)
