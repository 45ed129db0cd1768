"""Law 7: filters apply before ranking, and every exact path equals a plain reading of the rules."""

from __future__ import annotations

import itertools
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from context_plane.index.analyzer import term_counts
from context_plane.model import Event, Put
from context_plane.plane import Plane
from context_plane.recall import candidates
from context_plane.recall.search import Searcher
from context_plane.recall.values import SearchRequest
from context_plane.retrieval.where import parse
from tests.laws.plane_world import TENANT, World, delete_of, event, puts
from tests.retrieval.world import FIRST_DAY, WORDS, embed, made_events, plain_rank, plain_where
from tests.store.dictionary import DictStore

ENTITIES = [f"acct-{n:02}" for n in range(6)]
FILTERS: list[dict[str, Any]] = [
    {"eq": ["source", "zendesk"]},
    {"ne": ["attrs.plan", "pro"]},
    {"in": ["kind", ["ticket", "call"]]},
    {"nin": ["attrs.seats", [5, 40]]},
    {"lt": ["attrs.seats", 10]},
    {"lte": ["attrs.plan", "pro"]},
    {"gt": ["ts", "2026-03-02T00:00:00Z"]},
    {"gte": ["attrs.seats", 10]},
    {"contains": ["attrs.tags", "vip"]},
    {"contains_any": ["attrs.tags", ["export", "billing"]]},
    {"prefix": ["id", "e1"]},
    {"glob": ["attrs.plan", "[pt]*"]},
    {"exists": ["attrs.tags", False]},
]
WHERE = st.recursive(
    st.sampled_from(FILTERS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).flatmap(lambda c: st.sampled_from([{"and": c}, {"or": c}])),
        inner.map(lambda c: {"not": c}),
    ),
    max_leaves=4,
)
SLOW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


async def made_world(folder: Path, seed: int) -> tuple[World, Plane]:
    """Five days, three of them built; then updates, deletes and new events in the tail.

    No threads: a build joins short messages that the tail holds apart."""
    world = World(DictStore(), folder)
    plane = world.plane()
    events = [replace(each, thread=None) for each in made_events(seed, 60)]
    await world.write(plane, puts(events[:45]))
    await plane.build(TENANT, world.days()[:3], specs=())
    changed = [replace(each, text=f"{each.text} renewal export", attrs={"seats": 7}) for each in events[3:6]]
    await world.write(plane, [*map(Put, changed), *map(delete_of, events[8:11]), *puts(events[45:])])
    return world, plane


def plain(
    world: World, request: SearchRequest, where: dict[str, Any] | None
) -> list[tuple[str, float | None, float | None]]:
    """(id, text score, vector score) by plain Python: one leg at a time, since fusion has its own tests."""

    def in_scope(each: Event) -> bool:
        return (
            (request.entities is None or each.entity in request.entities)
            and (request.since_us is None or each.ts_us >= request.since_us)
            and (request.until_us is None or each.ts_us < request.until_us)
        )

    text = request.text or ""
    found = plain_rank(
        world.events(),
        list(term_counts(text).items()),
        embed([text])[0],
        in_scope=in_scope,
        passes=lambda each: where is None or plain_where(where, each),
    )
    return [(i, text_score, vector_score) for i, _, text_score, vector_score in found]


def in_order(found: list[tuple[str, float | None, float | None]], leg: int, world: World) -> list[tuple[str, float]]:
    of = {each.id: each for each in world.events()}
    kept = [(i, score) for i, *scores in found if (score := scores[leg - 1]) is not None]
    return sorted(kept, key=lambda p: (-round(p[1], 4), -of[p[0]].ts_us, of[p[0]].entity, p[0]))


@pytest.fixture(scope="module")
def seeds() -> dict[int, Any]:
    return {}


@SLOW
@given(
    seed=st.integers(0, 2),
    entities=st.one_of(
        st.none(), st.lists(st.sampled_from([*ENTITIES, "nobody"]), min_size=1, max_size=4, unique=True)
    ),
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
    where=st.one_of(st.none(), WHERE),
    first=st.one_of(st.none(), st.integers(0, 40)),
    last=st.one_of(st.none(), st.integers(10, 52)),
    mode=st.sampled_from(["text", "vector", "hybrid"]),
)
async def test_search_equals_a_plain_reading_of_the_rules(
    seeds: dict[int, Any],
    seed: int,
    entities: list[str] | None,
    words: list[str],
    where: dict[str, Any] | None,
    first: int | None,
    last: int | None,
    mode: Any,
) -> None:
    """One entity, several, or the tenant; tail included. Every leg score and every order is the plain one's.

    Seen to fail with statistics taken over filtered rows, with an `until` that is inclusive, and with the tail
    not masking built rows.
    """
    if seed not in seeds:
        seeds[seed] = await made_world(Path(tempfile.mkdtemp(prefix="laws-")), seed)
    world, plane = seeds[seed]
    times = sorted(each.ts_us for each in world.events())
    since_us = None if first is None else times[first]  # the window's edges are events' own times
    until_us = None if last is None else times[last]
    request = SearchRequest(
        text=" ".join(words), mode=mode, entities=None if entities is None else tuple(entities),
        where=None if where is None else parse(where), since_us=since_us, until_us=until_us,
        limit=100, deadline_ms=20_000,
    )  # fmt: skip
    answer = await plane.search(TENANT, request)
    assert not answer.partial
    assert answer.stats.exact
    wanted = plain(world, request, where)
    for leg, name in ((1, "text"), (2, "vector")):
        expected = in_order(wanted, leg, world)
        if mode not in (name, "hybrid"):
            continue
        ranked = {getattr(hit, f"{name}_rank"): hit for hit in answer.hits if getattr(hit, f"{name}_rank")}
        scores = [(ranked[rank].id, getattr(ranked[rank], f"{name}_score")) for rank in sorted(ranked)]
        assert [i for i, _ in sorted(scores)] == [i for i, _ in sorted(expected)]
        by_id = dict(expected)
        assert all(math.isclose(score, by_id[i], rel_tol=2e-4, abs_tol=2e-4) for i, score in scores)
        assert all(a >= b for (_, a), (_, b) in itertools.pairwise(scores))
    of = {each.id: each for each in world.events()}
    for hit in answer.hits:
        assert (hit.entity, hit.text, hit.ts_us) == (of[hit.id].entity, of[hit.id].text, of[hit.id].ts_us)


async def test_groups_are_the_best_of_each_entity(tmp_path: Path) -> None:
    """Ordered by their best hit. Seen to fail with the limit applied before grouping."""
    _, plane = await made_world(tmp_path, 5)
    request = SearchRequest(text="export report invoice", limit=100, deadline_ms=20_000)
    every = (await plane.search(TENANT, request)).hits
    grouped = (await plane.search(TENANT, replace(request, limit=3, group_by_entity=True, per_group=2))).hits
    order = list(dict.fromkeys(hit.entity for hit in every))[:3]
    expected = [[hit.id for hit in every if hit.entity == name][:2] for name in order]
    assert [hit.id for hit in grouped] == [i for group in expected for i in group]


def test_large_shards_propose_in_proportion() -> None:
    """Seen to fail with a fixed number: a million rows then lose what 200 candidates do not hold."""
    assert [candidates.text_depth(10, rows) for rows in (1_000, 1_000_000)] == [200, 2_000]
    assert candidates.text_depth(1_000, 1_000_000) == 20_000


async def test_candidates_find_the_true_top_ten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty day shards whose term frequencies differ, with and without filters. Recall@10 at least 0.999.

    Shards of fifty events propose eight each. Seen to fail with candidates proposed before the filter.
    """
    monkeypatch.setattr(candidates, "CANDIDATES_MIN", 8)
    monkeypatch.setattr(candidates, "CANDIDATES_PER_HIT", 0)
    world = World(DictStore(), tmp_path)
    plane = world.plane()
    events = [replace(each, thread=None) for each in made_events(11, 1500, days=30, entities=20)]
    await world.write(plane, puts(events))
    await plane.build(TENANT, world.days(), specs=())
    await world.write(plane, puts([event(1, id="t1", text="export webhook latency", ts_us=FIRST_DAY)]))
    searcher = Searcher(plane.engine, plane.store, plane.snapshots, plane.reader, plane.folders, exact_rows_max=-1)
    found = wanted = 0
    for n, where in enumerate([None, {"eq": ["source", "gong"]}, {"gte": ["attrs.seats", 10]}] * 8):
        request = SearchRequest(
            text=" ".join(WORDS[(n * 5 + i * i) % len(WORDS)] for i in range(1 + n % 4)),
            where=None if where is None else parse(where),
            mode="text" if n % 2 else "hybrid",
            deadline_ms=60_000,
        )
        exact, proposed = await plane.search(TENANT, request), await searcher.search(TENANT, request)
        assert exact.stats.exact
        assert not proposed.stats.exact
        wanted += len(exact.hits)
        found += len({hit.id for hit in exact.hits} & {hit.id for hit in proposed.hits})
    assert found / wanted >= 0.999
