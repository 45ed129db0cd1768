"""The time of one search: what each step took, and what its deadline leaves to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from context_plane.engine import Engine
from context_plane.recall.values import SearchRequest
from context_plane.store.spans import Steps


@dataclass(slots=True)
class Clock:
    """Milliseconds of each step of one read, and a span of each where the caller has one."""

    engine: Engine
    started_s: float
    last_s: float
    ms: dict[str, float]
    steps: Steps

    @classmethod
    def start(cls, engine: Engine) -> Clock:
        now_s = engine.monotonic_s()
        return cls(engine, now_s, now_s, {}, Steps("search"))

    def lap(self, name: str) -> None:
        now_s = self.engine.monotonic_s()
        self.steps.lap(name)
        self.ms[name] = round(self.ms.get(name, 0.0) + (now_s - self.last_s) * 1000, 3)
        self.last_s = now_s

    def until_s(self, request: SearchRequest, share: float) -> float:
        """When a step ends. The blocks of entities hold their texts: there the first fetch is the last."""
        part = share if request.entities is None else 1.0
        return self.started_s + part * request.deadline_ms / 1000

    def left_s(self, request: SearchRequest) -> float:
        return self.started_s + request.deadline_ms / 1000 - self.engine.monotonic_s()

    def total(self) -> Mapping[str, float]:
        return {**self.ms, "total": round((self.last_s - self.started_s) * 1000, 3)}
