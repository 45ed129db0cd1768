"""A graph that does not find the nearest rows is measured as such, and no month that carries one is committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from context_plane import ann_recall
from context_plane.ann_recall import RECALL_MIN, recall_of
from context_plane.catalog.head import load_head
from context_plane.errors import Conflict
from context_plane.index import vector_shard
from context_plane.index.vector_shard import write_dataset
from context_plane.model import day_start_us
from context_plane.reembed import reembed
from tests.index.test_vector_shard import NAME, clustered, columns_of
from tests.laws.plane_world import DAY, TENANT, Clock, World, event, ids, puts
from tests.store.dictionary import DictStore


def test_a_sound_graph_passes_and_one_over_other_vectors_does_not(tmp_path: Path) -> None:
    """Rows of equal vectors stand for one another: a third of them are, and any ten of those are nearest."""
    vectors = clustered(3_000, 32, seed=4)
    vectors[::50] = 0
    vectors[1:1_000:50] = vectors[1]
    digests = np.zeros((3_000, 16), np.uint8)
    write_dataset(tmp_path, NAME, columns_of(3_000), vectors, digests, ann_rows_min=1_000)
    assert recall_of(tmp_path, NAME, vectors) >= 0.99
    assert recall_of(tmp_path, NAME, clustered(3_000, 32, seed=5)) < 0.5
    assert recall_of(tmp_path, NAME, np.zeros((3_000, 32), np.float32)) == 1.0


def test_exact_scores_do_not_depend_on_how_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail when the best of each cut were taken alone."""
    vectors = clustered(1_000, 16, seed=6)
    present, asked = np.arange(1_000), vectors[::97]
    wanted = np.sort(asked @ vectors.T, axis=1)[:, -10]
    for rows in (1_000, 7, 64):
        monkeypatch.setattr(ann_recall, "SCORED_ROWS", rows)
        assert np.allclose(ann_recall._tenth_scores(vectors, present, asked, 10), wanted, atol=1e-6)


def poor_graphs(patch: pytest.MonkeyPatch, *, rows_min: int = 100) -> None:
    """Graphs of small shards, in many partitions, of which a search probes one: it misses what lies in the others."""
    from lancedb.index import HnswSq

    def config(rows: int, partition_rows: int) -> Any:
        return HnswSq(distance_type="dot", num_partitions=16, m=4, ef_construction=8)

    patch.setattr(vector_shard, "ANN_ROWS_MIN", rows_min)
    patch.setattr(vector_shard, "_index_config", config)
    patch.setattr(vector_shard, "PARTITIONS_MAX", 1)


async def test_a_month_whose_graph_fails_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail (committed) without the check; and the days answer as before."""
    world = World(DictStore(), tmp_path, clock=Clock(day_start_us("2026-04-10")))
    plane = world.plane()
    await world.write(plane, puts(event(n, entity=f"acct-{n % 40:02}") for n in range(600)))
    await plane.build(TENANT, [DAY], specs=())
    before = await ids(world.plane())
    with monkeypatch.context() as patch:
        poor_graphs(patch)
        with pytest.raises(Conflict, match="graph_recall_low") as raised:
            await plane.roll_up(TENANT, DAY[:7])
        assert float(str(raised.value.fields["recall"])) < RECALL_MIN
        assert not (await load_head(plane.engine.store, TENANT)).months
        assert await ids(world.plane()) == before
    with monkeypatch.context() as patch:
        patch.setattr(vector_shard, "ANN_ROWS_MIN", 100)
        assert (await plane.roll_up(TENANT, DAY[:7]))[0] == "due"
    month = (await load_head(plane.engine.store, TENANT)).months[DAY[:7]]
    assert month.shards.vector.ann, "it was measured, and found the nearest"
    assert await ids(world.plane()) == before


async def test_a_tenant_is_not_moved_to_a_model_whose_graphs_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail (moved) without the check."""
    world = World(DictStore(), tmp_path)
    await world.write(world.plane(), puts(event(n, entity=f"acct-{n % 40:02}") for n in range(600)))
    await world.plane().build(TENANT, [DAY], specs=())
    world.embedder.model = "another"
    plane = world.plane()
    poor_graphs(monkeypatch)
    with pytest.raises(Conflict, match="graph_recall_low"):
        await reembed(plane.engine, TENANT, dry_run=False)
    model = (await load_head(plane.engine.store, TENANT)).model
    assert model is not None
    assert model.name == "made"
