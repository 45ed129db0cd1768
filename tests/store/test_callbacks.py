"""A process that ends while a client's thread is on its way back from Python ends as it meant to."""

from __future__ import annotations

import _thread
import asyncio
import subprocess
import sys
import threading
import time
from weakref import WeakSet

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

STARVED = """
import asyncio, gc, os, socket, sys, time

from context_plane.store import StoreOptions, callbacks, open_store

class Garbage:
    def __init__(self):
        self.itself = self
    def __del__(self):
        time.sleep(0.5)

async def cancelled(address):
    options = StoreOptions(endpoint=f"http://{address}", access_key="a", secret_key="b", allow_http=True)
    store = open_store("s3://bucket", options=options)
    tasks = [asyncio.create_task(store.get(f"a/{n}")) for n in range(32)]
    await asyncio.sleep(0.1)
    for thread in map(int, os.listdir("/proc/self/task")):
        if thread != os.getpid():
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    raise SystemExit(3)

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
busy_until = time.monotonic() + 0.6
if os.fork() == 0:
    while time.monotonic() < busy_until:
        pass
    os._exit(0)
callbacks.WAIT_S = 60.0  # others may want that processor, too
gc.disable()
Garbage()
with socket.create_server(("127.0.0.1", 0)) as silent:
    asyncio.run(cancelled("127.0.0.1:%d" % silent.getsockname()[1]))
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


def test_requests_without_a_result_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as obstore holds their futures; those that have one are not. Seen to fail (returned before) with
    foreign threads alone, and (waited for ever) with every future."""
    monkeypatch.setattr(callbacks, "WAIT_S", 30.0)
    monkeypatch.setattr(callbacks, "_sent", WeakSet())
    monkeypatch.setattr(callbacks, "_foreign_threads", set)  # those of whatever runs the tests stay
    loop = asyncio.new_event_loop()
    told, cancelled, left = (loop.create_future() for _ in range(3))
    told.set_result(None)
    cancelled.cancel()
    held = [callbacks.sent(future) for future in (cancelled, left)]
    callbacks.sent(told)
    del cancelled, left
    for at_s in (0.1, 0.2):
        threading.Timer(at_s, held.pop).start()
    started = time.monotonic()
    callbacks.wait_for_callbacks()
    assert not held
    assert time.monotonic() - started < 20
    loop.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the threads of a process are starved as Linux does it")
def test_a_client_that_learns_late_of_cancelled_requests_does_not_panic() -> None:
    """Its threads get no processor until the process has ended, but for a wait. Seen to fail (panics) with the wait for
    foreign threads alone."""
    ended = subprocess.run([sys.executable, "-c", STARVED], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (3, "")
