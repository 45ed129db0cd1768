"""Interrupts (SIGINT, Ctrl-C) that Dagster handles in the place of Python.

While it executes a run it makes a failed step of one, or forgets it where no step is under way.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SIGNALS_MAX: Final = 4096
"""Signals of one block that are looked at, a byte each; the socket holds fewer."""


@contextmanager
def raising_interrupts() -> Iterator[None]:
    """Raise `KeyboardInterrupt` at the end of the block if one came within, whoever handled it.

    In the main thread, which is the one that is told of signals; elsewhere this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told, telling = socket.socketpair()
    with told, telling:
        told.setblocking(False)
        telling.setblocking(False)
        before = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            if signal.SIGINT in _numbers(told):
                raise KeyboardInterrupt


def _numbers(told: socket.socket) -> bytes:
    try:
        return told.recv(SIGNALS_MAX)
    except BlockingIOError:
        return b""
