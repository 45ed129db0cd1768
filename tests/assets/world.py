"""A small world for the deployment: two tenants, a few days, and what is built of them, as comparable values."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from assets.build import LOGGERS, DayBuild, build_days, part_of
from assets.definitions import build_definitions
from assets.dirt import DAY_JOB
from context_plane.catalog.head import load_head
from context_plane.catalog.named import load_buckets
from context_plane.model import Event, Put, Write, day_start_us
from context_plane.plane import Plane
from context_plane.recall.values import SearchRequest
from context_plane.settings import Settings
from resources.plane import OpenPlane, open_plane
from resources.scope import BuildScope
from resources.workers import Processes, open_workers

DAYS = ["2026-03-03", "2026-03-04"]
SPEC = "customer_context_v0"
WORDS = (
    "export",
    "report",
    "invoice",
    "upgrade",
    "login",
    "crash",
    "slow",
    "billing",
    "seat",
    "renewal",
)


@dataclass(frozen=True, slots=True)
class World:
    """Settings of one store."""

    settings: Settings

    @classmethod
    def local(cls, folder: Path) -> World:
        return cls.at((folder / "store").as_uri(), folder / "cache")

    @classmethod
    def at(cls, url: str, cache: Path) -> World:
        return cls(Settings(store=url, cache_dir=cache))

    def build(self, days: Sequence[str] = DAYS, **options: Any) -> tuple[DayBuild, ...]:
        return build_days(self.settings, days, **options).days

    def write(self, tenant: str, writes: Sequence[Write], *, batch: int = 50) -> None:
        async def send(plane: Plane) -> None:
            for start in range(0, len(writes), batch):
                await plane.write(tenant, writes[start : start + batch], body_bytes=1_000)

        with open_plane(self.settings) as opened:
            opened.run(send(opened.plane))

    def run(self, selection: Sequence[str], day: str, scope: BuildScope | None = None) -> dg.ExecuteInProcessResult:
        """One run of the day's job, of these assets."""
        with (
            open_plane(self.settings) as opened,
            open_workers() as workers,
            dg.DagsterInstance.ephemeral() as instance,
        ):
            resources = {"plane": opened, "workers": workers, "scope": scope or BuildScope()}
            defs = build_definitions(self.settings, resources)
            job = part_of(defs.resolve_job_def(DAY_JOB), [dg.AssetKey(name.split("/")) for name in selection])
            return job.execute_in_process(
                run_config=LOGGERS, instance=instance, partition_key=day, raise_on_error=False
            )

    def check(self, job: str) -> dg.AssetCheckEvaluation:
        """The verdict of a job that runs one check."""
        with open_plane(self.settings) as opened, dg.DagsterInstance.ephemeral() as instance:
            resources = {"plane": opened, "workers": Processes(1), "scope": BuildScope()}
            defs = build_definitions(self.settings, resources)
            done = defs.resolve_job_def(job).execute_in_process(run_config=LOGGERS, instance=instance)
        [found] = done.get_asset_check_evaluations()
        return found

    def open(self) -> AbstractContextManager[OpenPlane]:
        return open_plane(self.settings)


def events(tenant: str, days: Sequence[str] = DAYS, *, per_day: int = 40) -> list[Write]:
    """Made writes: the same for the same tenant."""
    rng = random.Random(tenant)
    return [
        Put(
            Event(
                entity=f"acct-{rng.randrange(8)}",
                ts_us=day_start_us(day) + n * 60_000_000,
                id=f"{day}-{n}",
                source="zendesk",
                kind="ticket",
                text=" ".join(rng.choices(WORDS, k=12)),
                attrs={"seats": rng.randrange(50)},
            )
        )
        for day in days
        for n in range(per_day)
    ]


def digests(opened: OpenPlane, tenant: str) -> dict[str, Any]:
    """Content digests of everything visible: by day and artefact, and by spec and day."""
    return opened.run(_digests(opened.plane, tenant))


async def _digests(plane: Plane, tenant: str) -> dict[str, Any]:
    manifest = await load_head(plane.engine.store, tenant)
    found: dict[str, Any] = {}
    for day, entry in manifest.days.items():
        assert entry.segments is not None
        assert entry.shards is not None
        shards = entry.shards
        found[day] = (entry.segments.digest, shards.entity.digest, shards.fulltext.digest, shards.vector.digest)
    for spec, by_day in manifest.bundles.items():
        for day, held in by_day.items():
            buckets = await load_buckets(plane.engine.store, held)
            found[f"{spec} {day}"] = [bucket.digest for bucket in buckets]
    return found


def answers(opened: OpenPlane, tenant: str, as_of: str = DAYS[-1]) -> dict[str, Any]:
    """What readers get: hits of searches of both scopes, and bundle bytes."""
    return opened.run(_answers(opened.plane, tenant, as_of))


async def _answers(plane: Plane, tenant: str, as_of: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entities in (None, ("acct-1",)):
        answer = await plane.search(tenant, SearchRequest(text="export invoice crash", entities=entities))
        found[f"search {entities}"] = [(hit.id, hit.score) for hit in answer.hits]
    for entity in ("acct-1", "acct-2"):
        bundle = await plane.bundle(tenant, entity, spec=SPEC, as_of=as_of)
        found[entity] = bundle.json_bytes
    return found


async def delete_below(plane: Plane, prefix: str) -> int:
    keys = [info.key async for info in plane.engine.store.list(prefix)]
    await plane.engine.store.delete(keys)
    return len(keys)
