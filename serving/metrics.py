"""Metrics in Prometheus' text format: how long requests take, by route and cache temperature.

Labels never name a tenant, an entity or a key. With several worker processes the samples are shared through
the folder of `PROMETHEUS_MULTIPROC_DIR` (set by `serving.main` before the workers start), and any worker answers
for all of them.
"""

from __future__ import annotations

import os
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

MEDIA_TYPE: Final = "text/plain; version=1.0.0; charset=utf-8"
MULTIPROCESS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.19, 0.26, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Buckets at the read budgets (190, 260, 350, 500 ms), and a decade either side."""


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
        self.in_flight = Gauge(
            "context_plane_requests_in_flight",
            "Requests under way.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def observe(self, *, method: str, route: str, status: int, cache: str, seconds: float) -> None:
        """One finished request. `cache`: memory, disk, cold, or none where a route reads nothing."""
        labels = (method, route, status, cache)
        child = self._seconds.get(labels)
        if child is None:
            child = self._seconds[labels] = self.seconds.labels(method, route, str(status), cache)
        child.observe(seconds)
        if status >= 400:
            self.problems.labels(route, str(status)).inc()

    def text(self) -> bytes:
        """The exposition. Blocking in multiprocess mode (it reads files): call it off the loop."""
        if MULTIPROCESS_DIR in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no types here
            return generate_latest(registry)
        return generate_latest(self._registry)
