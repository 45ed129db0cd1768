"""The store: does it answer, may we do what we must, is it exclusive, is its clock ours, is there room."""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from commands import show
from commands.doctor.finding import Finding
from context_plane.errors import NotFound, PlaneError

if TYPE_CHECKING:
    from context_plane.plane import Plane
    from context_plane.store.base import Store

CLOCK_SKEW_WARN_S: Final = 5.0
"""Clocks order nothing, but expiries of keys, snapshots and collections are read off them."""
SLOW_STORE_S: Final = 0.2
"""One request: three in a row are a cold read, and its budget is below half a second."""
FREE_BYTES_MIN: Final = 1 << 30
"""Of a local store: a build writes a day's indexes before the old ones are collected."""
FOLDER: Final = "control/probe/"
NEEDS: Final = {
    "list": "nothing can be read: a snapshot begins with a listing",
    "read": "nothing can be read",
    "write": "reads work; ingest, builds and commits do not",
    "delete": "objects pile up: collection, erasure and retention fail",
}
"""What works without each right."""


async def answers(plane: Plane) -> Finding:
    """One listing, timed. Raises `Unavailable`."""
    started_s = time.perf_counter()
    async for _ in plane.store.list("control/", limit=1):
        pass
    seconds = time.perf_counter() - started_s
    fact = f"{plane.settings.store_url} answers in {seconds * 1000:.0f} ms"
    if seconds > SLOW_STORE_S:
        return Finding("store", "warn", fact, "a cold read waits for three such answers", "run closer to the store")
    return Finding("store", "ok", fact)


async def rights(store: Store, nonce: str) -> Finding:
    """Write, read, list and delete, each tried by itself on an object of our own."""
    key = f"{FOLDER}{nonce}-rights"

    async def read() -> None:
        try:
            await store.get(key)
        except NotFound:  # it could not be written, but we were let in
            return

    async def listing() -> None:
        async for _ in store.list(FOLDER, limit=1):
            pass

    tries: dict[str, Callable[[], Awaitable[None]]] = {
        "write": lambda: store.put_new(key, b"may we?"),
        "read": read,
        "list": listing,
        "delete": lambda: store.delete([key]),
    }
    refused: dict[str, str] = {}
    for right, attempt in tries.items():
        try:
            await attempt()
        except PlaneError as error:
            refused[right] = error.detail
    if not refused:
        return Finding("permissions", "ok", "may read, write, list and delete")
    means = "; ".join(NEEDS[right] for right in refused)
    fact = "; ".join(f"may not {right}: {detail}" for right, detail in refused.items())
    advice = "grant the credentials get, put, list and delete below the store's prefix"
    return Finding("permissions", "fail", fact, means, advice)


async def exclusive(plane: Plane) -> Finding:
    """A race of creates, as at every start. Raises `Unavailable(store_not_exclusive)`."""
    from context_plane.store import probe

    await probe(plane.store, nonce=plane.engine.nonce())
    return Finding("creates", "ok", "of several creators of a key, one wins")


async def clock(plane: Plane) -> Finding:
    """This clock against the store's, by the time of an object just written."""
    key = f"{FOLDER}{plane.engine.nonce()}-clock"
    before_us = plane.engine.now_us()
    await plane.store.put_new(key, b"clock")
    after_us = plane.engine.now_us()
    try:
        written_us = [info.modified_us async for info in plane.store.list(key, limit=1)]
    finally:
        await plane.store.delete([key])
    skew_us = written_us[0] - (before_us + after_us) // 2 if written_us else 0
    skew_s = max(0.0, abs(skew_us) / 1e6 - 1.0)  # listings tell whole seconds
    if skew_s < CLOCK_SKEW_WARN_S:
        return Finding("clock", "ok", "agrees with the store's")
    means = "keys, snapshots and garbage expire early or late by as much"
    return Finding("clock", "warn", f"differs from the store's by {skew_s:.0f} s", means, "turn on NTP")


def room(url: str) -> Finding | None:
    """Free space below a local store; None for others."""
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None
    free = shutil.disk_usage(unquote(parts.path)).free
    fact = f"{show.size(free)} free below the store"
    if free < FREE_BYTES_MIN:
        return Finding(
            "room", "warn", fact, "writes and builds fail once it is used up", "context-plane collect --delete"
        )
    return Finding("room", "ok", fact)
