"""How commands end: an exit code that says what to do next, and one line on standard error."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from typing import Final, NoReturn

from context_plane.errors import Conflict, Corrupt, Denied, Invalid, NotFound, PlaneError, Unavailable

OK: Final = 0
UNEXPECTED: Final = 1
"""A defect of this program."""
DEFECTS: Final = 8
"""The command did its work and found something wrong: rejected rows, a failed check, an unhealthy store."""
INTERRUPTED: Final = 130

EXIT_CODES: Final[Mapping[type[PlaneError], int]] = {
    Invalid: 2,
    NotFound: 3,
    Unavailable: 4,
    Denied: 5,
    Conflict: 6,
    Corrupt: 7,
}
"""By family; 2 is also what a wrong option ends with."""
MEANINGS: Final[Mapping[int, str]] = {
    OK: "done",
    UNEXPECTED: "an unexpected error: a defect of this program",
    2: "the command, its options or its input are wrong: change them",
    3: "it does not exist, or is not built yet",
    4: "a store, service or limit is in the way for now: run it again later",
    5: "the API key is missing, wrong or lacks a scope",
    6: "somebody else changed it meanwhile: run it again",
    7: "stored bytes are not what was written: stop, and run `context-plane doctor`",
    DEFECTS: "done, with defects: rows were rejected, or a check found a fault",
    INTERRUPTED: "interrupted",
}
TRACEBACKS: Final = "CONTEXT_PLANE_TRACEBACKS"
"""Set in the environment: show where an error comes from."""


def exit_code(error: BaseException) -> int:
    for family, code in EXIT_CODES.items():
        if isinstance(error, family):
            return code
    return UNEXPECTED


def fail(error: BaseException) -> NoReturn:
    """Print the error as one line and exit by its family."""
    if os.environ.get(TRACEBACKS):
        traceback.print_exception(error)
    if isinstance(error, PlaneError):
        line = str(error)
    else:
        line = f"unexpected: {type(error).__name__}: {error}; set {TRACEBACKS}=1 to see where it comes from"
    print(f"context-plane: {' '.join(line.split())}", file=sys.stderr)
    raise SystemExit(exit_code(error))
