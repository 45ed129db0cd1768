"""Many tenants: 300 tenants with three days each, built by the deployment's own assets over worker processes.

Memory is the peak of the process that runs the steps and the greatest peak of a worker; a second run has a tenth of
the tenants, for neither may grow with them. What a unit costs by itself is measured with units that do nothing:
their description is sent, a worker takes it up on the plane it keeps open, and its report comes back.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson

from assets import units
from assets.build import build_days
from assets.report import Made
from assets.units import do
from benchmarks.scenario import REPOSITORY, Row
from benchmarks.texts import pieces_of
from context_plane import plane as planes
from context_plane.model import Event, Put, add_days, day_start_us
from context_plane.plane import Plane
from context_plane.settings import Settings
from resources.plane import open_plane
from resources.workers import Processes, processors

SUMMARY: Final = "300 tenants of three days built by worker processes: events/s, peak memory, what a unit costs"
TENANTS: Final = 300
FEW: Final = 10
"""Times fewer tenants in the run that memory is compared with."""
FEWEST: Final = 20
"""Fewer are little enough to be built without workers."""
QUICK: Final = 10
DAYS: Final = tuple(add_days("2026-03-02", n) for n in range(3))
EVENTS: Final = 100
"""Of a tenant and day."""
ENTITIES: Final = 20
EMPTY_UNITS: Final = 300
SAMPLE_S: Final = 0.05


def run(*, quick: bool, seed: int) -> list[Row]:
    """Rows of the build, of one with a tenth of the tenants, and of a unit that does nothing."""
    tenants = TENANTS // QUICK if quick else TENANTS
    many, few = (_child("build", count, seed) for count in (tenants, max(FEWEST, tenants // FEW)))
    case = f"peak memory of {tenants} tenants over {few['tenants']}"
    ratio = {name: round(many[f"{name}_mb"] / few[f"{name}_mb"], 3) for name in ("peak", "worker_peak")}
    rows = [many, few, {"case": case, "system": "context-plane", **{f"ratio_of_{n}": ratio[n] for n in ratio}}]
    return [*rows, _child("unit", EMPTY_UNITS, seed)]


def _child(what: str, count: int, seed: int) -> dict[str, Any]:
    """A row, measured in a process of its own: its peak is nobody else's."""
    command = [sys.executable, "-m", "benchmarks.tenants", what, str(count), str(seed)]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True)
    row: dict[str, Any] = orjson.loads(done.stdout.splitlines()[-1])
    return {"system": "context-plane", "where": "in_process", "processes": processors(), **row}


# --- in the child -------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> None:
    what, count, seed = arguments
    with tempfile.TemporaryDirectory(prefix="context-plane-tenants-", ignore_cleanup_errors=True) as folder:
        settings = Settings(store=(Path(folder) / "store").as_uri(), cache_dir=Path(folder) / "cache")
        row = (_build if what == "build" else _unit)(settings, int(count), int(seed))
    sys.stdout.write(orjson.dumps(row).decode() + "\n")


def _build(settings: Settings, tenants: int, seed: int) -> dict[str, Any]:
    asyncio.run(_write(settings, tenants, seed))
    with _peaks() as peaks:
        summary = build_days(settings, DAYS)
    assert summary.ok, summary.problems[:3]
    events = tenants * len(DAYS) * EVENTS
    assert sum(day.events for day in summary.days) == events
    return {
        "case": f"{tenants} tenants, {len(DAYS)} days",
        "tenants": tenants,
        "events": events,
        "bundles": sum(day.bundles for day in summary.days),
        "seconds": round(summary.seconds, 2),
        "events_per_s": round(events / summary.seconds, 1),
        "tenant_days_per_s": round(tenants * len(DAYS) / summary.seconds, 2),
        "peak_mb": round(peaks["self"], 1),
        "worker_peak_mb": round(peaks["worker"], 1),
        "text": pieces_of(seed)[1],
    }


async def _write(settings: Settings, tenants: int, seed: int) -> None:
    (said, _), rng = pieces_of(seed), random.Random(seed)
    async with planes.open(settings, probe_store=False) as opened:
        for n in range(tenants):
            writes = [
                Put(
                    Event(
                        entity=f"acct-{rng.randrange(ENTITIES):02}",
                        ts_us=day_start_us(day) + at * 60_000_000,
                        id=f"{day}-{at}",
                        source="crm",
                        kind="note",
                        text=rng.choice(said),
                        attrs={"seats": rng.randrange(50)},
                    )
                )
                for day in DAYS
                for at in range(EVENTS)
            ]
            await opened.write(f"tenant-{n:03}", writes, body_bytes=EVENTS * 1_000, visible="after_build")


def _unit(settings: Settings, count: int, seed: int) -> dict[str, Any]:
    tenants = dict.fromkeys([f"tenant-{n:03}" for n in range(count)], units.UNIT_BYTES)
    workers = Processes()
    try:
        with open_plane(settings) as opened:
            do(opened, workers, tenants, DAYS[0], "segments", _nothing)  # the workers start and open their planes
            started = time.perf_counter()
            found = do(opened, workers, tenants, DAYS[0], "segments", _nothing)
            seconds = time.perf_counter() - started
    finally:
        workers.close()
    assert found.units == len(found.made) == count
    return {"case": "a unit that does nothing", "units": count, "ms_per_unit": round(seconds * 1000 / count, 3)}


async def _nothing(plane: Plane, tenant: str, day: str) -> Made:
    return Made("")


@contextmanager
def _peaks() -> Iterator[dict[str, float]]:
    """Peaks of resident memory in MiB: of this process, and of the largest of its children."""
    found, done = {"self": 0.0, "worker": 0.0}, threading.Event()

    def look() -> None:
        while not done.wait(SAMPLE_S):
            for child in multiprocessing.active_children():
                found["worker"] = max(found["worker"], _peak_mb(str(child.pid)))

    watcher = threading.Thread(target=look)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of writing
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
        found["self"] = _peak_mb("self")


def _peak_mb(pid: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


if __name__ == "__main__":
    main(sys.argv[1:])
