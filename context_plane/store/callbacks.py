"""What obstore's threads are still about to do when a process ends.

They tell an event loop of a result by calling into Python. The loop may act upon it, and the process may be about to
end, while such a thread is on its way back: a thread that asks for the interpreter once it is being taken down is
ended by it, which aborts the whole process (before Python 3.14; PyO3/pyo3-async-runtimes issue 40), after its work was
done and said. Of a request that was cancelled or left behind they tell, too: some thread calls into Python later, and
panics on standard error where the interpreter is gone.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Awaitable
from typing import Any, Final, TypeVar
from weakref import WeakSet

from obstore.store import MemoryStore

T = TypeVar("T")

WAIT_S: Final = 2.0
"""As long as an end waits for a thread that stays in Python: what runs there is not a result's way back then."""
STEP_S: Final = 0.001

_sent: Final[WeakSet[Any]] = WeakSet()
"""Futures of requests. obstore holds one until it has told of the result, or knows that nobody wants it."""


def sent(answer: Awaitable[T]) -> Awaitable[T]:
    """The future of a request to obstore, noted. Every request is awaited through this."""
    _sent.add(answer)
    return answer


def wait_for_callbacks() -> None:
    """Return once no thread that Python did not start runs Python code, or is still to tell of a request, after
    `WAIT_S` at the latest. For `atexit`."""
    ends = time.monotonic() + WAIT_S
    time.sleep(STEP_S)  # lets those in that wait for the interpreter: they have no frame yet
    while (_are_untold() or _foreign_threads()) and time.monotonic() < ends:
        time.sleep(STEP_S)


def _are_untold() -> bool:
    """Whether there are requests that ended without a result, or not at all, of which obstore is still to tell."""
    MemoryStore()  # any call makes obstore let go of what it dropped while it was not in Python
    try:
        return any(future.cancelled() or not future.done() for future in _sent)
    except RuntimeError:  # another thread sends meanwhile
        return True


def _foreign_threads() -> set[int]:
    return set(sys._current_frames()).difference(thread.ident or 0 for thread in threading.enumerate())
