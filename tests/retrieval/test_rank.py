"""Ranking equals a plain reading of its rules, and does not see how events are split into parts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from context_plane.index.analyzer import term_counts
from context_plane.index.blocks import join_blocks
from context_plane.index.bm25 import Bm25Params, Bm25Settings
from context_plane.model import Event
from context_plane.retrieval import order
from context_plane.retrieval import rank as ranking
from context_plane.retrieval.columns import Columns
from context_plane.retrieval.fuse import Fusion, FusionMethod, Hit, Mode
from context_plane.retrieval.order import best_first, name
from context_plane.retrieval.rank import RankQuery, rank, rank_parts, scope_statistics
from context_plane.retrieval.scope import Part, live_mask
from context_plane.retrieval.timeline import select_events
from context_plane.retrieval.where import parse
from tests.retrieval.world import (
    DAY_US,
    FIRST_DAY,
    block_of,
    embed,
    grouped,
    made_events,
    plain_rank,
    plain_where,
    sentence,
)

WHERES: list[dict[str, Any] | None] = [
    None,
    {"eq": ["source", "zendesk"]},
    {"and": [{"gte": ["attrs.seats", 5]}, {"not": {"contains": ["attrs.tags", "vip"]}}]},
    {"in": ["kind", ["ticket", "message"]]},
]


def split(events: Sequence[Event], parts: int) -> list[Part]:
    """Blocks of (day, entity) dealt into `parts` parts, each joined into one Rows."""
    blocks: list[list[Any]] = [[] for _ in range(parts)]
    for n, own in enumerate(grouped(events).values()):
        blocks[n % parts].append(block_of(own))
    joined = (sorted(each, key=lambda block: block.entities[0]) for each in blocks if each)
    return [Part.of(join_blocks(each, day=None)) for each in joined]


def ids(parts: Sequence[Part], hits: Sequence[Hit]) -> list[str]:
    return [parts[hit.part].rows.ids[hit.event] for hit in hits]


def made_query(seed: int) -> RankQuery:
    rng = random.Random(seed)
    text = sentence(rng, 4)
    since = FIRST_DAY + rng.choice([0, 1]) * DAY_US
    return RankQuery(
        terms=tuple(term_counts(text).items()),
        vector=embed([text])[0],
        entities=rng.choice([None, frozenset({"acct-01"}), frozenset({"acct-00", "acct-03", "nobody"})]),
        since_us=rng.choice([None, since]),
        until_us=rng.choice([None, since + 2 * DAY_US + 7]),
        limit=400,
    )


@pytest.mark.parametrize("seed", range(12))
def test_ranking_equals_brute_force(seed: int) -> None:
    """Fails when `where` does not reach a leg, when it narrows the statistics, when a row without a vector
    scores zero, when an event's score is the sum of its rows', and when vectors are kept in 8 bits."""
    events = made_events(seed, 150)
    query, where = made_query(seed), WHERES[seed % len(WHERES)]
    if where is not None:
        query = replace(query, where=parse(where))
    parts = split(events, 1 + seed % 4)
    assert query.vector is not None
    expected = plain_rank(
        events,
        query.terms,
        query.vector,
        in_scope=lambda event: (
            (query.entities is None or event.entity in query.entities)
            and (query.since_us is None or event.ts_us >= query.since_us)
            and (query.until_us is None or event.ts_us < query.until_us)
        ),
        passes=lambda event: where is None or plain_where(where, event),
    )
    hits = rank(parts, query)
    by_id = {parts[hit.part].rows.ids[hit.event]: hit for hit in hits}
    assert set(by_id) == {found[0] for found in expected}
    for event_id, _, text_score, vector_score in expected:
        hit = by_id[event_id]
        assert (hit.text_score is None) == (text_score is None)
        assert (hit.vector_score is None) == (vector_score is None)
        assert text_score is None or hit.text_score == pytest.approx(text_score, rel=1e-5)
        assert vector_score is None or hit.vector_score == pytest.approx(vector_score, abs=1e-3)
    if well_separated(expected):
        assert ids(parts, hits) == [found[0] for found in expected]


def well_separated(found: Sequence[tuple[str, float, float | None, float | None]]) -> bool:
    """No two scores of a leg are so near that rounding may swap their ranks (equal ones tie alike on both sides)."""
    for leg in (2, 3):
        scores = sorted(float(each[leg]) for each in found if each[leg] is not None)  # type: ignore[arg-type]  # not None
        if any(1e-12 < b - a < (1e-5, 1e-3)[leg - 2] for a, b in itertools.pairwise(scores)):
            return False
    return True


@pytest.mark.parametrize("method", ["relative_score", "reciprocal_rank"])
def test_the_order_is_compared_often_enough(method: FusionMethod) -> None:
    """The parity above compares exact orders only of well separated scores: small sets of events guarantee some."""
    compared = 0
    for seed in range(40):
        events = made_events(seed, 14, days=2, entities=2)
        fusion = Fusion(method=method)
        query = replace(made_query(seed), entities=None, since_us=None, until_us=None, fusion=fusion)
        assert query.vector is not None
        expected = plain_rank(
            events, query.terms, query.vector, in_scope=lambda _: True, passes=lambda _: True, method=method
        )
        if well_separated(expected):
            parts = split(events, 3)
            assert ids(parts, rank(parts, query)) == [found[0] for found in expected]
            compared += 1
    assert compared >= 10


@pytest.mark.parametrize("mode", ["hybrid", "text", "vector"])
def test_splitting_events_over_parts_changes_no_bit(mode: Mode) -> None:
    """Fails when a part uses its own statistics, and when dot products are summed in float32."""
    events = made_events(99, 400, days=6, entities=8)
    for seed in range(4):
        query = replace(made_query(seed), fusion=Fusion(mode), limit=50, where=parse({"ne": ["kind", "call"]}))
        answers = []
        for count in (1, 5, 30):
            parts = split(events, count)
            hits = rank(parts, query)
            answers.append(
                [
                    (event_id, h._replace(part=0, event=0, row=0))
                    for event_id, h in zip(ids(parts, hits), hits, strict=True)
                ]
            )
            assert scope_statistics(parts, query) == scope_statistics(split(events, 1), query)
        assert answers[0] == answers[1] == answers[2]
        assert answers[0]


def test_ties_break_by_time_then_entity_then_id() -> None:
    """Fails when ties keep the order of parts."""
    made = [
        Event(entity, FIRST_DAY + ts, event_id, "s", "ticket", text="export fails")
        for entity, ts, event_id in [("b", 5, "x"), ("a", 5, "z"), ("a", 5, "y"), ("c", 9, "w"), ("a", 1, "v")]
    ]
    query = RankQuery(terms=(("export", 1),), fusion=Fusion("text"), limit=4)
    for parts in (split(made, 1), split(made, 3), split(made, 3)[::-1]):
        assert ids(parts, rank(parts, query)) == ["w", "y", "z", "x"]


def test_the_window_holds_its_start_and_not_its_end() -> None:
    """Fails when `until` is inclusive or `since` exclusive."""
    made = [Event("a", FIRST_DAY + ts, f"t{ts}", "s", "ticket", text="export fails") for ts in range(5)]
    parts = split(made, 1)
    query = RankQuery(terms=(("export", 1),), since_us=FIRST_DAY + 1, until_us=FIRST_DAY + 3)
    assert ids(parts, rank(parts, query)) == ["t2", "t1"]
    assert scope_statistics(parts, query).rows == 2


def test_masked_events_weigh_nothing() -> None:
    """A masked event changes neither statistics nor ranks: the answer is that of rows without it."""
    events = made_events(5, 120, days=1, entities=1)
    gone = {event.id for event in events if event.id.endswith(("1", "4"))}
    (own,) = grouped(events).values()
    (kept,) = grouped([event for event in events if event.id not in gone]).values()
    own = [replace(event, thread=None) for event in own]
    kept = [replace(event, thread=None) for event in kept]
    full = Columns(block_of(own))
    live = live_mask(full, identities={"acct-00": {(own[0].day, name) for name in gone}})
    query = replace(made_query(1), entities=None, since_us=None, until_us=None)
    masked, rest = [Part(full, live)], [Part.of(block_of(kept))]
    assert scope_statistics(masked, query) == scope_statistics(rest, query)
    one, other = rank(masked, query), rank(rest, query)
    assert ids(masked, one) == ids(rest, other)
    assert [hit.score for hit in one] == [hit.score for hit in other]


def test_live_mask_hides_identities_entities_and_days() -> None:
    events = made_events(6, 80, days=3, entities=3)
    columns = Columns(
        join_blocks(sorted((block_of(own) for own in grouped(events).values()), key=lambda b: b.entities[0]), day=None)
    )
    rows = columns.rows
    assert live_mask(columns) is None
    assert live_mask(columns, entities={"nobody"}, identities={"acct-00": {("2026-03-01", "nothing")}}) is None
    live = live_mask(columns, entities={"acct-01"}, days={"2026-03-02"}, identities={"acct-00": {("2026-03-01", "e1")}})
    assert live is not None
    for n, event_id in enumerate(rows.ids):
        day = (int(rows.event_ts_us[n]) - FIRST_DAY) // DAY_US
        entity = rows.entities[rows.event_entity[n]]
        hidden = entity == "acct-01" or day == 1 or (entity == "acct-00" and event_id == "e1" and day == 0)
        assert live[n] == (not hidden)


def test_candidates_limit_their_leg_and_no_statistic() -> None:
    parts = split(made_events(7, 100), 1)
    query = replace(made_query(2), entities=None, since_us=None, until_us=None)
    full = rank_parts(parts, query)
    top = [hit for hit in full.hits if hit.text_rank is not None and hit.text_rank <= 5]
    mask = np.zeros(parts[0].rows.row_count, np.bool_)
    mask[[hit.row for hit in top]] = True
    limited = rank_parts([parts[0].limited(text=mask)], query)
    assert limited.statistics == full.statistics
    texts = {hit.event: (hit.text_rank, hit.text_score) for hit in limited.hits if hit.text_rank}
    assert texts == {hit.event: (hit.text_rank, hit.text_score) for hit in top}
    assert sum(hit.vector_rank is not None for hit in limited.hits) == sum(h.vector_rank is not None for h in full.hits)
    assert limited.rows_scored == full.rows_scored == parts[0].rows.row_count


def test_groups_hold_the_best_hits_of_each_entity() -> None:
    parts = split(made_events(8, 200), 3)
    query = replace(made_query(3), entities=None, since_us=None, until_us=None, limit=1000)
    flat = rank(parts, query)

    def entity(hit: Hit) -> str:
        return name(parts, hit.part, hit.event)[0]

    order = list(dict.fromkeys(entity(hit) for hit in flat))[:3]
    expected = [hit for each in order for hit in [h for h in flat if entity(h) == each][:2]]
    assert rank(parts, replace(query, group_by_entity=True, limit=3, per_group=2)) == expected


@pytest.mark.parametrize("mode", ["hybrid", "text", "vector"])
@pytest.mark.parametrize("method", ["relative_score", "reciprocal_rank"])
def test_groups_are_found_behind_one_entitys_many_events(
    mode: Mode, method: FusionMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with groups filled from the best events alone, however many of them are of one entity."""
    monkeypatch.setattr(ranking, "LEG_DEPTH", 20)
    many = [Event("a", FIRST_DAY + n, f"a{n:03}", "s", "ticket", text="export fails") for n in range(300)]
    few = [Event(each, FIRST_DAY, each, "s", "ticket", text="export and much else to say of it") for each in ("b", "c")]
    parts = [Part.of(block_of(own)) for own in grouped([*many, *few]).values()]
    query = RankQuery(
        terms=(("export", 1),), vector=embed(["export fails"])[0], fusion=Fusion(mode, method), limit=2,
        group_by_entity=True, per_group=2, group_depth=10,
    )  # fmt: skip
    found = [name(parts, hit.part, hit.event)[0] for hit in rank(parts, query)]
    assert found[:2] == ["a", "a"]
    assert len(set(found)) == 2
    assert len({name(parts, hit.part, hit.event)[0] for hit in rank(parts, replace(query, limit=9))}) == 3


def test_a_leg_without_weight_or_query_does_not_run() -> None:
    parts = split(made_events(9, 60), 1)
    query = replace(made_query(1), entities=None, since_us=None, until_us=None)
    for quiet in (replace(query, vector=None), replace(query, fusion=Fusion(weight_vector=0.0))):
        assert all(hit.vector_rank is None for hit in rank(parts, quiet))
    assert rank(parts, replace(query, terms=(), vector=None)) == []
    assert rank([], query) == []


def test_parameters_of_a_kind_apply_to_its_rows() -> None:
    parts = split(made_events(10, 80), 1)
    base = replace(made_query(4), entities=None, since_us=None, until_us=None, fusion=Fusion("text"))
    mixed = rank(parts, replace(base, bm25=Bm25Settings(by_kind={"ticket": Bm25Params(2.0, 1.0)})))
    plain = {(hit.event): hit.score for hit in rank(parts, base)}
    rows = parts[0].rows
    for hit in mixed:
        kind = rows.kinds[rows.event_kind[hit.event]]
        assert (hit.score == plain[hit.event]) == (kind != "ticket")


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_of_a_timeline_are_the_sorted_events(newest_first: bool) -> None:
    """Fails when a page ends inside a run of equal times and the next begins after it."""
    events = [replace(event, ts_us=event.ts_us // DAY_US * DAY_US) for event in made_events(11, 90)]
    where = {"exists": "attrs.seats"}
    expected = sorted(((e.ts_us, e.entity, e.id) for e in events if plain_where(where, e)), reverse=newest_first)
    found: list[tuple[int, str, str]] = []
    for count in itertools.cycle((1, 4)):
        parts = split(events, count)
        after = found[-1] if found else None
        page = select_events(parts, where=parse(where), newest_first=newest_first, after=after, limit=7)
        for ref in page:
            rows = parts[ref.part].rows
            entity = rows.entities[rows.event_entity[ref.event]]
            found.append((int(rows.event_ts_us[ref.event]), entity, rows.ids[ref.event]))
        if len(page) < 7:
            break
    assert found == expected


@pytest.mark.parametrize("seed", range(4))
def test_few_events_are_ordered_as_many_are(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the short way forgets the later time, or cuts a tie before names have settled it."""
    parts = split(made_events(seed, 40, days=2), 1 + seed % 2)
    rng = np.random.default_rng(seed)
    counts = [part.rows.event_count for part in parts]
    part = np.repeat(np.arange(len(parts)), counts)
    event = np.concatenate([np.arange(count) for count in counts])
    score = rng.integers(0, 3, len(part)).astype(np.float64)
    for rows in (each.rows for each in parts):
        rows.event_ts_us[:] = rows.event_ts_us // (DAY_US // 2)  # many share a time
    shuffled = rng.permutation(len(part))
    for depth in (None, 0, 3, 10):
        few = best_first(parts, part[shuffled], event[shuffled], score[shuffled], depth)
        monkeypatch.setattr(order, "FEW_MAX", 0)
        many = best_first(parts, part[shuffled], event[shuffled], score[shuffled], depth)
        monkeypatch.undo()
        assert few.tolist() == many.tolist()
