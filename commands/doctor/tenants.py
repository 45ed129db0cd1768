"""What serves and fills the store: the embedder, API keys, and each tenant's tail, days and model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from commands import show
from commands.doctor.finding import Finding
from context_plane.errors import Invalid

if TYPE_CHECKING:
    from context_plane.plane import Plane

TAIL_WARN: Final = 0.5
"""Share of the searched tail from which a build is due; a sensor builds from there on, too."""


async def model(plane: Plane) -> Finding:
    """Loads the embedder and embeds one query. Raises `Unavailable(embedder_unavailable)`."""
    embedder = plane.engine.embedder
    shown = f"{embedder.model}, {embedder.dim} dimensions"
    started_s = time.perf_counter()
    try:
        vector = await embedder.embed_query("does the model answer?")
    except Invalid as error:
        if error.code != "vector_missing":
            raise
        return Finding("model", "ok", f"{shown}, given with each event and query")
    ms = (time.perf_counter() - started_s) * 1000
    if len(vector) != embedder.dim:
        means = "its vectors fit no index of this store"
        advice = f"set CONTEXT_PLANE_EMBEDDER__DIM={len(vector)}, if the store is new"
        return Finding("model", "fail", f"{shown}, but it answers {len(vector)}", means, advice)
    return Finding("model", "ok", f"{shown}; loaded and answered in {ms:.0f} ms")


async def keys(plane: Plane) -> Finding:
    from context_plane.access import list_keys

    now_us = plane.engine.now_us()
    found = await list_keys(plane.store)
    live = sum(key.live(now_us) for key in found)
    if not found:
        means = "`serve` binds to loopback only, and whoever reaches it there may do everything"
        advice = "before serving beyond: context-plane keys create --operator --scope admin"
        return Finding("keys", "warn", "none", means, advice)
    fact = f"{live} live of {len(found)}"
    if not live:
        return Finding("keys", "warn", fact, "nobody can call the service", "context-plane keys create --tenant NAME")
    return Finding("keys", "ok", fact)


async def tenant(plane: Plane, name: str) -> Finding:
    """Raises what reading its manifest and tail raises."""
    from context_plane.catalog.tail import TAIL_BYTES_MAX, TAIL_OBJECTS_MAX

    label = f"tenant {name}"
    if not await plane.tenant_exists(name):
        return Finding(label, "fail", "it does not exist in this store", "", "correct --tenant or --store")
    cut = await plane.snapshots.current(name, "strong")
    info = await plane.snapshot_info(name)
    searched = [batch for batch in cut.tail.batches if batch.header.visible == "now"]
    held = sum(batch.header.body_bytes for batch in searched)
    full = max(len(searched) / TAIL_OBJECTS_MAX, held / TAIL_BYTES_MAX)
    days = show.count(len(info.days), "built day")
    fact = f"{days}, {show.count(len(info.dirty_days), 'day')} to build; tail {min(full, 1.0):.0%} full"
    if info.model is not None and info.model != plane.engine.embedder.model:
        means = f"its vectors are of {info.model}: vector searches and builds are refused"
        return Finding(label, "fail", fact, means, "configure that embedder, or re-embed (docs/operations.md)")
    advice = f"context-plane build --tenant {name}"
    if full >= 1.0:
        return Finding(label, "fail", fact, "writes are refused with tail_full until days are built", advice)
    if full >= TAIL_WARN:
        return Finding(label, "warn", fact, "every read searches the tail, and a full one refuses writes", advice)
    if info.dirty_days:
        return Finding(label, "warn", fact, "those events are found by search, but are in no bundle", advice)
    return Finding(label, "ok", fact)
