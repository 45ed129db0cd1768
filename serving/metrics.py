"""Metrics in Prometheus' text format: how long requests take, what the cache answers, what the store is asked.

The engine counts for itself (`Cache.stats`, `CountingStore.total`); what it counted is carried over at a scrape, and
about once a second of requests for the workers that are not scraped. Labels never name a tenant, an entity or a key.
With several worker processes the samples are shared through the folder of `PROMETHEUS_MULTIPROC_DIR` (set by
`serving.main` before the workers start), and any worker answers for all of them: totals of all that there were, sizes
of those that live.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

if TYPE_CHECKING:
    from context_plane.plane import Plane

MEDIA_TYPE: Final = "text/plain; version=1.0.0; charset=utf-8"
MULTIPROCESS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.19, 0.26, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Buckets at the read budgets (190, 260, 350, 500 ms), and a decade either side."""
LAG_AGE_MAX_S: Final = 60.0
"""Cuts confirmed longer ago say nothing of now: nobody reads their tenant, or the store does not answer."""
CARRY_EVERY_S: Final = 1.0
"""How stale another worker's figures may be while it serves: a tenth of the shortest usual scrape interval."""


@dataclass(frozen=True, slots=True)
class _Figure:
    """What the engine counts: a total since start, or a size that workers add up or share (the same folder)."""

    name: str
    help: str
    kind: Literal["total", "livesum", "livemax"]
    values: Callable[[Plane], Mapping[str, float]]
    label: str | None = None
    """Of the values' names; None where there is one value, named ""."""


_FIGURES: Final = (
    _Figure(
        "context_plane_cache_hits",
        "Reads that a tier of the cache answered.",
        "total",
        lambda plane: {"memory": plane.cache.stats.memory_hits, "disk": plane.cache.stats.disk_hits},
        "tier",
    ),
    _Figure(
        "context_plane_cache_misses",
        "Reads that a tier of the cache did not answer.",
        "total",
        lambda plane: {"memory": plane.cache.stats.memory_misses, "disk": plane.cache.stats.misses},
        "tier",
    ),
    _Figure(
        "context_plane_cache_evictions",
        "Entries that made room for others.",
        "total",
        lambda plane: {"memory": plane.cache.stats.memory_evictions, "disk": plane.cache.stats.disk_evictions},
        "tier",
    ),
    _Figure(
        "context_plane_cache_refused",
        "Entries that a tier did not take in.",
        "total",
        lambda plane: {"memory": plane.cache.stats.memory_refused, "disk": plane.cache.stats.disk_refused},
        "tier",
    ),
    _Figure(
        "context_plane_cache_prefetches",
        "Store requests made ahead of reads, after publishes and for hints.",
        "total",
        lambda plane: {"": plane.cache.stats.prefetched},
    ),
    _Figure(
        "context_plane_cache_prefetched_bytes",
        "Stored bytes fetched ahead of reads.",
        "total",
        lambda plane: {"": plane.cache.stats.prefetched_bytes},
    ),
    _Figure(
        "context_plane_cache_memory_bytes",
        "Bytes charged to the memory caches of the live workers.",
        "livesum",
        lambda plane: {"": plane.cache.stats.memory_bytes},
    ),
    _Figure(
        "context_plane_cache_pinned_bytes",
        "Of the memory bytes: pinned by hints.",
        "livesum",
        lambda plane: {"": plane.cache.stats.pinned_bytes},
    ),
    _Figure(
        "context_plane_cache_disk_bytes",
        "Bytes in the disk cache, which the workers share.",
        "livemax",
        lambda plane: {"": plane.cache.stats.disk_bytes},
    ),
    _Figure(
        "context_plane_store_requests",
        "Requests to the object store, hedges included.",
        "total",
        lambda plane: {
            "get": plane.store.total.gets,
            "put": plane.store.total.puts,
            "list": plane.store.total.lists,
            "delete": plane.store.total.deletes,
        },
        "operation",
    ),
    _Figure(
        "context_plane_store_read_bytes",
        "Bytes of objects read from the store.",
        "total",
        lambda plane: {"": plane.store.total.bytes_read},
    ),
    _Figure(
        "context_plane_store_written_bytes",
        "Bytes of objects written to the store.",
        "total",
        lambda plane: {"": plane.store.total.bytes_written},
    ),
    _Figure(
        "context_plane_store_hedges",
        "Second requests for an answer that was late.",
        "total",
        lambda plane: {"": plane.store.total.hedges},
    ),
    _Figure(
        "context_plane_store_hedges_won",
        "Hedges that answered first.",
        "total",
        lambda plane: {"": plane.store.total.hedges_won},
    ),
    _Figure(
        "context_plane_index_lag_seconds",
        "Age of the oldest write that waits to be built, of the tenants read in the last minute.",
        "livemax",
        lambda plane: {"": plane.snapshots.waiting(age_max_s=LAG_AGE_MAX_S)[0]},
    ),
    _Figure(
        "context_plane_pending_batches",
        "Log batches of one tenant that wait to be built, the most of those tenants.",
        "livemax",
        lambda plane: {"": plane.snapshots.waiting(age_max_s=LAG_AGE_MAX_S)[1]},
    ),
)


class Metrics:
    """The metrics of one app."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.seconds = Histogram(
            "context_plane_request_seconds",
            "Time from the request's head to the last byte of its answer.",
            ("method", "route", "status", "cache"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._seconds: dict[tuple[str, str, int, str], Histogram] = {}
        """Children by labels: as many as the registry holds anyway, found without its lock and checks."""
        self.problems = Counter(
            "context_plane_problems",
            "Answers that were problems, by route and status.",
            ("route", "status"),
            registry=self._registry,
        )
        self.events = Counter(
            "context_plane_events_accepted", "Events acknowledged as durable.", registry=self._registry
        )
        self.partials = Counter(
            "context_plane_partial_answers", "Searches whose deadline came first.", registry=self._registry
        )
        self.in_flight = Gauge(
            "context_plane_requests_in_flight",
            "Requests under way.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._figures = {figure.name: self._made(figure) for figure in _FIGURES}
        self._carried: dict[tuple[str, str], float] = {}
        self._carried_s = 0.0
        self._plane: Plane | None = None

    def watch(self, plane: Plane) -> None:
        """Show what this plane's cache and store count, from now on."""
        self._plane = plane
        self._carried.clear()
        self.carry()

    def carry(self) -> None:
        """Bring the figures up to date. Some 30 us; on the event loop, as what it reads."""
        self._carried_s = time.monotonic()
        if self._plane is None:
            return
        for figure in _FIGURES:
            metric = self._figures[figure.name]
            for name, value in figure.values(self._plane).items():
                shown = metric.labels(name) if figure.label else metric
                if isinstance(shown, Counter):
                    shown.inc(max(0.0, value - self._carried.get((figure.name, name), 0.0)))
                    self._carried[figure.name, name] = value
                else:
                    shown.set(value)

    def _made(self, figure: _Figure) -> Counter | Gauge:
        labels = (figure.label,) if figure.label else ()
        match figure.kind:
            case "total":
                return Counter(figure.name, figure.help, labels, registry=self._registry)
            case mode:
                return Gauge(figure.name, figure.help, labels, registry=self._registry, multiprocess_mode=mode)

    def observe(self, *, method: str, route: str, status: int, cache: str, seconds: float) -> None:
        """One finished request. `cache`: memory, disk, cold, or none where the answer tells none."""
        labels = (method, route, status, cache)
        child = self._seconds.get(labels)
        if child is None:
            child = self._seconds[labels] = self.seconds.labels(method, route, str(status), cache)
        child.observe(seconds)
        if status >= 400:
            self.problems.labels(route, str(status)).inc()
        if time.monotonic() - self._carried_s > CARRY_EVERY_S:
            self.carry()

    def text(self) -> bytes:
        """The exposition. Blocking in multiprocess mode (it reads files): call it off the loop."""
        if MULTIPROCESS_DIR in os.environ:
            _forget_the_dead(Path(os.environ[MULTIPROCESS_DIR]))
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no types here
            return generate_latest(registry)
        return generate_latest(self._registry)


def _forget_the_dead(folder: Path) -> None:
    """Sizes of workers that are gone: nobody takes them back for one that was killed."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*.db")}:
        if not _lives(int(pid)):
            with suppress(FileNotFoundError):  # another worker was asked just now
                mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]  # the library has no types here


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of somebody else
        pass
    return True
