"""The plane as a Dagster resource: opened once per run (per step, where steps have processes of their own).

The engine is asyncio and Dagster is not, so an `OpenPlane` carries the one event loop on which everything of
a run happens. Settings come from the environment as everywhere; what the run configuration may name instead
is where to work, never a credential: run configuration is stored and shown.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import dagster as dg
from pydantic import Field

from context_plane import plane as planes
from context_plane.plane import Plane
from context_plane.settings import Settings

T = TypeVar("T")

_PROBED: Final[set[str]] = set()
"""Stores this process found exclusive: a store does not stop being so between two steps."""
_PROBING: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class OpenPlane:
    """An open plane, what it was opened with, and the event loop it lives on. Not for several threads at once."""

    plane: Plane
    runner: asyncio.Runner
    settings: Settings

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, run to its end, in the caller's context: its traces count. Not from within a running
        event loop."""
        return self.runner.run(work, context=copy_context())


@contextmanager
def open_plane(settings: Settings, *, probe: bool = True) -> Iterator[OpenPlane]:
    """An open plane; its store is probed once per process. Raises `Unavailable(store_not_exclusive)`."""
    with asyncio.Runner() as runner:
        with _PROBING:
            opening = planes.open(settings, probe_store=probe and settings.store_url not in _PROBED)
            plane = runner.run(opening.__aenter__())
            _PROBED.add(settings.store_url)
        try:
            yield OpenPlane(plane, runner, settings)
        finally:
            runner.run(opening.__aexit__(None, None, None))


class PlaneResource(dg.ConfigurableResource[OpenPlane]):
    """Which store to build. Fields left empty come from the `CONTEXT_PLANE_*` environment."""

    store: str = Field(default="", description="store URL: file:///…, s3://bucket/prefix, gs://, az://")
    cache_dir: str = Field(default="", description="folder of the disk cache")
    specs_dir: str = Field(default="", description="folder of bundle specs")

    def settings(self) -> Settings:
        settings = Settings()
        named: dict[str, object] = {"store": self.store} if self.store else {}
        named |= {name: Path(value) for name in ("cache_dir", "specs_dir") if (value := getattr(self, name))}
        return settings.model_copy(update=named)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[OpenPlane]:
        with open_plane(self.settings()) as opened:
            yield opened
