"""Full-text shards propose what the scope ranks high, give back what a mask admits, and digest content only."""

from __future__ import annotations

import io
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from context_plane.errors import Corrupt
from context_plane.index.analyzer import term_counts
from context_plane.index.blocks import build_block, row_text_digests
from context_plane.index.fulltext_shard import (
    FulltextSearcher,
    build,
    candidates,
    content_digest,
    open_searcher,
    unpack,
)
from context_plane.index.rows import Rows, concat
from context_plane.layout.compression import compress
from context_plane.model import Event
from context_plane.recall.candidates import text_depth
from context_plane.retrieval.fuse import Fusion
from context_plane.retrieval.legs import postings
from context_plane.retrieval.rank import RankQuery, candidate_weights, rank, scope_statistics
from context_plane.retrieval.scope import Part
from tests.retrieval.world import DAY_US, FIRST_DAY, grouped, made_events

DAYS = 30
TIGHT = 20
"""Candidates per day shard for a top 10: few, so that the order in which a shard proposes matters."""

TOPICS = {
    "export": "the export of large reports fails times out since the upgrade and the file comes out empty",
    "billing": "the invoice shows the wrong amount after we changed seats and finance asks for a refund of the charge",
    "login": "users cannot sign in with single sign on and the password reset mail never arrives",
    "speed": "the dashboard is slow in the morning and charts take a minute to load for the whole team",
    "pricing": "they object to the new pricing for enterprise plans and compare us with a cheaper vendor",
    "integration": "the salesforce integration stopped to sync contacts and the webhook returns an error",
    "renewal": "the renewal is due next quarter and the champion left so we need a new sponsor for the contract",
    "praise": "great onboarding call the team loves the automation and wants to roll it out to more departments",
}
OPENINGS = ("hi team", "hello", "quick note", "following up", "as discussed", "urgent", "thanks for the help")
CLOSINGS = ("please advise", "we will check", "call them tomorrow", "no action needed", "escalate to engineering")


def message(rng: random.Random, day: int) -> str:
    """A support or sales note. Each day has its own incident, so a term common on one day is rare on others."""
    incident = list(TOPICS)[day % len(TOPICS)]
    topics = [incident if rng.random() < 0.55 else rng.choice(list(TOPICS)) for _ in range(rng.randint(1, 3))]
    words = [word for topic in topics for word in TOPICS[topic].split() if rng.random() < 0.7]
    extra = [f"acct{rng.randrange(400)}" for _ in range(rng.randint(0, 2))]
    return " ".join([rng.choice(OPENINGS), *words, *extra, rng.choice(CLOSINGS)])


def day_rows(day: int, count: int) -> Rows:
    rng = random.Random(day)
    base = FIRST_DAY + day * DAY_US
    events = [Event("acct", base + n, f"d{day}-{n}", "crm", "note", text=message(rng, day)) for n in range(count)]
    return build_block("acct", events[0].day, events, np.zeros((count, 0), np.float32))


@dataclass(frozen=True)
class World:
    parts: list[Part]
    shards: list[FulltextSearcher]


def opened(rows: Rows, folder: Path) -> FulltextSearcher:
    (folder / "build").mkdir(parents=True)
    (folder / "open").mkdir()
    unpack(build(rows, folder / "build"), folder / "open")
    return open_searcher(folder / "open")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """30 days of very different sizes, as weeks are."""
    days = [day_rows(day, 40 if day % 7 in (5, 6) else 250) for day in range(DAYS)]
    folder = tmp_path_factory.mktemp("shards")
    return World([Part.of(rows) for rows in days], [opened(rows, folder / str(n)) for n, rows in enumerate(days)])


def recall(world: World, query: RankQuery, depth: int, *, scope_weights: bool) -> float:
    """Share of the true top 10 of all days that is found among `depth` candidates of each day's shard."""
    truth = {(hit.part, hit.event) for hit in rank(world.parts, query)}
    weights = candidate_weights(query, scope_statistics(world.parts, query))
    limited = []
    for part, shard in zip(world.parts, world.shards, strict=True):
        asked = weights if scope_weights else candidate_weights(query, scope_statistics([part], query))
        mask = np.zeros(part.rows.row_count, np.bool_)
        mask[candidates(shard, asked, depth)] = True
        limited.append(part.limited(text=mask))
    found = {(hit.part, hit.event) for hit in rank(limited, query)}
    return len(truth & found) / len(truth)


def queries() -> list[RankQuery]:
    rng = random.Random(7)
    made = []
    for _ in range(40):
        topics = rng.sample(list(TOPICS), 2)
        words = [word for topic in topics for word in rng.sample(TOPICS[topic].split(), 3)]
        terms = term_counts(" ".join([*words, f"acct{rng.randrange(400)}" if rng.random() < 0.3 else ""]))
        made.append(RankQuery(terms=tuple(terms.items()), limit=10, fusion=Fusion("text")))
    return made


def test_day_shards_together_find_what_one_index_would(world: World) -> None:
    """The true ranking is over all rows with their common statistics. Fails without the boost of
    `idf of the scope / idf of the shard`: then 20 candidates a shard find 0.97 of it, 10 find 0.86."""
    asked = queries()
    assert np.mean([recall(world, query, text_depth(10, 1), scope_weights=True) for query in asked]) >= 0.999
    assert np.mean([recall(world, query, TIGHT, scope_weights=True) for query in asked]) >= 0.999
    assert np.mean([recall(world, query, TIGHT, scope_weights=False) for query in asked]) < 0.99


def matching(rows: Rows, term: str) -> NDArray[np.int32]:
    found = postings(rows, term)
    return np.zeros(0, np.int32) if found is None else found[0]


def test_a_mask_loses_nothing_it_admits(world: World) -> None:
    """Fails when the mask is applied to one fetch of `limit` rows."""
    rows, shard = world.parts[0].rows, world.shards[0]
    common = max(rows.terms, key=lambda term: len(matching(rows, term)))
    ranked = candidates(shard, [(common, 1.0)], rows.row_count)
    assert set(ranked) == set(matching(rows, common))
    mask = np.zeros(rows.row_count, np.bool_)
    mask[ranked[-25:]] = True
    assert candidates(shard, [(common, 1.0)], 5, mask).tolist() == [row for row in ranked if mask[row]][:5]
    mask[[row for row in range(rows.row_count) if row not in ranked]] = True
    assert set(candidates(shard, [(common, 1.0)], 26, mask)) == set(ranked[-25:])


def test_a_mask_of_few_rows_is_its_own_candidates(world: World) -> None:
    mask = np.zeros(world.shards[0].rows, np.bool_)
    mask[[3, 8]] = True
    assert candidates(world.shards[0], [("report", 1.0)], 5, mask).tolist() == [3, 8]


def test_unknown_terms_and_empty_shards_propose_nothing(world: World, tmp_path: Path) -> None:
    assert candidates(world.shards[0], [("zzzz", 1.0)], 5).tolist() == []
    assert candidates(world.shards[0], [], 5).tolist() == []
    assert candidates(opened(concat([], day="2026-03-01"), tmp_path), [("report", 1.0)], 5).tolist() == []


def test_one_document_a_row_in_one_segment(tmp_path: Path) -> None:
    groups = grouped(made_events(1, 300, days=1)).values()
    none = [build_block(g[0].entity, g[0].day, g, np.zeros((len(row_text_digests(g)), 0), np.float32)) for g in groups]
    columns = concat(none, day="2026-03-01")
    shard = opened(columns, tmp_path)
    assert shard.rows == columns.row_count
    assert shard.searcher.num_segments == 1
    for term in columns.terms:
        assert set(candidates(shard, [(term, 1.0)], columns.row_count)) == set(matching(columns, term))


def test_the_digest_sees_postings_and_not_tantivys_bytes(tmp_path: Path) -> None:
    one, other = day_rows(1, 60), day_rows(1, 60)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert build(one, tmp_path / "a") != build(other, tmp_path / "b")
    assert content_digest(one) == content_digest(other)
    assert content_digest(day_rows(2, 60)) != content_digest(one)


def test_damaged_objects_are_refused(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    stored = build(day_rows(0, 10), tmp_path / "scratch")
    for damaged in (stored[:-9], stored[:40] + b"\0\0" + stored[42:], compress(b"no archive"), compress(b"")):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        with pytest.raises(Corrupt):
            unpack(damaged, folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Corrupt):
        open_searcher(tmp_path / "empty")


@pytest.mark.parametrize("name", ["../beside", "/tmp/absolute", "below/file", "..", "link", "sparse"])
def test_an_archive_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    """Seen to fail without each condition."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        if name == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        if name == "sparse":
            entry.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.map": "0,0", "GNU.sparse.size": "1000000"}
        archive.addfile(entry, io.BytesIO())
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(Corrupt, match="no file of its folder"):
        unpack(compress(packed.getvalue()), folder)
    assert list(tmp_path.rglob("*")) == [folder]
