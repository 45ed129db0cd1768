"""What obstore's threads are still about to do when a process ends.

They tell an event loop of a result by calling into Python. The loop may act upon it, and the process may be about to
end, while such a thread is on its way back: a thread that asks for the interpreter once it is being taken down is
ended by it, which aborts the whole process (before Python 3.14; PyO3/pyo3-async-runtimes issue 40), after its work was
done and said.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Final

WAIT_S: Final = 2.0
"""As long as an end waits for a thread that stays in Python: what runs there is not a result's way back then."""
STEP_S: Final = 0.001


def wait_for_callbacks() -> None:
    """Return once no thread that Python did not start runs Python code, after `WAIT_S` at the latest. For `atexit`."""
    ends = time.monotonic() + WAIT_S
    time.sleep(STEP_S)  # lets those in that wait for the interpreter: they have no frame yet
    while _foreign_threads() and time.monotonic() < ends:
        time.sleep(STEP_S)


def _foreign_threads() -> set[int]:
    return set(sys._current_frames()).difference(thread.ident or 0 for thread in threading.enumerate())
