"""A cache folder that several processes fill, read and evict from at the same time, without a word between them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import orjson

from context_plane.cache.disk import SCANS_PER_BUDGET
from tests.cache.sharer import ENTRIES, payload

PROCESSES = 3
ROUNDS = 3_000


def test_processes_share_a_folder_and_its_budget(tmp_path: Path) -> None:
    """Each finds what others wrote, all of it or nothing, and the folder keeps its budget though everybody evicts.

    Seen to fail with entries written in place and taken as they are read, with a folder of each process's own, and
    without eviction.
    """
    budget = sum(len(payload(n)) for n in range(ENTRIES)) // 2
    command = [sys.executable, "-m", "tests.cache.sharer", str(tmp_path), str(budget)]
    running = [
        subprocess.Popen([*command, str(number), str(PROCESSES), str(ROUNDS)], stdin=PIPE, stdout=PIPE, stderr=PIPE)
        for number in range(PROCESSES)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    ended = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0] * PROCESSES, [said.decode() for _, said in ended]
    told = [orjson.loads(out) for out, _ in ended]
    assert all(each["found"] > 0 for each in told), told
    assert sum(each["evictions"] for each in told) > 0
    used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert used <= budget * (1 + PROCESSES / SCANS_PER_BUDGET)
