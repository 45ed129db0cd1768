"""One bundle, from a far store and empty caches: manifest, bucket, block.

An answer does not say what it cost, so a plane in this process reads some of the same bundles under a trace, without
stalls; `requests_sent` is what the proxy saw of all of them, listings included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any, Final
from urllib.parse import quote

import numpy as np

from benchmarks.cold import STALL, Case, measure, queries
from benchmarks.far import BUNDLE_DAYS, SPEC, World, world
from benchmarks.scenario import Row
from benchmarks.service import TENANT, embedder_of
from context_plane import plane
from context_plane.settings import Settings
from context_plane.store import StoreOptions

SUMMARY: Final = "one entity's bundle, 60 ms a request, every cache empty"
COUNTED: Final = 50
SERVICES: Final = 2
Asked = tuple[str, str]
"""(entity, as of)."""


def run(*, quick: bool, seed: int) -> Sequence[Row]:
    with world("hybrid_cold", seed=seed, quick=quick, bundles=True) as found:
        asked = _asked(found, seed)[: queries(quick)]
        counts = asyncio.run(_counts(found, asked[:COUNTED]))
        cases = [
            Case(
                name,
                stall,
                lambda served: [
                    served.get(f"entities/{quote(entity, safe='')}/context?spec={SPEC}&as_of={day}")
                    for entity, day in asked
                ],
                more,
            )
            for name, stall, more in (("bundle", 0.0, counts), ("bundle, 0.05 % stalls", STALL, {}))
        ]
        return measure(found, cases, seed=seed, services=SERVICES)


def _asked(found: World, seed: int) -> list[Asked]:
    """Every bundle there is, in random order: an entity has one of each day on and after its first event."""
    first: dict[str, str] = {}
    for event in found.corpus.events:
        first.setdefault(event.entity, event.day)
    pairs = [(e, day) for e in sorted(first) for day in found.corpus.days[-BUNDLE_DAYS:] if first[e] <= day]
    Random(seed).shuffle(pairs)
    return pairs


async def _counts(found: World, asked: Sequence[Asked]) -> dict[str, Any]:
    """Requests, dependent round trips and bytes of a cold bundle."""
    options = StoreOptions(
        endpoint=found.far.endpoint,
        region=found.server.options.region,
        access_key=found.server.options.access_key,
        secret_key=found.server.options.secret_key,
        allow_http=True,
    )
    settings = Settings(store=found.url, cache_dir=found.folder / "counted", embedder=embedder_of(found.corpus))
    traces = []
    async with plane.open(settings, options=options, probe_store=False) as opened:
        for entity, day in asked:
            await opened.empty_caches()
            with opened.store.trace() as trace:
                await opened.bundle(TENANT, entity, spec=SPEC, as_of=day)
            traces.append((trace.gets, trace.lists, trace.round_trips, trace.bytes_read))
    shown: dict[str, Any] = {}
    for name, values in zip(("gets", "lists", "round_trips", "bytes_read"), zip(*traces, strict=True), strict=True):
        shown |= {name: round(float(np.mean(values)), 2), f"{name}_max": max(values)}
    return shown
