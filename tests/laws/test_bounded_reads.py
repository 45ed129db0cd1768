"""Law 10 for reads: odd data and odd requests cost no more than a constant times what they touch."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from context_plane.embed.given import GivenEmbedder
from context_plane.embed.open import MemoizedEmbedder
from context_plane.erase import begin_erasure
from context_plane.index import vector_shard
from context_plane.layout.keys import LogKey
from context_plane.model import Event, Put, add_days
from context_plane.plane import Plane
from context_plane.recall import assemble, candidates, plan, search
from context_plane.recall.search import Searcher
from context_plane.recall.tail_view import TailView
from context_plane.recall.values import SearchAnswer, SearchRequest
from context_plane.retrieval import order, rank, ranks, snapshots
from context_plane.retrieval.columns import Columns
from context_plane.retrieval.fuse import Fusion
from context_plane.retrieval.rank import RankQuery, rank_parts
from context_plane.retrieval.ranks import RANKS_MAX
from context_plane.retrieval.scope import Part
from context_plane.retrieval.where import parse
from tests.laws.plane_world import BEACON, DAY, TENANT, World, delete_of, event, ids, month_of, puts
from tests.retrieval.world import FIRST_DAY, block_of, embed

WIDE = replace(BEACON, mode="hybrid", limit=20)


def test_a_tie_is_put_in_order_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 events of one text, every one a hit: the ranks agree with the order, and no tie is sorted for each hit.
    Seen to fail with the tied events ordered anew for every hit of them."""
    made = [Event("a", FIRST_DAY + n // 100, f"e{n:03}", "s", "ticket", text="page view") for n in range(400)]
    calls = 0
    original = order.best_first

    def counted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        return original(*arguments)  # type: ignore[arg-type]  # as they came

    for module in (rank, ranks):
        monkeypatch.setattr(module, "best_first", counted)
    query = RankQuery(terms=(("page", 1), ("view", 1)), vector=embed(["page view"])[0], fusion=Fusion(), limit=400)
    hits = rank_parts([Part.of(block_of(made))], query).hits
    assert len(hits) == 400
    assert calls <= 5
    for leg in ([hit.text_rank for hit in hits], [hit.vector_rank for hit in hits]):
        assert leg[:RANKS_MAX] == list(range(1, RANKS_MAX + 1))
        assert set(leg[RANKS_MAX:]) == {None}


async def test_a_filter_leaves_the_event_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have hundreds of conditions. Seen to fail with rows alone counted."""
    plane = world.plane()
    await world.write(plane, puts([event(n, id=f"e{n}") for n in range(search.INLINE_FILTERED_ROWS_MAX + 50)]))
    await plane.build(TENANT, world.days(), specs=())
    left: list[object] = []
    original = asyncio.to_thread

    async def noted(function: Callable[..., object], *arguments: object) -> object:
        left.append(function)
        return await original(function, *arguments)

    monkeypatch.setattr(asyncio, "to_thread", noted)
    await plane.search(TENANT, WIDE)
    assert rank.rank_parts not in left
    await plane.search(TENANT, replace(WIDE, where=parse({"glob": ["id", "e1*"]})))
    assert rank.rank_parts in left


async def test_emptied_caches_hold_no_joined_part(world: World) -> None:
    """Nor does anything else hold one that memory let go. Seen to fail with views that held their part."""
    plane = world.plane()
    await world.write(plane, puts(month_of(4, entities=2)))
    await plane.build(TENANT, world.days(), specs=())
    answer = await _searched_until_joined(plane)
    columns = [each.value.columns for name, each in plane.cache._memory._entries.items() if name.endswith("|joined")]
    gone = [weakref.ref(each.rows.vectors) for each in columns]
    assert gone
    del columns, answer
    await plane.empty_caches()
    gc.collect()
    assert [each() for each in gone] == [None] * len(gone)


async def test_joined_parts_hide_what_was_deleted_rewritten_and_erased(world: World) -> None:
    """Of entities each seen on one day alone, the later name first. Seen to fail with the entities of joined parts in
    the order of their days: the deleted and the erased were found, and what was written anew was found twice."""
    plane = world.plane()
    made = [event(n, id=f"z{n}", entity="acct-02") for n in (1, 2)]
    made += [event(n, id=f"a{n}", entity="acct-01", day=add_days(DAY, 1)) for n in (3, 4)]
    await world.write(plane, puts(made))
    await plane.build(TENANT, world.days(), specs=())
    await _searched_until_joined(plane)
    await world.write(plane, [delete_of(made[0]), Put(replace(made[3], text="beacon anew"))])
    assert await ids(plane, WIDE) == await ids(world.plane(), WIDE) == ["a3", "a4", "z2"]
    await begin_erasure(plane.engine, TENANT, "acct-02", erasure="e" * 32)
    plane.snapshots.forget(TENANT)
    assert await ids(plane, WIDE) == await ids(world.plane(), WIDE) == ["a3", "a4"]


async def _searched_until_joined(plane: Plane) -> SearchAnswer:
    for _ in range(4):
        answer = await plane.search(TENANT, replace(WIDE, explain=True))
        for joining in list(plane.searcher._assembler._joining):
            await joining
    assert answer.explain is not None
    assert answer.explain["joined"]
    return answer


async def test_what_memory_would_not_keep_is_not_joined(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again, for every search. Seen to fail without the estimate."""
    plane = world.plane()
    await world.write(plane, puts(month_of(4, entities=2)))
    await plane.build(TENANT, world.days(), specs=())
    monkeypatch.setattr(assemble, "ENTRY_SHARE_MAX", 0.0)
    for _ in range(4):
        await plane.search(TENANT, WIDE)
        assert not plane.searcher._assembler._joining


async def test_plans_of_long_lists_and_of_replaced_manifests_are_not_kept(world: World) -> None:
    """Seen to fail with a list counted that is asked for but not one of a filter, and with plans kept by count."""
    plane = world.plane()
    known = plane.searcher._assembler._plans
    await world.write(plane, puts(month_of(2, entities=2)))
    await plane.build(TENANT, world.days(), specs=())
    names = [f"acct-{n:02}" for n in range(assemble.PLAN_ENTITIES_MAX + 1)]
    await plane.search(TENANT, replace(WIDE, mode="vector", where=parse({"in": ["entity", names]})))
    await plane.search(TENANT, replace(WIDE, entities=tuple(names)))
    assert not known
    await plane.search(TENANT, WIDE)
    (before,) = {key[1] for key in known}
    await world.write(plane, puts([event(90)]))
    await plane.build(TENANT, [DAY], specs=())
    await plane.search(TENANT, WIDE)
    (after,) = {key[1] for key in known}
    assert after > before, "those of the manifest before are gone"


async def test_tails_of_recent_cuts_are_bounded_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write makes a cut, with the whole tail. Seen to fail with cuts kept by count."""
    monkeypatch.setattr(snapshots, "CUT_WRITES_MAX", 100)
    plane = world.plane()
    for first in range(0, 120, 20):
        await world.write(plane, puts([event(n) for n in range(first, first + 20)]))
        assert len(await ids(plane)) == first + 20
    for kept in (plane.snapshots._complete, plane.snapshots._derived):
        assert len(kept) == 1, "the newest alone, however large"
        assert kept.currsize <= 100


async def test_few_cuts_are_kept_however_small_their_tails(world: World) -> None:
    """Each holds a manifest. Seen to fail with cuts counted by their writes alone."""
    plane = world.plane()
    await world.write(plane, puts([event(1)]))
    cut = await plane.snapshots.current(TENANT, "strong")
    for n in range(snapshots.SNAPSHOTS_KNOWN + 5):
        await plane.snapshots.derived(replace(cut, tail=replace(cut.tail, log_number=n)), TailView.of)
    assert len(plane.snapshots._derived) <= snapshots.SNAPSHOTS_KNOWN


def test_decoded_batches_are_counted_with_vectors_and_attributes() -> None:
    """Seen to fail with texts alone counted."""
    plain = snapshots._body_bytes(puts([event(1, attrs={})]))
    wide = snapshots._body_bytes(puts([event(1, attrs={"a": 1, "b": 2}, vector=np.zeros(1536, np.float32))]))
    assert wide == plain + 4 * 1536 + 2 * snapshots.ATTR_BYTES


def test_names_that_callers_invent_keep_no_column() -> None:
    """Seen to fail with a column of missing values for each."""
    columns = Columns(block_of([replace(event(1), attrs={"seats": 3})]))
    assert columns.attr("nothing") is columns.attr("nothing at all")
    assert columns.attr("seats") is columns.attr("seats")
    assert columns.attr("seats").number.tolist() == [3.0]


@pytest.mark.parametrize(
    "where", [{"gt": ["ts", "9999-12-31T23:59:59.999999Z"]}, {"lt": ["ts", "0001-01-01T00:00:00Z"]}], ids=repr
)
async def test_times_beyond_every_event_find_nothing(world: World, where: dict[str, object]) -> None:
    """Seen to fail with a day made of a time that no calendar holds."""
    plane = world.plane()
    await world.write(plane, puts(month_of(2, entities=1)))
    await plane.build(TENANT, world.days(), specs=())
    answer = await plane.search(TENANT, replace(WIDE, mode="vector", where=parse(where)))
    assert answer.hits == ()


async def test_a_leg_without_weight_needs_no_vector(world: World) -> None:
    """Of a model that embeds nothing. Seen to fail with the text embedded for a leg that does not run."""
    world.embedder = GivenEmbedder("theirs", 8)  # type: ignore[assignment]  # an embedder all the same
    plane = world.plane()
    assert isinstance(plane.engine.embedder, MemoizedEmbedder)
    await world.write(plane, puts([event(1)]))
    asked = SearchRequest(text="beacon", mode="hybrid", weight_vector=0.0)
    assert len((await plane.search(TENANT, asked)).hits) == 1


async def test_a_graph_whose_files_were_evicted_is_opened_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dataset is larger than what folders may take. Seen to fail (every later search) with what was open kept."""
    for module in (plan, candidates):
        monkeypatch.setattr(module, "has_graph", lambda shards: True)
    monkeypatch.setattr(vector_shard, "ANN_ROWS_MIN", 100)
    plane = world.plane()
    await world.write(plane, puts(event(n, entity=f"acct-{n % 4:02}") for n in range(300)))
    await plane.build(TENANT, world.days(), specs=())
    found = Searcher(plane.engine, plane.store, plane.snapshots, plane.reader, plane.folders, exact_rows_max=-1)
    asked = replace(WIDE, mode="vector", limit=5)
    first = await found.search(TENANT, asked)
    assert len(first.hits) == 5
    assert not first.stats.exact
    plane.folders.clear()
    again = await found.search(TENANT, asked)
    assert [hit.id for hit in again.hits] == [hit.id for hit in first.hits]


async def test_blocks_are_not_asked_of_their_shards_graph(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter names an entity, so its blocks are read; the graph's row numbers are the shard's. Seen to fail with
    the request's entities asked for instead of the plan's."""
    for module in (plan, candidates):
        monkeypatch.setattr(module, "has_graph", lambda shards: True)
    monkeypatch.setattr(vector_shard, "candidates", lambda *_: np.array([999_999]))
    plane = world.plane()
    await world.write(plane, puts(month_of(2, entities=2)))
    await plane.build(TENANT, world.days(), specs=())
    never = Searcher(plane.engine, plane.store, plane.snapshots, plane.reader, plane.folders, exact_rows_max=-1)
    asked = replace(WIDE, mode="vector", where=parse({"eq": ["entity", "acct-01"]}))
    answer = await never.search(TENANT, asked)
    assert {hit.entity for hit in answer.hits} == {"acct-01"}
    assert answer.stats.exact
    assert DAY in {hit.citation.segment.split("/segments/")[1][:10].replace("/", "-") for hit in answer.hits}


async def test_whether_a_tenant_exists_is_asked_of_one_batch(world: World) -> None:
    """However long its log is. Seen to fail with the whole log listed: one more request for each thousand batches."""
    plane = world.plane()
    for number in range(1, 2002):
        await world.inner.put(str(LogKey(TENANT, number)), b"")
    with plane.store.trace() as cost:
        assert await plane.tenant_exists(TENANT)
    assert cost.lists == 2
