"""A backfill through Dagster, day by day, whose daemon and one of whose runs are killed on the way.

The deployment is that of `deploy/dagster/one-machine.yaml` without its webserver: a daemon, the code server that it
starts, and a process for each run. Both kills are SIGKILL: nobody is told. What is built afterwards is compared with a
build of the same log that nothing disturbed, and the same days are then built twice more: the first finds bundles that
looked back at the killed day while it was missing, the second finds nothing to write.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from assets.build import BuildSummary, build_days
from assets.bundles import is_stale
from assets.definitions import build_definitions
from assets.dirt import DAY_JOB
from benchmarks.scenario import REPOSITORY, Row
from commands.demo.stage import EXPORTS, MAPPING
from commands.processes import child, program
from context_plane.catalog.days import load_days
from context_plane.catalog.head import load_head
from context_plane.catalog.named import load_buckets
from context_plane.demo.generate import generate
from context_plane.model import add_days
from context_plane.plane import Plane
from context_plane.settings import Settings
from resources.plane import open_plane

SUMMARY: Final = "days of the demo rebuilt by Dagster's daemon; the daemon and a run are killed on the way"

T = TypeVar("T")

TENANT: Final = "acme"
BACKFILL: Final = "rehearsal"
UNTIL: Final = dt.date(2026, 3, 31)
CUSTOMERS: Final = 100
DAYS: Final = 90
QUICK: Final = (20, 7)
"""Customers and days."""
POLL_S: Final = 0.2
PATIENCE_S: Final = 240.0
"""Without a run that ends: Dagster looks at backfills every 30 s, and starts processes for seconds."""
OVER: Final = (BulkActionStatus.COMPLETED_SUCCESS, BulkActionStatus.COMPLETED_FAILED, BulkActionStatus.FAILED)


@dataclass(frozen=True, slots=True)
class Site:
    """A store with its cache, and a DAGSTER_HOME."""

    folder: Path

    @property
    def settings(self) -> Settings:
        return Settings(store=(self.folder / "store").as_uri(), cache_dir=self.folder / "cache")

    @property
    def home(self) -> Path:
        return self.folder / "dagster"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "CONTEXT_PLANE_STORE": self.settings.store_url,
            "CONTEXT_PLANE_CACHE_DIR": str(self.folder / "cache"),
            "DAGSTER_HOME": str(self.home),
            "PYTHONPATH": str(REPOSITORY),
        }

    def objects(self) -> set[str]:
        """The key of every object."""
        root = self.folder / "store"
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What came of it. `stale`: bundle days that looked back at the killed day before it was built."""

    days: int
    events: int
    status: str
    seconds: float
    runs: int
    retried: int
    materialized: int
    same_days: bool
    stale: int
    same_fresh_bundles: bool
    same_after_second: bool
    undisturbed_s: float
    third: BuildSummary
    made_by_third: int


def run(*, quick: bool, seed: int) -> Sequence[Row]:
    customers, days = QUICK if quick else (CUSTOMERS, DAYS)
    with tempfile.TemporaryDirectory(prefix="context-plane-backfill-", ignore_cleanup_errors=True) as folder:
        found = rehearse(Path(folder), customers=customers, days=days, seed=seed)
    whole = found.same_days and found.same_fresh_bundles and found.same_after_second
    common = {"system": "context-plane", "where": "dagster", "days": found.days, "events": found.events}
    return [
        {
            **common,
            "case": "backfill, daemon and a run killed",
            "kills": 2,
            "seconds": round(found.seconds, 1),
            "status": found.status,
            "runs": found.runs,
            "retried": found.retried,
            "days_materialized": found.materialized,
            "bundle_days_stale": found.stale,
            "digests_equal": whole,
        },
        {**common, "case": "first build, undisturbed, in one process", "seconds": round(found.undisturbed_s, 1)},
        {
            **common,
            "case": "backfill of unchanged days, in one process",
            "seconds": round(found.third.seconds, 1),
            "objects_written": found.made_by_third + sum(day.objects for day in found.third.days),
            "objects_reused": sum(day.objects_reused for day in found.third.days),
        },
    ]


def rehearse(folder: Path, *, customers: int, days: int, seed: int) -> Rehearsal:
    """Load, back up, backfill with two kills, compare, and build twice more."""
    site, calm = Site(folder / "killed"), Site(folder / "calm")
    load(site, folder / "export", customers=customers, days=days, seed=seed)
    shutil.copytree(site.folder / "store", calm.folder / "store")
    last = UNTIL.isoformat()
    asked = [add_days(last, -n) for n in reversed(range(days))]
    expected = built(calm, asked)
    site.home.mkdir()
    shutil.copy(REPOSITORY / "deploy" / "dagster" / "one-machine.yaml", site.home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(site.home)  # named by the file that was copied
    with dg.DagsterInstance.from_config(str(site.home)) as instance:
        started = time.perf_counter()
        backfill = _disturbed(site, instance, asked)
        seconds = time.perf_counter() - started
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill.backfill_id}))
        done = instance.get_materialized_partitions(dg.AssetKey("published"))
    held, wanted = contents(site.settings), contents(calm.settings)
    built(site, asked)
    before = site.objects()
    third = built(site, asked)
    return Rehearsal(
        days=days,
        events=sum(day.events for day in expected.days),
        status=backfill.status.value,
        seconds=seconds,
        runs=len(runs),
        retried=sum(run.parent_run_id is not None for run in runs),
        materialized=len(done & set(asked)),
        same_days=held.days == wanted.days,
        stale=len(held.stale),
        same_fresh_bundles=all(held.bundles[key] == wanted.bundles[key] for key in held.bundles.keys() - held.stale),
        same_after_second=contents(site.settings) == wanted,
        undisturbed_s=expected.seconds,
        third=third,
        made_by_third=len(site.objects() - before),
    )


def load(site: Site, export: Path, *, customers: int, days: int, seed: int) -> None:
    """The demo's export, loaded as any export is."""
    generate(export, until=UNTIL, customers=customers, days=days, seed=seed)
    files = [str(export / name) for name in EXPORTS]
    options = ["--mapping", str(MAPPING), "--tenant", TENANT, "--visible", "after_build"]
    command = [*program(), "ingest", *files, *options]
    subprocess.run(command, env={**os.environ, **site.environment}, cwd=REPOSITORY, check=True, capture_output=True)


def built(site: Site, days: Sequence[str]) -> BuildSummary:
    """The days built by this process, in order."""
    with dg.DagsterInstance.ephemeral() as instance:
        done = build_days(site.settings, days, instance=instance)
    assert done.ok, done.problems[:3]
    return done


# --- Dagster ------------------------------------------------------------------------------------


def _disturbed(site: Site, instance: dg.DagsterInstance, days: Sequence[str]) -> PartitionBackfill:
    """Ask for the days; kill the daemon after a third of them, and a run after two thirds."""
    id_ = _ask(site, instance, days)
    with daemon(site, "first") as process:
        _until(lambda: len(_succeeded(instance, id_)) >= len(days) // 3, instance, id_)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with daemon(site, "second"):
            _until(lambda: len(_succeeded(instance, id_)) >= 2 * len(days) // 3, instance, id_)
            os.kill(_until(lambda: _worker(instance, id_), instance, id_), signal.SIGKILL)
            return _until(lambda: _over(instance, id_), instance, id_)


def _ask(site: Site, instance: dg.DagsterInstance, days: Sequence[str]) -> str:
    """A backfill of the day's assets, as the UI launches one."""
    defs = build_definitions(site.settings)
    keys = defs.resolve_job_def(DAY_JOB).asset_layer.selected_asset_keys
    asked = {AssetKeyPartitionKey(key, day) for key in keys for day in days}
    backfill = PartitionBackfill.from_asset_graph_subset(
        backfill_id=BACKFILL,
        asset_graph_subset=AssetGraphSubset.from_asset_partition_set(asked, defs.resolve_asset_graph()),
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    return BACKFILL


@contextmanager
def daemon(site: Site, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's daemon with a code server of its own."""
    command = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(REPOSITORY / "workspace.yaml")]
    with child(command, log=site.folder / f"{name}.log", environment=site.environment) as process:
        yield process


def _succeeded(instance: dg.DagsterInstance, backfill: str) -> list[str]:
    filters = dg.RunsFilter(tags={"dagster/backfill": backfill}, statuses=[dg.DagsterRunStatus.SUCCESS])
    return list(instance.get_run_ids(filters))


def _worker(instance: dg.DagsterInstance, backfill: str) -> int | None:
    """Process of a run that has begun a step and is not over."""
    filters = dg.RunsFilter(tags={"dagster/backfill": backfill}, statuses=[dg.DagsterRunStatus.STARTED])
    for run in instance.get_runs(filters):
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event is not None]
        if not any(event.is_step_start for event in events):
            continue
        for event in events:
            if event.is_engine_event and "pid" in event.engine_event_data.metadata:
                return int(str(event.engine_event_data.metadata["pid"].value))
    return None


def _over(instance: dg.DagsterInstance, backfill: str) -> PartitionBackfill | None:
    found = instance.get_backfill(backfill)
    return found if found is not None and found.status in OVER else None


def _open(instance: dg.DagsterInstance, backfill: str) -> str:
    """What is known of the runs that did not succeed, for a person to read."""
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill}))
    found = instance.get_backfill(backfill)
    lines = [f"backfill {found.status.value if found else 'gone'}"]
    for run in runs:
        if run.status is not dg.DagsterRunStatus.SUCCESS:
            last = [entry.message for entry in instance.all_logs(run.run_id)][-2:]
            lines.append(f"{run.tags.get('dagster/partition')} {run.status.value} {last}")
    return "; ".join(lines)


def _until(ask: Callable[[], T | None], instance: dg.DagsterInstance, backfill: str) -> T:
    """The first true answer; gives up when no run ended for `PATIENCE_S`: the sensor's stand in the same queue."""
    ended, since = -1, time.monotonic()
    while True:
        answer = ask()
        if answer:
            return answer
        now = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
        if now != ended:
            ended, since = now, time.monotonic()
        if time.monotonic() - since > PATIENCE_S:
            raise TimeoutError(f"no run ended for {PATIENCE_S:.0f} s, after {ended}; {_open(instance, backfill)}")
        time.sleep(POLL_S)


# --- what is built ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Contents:
    """Content digests of everything visible: by day, and by (spec, day). `stale`: bundle days that say so."""

    days: dict[str, Any]
    bundles: dict[tuple[str, str], list[str]]
    stale: frozenset[tuple[str, str]]


def contents(settings: Settings) -> Contents:
    with open_plane(settings) as opened:
        return opened.run(_contents(opened.plane))


async def _contents(plane: Plane) -> Contents:
    store = plane.engine.store
    manifest = await load_head(store, TENANT)
    days: dict[str, Any] = {}
    for day, entry in (await load_days(store, manifest)).items():
        shards = entry.shards
        of_shards = (shards.entity.digest, shards.fulltext.digest, shards.vector.digest) if shards else ()
        days[day] = (entry.segments.digest if entry.segments else "", *of_shards)
    held = {(spec, day): each for spec, by_day in manifest.bundles.items() for day, each in by_day.items()}
    return Contents(
        days,
        {key: [bucket.digest for bucket in await load_buckets(store, each)] for key, each in held.items()},
        frozenset((spec, day) for spec, day in held if is_stale(manifest, plane.specs[spec], day)),
    )
