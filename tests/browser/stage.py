"""The demo's customers behind the real service, for tests of pages and for their pictures.

Built through the library, without Dagster: the same events, days and bundles. On top of them a note that waits to be
built, and, where asked for, a customer whose every name and text is markup that wants to run, built and unbuilt.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from unittest.mock import patch

import orjson

from commands.batches import Batch, batches
from commands.demo.stage import EXPORTS, MAPPING, SEED
from commands.processes import service
from context_plane import plane
from context_plane.access import create_key
from context_plane.demo.generate import generate
from context_plane.fold import load_pending
from context_plane.model import add_days
from context_plane.plane import Plane
from context_plane.settings import Settings
from context_plane.sources.mapping import load_mapping
from context_plane.tenants import TenantSettings, put_tenant
from context_plane.wire import parse_event

T = TypeVar("T")

TENANT: Final = "demo"
UNTIL: Final = dt.date(2026, 3, 31)
"""Fixed, so that pictures change only when the page does."""
BUNDLE_DAYS: Final = 2
HOSTILE: Final = '<img src=x onerror="window.ran=1">/..?#&é'
HOSTILE_TEXT: Final = (
    "<script>window.ran=1</script> The price is too high <b>not bold</b> <img src=x onerror='window.ran=1'> "
    'javascript:window.ran=1 "><svg onload=window.ran=1> &lt;i&gt; [1]'
)


@dataclass(frozen=True, slots=True)
class Demo:
    """What was built. `known`: a customer with several signals; `last`: the newest built day."""

    store: Path
    known: str
    last: str


def apart(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, run in a thread: Playwright keeps a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def make_demo(folder: Path, *, customers: int, days: int, hostile: bool) -> Demo:
    """A store below `folder` with a built history that ends at `UNTIL`."""
    export = folder / "export"
    generate(export, until=UNTIL, customers=customers, days=days, seed=SEED)
    truth = orjson.loads((export / "truth.json").read_bytes())
    known = min(entity for entity, fact in truth.items() if fact["contact"])
    settings = Settings(store=(folder / "store").as_uri(), cache_dir=folder / "cache")
    apart(_fill(settings, export, hostile=hostile, known=known))
    return Demo(folder / "store", known, UNTIL.isoformat())


async def _fill(settings: Settings, export: Path, *, hostile: bool, known: str) -> None:
    last = UNTIL.isoformat()
    async with plane.open(settings) as opened:
        await put_tenant(opened.engine, TENANT, TenantSettings())
        files = [export / name for name in EXPORTS]
        for batch in batches(load_mapping(MAPPING), files, now_us=time.time_ns() // 1000, dim=None, rejects_max=0):
            assert isinstance(batch, Batch)
            await opened.write(TENANT, batch.writes, body_bytes=len(batch.ndjson), visible="after_build")
        if hostile:
            await write(opened, [_hostile(f"{last}T10:00:00Z", "<i>e1</i>")])
        days = sorted((await load_pending(opened.engine, TENANT)).dirty)
        await opened.build(TENANT, days[:-BUNDLE_DAYS], specs=())
        await opened.build(TENANT, days[-BUNDLE_DAYS:])
        late = {
            "entity": known, "ts": f"{add_days(last, 1)}T08:20:00Z", "source": "agent", "kind": "note", "id": "note-1",
            "text": "Asked for a call about single sign-on; not built yet, and found at once.",
        }  # fmt: skip
        await write(opened, [late])
        if hostile:
            await write(opened, [_hostile(f"{last}T18:00:00Z", "<i>e2</i>")])


async def write(opened: Plane, events: list[dict[str, Any]]) -> None:
    """As an agent's writes: found at once, built later. Events may be deletes."""
    writes = [parse_event(event, now_us=time.time_ns() // 1000, dim=None) for event in events]
    await opened.write(TENANT, writes, body_bytes=len(orjson.dumps(events)))


def _hostile(ts: str, event_id: str) -> dict[str, Any]:
    attrs = {"<b>plan</b>": HOSTILE, "tags": ["<u>x</u>", "javascript:window.ran=1"]}
    named = {"entity": HOSTILE, "id": event_id, "source": "<i>source</i>", "kind": "crm_note", "thread": "<s>t</s>"}
    return {**named, "ts": ts, "text": HOSTILE_TEXT, "attrs": attrs}


def change(store: Path, work: Callable[[Plane], Awaitable[T]]) -> T:
    """What `work` returns of the store's plane, as another process than the service."""

    async def changed() -> T:
        settings = Settings(store=store.as_uri(), cache_dir=store.parent / "cache")
        async with plane.open(settings, probe_store=False) as opened:
            return await work(opened)

    return apart(changed())


def new_key(store: Path, tenant: str = TENANT) -> str:
    """A token that reads the tenant; from now on the store is served to keys alone."""

    async def key(opened: Plane) -> str:
        return (await create_key(opened.engine, tenant=tenant, scopes=["read"])).token

    return change(store, key)


@contextmanager
def served(store: Path, folder: Path) -> Iterator[str]:
    """The service over a store, in a process of its own; its URL."""
    environment = {"CONTEXT_PLANE_CACHE_DIR": str(folder / "cache")}
    with patch.dict(os.environ, environment), service(store.as_uri(), log=folder / "service.log") as url:
        yield url
