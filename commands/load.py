"""`context-plane ingest`, `build`, `rollup`: exports become events, events become segments, indexes and bundles."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final, Literal, TypeAlias

import orjson
import typer

from commands import complete, show
from commands.options import AsJson, Since, Store, Tenant, Until, opened, run, settings_of, tenant_of
from commands.outcome import DEFECTS
from context_plane.errors import Invalid, PlaneError

if TYPE_CHECKING:
    from assets.build import BuildSummary
    from commands.batches import Batch, Tally
    from context_plane.client import AsyncClient
    from context_plane.plane import Plane
    from context_plane.settings import Settings

Visible: TypeAlias = Literal["now", "after_build"]
Send: TypeAlias = "Callable[[Batch], Awaitable[Sequence[str]]]"
"""Writes one batch durably and tells its days."""

REJECT_GROUPS_SHOWN: Final = 12
RETRIES_MAX: Final = 8
"""Of a write that a limit refused for now."""


def ingest(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", exists=True, dir_okay=False, help="CSV, JSONL or Parquet")
    ],
    tenant: Annotated[
        str,
        typer.Option(
            "--tenant",
            envvar="CONTEXT_PLANE_TENANT",
            metavar="NAME",
            help="whose events they are",
            autocompletion=complete.tenants,
        ),
    ],
    mapping: Annotated[
        Path | None,
        typer.Option("--mapping", metavar="YAML", exists=True, dir_okay=False, help="without: files hold events"),
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option("--rejects", metavar="FILE", help="write refused rows here, JSONL")
    ] = None,
    rejects_max: Annotated[
        int, typer.Option("--rejects-max", min=0, metavar="N", help="stop after more refused rows than this")
    ] = 100_000,
    visible: Annotated[
        Visible, typer.Option("--visible", help="after_build: bulk loads stay out of searches until built")
    ] = "now",
    again: Annotated[bool, typer.Option("--again", help="write even what was written in the last 24 h")] = False,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="load through this service, not into a store")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", envvar="CONTEXT_PLANE_KEY", metavar="TOKEN", help="API key for --url")
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Load exports through a mapping, or JSONL files of events. Running it again writes nothing twice.

    Into a store, the tenant is created when it does not exist."""
    from context_plane.client import AsyncClient
    from context_plane.sources.mapping import load_mapping

    described = None if mapping is None else load_mapping(mapping)
    horizon_us = settings_of(store).horizon_us

    async def work() -> Tally:
        async with AsyncExitStack() as stack:
            salt = secrets.token_hex(8) if again else ""
            if url is not None:
                client = await stack.enter_async_context(AsyncClient(url, tenant, key))
                send, dim = _to_service(client, visible, salt), None
            else:
                plane = await stack.enter_async_context(opened(store, probe=True))
                await _ensure_tenant(plane, tenant)
                send, dim = _to_store(plane, tenant, visible, salt), plane.engine.embedder.dim
            return await _load(_Source(described, tuple(files), dim, rejects_max, horizon_us), send, rejects)

    tally = run(work())
    _report(tally, tenant, visible, rejects, as_json=as_json)
    if tally.rejects:
        raise SystemExit(DEFECTS)


def build(
    since: Since = None,
    until: Until = None,
    bundle_days: Annotated[
        int, typer.Option("--bundle-days", min=0, metavar="N", help="bundles for this many newest of the days")
    ] = 7,
    tenant: Tenant = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Build days: segments, indexes, bundles. Without --since and --until, the days that have unbuilt events."""
    days, name = run(_days(store, tenant, since, until))
    if not days:
        if as_json:
            show.json({"tenant": name, "days": [], "not_built": [], "seconds": 0.0})
        else:
            window = " in this window" if since or until else ""
            print(f"nothing to build{window}: every event of {name} is built")
        return
    days, left = _parted(days)
    built = build_days(settings_of(store), days, name, bundle_days=bundle_days)
    if as_json:
        left_days = [{"day": day, "problem": problem} for day, problem in left.items()]
        told = [asdict(day) for day in built.days]
        show.json({"tenant": name, "days": told, "not_built": left_days, "seconds": built.seconds})
    else:
        _report_build(built, name, left)
    if left or not built.ok:
        raise SystemExit(DEFECTS)


def rollup(
    month: Annotated[list[str], typer.Option("--month", metavar="YYYY-MM", help="a month that is over; repeatable")],
    tenant: Tenant = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Merge the indexes of a closed month into one: long reads get faster, answers stay the same."""
    from context_plane.rollup import MEANINGS

    async def work() -> list[dict[str, Any]]:
        async with opened(store, probe=True) as plane:
            name = await tenant_of(plane, tenant)
            return [await _rolled_up(plane, name, each) for each in sorted(set(month))]

    told = run(work())
    if as_json:
        show.json({"months": told})
        return
    for each in told:
        if each["state"] == "due":
            rolled = f"{show.count(each['days'], 'day')}, {show.count(each['events'], 'event')}"
            print(f"rolled up {each['month']} of {each['tenant']}: {rolled}")
        else:
            print(f"left {each['month']} of {each['tenant']} alone: {MEANINGS[each['state']]}")


def build_days(settings: Settings, days: Sequence[str], tenant: str, *, bundle_days: int) -> BuildSummary:
    """Materialize the assets of the days, with a progress bar."""
    import logging

    from assets.build import build_days as materialize

    logging.getLogger("dagster").setLevel(logging.CRITICAL)  # the event log keeps what it would say here
    with show.progress() as bar:
        task = bar.add_task("building days", total=len(days))
        return materialize(
            settings, days, progress=lambda *_: bar.advance(task), tenants=[tenant], bundle_days=bundle_days
        )


# --- leaves -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    mapping: Any
    files: tuple[Path, ...]
    dim: int | None
    rejects_max: int
    horizon_us: int


async def _load(source: _Source, send: Send, rejects: Path | None) -> Tally:
    """Read, write and count; the next batch is read while the last one is written."""
    import time

    from commands.batches import Batch, Tally, batches, row_count

    tally = Tally()
    now_us = time.time_ns() // 1000
    stream = batches(
        source.mapping,
        source.files,
        now_us=now_us,
        dim=source.dim,
        rejects_max=source.rejects_max,
        horizon_us=source.horizon_us,
    )
    with ExitStack() as stack:
        out: BinaryIO | None = None if rejects is None else stack.enter_context(rejects.open("wb"))
        bar = stack.enter_context(show.progress())
        task = bar.add_task("loading rows", total=sum(row_count(path) for path in source.files))

        def following() -> Batch | None:
            for item in stream:
                if isinstance(item, Batch):
                    return item
                tally.reject(item)
                bar.advance(task)
                if out is not None:
                    out.write(orjson.dumps(item.record(), option=orjson.OPT_APPEND_NEWLINE))
            return None

        batch = await asyncio.to_thread(following)
        while batch is not None:
            days, after = await asyncio.gather(send(batch), asyncio.to_thread(following))
            tally.rows += batch.rows
            tally.events += len(batch.writes)
            tally.days.update(days)
            bar.advance(task, batch.rows)
            batch = after
    return tally


def _to_store(plane: Plane, tenant: str, visible: Visible, salt: str) -> Send:
    from context_plane.audit import COMMAND
    from context_plane.model import sha256_hex

    async def send(batch: Batch) -> Sequence[str]:
        for attempt in itertools.count(1):
            try:
                accepted = await plane.write(
                    tenant,
                    batch.writes,
                    body_bytes=len(batch.ndjson),
                    visible=visible,
                    idempotency_key=batch.idempotency_key(visible=visible, salt=salt),
                    body_digest=sha256_hex(batch.ndjson),
                    actor=COMMAND,
                )
            except PlaneError as error:
                if error.retry_after_s is None or error.code == "tail_full" or attempt == RETRIES_MAX:
                    raise
                await asyncio.sleep(error.retry_after_s)
            else:
                return accepted.days
        raise AssertionError("the loop returns or raises")

    return send


def _to_service(client: AsyncClient, visible: Visible, salt: str) -> Send:
    async def send(batch: Batch) -> Sequence[str]:
        asked = batch.idempotency_key(visible=visible, salt=salt)
        return (await client.write(batch.ndjson, visible=visible, idempotency_key=asked)).days

    return send


async def _ensure_tenant(plane: Plane, tenant: str) -> None:
    from context_plane.audit import COMMAND
    from context_plane.tenants import TenantSettings, load_tenant, put_tenant

    if await load_tenant(plane.engine.store, tenant) is None:
        await put_tenant(plane.engine, tenant, TenantSettings(), actor=COMMAND)


def _report(tally: Tally, tenant: str, visible: Visible, rejects: Path | None, *, as_json: bool) -> None:
    days = sorted(tally.days)
    if as_json:
        groups = [
            {"file": file, "code": code, "column": column, "rows": rows, "detail": tally.examples[group].detail}
            for group, rows in tally.groups.most_common()
            for file, code, column in [group]
        ]
        counts = {"tenant": tenant, "rows": tally.rows, "events": tally.events, "rejects": tally.rejects}
        show.json({**counts, "days": days, "rejected": groups})
        return
    out = show.console()
    out.print(
        f"{show.count(tally.rows, 'row')} became {show.count(tally.events, 'event')} of tenant {tenant}"
        + (f" on {show.count(len(days), 'day')}, {days[0]} to {days[-1]}" if days else "")
    )
    if tally.rejects:
        out.print(f"{show.count(tally.rejects, 'row')} refused:")
        rows = [
            [f"{count:,}", file, str(tally.examples[group].line), column, code, tally.examples[group].detail]
            for group, count in tally.groups.most_common(REJECT_GROUPS_SHOWN)
            for file, code, column in [group]
        ]
        out.print(show.table([">rows", "file", ">first line", "column", "code", "why"], rows))
        where = f"every one is in {rejects}" if rejects else "keep them with --rejects FILE"
        out.print(f"mend them or the mapping, then run it again; {where}")
    if days:
        when = "found by searches now" if visible == "now" else "found once built"
        out.print(f"{when}; bundles need: context-plane build --tenant {tenant}")


async def _rolled_up(plane: Plane, tenant: str, month: str) -> dict[str, Any]:
    """`state`: what the month was; `due` means that it was rolled up now."""
    state, entry = await plane.roll_up(tenant, month)
    days, events = (0, 0) if entry is None else (len(entry.covered), entry.shards.events)
    return {"tenant": tenant, "month": month, "state": state, "days": days, "events": events}


def _parted(days: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The days that have a partition, and those that have none, which no run builds, each with what to do."""
    from assets.partitions import DAILY, START_VARIABLE

    outside = [day for day in days if not DAILY.has_partition_key(day)]
    first = DAILY.get_first_partition_key() or ""
    before = f"it lies before the first partition; set {START_VARIABLE}={days[0]} and build again"
    ahead = "it lies ahead of the last partition; build again when its time has come"
    left = {day: before if day < first else ahead for day in outside}
    return [day for day in days if day not in left], left


def _report_build(built: BuildSummary, tenant: str, left: Mapping[str, str]) -> None:
    days = [day.day for day in built.days]
    span = f", {days[0]} to {days[-1]}" if days else ""
    print(f"built {show.count(len(days), 'day')} of {tenant}{span}, in {built.seconds:.1f} s")
    same = [day for day in built.days if day.unchanged]
    if same:
        reused = sum(day.objects_reused for day in same)
        print(f"  unchanged: {show.count(len(same), 'day')}, {show.count(reused, 'object')} kept, none written")
    for problem in built.problems:
        print(f"  withheld: {problem}")
    for problem in dict.fromkeys(left.values()):  # years of days have one problem
        those = [day for day in left if left[day] == problem]
        more = f" and {len(those) - 1:,} more" if those[1:] else ""
        print(f"  not built: {those[0]}{more}: {problem}")


async def _days(store: str | None, tenant: str | None, since: str | None, until: str | None) -> tuple[list[str], str]:
    """The days to build: those asked for that hold anything, or the dirty ones."""
    from context_plane.fold import load_pending
    from context_plane.model import day_start_us

    for day in (since, until):
        if day is not None:
            day_start_us(day)
    if since is not None and until is not None and since > until:
        raise Invalid("query_invalid", "--since comes after --until; swap them", since=since, until=until)
    async with opened(store) as plane:
        name = await tenant_of(plane, tenant)
        pending = await load_pending(plane.engine, name)
        days = set(pending.dirty)
        if since is not None or until is not None:
            days |= set((await plane.snapshot_info(name)).days)
        chosen = [day for day in sorted(days) if (since or day) <= day <= (until or day)]
        return chosen, name
