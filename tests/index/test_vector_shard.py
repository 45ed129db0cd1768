"""A vector shard gives back its floats exactly, opens with plain lancedb, and has a digest of content only."""

from __future__ import annotations

import shutil
from pathlib import Path

import lancedb
import numpy as np
import pytest
from numpy.typing import NDArray

from context_plane.errors import Corrupt
from context_plane.index.blocks import place_columns, row_text_digests, row_vectors, rows_to_embed
from context_plane.index.rows import F32, U8, Rows, concat
from context_plane.index.vector_shard import (
    VectorSearcher,
    candidates,
    content_digest,
    has_ann_index,
    open_ann,
    read_vectors,
    reusable_vectors,
    write_dataset,
)
from context_plane.model import Event, text_digest, unit
from tests.retrieval.world import DIM, FIRST_DAY, block_of, embed, grouped, made_events

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


def clustered(count: int, dim: int, seed: int) -> F32:
    """Unit rows around a centre for every fifty of them, as texts about the same things lie."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((count // 50, dim))
    rows = centres[rng.integers(len(centres), size=count)] + 0.8 * rng.standard_normal((count, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def columns_of(count: int) -> Rows:
    """Columns of `count` plain events."""
    events = [Event("acct", FIRST_DAY + n, f"e{n:06d}", "crm", "call", text="x") for n in range(count)]
    return place_columns("2026-03-01", [events])


def recall(searcher: VectorSearcher, vectors: F32, queries: F32, mask: NDArray[np.bool_] | None) -> float:
    """Share of the exact ten nearest admitted rows that are among 200 candidates."""
    admitted = np.arange(len(vectors)) if mask is None else np.flatnonzero(mask)
    shares = []
    for query in queries:
        exact = admitted[np.argsort(-(vectors[admitted] @ query), kind="stable")[:10]]
        shares.append(len(np.intersect1d(exact, candidates(searcher, query, 200, mask))) / 10)
    return float(np.mean(shares))


def test_candidates_of_a_large_shard_hold_the_nearest_rows(tmp_path: Path) -> None:
    """Fails when graphs are probed in part (several here), and when a mask is applied to 200 candidates only."""
    count, dim = 8_000, 64
    made = clustered(count + 50, dim, seed=1)
    vectors, queries = made[:count], made[count:]
    vectors[::100] = 0  # rows without a vector
    digests = np.zeros((count, 16), np.uint8)
    write_dataset(tmp_path, NAME, columns_of(count), vectors, digests, ann_rows_min=5_000, partition_rows=2_000)
    assert has_ann_index(tmp_path, NAME)
    searcher = open_ann(tmp_path, NAME)
    rng = np.random.default_rng(2)
    assert recall(searcher, vectors, queries, None) >= 0.97
    for share in (0.7, 0.3, 0.01):
        assert recall(searcher, vectors, queries, rng.random(count) < share) >= 0.97, share
    far = np.argsort(vectors @ queries[0])[: count // 2]  # a mask that admits none of what is near
    mask = np.isin(np.arange(count), far)
    assert recall(searcher, vectors, queries[:1], mask) == 1.0
    found = candidates(searcher, queries[0], 200)
    assert vectors[found].any(axis=1).all()
    assert np.array_equal(candidates(open_ann(tmp_path, NAME), queries[0], 200), found)


def test_large_shards_get_an_index_and_masks_hold(tmp_path: Path) -> None:
    columns, vectors, digests = made()
    write_dataset(tmp_path, NAME, columns, vectors, digests, ann_rows_min=100)
    assert has_ann_index(tmp_path, NAME)
    query = unit(np.ones(DIM))
    exact = np.argsort(-(vectors @ query), kind="stable")[:10]
    assert len(set(candidates(open_ann(tmp_path, NAME), query, 20)) & set(exact)) >= 9
    mask = np.zeros(len(vectors), np.bool_)
    mask[::9] = True
    found = candidates(open_ann(tmp_path, NAME), query, 10, mask)
    assert len(found) == 10
    assert mask[found].all()
    assert set(candidates(open_ann(tmp_path, NAME), query, 100, mask)) == set(np.flatnonzero(mask))


def test_what_is_not_there_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(Corrupt):
        read_vectors(tmp_path, "shard-nothing")
    with pytest.raises(Corrupt):
        open_ann(tmp_path, "shard-nothing")


def test_an_index_whose_files_went_is_corrupt(tmp_path: Path) -> None:
    """Fails when Lance's own error leaves: the caller would not know to fetch the shard anew."""
    columns, vectors, digests = made()
    write_dataset(tmp_path, NAME, columns, vectors, digests, ann_rows_min=100)
    searcher = open_ann(tmp_path, NAME)
    shutil.rmtree(tmp_path / f"{NAME}.lance")
    with pytest.raises(Corrupt):
        candidates(searcher, unit(np.ones(DIM)), 10)
