"""Keys: what is formatted is parsed back, and two entities never share a key."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from context_plane.errors import Corrupt
from context_plane.layout.keys import (
    ENTITY_PART_BYTES_MAX,
    NUMBER_MAX,
    AuditedBatchesKey,
    AuditKey,
    BundleDiffKey,
    BundleKey,
    ControlKey,
    ErasureKey,
    Key,
    LandingKey,
    LatestKey,
    ListKey,
    LogKey,
    ManifestKey,
    PartKey,
    SegmentKey,
    ShardFileKey,
    ShardKey,
    StagingKey,
    built_id,
    entity_part,
    parse,
)
from context_plane.model import ENTITY_BYTES_MAX

WEIRD = [
    "/",
    ".",
    "..",
    "a/../b",
    "%2e",
    "%2E%2E",
    "\0",
    "~",
    "~" + "a" * 64,
    "😀",
    "é" * 128,
    "x" * 256,
    " ",
    "a b",
    "\\",
]

tenants = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
days = st.dates().map(lambda day: f"{day.year:04d}-{day.month:02d}-{day.day:02d}")
months = days.map(lambda day: day[:7])
ids = st.builds(
    built_id, st.from_regex(r"[0-9a-f]{64}", fullmatch=True), st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
)
entities = st.one_of(
    st.sampled_from(WEIRD),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64),
).filter(lambda entity: len(entity.encode()) <= ENTITY_BYTES_MAX)
names = st.from_regex(r"[a-z0-9_.-]{1,20}", fullmatch=True).filter(lambda name: name not in (".", ".."))
kinds = st.sampled_from(["entity", "fulltext", "vector"])
shards = st.builds(ShardKey, tenants, kinds, st.one_of(days, months), ids)
vector_shards = st.builds(ShardKey, tenants, st.just("vector"), st.one_of(days, months), ids)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
keys: st.SearchStrategy[Key] = st.one_of(
    st.builds(LogKey, tenants, st.integers(0, NUMBER_MAX)),
    st.builds(SegmentKey, tenants, entities.map(entity_part), days, ids),
    shards,
    st.builds(ShardFileKey, vector_shards, paths),
    st.builds(BundleKey, tenants, names, days, ids),
    st.builds(ManifestKey, tenants, st.integers(0, NUMBER_MAX)),
    st.builds(LatestKey, tenants),
    st.builds(ListKey, tenants, st.one_of(days, months), ids),
    st.builds(StagingKey, tenants, days, names),
    st.builds(BundleDiffKey, tenants, names, days, ids),
    st.builds(PartKey, tenants, days, names, ids),
    st.builds(ErasureKey, tenants, ids),
    st.builds(LandingKey, tenants, names, days, paths),
    st.builds(ControlKey, st.one_of(st.none(), tenants), paths),
    st.builds(AuditKey, st.one_of(st.none(), tenants), st.integers(0, NUMBER_MAX), ids),
    st.builds(AuditedBatchesKey, tenants, st.integers(0, NUMBER_MAX), st.integers(0, NUMBER_MAX)),
)


@given(keys)
def test_a_formatted_key_parses_back(key: Key) -> None:
    """Seen to fail with versions not inverted back."""
    assert parse(str(key)) == key


@given(keys)
def test_a_key_is_safe_ascii_within_the_limits_of_stores(key: Key) -> None:
    text = str(key)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) <= 1024
    assert all(part not in ("", ".", "..") and len(part) <= 255 for part in text.split("/"))


@given(entities, entities)
@example("%2e", ".")
@example("..", "%2E%2E")
@example("~", "%7E")
@example("a/b", "a%2Fb")
def test_entities_never_share_a_part(one: str, other: str) -> None:
    """Seen to fail with `/` kept as it is, and with `%` not encoded."""
    assert (entity_part(one) == entity_part(other)) == (one == other)


@pytest.mark.parametrize("entity", WEIRD)
def test_weird_entities_make_one_short_segment(entity: str) -> None:
    part = entity_part(entity)
    assert "/" not in part
    assert part not in (".", "..")
    assert len(part) <= ENTITY_PART_BYTES_MAX


@given(st.integers(0, NUMBER_MAX - 1))
def test_newer_manifests_and_older_batches_list_first(number: int) -> None:
    assert str(ManifestKey("t", number + 1)) < str(ManifestKey("t", number)) < str(LatestKey("t"))
    assert str(LogKey("t", number)) < str(LogKey("t", number + 1))
    assert str(ManifestKey("t", 0)) < str(ListKey("t", "2026-01", "x"))


@pytest.mark.parametrize(
    "key", ["", "tenants/", "tenants/A/log/1.jsonl.zst", "tenants/t/log/1.jsonl.zst", "x/control/y"]
)
def test_a_foreign_key_is_refused(key: str) -> None:
    with pytest.raises(Corrupt):
        parse(key)
