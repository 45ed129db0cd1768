"""From process start to a service that answers `/readyz`: the real command, a store with one built day.

Runs follow one another on a warm machine (the first is not counted); `wall_ms` is from spawning the process
to the first 200 of `/readyz`, asked every few milliseconds.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.scenario import Row
from commands.processes import child, free_port, program

SUMMARY: Final = "process start to readiness of the read service, milliseconds"
RUNS: Final = 15
POLL_S: Final = 0.005
GIVE_UP_S: Final = 60.0


def run(*, quick: bool, seed: int) -> list[Row]:
    """One row. Nothing here is random: `seed` changes nothing."""
    with tempfile.TemporaryDirectory(prefix="context-plane-") as folder:
        asyncio.run(_prepare(Path(folder)))
        times = [_once(Path(folder)) for _ in range(4 if quick else RUNS + 1)][1:]
    ordered = sorted(times)
    shown: dict[str, Any] = {
        "case": "readyz",
        "system": "context-plane",
        "runs": len(ordered),
        "min_ms": round(ordered[0], 1),
        "p50_ms": round(statistics.median(ordered), 1),
        "max_ms": round(ordered[-1], 1),
    }
    return [shown]


def _once(folder: Path) -> float:
    port = free_port()
    url = f"http://127.0.0.1:{port}/readyz"
    environment = {"CONTEXT_PLANE_STORE": _store(folder), "CONTEXT_PLANE_CACHE_DIR": str(folder / "cache")}
    started = time.perf_counter()
    command = [*program(), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with child(command, log=folder / "serve.log", environment=environment):
        while time.perf_counter() - started < GIVE_UP_S:
            try:
                if httpx.get(url, timeout=1).status_code == 200:
                    return (time.perf_counter() - started) * 1000
            except httpx.TransportError:
                time.sleep(POLL_S)
    raise TimeoutError(f"the service was not ready within {GIVE_UP_S:.0f} s")


def _store(folder: Path) -> str:
    return (folder / "store").as_uri()


async def _prepare(folder: Path) -> None:
    from context_plane import plane
    from context_plane.model import Event, Put, day_start_us
    from context_plane.settings import Settings
    from context_plane.tenants import TenantSettings, put_tenant

    day = "2026-03-04"
    events = [
        Put(Event(f"acct-{n:04d}", day_start_us(day) + n, f"e{n}", "crm", "call", text=f"asked about export {n}"))
        for n in range(500)
    ]
    async with plane.open(Settings(store=_store(folder), cache_dir=folder / "cache")) as opened:
        await put_tenant(opened.engine, "bench", TenantSettings())
        await opened.write("bench", events, body_bytes=100_000)
        await opened.build("bench", [day])
