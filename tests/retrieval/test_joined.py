"""Joined parts rank as their parts do, and every place leads back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from context_plane.retrieval.columns import Columns
from context_plane.retrieval.fuse import Fusion, FusionMethod, Mode
from context_plane.retrieval.joined import join
from context_plane.retrieval.rank import RankQuery, rank_parts
from context_plane.retrieval.scope import Part
from tests.retrieval.test_rank import made_query, split
from tests.retrieval.world import block_of, grouped, made_events


@pytest.mark.parametrize("mode", ["hybrid", "text", "vector"])
@pytest.mark.parametrize("method", ["relative_score", "reciprocal_rank"])
@pytest.mark.parametrize("seed", range(3))
def test_a_joined_part_answers_as_its_parts(seed: int, mode: Mode, method: FusionMethod) -> None:
    """To the bit. Seen to fail with rows of a part numbered from its events, and with an entity kept twice."""
    parts = split(made_events(seed, 300, days=6, entities=5), 4)
    bare = replace(parts[1].rows, dim=0, vectors=np.zeros((0, 0), np.int16), scales=np.zeros(0, np.float32))
    parts[1] = Part(Columns(bare))
    joined = join([part.columns for part in parts], [str(n) for n in range(len(parts))])
    assert len(set(joined.columns.rows.entities)) == len(joined.columns.rows.entities)
    query: RankQuery = replace(made_query(seed), fusion=Fusion(mode, method), limit=60)
    apart, together = rank_parts(parts, query), rank_parts([Part(joined.columns)], query)
    assert apart.statistics == together.statistics
    assert apart.rows_scored == together.rows_scored
    assert apart.hits
    led_back = []
    for hit in together.hits:
        part = joined.part_of(hit.event)
        rows = parts[part].rows
        event = hit.event - joined.first_event[part]
        assert joined.columns.rows.ids[hit.event] == rows.ids[event]
        row = hit.row - sum(each.rows.row_count for each in parts[:part])
        led_back.append(hit._replace(part=part, event=event, row=row))
    assert led_back == list(apart.hits)


def test_entities_of_joined_parts_ascend_whatever_the_order_of_the_parts() -> None:
    """Where no part shares an entity with another, too: what an erasure or a delete hides is found by bisecting them.
    Seen to fail with the names left as the parts had them."""
    blocks = [block_of(own) for own in grouped(made_events(1, 40, days=1, entities=2)).values()]
    late_first = sorted(blocks, key=lambda block: block.entities, reverse=True)
    joined = join([Columns(block) for block in late_first], ["1", "2"])
    rows = joined.columns.rows
    assert rows.entities == tuple(sorted(rows.entities))
    for n, block in enumerate(late_first):
        own = joined.events_of(n).rows
        assert {own.entities[code] for code in own.event_entity.tolist()} == set(block.entities)
