"""A look-back is read in runs of entities: the same bundles, and a bounded number of bytes held at once."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from context_plane import lookback
from context_plane.catalog.head import load_head
from context_plane.catalog.named import load_buckets
from context_plane.index.rows import encode_rows
from context_plane.lookback import Run
from context_plane.plane import Plane
from context_plane.recall.periods import periods_of
from tests.laws.plane_world import SPEC, TENANT, World, event, month_of, puts

SPEC_NAME = str(SPEC["name"])
RUN_BYTES, PIECE_BYTES = 6_000, 1_500


async def built(world: World) -> Plane:
    """Four days of thirty entities, some with a long text, one seen on the last day alone."""
    plane = world.plane()
    words = [f"word{n} export" for n in range(400)]
    events = month_of(4, entities=30)
    events += [event(n, entity=f"acct-{n % 30:02}", id=f"long{n}", text=" ".join(words[n:])) for n in range(0, 90, 7)]
    events.append(event(1, entity="late", day="2026-03-04"))
    await world.write(plane, puts(events))
    await plane.build(TENANT, world.days(), specs=[])
    return plane


async def read(plane: Plane, **bounds: int) -> list[Run]:
    head = await load_head(plane.engine.store, TENANT)
    seen = await lookback.look(plane.reader, periods_of(head, None, None), piece_bytes=bounds.pop("piece_bytes", None))
    return [run async for run in lookback.runs(plane.reader, seen, **bounds)]


def content(runs: list[Run]) -> list[Any]:
    return [
        (entity, [(period.name, encode_rows(columns.rows)) for period, columns in held])
        for run in runs
        for entity, held in run.blocks()
    ]


async def test_runs_hold_every_block_once_in_order_whatever_their_size(world: World) -> None:
    """Seen to fail with a piece let go that the next run still needs, and with entities of later days left out."""
    plane = await built(world)
    whole = content(await read(plane))
    assert [entity for entity, _ in whole] == [*(f"acct-{n:02}" for n in range(30)), "late"]
    assert [len(held) for _, held in whole] == [4] * 30 + [1]
    for run_bytes, piece_bytes in itertools.product((1, RUN_BYTES), (1, 700, PIECE_BYTES)):
        assert content(await read(plane, run_bytes=run_bytes, piece_bytes=piece_bytes)) == whole


async def test_what_a_run_holds_does_not_grow_with_the_entities(world: World) -> None:
    """A run's own blocks, and in each period the pieces that reach over its edges.

    Seen to fail with pieces kept until the end.
    """
    plane = await built(world)
    head = await load_head(plane.engine.store, TENANT)
    periods = periods_of(head, None, None)
    directories = [await plane.reader.directory(period.shards.entity) for period in periods]
    largest = max(entry.length for directory in directories for entry in directory)
    found = await read(plane, run_bytes=RUN_BYTES, piece_bytes=PIECE_BYTES)
    assert len(found) > 5
    bound = RUN_BYTES + len(periods) * 2 * (PIECE_BYTES + largest)
    assert max(run.held_bytes for run in found) <= bound < sum(p.shards.entity.bytes for p in periods) / 2


async def test_bundles_are_the_same_bytes_in_any_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with the last run's bundles alone in the packs."""
    plane = await built(world)

    async def made() -> tuple[str, list[str]]:
        build = await plane.materialize(TENANT, SPEC_NAME, "2026-03-04")
        entry = (await load_head(plane.engine.store, TENANT)).bundles[SPEC_NAME]["2026-03-04"]
        return build.digest, [bucket.digest for bucket in await load_buckets(plane.engine.store, entry)]

    once = await made()
    monkeypatch.setattr(lookback, "RUN_BYTES", RUN_BYTES)
    monkeypatch.setattr(lookback, "PIECE_BYTES", PIECE_BYTES)
    assert await made() == once
