"""Workers on real processes: what is reported, and what a dying worker costs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from resources.workers import LOST, Processes, open_workers, processors

WAIT_S = 30.0


@pytest.fixture
def workers() -> Iterator[Processes]:
    made = Processes(2)
    yield made
    made.close()


def double(number: int) -> int:
    return 2 * number


def die_of(number: int) -> int:
    """Kills its own process for one unit of five."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def pid_of(_: int) -> int:
    time.sleep(0.1)
    return os.getpid()


def refuse(number: int) -> int:
    raise ValueError(f"unit {number}")


def test_every_unit_is_reported_once(workers: Processes) -> None:
    assert sorted(workers.map(double, range(7))) == [(n, 2 * n) for n in range(7)]


def test_units_run_side_by_side_in_other_processes(workers: Processes) -> None:
    pids = {pid for _, pid in workers.map(pid_of, range(6))}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_a_killed_worker_costs_its_unit_alone(workers: Processes) -> None:
    """Seen to fail with one executor of two processes: a death breaks it, and every unit in it with it."""
    for _ in range(2):  # and the workers are as many as before
        found = dict(workers.map(die_of, range(8)))
        assert found == {n: LOST if n == 3 else n for n in range(8)}


def test_a_worker_killed_at_rest_costs_one_unit_at_most(workers: Processes) -> None:
    """The unit that is given to it before its death is noticed comes back as lost; then there is another worker."""
    for _, pid in list(workers.map(pid_of, range(4))):
        with_pid = [child for child in multiprocessing.active_children() if child.pid == pid]
        for child in with_pid:
            child.kill()
            child.join()
    found = dict(workers.map(double, range(4)))
    assert all(result in (LOST, 2 * n) for n, result in found.items())
    assert sum(result is LOST for result in found.values()) <= workers.slots
    assert sorted(workers.map(double, range(4))) == [(n, 2 * n) for n in range(4)]


def test_what_the_work_raises_is_raised(workers: Processes) -> None:
    with pytest.raises(ValueError, match="unit"):
        list(workers.map(refuse, range(3)))


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    """Seen to fail without the thread that waits for the parent: its workers stay for ever."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from resources.workers import Processes\n"
        "from tests.resources.test_workers import pid_of\n"
        "if __name__ == '__main__':\n"
        "    print(next(Processes(1).map(pid_of, [0]))[1], flush=True)\n"
        "    time.sleep(600)\n"
    )
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert parent.stdout is not None
    with parent:
        worker = int(parent.stdout.readline())
        parent.kill()
    until = time.monotonic() + WAIT_S
    while _lives(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _lives(worker)


INTERRUPTED = """
import signal, time
from resources.workers import Processes

def unit(_):
    print("unit", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as Dagster does: that of polars wakes nobody
    workers = Processes(2)
    print("begun", flush=True)
    try:
        list(workers.map(unit, range(3)))
    finally:
        workers.close()
"""


@pytest.mark.parametrize("lines", [1, 3], ids=["while they start", "in their units"])
def test_workers_end_without_a_word_when_the_terminal_interrupts(tmp_path: Path, lines: int) -> None:
    """Seen to fail (a traceback of each) with interrupts heeded until a worker has imported its work, and (their
    parent waits for their units) with workers that end when it is gone."""
    script = tmp_path / "parent.py"
    script.write_text(INTERRUPTED)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        start_new_session=True,
    )
    assert parent.stdout is not None
    for _ in range(lines):
        parent.stdout.readline()
    time.sleep(0.5)  # the first of the workers has begun to import
    os.killpg(parent.pid, signal.SIGINT)
    try:
        _, said = parent.communicate(timeout=WAIT_S)
    finally:
        parent.kill()
    assert said.count("Traceback") == 1, said
    assert said.splitlines()[-1] == "KeyboardInterrupt"


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_the_environment_says_which_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTEXT_PLANE_WORKER_PROCESSES", "3")
    with open_workers() as workers:
        assert workers.slots == 3
    monkeypatch.delenv("CONTEXT_PLANE_WORKER_PROCESSES")
    with open_workers() as workers:
        assert workers.slots == processors() >= 1
    monkeypatch.setenv("CONTEXT_PLANE_WORKERS", "threads")
    with pytest.raises(ValidationError, match="'processes' or 'ray'"), open_workers():
        pass
