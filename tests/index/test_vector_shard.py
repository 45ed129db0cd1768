"""A vector shard gives back its floats exactly, opens with plain lancedb, and has a digest of content only."""

from __future__ import annotations

from pathlib import Path

import lancedb
import numpy as np
import pytest

from context_plane.errors import Corrupt
from context_plane.index.blocks import row_text_digests, row_vectors, rows_to_embed
from context_plane.index.rows import F32, U8, Rows, concat
from context_plane.index.vector_shard import (
    ann_candidates,
    content_digest,
    has_ann_index,
    read_vectors,
    reusable_vectors,
    write_dataset,
)
from context_plane.model import text_digest, unit
from tests.retrieval.world import DIM, block_of, embed, grouped, made_events

NAME = "shard-0a1b-n1"


def made() -> tuple[Rows, F32, U8]:
    groups = list(grouped(made_events(4, 200, days=1)).values())
    columns = concat([block_of(own) for own in groups], day="2026-03-01")
    vectors = np.concatenate([row_vectors(own, embed(rows_to_embed(own)), DIM) for own in groups])
    return columns, vectors, np.concatenate([row_text_digests(own) for own in groups])


def test_floats_and_digests_come_back_exactly(tmp_path: Path) -> None:
    columns, vectors, digests = made()
    files = write_dataset(tmp_path, NAME, columns, vectors, digests)
    assert files
    assert all((tmp_path / f"{NAME}.lance" / path).is_file() for path in files)
    stored = read_vectors(tmp_path, NAME)
    assert stored.vectors.tobytes() == vectors.tobytes()
    assert stored.text_digests.tobytes() == digests.tobytes()
    assert not has_ann_index(tmp_path, NAME)


def test_plain_lancedb_reads_the_rows(tmp_path: Path) -> None:
    columns, vectors, digests = made()
    write_dataset(tmp_path, NAME, columns, vectors, digests)
    table = lancedb.connect(tmp_path).open_table(NAME)
    records = table.to_arrow().to_pylist()
    assert len(records) == columns.row_count
    for n, record in enumerate(records):
        event = columns.row_event[n]
        assert record["row"] == n
        assert record["id"] == columns.ids[event]
        assert record["entity"] == columns.entities[columns.event_entity[event]]
        assert record["kind"] == columns.kinds[columns.event_kind[event]]
        assert int(record["ts"].timestamp() * 1_000_000) == columns.event_ts_us[event]
        assert (record["vector"] is None) == (not vectors[n].any())
    near = table.search(vectors[np.flatnonzero(vectors.any(axis=1))[3]]).where("kind = 'call'").limit(3).to_list()
    assert [record["kind"] for record in near] == ["call"] * 3


def test_a_rebuild_has_the_same_digest(tmp_path: Path) -> None:
    columns, vectors, digests = made()
    one = content_digest(vectors, digests, model="m")
    write_dataset(tmp_path, NAME, columns, vectors, digests)
    stored = read_vectors(tmp_path, NAME)
    assert content_digest(stored.vectors, stored.text_digests, model="m") == one
    changed = vectors.copy()
    changed[0, 0] += 1
    assert len({one, content_digest(changed, digests, model="m"), content_digest(vectors, digests, model="n")}) == 3


def test_computed_vectors_are_found_by_text_and_given_ones_are_not(tmp_path: Path) -> None:
    """Fails when a caller's vector is filed under its text: another event's text would get it."""
    columns, vectors, digests = made()
    write_dataset(tmp_path, NAME, columns, vectors, digests)
    known = reusable_vectors(read_vectors(tmp_path, NAME))
    for own in grouped(made_events(4, 200, days=1)).values():
        for text in rows_to_embed(own):
            assert np.array_equal(known[text_digest(text)], embed([text])[0])
    assert bytes(16) not in known


def test_large_shards_get_an_index_and_masks_hold(tmp_path: Path) -> None:
    columns, vectors, digests = made()
    write_dataset(tmp_path, NAME, columns, vectors, digests, ann_rows_min=100)
    assert has_ann_index(tmp_path, NAME)
    query = unit(np.ones(DIM))
    exact = np.argsort(-(vectors @ query), kind="stable")[:10]
    assert len(set(ann_candidates(tmp_path, NAME, query, 20)) & set(exact)) >= 9
    mask = np.zeros(len(vectors), np.bool_)
    mask[::9] = True
    found = ann_candidates(tmp_path, NAME, query, 10, mask)
    assert len(found) == 10
    assert mask[found].all()
    assert set(ann_candidates(tmp_path, NAME, query, 100, mask)) == set(np.flatnonzero(mask))


def test_what_is_not_there_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(Corrupt):
        read_vectors(tmp_path, "shard-nothing")
