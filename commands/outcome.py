"""How commands end: an exit code that says what to do next, and one line on standard error."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NoReturn

import typer

from commands.start import INTERRUPTED as INTERRUPTED
from context_plane.errors import Conflict, Corrupt, Denied, Invalid, NotFound, PlaneError, Unavailable

OK: Final = 0
UNEXPECTED: Final = 1
"""A defect of this program."""
USAGE: Final = 2
DEFECTS: Final = 8
"""The command did its work and found something wrong: rejected rows, days without a partition, a failed check, an
unhealthy store."""
PIPE_CLOSED: Final = 141
"""As shells tell of a program that SIGPIPE ended."""

EXIT_CODES: Final[Mapping[type[PlaneError], int]] = {
    Invalid: USAGE,
    NotFound: 3,
    Unavailable: 4,
    Denied: 5,
    Conflict: 6,
    Corrupt: 7,
}
"""By family; 2 is also what a wrong option ends with, and a file that cannot be read or written; 4, that there is no
room for what is written."""
MEANINGS: Final[Mapping[int, str]] = {
    OK: "done",
    UNEXPECTED: "an unexpected error: a defect of this program",
    USAGE: "the command, its options or its input are wrong: change them",
    3: "it does not exist, or is not built yet",
    4: "a store, service or limit is in the way for now: run it again later",
    5: "the API key is missing, wrong or lacks a scope",
    6: "somebody else changed it meanwhile: run it again",
    7: "stored bytes are not what was written: stop, and run `context-plane doctor`",
    DEFECTS: "done, with defects: rows were rejected, days were not built, or a check found a fault",
    INTERRUPTED: "interrupted",
    PIPE_CLOSED: "whoever read standard output went away",
}
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
DEBUG: Final = "CONTEXT_PLANE_DEBUG"
"""Set in the environment: show where an error comes from."""


def exit_code(error: BaseException) -> int:
    for family, code in EXIT_CODES.items():
        if isinstance(error, family):
            return code
    if _is_full(error):
        return EXIT_CODES[Unavailable]
    return USAGE if isinstance(error, typer.TyperException) or _of_a_file(error) else UNEXPECTED


def line_of(error: BaseException) -> str:
    """What is wrong and what to do, in one line. Pure."""
    if isinstance(error, PlaneError):
        said = str(error)
    elif isinstance(error, typer.TyperException):
        said = _usage(error)
    elif isinstance(error, OSError) and _is_full(error):
        said = f"{error.filename or 'output'}: {(error.strerror or 'no room').lower()}; make room, then run it again"
    elif isinstance(error, OSError) and _of_a_file(error):
        said = f"{error.filename}: {(error.strerror or 'cannot be used').lower()}; mend the path or its permissions"
    else:
        said = f"unexpected: {type(error).__name__}: {error}; set {DEBUG}=1 to see where it comes from"
    return " ".join(said.split())


def fail(error: BaseException) -> NoReturn:
    """Print the error as one line and exit by its family, also where nobody takes the line."""
    with suppress(OSError):
        if os.environ.get(DEBUG, "0") != "0":
            traceback.print_exception(error)
        print(f"context-plane: {line_of(error)}", file=sys.stderr)
    raise SystemExit(exit_code(error))


def _usage(error: typer.TyperException) -> str:
    """A refused option or argument, and where the right ones are told."""
    message = error.format_message().strip().rstrip(".")
    context: typer.Context | None = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "context-plane"
    return f"{message[:1].lower()}{message[1:]}; see {path} --help"


def _is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in FULL


def _of_a_file(error: BaseException) -> bool:
    """Whether the operating system refused a path: not a connection, not a broken pipe."""
    return isinstance(error, OSError) and isinstance(error.filename, str)
