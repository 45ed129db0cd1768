"""Processors that do not sleep: what of a latency at a low rate is the machine's, and what the code's.

A processor that has nothing to do for 25 ms is put to sleep, by its own firmware or by the host of a virtual machine,
and loses what its caches held. A loop of idle priority keeps it busy and gives way to whoever wants to run (Linux,
sched(7), `SCHED_IDLE`). `python -m benchmarks.awake PROCESSOR PARENT` is one such loop; it ends with its parent.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from benchmarks.scenario import REPOSITORY

ROUNDS: Final = 1_000_000
"""Of the loop between two looks at the parent: some hundredths of a second."""


@contextmanager
def awake() -> Iterator[list[int]]:
    """Until the block ends, no processor of this process sleeps. The process ids of the loops."""
    with ExitStack() as stack:
        pids = []
        for processor in sorted(os.sched_getaffinity(0)):
            command = [sys.executable, "-m", "benchmarks.awake", str(processor), str(os.getpid())]
            process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            pids.append(process.pid)
        yield pids


def _spin(processor: int, parent: int) -> None:
    os.sched_setaffinity(0, [processor])
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while os.getppid() == parent:
        for _ in range(ROUNDS):
            pass


if __name__ == "__main__":
    _spin(*map(int, sys.argv[1:]))
