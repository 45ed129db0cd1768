"""`context-plane doctor`: is this installation able to work, and if not, what to do."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from commands import show
from commands.options import AsJson, Store, run, settings_of
from commands.outcome import DEFECTS
from context_plane.errors import Invalid, PlaneError

if TYPE_CHECKING:
    from context_plane.plane import Plane
    from context_plane.settings import Settings

State: TypeAlias = Literal["ok", "warn", "fail"]

CLOCK_SKEW_WARN_S: Final = 5.0
"""Clocks order nothing, but expiries of keys, snapshots and collections are read off them."""
SLOW_STORE_S: Final = 0.5
LIBRARIES: Final = ("dagster", "fastapi", "lancedb", "numpy", "obstore", "polars", "pyarrow", "pydantic", "tantivy")
_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `advice` is empty when all is well."""

    name: str
    state: State
    fact: str
    advice: str = ""


def doctor(store: Store = None, as_json: AsJson = False) -> None:
    """Look at store, clock, versions, model, cache and tenants, and say what to do."""
    findings = run(_look(settings_of(store)))
    if as_json:
        names = ("name", "state", "fact", "advice")
        show.json({"findings": [{name: getattr(finding, name) for name in names} for finding in findings]})
    else:
        _print(findings)
    if any(finding.state == "fail" for finding in findings):
        raise SystemExit(DEFECTS)


async def _look(settings: Settings) -> list[Finding]:
    from context_plane import plane

    findings = [_versions(), await _guarded("cache", lambda: _cache(settings))]
    try:
        async with plane.open(settings, probe_store=False) as opened:
            findings.append(await _guarded("store", lambda: _store(opened)))
            if findings[-1].state != "fail":
                findings.append(await _guarded("clock", lambda: _clock(opened)))
            findings.append(await _guarded("model", lambda: _model(opened)))
            if findings[2].state != "fail":
                findings.append(await _guarded("keys", lambda: _keys(opened)))
                findings += await _tenants(opened)
    except PlaneError as error:
        findings.append(Finding("settings", "fail", str(error), "mend the setting it names"))
    return findings


async def _guarded(name: str, look: Callable[[], Awaitable[Finding]]) -> Finding:
    try:
        return await look()
    except PlaneError as error:
        return Finding(name, "fail", error.detail, _ADVICE.get(error.code, "see the detail"))
    except OSError as error:
        return Finding(name, "fail", str(error), "make the folder writable, or choose another")


_ADVICE: Final = {
    "store_not_exclusive": "this gateway ignores If-None-Match; use one that does not, or its newer release",
    "store_unavailable": "check the URL, endpoint and credentials (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …)",
    "settings_invalid": "mend --store or CONTEXT_PLANE_STORE",
    "embedder_unavailable": "check CONTEXT_PLANE_EMBEDDER__BASE_URL and its key",
}


async def _store(plane: Plane) -> Finding:
    """Create, race, read and delete, as the startup probe does."""
    from context_plane.store import probe

    started_s = time.perf_counter()
    await probe(plane.store, nonce=plane.engine.nonce())
    seconds = time.perf_counter() - started_s
    fact = f"{plane.settings.store_url} is writable and its creates are exclusive ({seconds * 1000:.0f} ms)"
    if seconds > SLOW_STORE_S:
        return Finding("store", "warn", fact, "cold reads pay this several times; run closer to the store")
    return Finding("store", "ok", fact)


async def _clock(plane: Plane) -> Finding:
    """This clock against the store's, by the time of an object just written."""
    key = f"control/probe/{plane.engine.nonce()}-clock"
    before_us = plane.engine.now_us()
    await plane.store.put_new(key, b"clock")
    after_us = plane.engine.now_us()
    written_us = [info.modified_us async for info in plane.store.list(key, limit=1)]
    await plane.store.delete([key])
    skew_us = written_us[0] - (before_us + after_us) // 2 if written_us else 0
    skew_s = max(0.0, abs(skew_us) / 1e6 - 1.0)  # listings tell whole seconds
    fact = "agrees with the store's" if skew_s < CLOCK_SKEW_WARN_S else f"differs from the store's by {skew_s:.0f} s"
    advice = "" if skew_s < CLOCK_SKEW_WARN_S else "turn on NTP: expiries are read off clocks"
    return Finding("clock", "warn" if advice else "ok", fact, advice)


def _versions() -> Finding:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found, missing = [f"python {platform.python_version()}"], []
    for name in ("context-plane", *LIBRARIES):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("versions", "fail", f"not installed: {', '.join(missing)}", "run `make setup`")
    return Finding("versions", "ok", ", ".join(found))


async def _model(plane: Plane) -> Finding:
    started_s = time.perf_counter()
    shown = f"{plane.engine.embedder.model}, {plane.engine.embedder.dim} dimensions"
    try:
        await plane.engine.embedder.embed_query("does the model answer?")
    except Invalid as error:
        if error.code != "vector_missing":
            raise
        return Finding("model", "ok", f"{shown}, given with each event and query")
    ms = (time.perf_counter() - started_s) * 1000
    return Finding("model", "ok", f"{shown} ({ms:.1f} ms)")


async def _cache(settings: Settings) -> Finding:
    folder, budget = settings.cache_folder, settings.cache_disk_bytes

    def look() -> Finding:
        if budget == 0:
            return Finding("cache", "warn", "no disk cache", "set CONTEXT_PLANE_CACHE_DISK_BYTES: restarts read cold")
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / ".doctor"
        mark.write_bytes(b"")
        mark.unlink()
        held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        free = shutil.disk_usage(folder).free
        fact = f"{folder} holds {_size(held)} of {_size(budget)}; {_size(free)} free"
        if free < budget - held:
            return Finding("cache", "warn", fact, "lower CONTEXT_PLANE_CACHE_DISK_BYTES or free some space")
        return Finding("cache", "ok", fact)

    return await asyncio.to_thread(look)


async def _keys(plane: Plane) -> Finding:
    from context_plane.access import list_keys

    now_us = plane.engine.now_us()
    keys = await list_keys(plane.store)
    live = sum(key.live(now_us) for key in keys)
    if not keys:
        advice = "before serving beyond loopback: context-plane keys create --operator --scope admin"
        return Finding("keys", "warn", "none: whoever reaches the service on loopback may do everything", advice)
    return Finding("keys", "ok" if live else "warn", f"{live} live of {len(keys)}", "" if live else "make a new one")


async def _tenants(plane: Plane) -> list[Finding]:
    from context_plane.tenants import list_tenants

    names = await list_tenants(plane.store)
    return [await _guarded(f"tenant {name}", partial(_tenant, plane, name)) for name in names]


async def _tenant(plane: Plane, name: str) -> Finding:
    from context_plane.fold import load_pending

    info = await plane.snapshot_info(name)
    dirty = (await load_pending(plane.engine, name)).dirty
    fact = (
        f"snapshot {info.snapshot}, {show.count(len(info.days), 'built day')}, {show.count(len(dirty), 'day')} to build"
    )
    if info.model is not None and info.model != plane.engine.embedder.model:
        advice = f"its vectors are of {info.model}: configure that embedder, or embed every day again"
        return Finding(f"tenant {name}", "fail", fact, advice)
    if dirty:
        return Finding(f"tenant {name}", "warn", fact, f"context-plane build --tenant {name}")
    return Finding(f"tenant {name}", "ok", fact)


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    rows: list[list[str | Text]] = [
        [Text(finding.state, style=_STYLES[finding.state]), finding.name, finding.fact, finding.advice]
        for finding in findings
    ]
    show.console().print(show.table(["", "what", "found", "do"], rows))


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
