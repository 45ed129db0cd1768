"""`context-plane`: the commands and their order in the help. Commands import what they need when they run."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, TypeAlias

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from commands import bench, cost, keys, load, manual, mcp, operations, read, serve
from commands.approve import approve, reject
from commands.audit import audit
from commands.demo import command as demo
from commands.doctor import command as doctor
from commands.erase import erase
from commands.outcome import INTERRUPTED, PIPE_CLOSED, UNEXPECTED, USAGE, fail

NAME: Final = "context-plane"
HELP: Final = """The context store and context cache for AI agents: entity-first, built ahead of time,
served in one read.

Begin with `context-plane demo`. Every command works on the store itself, needs no service, and takes --help."""

Command: TypeAlias = Callable[..., None]
PANELS: Final[Mapping[str, Mapping[str, Command]]] = {
    "Begin": {"demo": demo.demo, "up": serve.up, "serve": serve.serve, "mcp": mcp.mcp},
    "Write and build": {"ingest": load.ingest, "build": load.build, "rollup": load.rollup},
    "Read": {
        "search": read.search,
        "context": read.context,
        "timeline": read.timeline,
        "entities": read.entities,
        "snapshot": read.snapshot,
        "export": read.export,
    },
    "Operate": {
        "doctor": doctor.doctor,
        "verify": operations.verify,
        "collect": operations.collect,
        "cost": cost.cost,
        "bench": bench.bench,
        "erase": erase,
        "approve": approve,
        "reject": reject,
        "audit": audit,
    },
}
GROUPS: Final[Mapping[str, Mapping[str, typer.Typer]]] = {"Access": {"keys": keys.app}}


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _plain_flags(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _plain_flags(super().get_params(ctx))


def _plain_flags(params: list[Any]) -> list[Any]:
    """Without the word `<bool>` behind every flag of the help."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


def composed() -> typer.Typer:
    """The program: every command in its panel, with its examples."""
    app = typer.Typer(
        name=NAME,
        cls=_Group,
        help=_paragraphs(HELP),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(_root)
    for panel, commands in PANELS.items():
        for name, command in commands.items():
            told = _paragraphs(inspect.getdoc(command) or "")
            app.command(name, cls=_Command, help=told, epilog=manual.epilog(name), rich_help_panel=panel)(command)
    for panel, groups in GROUPS.items():
        for name, group in groups.items():
            for info in group.registered_commands:
                part = info.name or (info.callback.__name__ if info.callback else "")
                info.cls = _Command
                info.epilog = manual.epilog(f"{name} {part}")
            app.add_typer(group, name=name, rich_help_panel=panel)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"{NAME} {version(NAME)}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself."""


def _paragraphs(text: str) -> str:
    """The text with a line for each paragraph: the terminal breaks lines, not the source."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


app: Final = composed()


def main() -> None:
    """The program. Every error ends in one line and an exit code, whether or not anybody takes what is printed."""
    _open_closed()
    try:
        ended = get_command(app).main(prog_name=NAME, standalone_mode=False)
        if not sys.stdout.closed:
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        raise SystemExit(PIPE_CLOSED) from None
    except SystemExit as error:
        if error.code == UNEXPECTED:  # of no command: it is how the libraries that print end on a closed pipe
            raise SystemExit(PIPE_CLOSED) from None
        raise
    except Exception as error:  # the rim of the process: nothing may end in a traceback
        if type(error).__name__ == "NoArgsIsHelpError":  # the help was printed
            raise SystemExit(USAGE) from None
        fail(error)
    finally:
        _drop_refused()
    if ended:
        raise SystemExit(ended)


def _open_closed() -> None:
    """What is printed to a stream that was closed at the start (`>&-`) goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def _drop_refused() -> None:
    """What is still buffered and nobody takes goes nowhere, or the interpreter would complain of it."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is None or stream.closed:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
