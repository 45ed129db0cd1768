"""Guards taken out, one at a time: each entry patches one rule of the engine to a no-op."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final
from unittest import mock

from context_plane import collect, erase, fold, publish, rollup
from context_plane.catalog import guards, head, log, tail
from context_plane.catalog.head import load_hint
from context_plane.errors import Conflict, Unavailable
from context_plane.store.base import Store


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


async def _at_once(*args: Any, **kwargs: Any) -> None:
    return None


async def _hint_alone(store: Store, tenant: str) -> int:
    hint = await load_hint(store, tenant)
    return hint.version if hint is not None else 0


async def _create_once(engine: Any, key: str, data: bytes, writer: str, start_by_s: float) -> bool:
    try:
        await engine.store.put_new(key, data)
    except (Conflict, Unavailable):
        return False
    return True


async def _never_mine(store: Store, proposal: Any) -> bool:
    return False


async def _plan_stands(engine: Any, plan: collect.CollectPlan, **kwargs: Any) -> Sequence[collect.Candidate]:
    return plan.candidates


async def _delete(store: Store, key: str, gate: asyncio.Semaphore) -> None:
    await store.delete([key])


REMOVED: Final[Mapping[str, Callable[[], AbstractContextManager[Any]]]] = {
    "same_sources": lambda: mock.patch.object(guards, "same_sources", _nothing),
    "same_erasures": lambda: mock.patch.object(guards, "same_erasures", _nothing),
    "young_build": lambda: mock.patch.object(guards, "young_build", _nothing),
    "young_knowledge": lambda: mock.patch.object(guards, "young_knowledge", _nothing),
    "next_log_number": lambda: mock.patch.object(guards, "next_log_number", lambda listed, floor: listed + 1),
    "commit_readback": lambda: mock.patch.object(head, "_is_mine", _never_mine),
    "log_readback": lambda: mock.patch.object(log, "_create", _create_once),
    "confirmed_hint": lambda: mock.patch.object(head, "newest_version", _hint_alone),
    "collection_age": lambda: mock.patch.object(collect, "AGE_MIN_US", 0),
    "second_marking": lambda: mock.patch.object(collect, "still_dead", _plan_stands),
    "collection_fence": lambda: mock.patch.object(collect, "fence", _at_once),
    "same_segments": lambda: mock.patch.object(publish, "_same_segments", _nothing),
    "same_month": lambda: mock.patch.object(rollup, "same_month", _nothing),
    "applied_before_rollup": lambda: mock.patch.object(rollup, "check_applied", _nothing),
    "dense_log": lambda: mock.patch.object(tail, "check_dense", _nothing),
    "whole_batches": lambda: _both(
        mock.patch.object(tail, "check_whole", _nothing), mock.patch.object(fold, "check_whole", _nothing)
    ),
    "batch_numbers_stay_taken": lambda: mock.patch.object(erase, "_redact_batch", _delete),
    "versions_stay_taken": lambda: mock.patch.object(erase, "_redact_manifest", _delete),
}
"""Name of a guard -> a patch that removes it."""


class _both(AbstractContextManager[None]):  # a function by use
    def __init__(self, one: AbstractContextManager[Any], two: AbstractContextManager[Any]) -> None:
        self.parts = (one, two)

    def __enter__(self) -> None:
        for part in self.parts:
            part.__enter__()

    def __exit__(self, *exc: object) -> None:
        for part in self.parts:
            part.__exit__(None, None, None)
