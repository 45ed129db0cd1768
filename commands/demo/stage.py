"""The demo's stage: an export, a tenant with a key, its events in the log, its days built.

Every step looks at what is there first, so the demo can be run again, or go on after it was interrupted.
The export is a function of its seed and last day, and the last day follows from the store's first one.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from commands import show
from commands.demo.report import Report
from context_plane.client import Client
from context_plane.errors import Unavailable
from context_plane.model import add_days, day_of
from context_plane.settings import Settings

if TYPE_CHECKING:
    from context_plane.plane import Plane

SPEC: Final = "customer_context_v0"
SEED: Final = 7
FIRST_ENTITY: Final = "acct-0001"
BUNDLE_DAYS: Final = 7
"""Newest days that get bundles; a bundle of any other day is a backfill away."""
MAPPING: Final = Path(__file__).resolve().parents[2] / "examples" / "mappings" / "demo.yaml"
EXPORTS: Final = (
    "accounts.csv",
    "crm_activities.jsonl",
    "tickets.csv",
    "ticket_messages.jsonl",
    "usage_daily.parquet",
    "invoices.csv",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the demo is asked to show, and where it keeps its own things."""

    tenant: str
    customers: int
    days: int
    folder: Path
    dagster_home: Path

    @property
    def export(self) -> Path:
        return self.folder / "export"

    @property
    def key_file(self) -> Path:
        return self.folder / "key"


@dataclass(frozen=True, slots=True)
class Held:
    """What the store has of it already. `until`: the export's last day; `loaded`: every event is in the log."""

    until: dt.date
    loaded: bool


async def look(settings: Settings, wanted: Wanted) -> Held:
    """Raises `Unavailable(store_not_exclusive)` for a store that cannot be written to safely."""
    from context_plane import plane
    from context_plane.fold import load_pending

    async with plane.open(settings) as opened:
        yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
        if not await opened.tenant_exists(wanted.tenant):
            return Held(yesterday, False)
        waiting = (await load_pending(opened.engine, wanted.tenant)).dirty
        built = await _first_day(opened, wanted.tenant)
        first = built or min(waiting, default=None)
        if first is None:
            return Held(yesterday, False)
        # The demo builds after all is loaded, so what is built says that the load was complete.
        return Held(dt.date.fromisoformat(add_days(first, wanted.days - 1)), built is not None)


async def _first_day(opened: Plane, tenant: str) -> str | None:
    """The day on which the export describes its first account; None before it is built."""
    from context_plane.errors import NotFound
    from context_plane.recall.values import TimelineRequest

    request = TimelineRequest(entity=FIRST_ENTITY, kinds=frozenset({"account"}), limit=1, descending=False)
    try:
        events = (await opened.timeline(tenant, request)).events
    except NotFound:
        return None
    return day_of(events[0].ts_us) if events else None


def export(wanted: Wanted, held: Held, report: Report) -> None:
    """The export's files, written unless they are there."""
    from context_plane.demo.generate import generate

    mark = wanted.export / f".{held.until}-{wanted.customers}-{wanted.days}-{SEED}"
    if mark.exists():
        report.line("export", f"{wanted.export} is there, to {held.until}")
        return
    with report.step("export", "inventing customers") as step:
        summary = generate(wanted.export, until=held.until, customers=wanted.customers, days=wanted.days, seed=SEED)
        for old in wanted.export.glob(".20*"):
            old.unlink()
        mark.touch()
        rows = sum(summary.rows.values())
        step.done(
            f"{rows:,} rows of CRM, support, usage and billing: {wanted.customers:,} customers, {wanted.days} days"
        )


async def access(settings: Settings, wanted: Wanted) -> str:
    """The tenant, and a key that reads and writes it; the one kept from an earlier run while it lives."""
    from context_plane import plane
    from context_plane.access import create_key, load_key
    from context_plane.audit import COMMAND
    from context_plane.tenants import TenantSettings, load_tenant, put_tenant

    async with plane.open(settings, probe_store=False) as opened:
        engine = opened.engine
        if await load_tenant(engine.store, wanted.tenant) is None:
            await put_tenant(engine, wanted.tenant, TenantSettings(), actor=COMMAND)
        if wanted.key_file.exists():
            token = wanted.key_file.read_text().strip()
            kept = await load_key(engine.store, token.split("_")[1]) if token.count("_") >= 2 else None
            if kept is not None and kept.live(engine.now_us()) and kept.opens(wanted.tenant):
                return token
        scopes, note = ("read", "write"), "made by the demo"
        made = await create_key(engine, tenant=wanted.tenant, scopes=scopes, note=note, actor=COMMAND)
        wanted.folder.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(wanted.key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(made.token + "\n")
        return made.token


def load(client: Client, wanted: Wanted, held: Held, report: Report) -> None:
    """The export through its mapping and the service, as a bulk load."""
    import time

    from commands.batches import Batch, batches
    from context_plane.sources.mapping import load_mapping

    if held.loaded:
        report.line("ingest", "the store holds these events already")
        return
    with report.step("ingest", "loading through POST /events") as step:
        files = [wanted.export / name for name in EXPORTS]
        stream = batches(load_mapping(MAPPING), files, now_us=time.time_ns() // 1000, dim=None, rejects_max=0)
        events = requests = 0
        for item in stream:
            assert isinstance(item, Batch), "rejects_max is 0: the first reject raises"
            key = item.idempotency_key(visible="after_build")
            events += client.write(item.ndjson, visible="after_build", idempotency_key=key).accepted
            requests += 1
        step.done(f"{events:,} events in {requests} durable requests")


def build(settings: Settings, wanted: Wanted, report: Report) -> None:
    """The days that wait, through Dagster, whose UI shows the runs."""
    from commands.load import build_days
    from commands.options import run

    days = run(_dirty(settings, wanted.tenant))
    if not days:
        report.line("build", "every day is built")
        return
    os.environ["DAGSTER_HOME"] = str(wanted.dagster_home)
    with report.step("build", None) as step:
        built = build_days(settings, days, wanted.tenant, bundle_days=BUNDLE_DAYS)
        if not built.ok:
            detail = f"a day could not be built: {built.problems[0]}"
            raise Unavailable("internal", detail, tenant=wanted.tenant)
        bundled = min(len(days), BUNDLE_DAYS)
        step.done(f"{show.count(len(days), 'day')} through Dagster assets; bundles for the newest {bundled}")


async def _dirty(settings: Settings, tenant: str) -> list[str]:
    from context_plane import plane
    from context_plane.fold import load_pending

    async with plane.open(settings, probe_store=False) as opened:
        return sorted((await load_pending(opened.engine, tenant)).dirty)
