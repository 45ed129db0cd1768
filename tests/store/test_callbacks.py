"""A process that ends while a client's thread is on its way back from Python ends as it meant to."""

from __future__ import annotations

import _thread
import subprocess
import sys
import threading
import time

import pytest

from context_plane.store import callbacks

SLOW_WAY_BACK = """
import asyncio, gc, sys, threading, time

from context_plane.store.open import open_store

class Loop(asyncio.SelectorEventLoop):
    def call_soon_threadsafe(self, *args, **named):
        handle = super().call_soon_threadsafe(*args, **named)
        if threading.get_ident() != threading.main_thread().ident:
            time.sleep(0.5)
        return handle

class Garbage:
    # What an interpreter that is taken down collects for long.
    def __init__(self):
        self.itself = self
    def __del__(self):
        time.sleep(1.0)

with asyncio.Runner(loop_factory=Loop) as runner:
    runner.run(open_store("memory://callbacks").put_new("a/b", b"1"))
gc.disable()
Garbage()
sys.exit(3)
"""


def test_a_client_that_still_tells_of_its_result_does_not_abort_the_process() -> None:
    """Seen to fail (ended by SIGABRT) without the wait."""
    ended = subprocess.run([sys.executable, "-c", SLOW_WAY_BACK], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (3, "")


def test_a_foreign_thread_that_stays_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail (never returned) without the bound."""
    monkeypatch.setattr(callbacks, "WAIT_S", 0.05)
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        inside.set()
        leave.wait(30)

    _thread.start_new_thread(stay, ())
    assert inside.wait(30)
    started = time.monotonic()
    callbacks.wait_for_callbacks()
    waited = time.monotonic() - started
    leave.set()
    assert 0.05 <= waited < 20
