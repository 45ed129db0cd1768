"""What the gate withholds beside counts: a day that is emptied without a reason, and a graph that does not find."""

from __future__ import annotations

from pathlib import Path

import pytest

import assets.days
from assets.gate import CHECK
from assets.report import Made
from context_plane.fold import fold_day, load_pending
from context_plane.index import vector_shard
from context_plane.model import Delete, Put
from context_plane.plane import Plane
from context_plane.staging import save
from tests.assets.test_build import BEFORE_COMMIT
from tests.assets.world import DAYS, World, answers, digests, events
from tests.laws.test_ann_recall import poor_graphs


async def emptying_fold(plane: Plane, tenant: str, day: str) -> Made:
    """A fold that finds nothing in the day of `acme`, and says that it has everything."""
    stage = await fold_day(plane.engine, tenant, day, pending=await load_pending(plane.engine, tenant))
    if tenant == "acme":
        stage = stage.model_copy(update={"segments": None})
        await save(plane.engine.store, tenant, day, "segments", stage)
    return Made("")


def test_a_day_that_is_emptied_without_a_reason_is_withheld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All artefacts agree: they hold nothing. Seen to fail (published, and every event gone) with counts alone."""
    world = World.local(tmp_path)
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant))
    assert world.build()[-1].ok
    with world.open() as opened:
        before, read = digests(opened, "acme"), answers(opened, "acme")
    monkeypatch.setattr(assets.days, "fold", emptying_fold)
    (day,) = world.build(DAYS[-1:])
    said = " ".join(day.problems)
    assert f"acme {DAYS[-1]}: the day would be empty, and no delete, erasure or retention explains it" in said
    assert "40 events missing" in said
    assert "beta" not in said
    monkeypatch.undo()
    with world.open() as opened:
        assert digests(opened, "acme") == before
        assert answers(opened, "acme") == read


def test_a_day_whose_every_event_is_deleted_is_published_empty(tmp_path: Path) -> None:
    world = World.local(tmp_path)
    writes = events("acme", DAYS[:1])
    world.write("acme", writes)
    assert world.build(DAYS[:1])[0].ok
    gone = [Delete(w.event.entity, w.event.ts_us, w.event.id) for w in writes if isinstance(w, Put)]
    world.write("acme", gone)
    result = world.run([*BEFORE_COMMIT, "published"], DAYS[0])
    assert result.success
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]


def test_a_day_whose_graph_misses_the_nearest_is_withheld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`beta` is small and carries no graph. Seen to fail (published) without the measurement."""
    world = World.local(tmp_path)
    day = DAYS[0]
    many = events("acme", [day], per_day=1_200)
    world.write("acme", many)
    world.write("beta", events("beta", [day]))
    with monkeypatch.context() as patch:
        poor_graphs(patch)
        result = world.run([*BEFORE_COMMIT, "published"], day)
        (check,) = result.get_asset_check_evaluations()
        assert (check.check_name, check.passed) == (CHECK, False)
        assert check.description is not None
        assert f"acme {day}: its graph finds 0." in check.description
        assert "building the day again makes another graph" in check.description
        assert "beta" not in check.description
        with world.open() as opened:
            assert digests(opened, "acme") == {}
            assert day in digests(opened, "beta")
    monkeypatch.setattr(vector_shard, "ANN_ROWS_MIN", 100)
    assert world.run([*BEFORE_COMMIT, "published"], day).success, "a sound graph passes"
