"""Manifests and lists as values: round trips, fingerprints, what tombstones hide, how far the floor goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_plane.catalog.erasures import Erasures, entity_hash
from context_plane.catalog.lists import SegmentEntry, decode_days, decode_segments, encode_days, encode_segments
from context_plane.catalog.manifest import DayEntry, Manifest, Tombstone, decode, encode
from context_plane.errors import Corrupt
from context_plane.layout.compression import compress
from context_plane.publish import advance_floor
from context_plane.staging import LogDays
from tests.catalog.values import entry, full_manifest
from tests.layout.values import damaged

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
segment_entries = st.builds(
    SegmentEntry,
    names,
    st.sampled_from(["a-1", "b-2"]),
    st.sampled_from(["7" * 64, "8" * 64]),
    st.integers(1, 9),
    st.just(5),
)
segment_lists = st.lists(segment_entries, unique_by=lambda e: e.entity, max_size=8).map(
    lambda entries: sorted(entries, key=lambda e: e.entity)
)


def test_a_manifest_decodes_to_itself() -> None:
    manifest = full_manifest()
    assert decode(encode(manifest)) == manifest


@given(st.data())
def test_a_damaged_manifest_is_refused_or_harmless(data: st.DataObject) -> None:
    manifest = full_manifest()
    try:
        read = decode(data.draw(damaged(encode(manifest))))
    except Corrupt:
        return
    assert read == manifest


@pytest.mark.parametrize("raw", [b"{}", b'{"format":2,"tenant":"t"}', b'{"format":1,"tenant":"t","new":1}', b"[1]"])
def test_a_manifest_of_another_format_is_refused(raw: bytes) -> None:
    with pytest.raises(Corrupt, match="format_unknown"):
        decode(compress(raw))


def test_a_manifest_names_every_object_it_holds() -> None:
    keys = list(full_manifest().keys())
    assert len(keys) == len(set(keys)) == 9
    assert not any("deleted" in key for key in keys)


def test_a_redacted_version_keeps_its_number_and_names_nothing() -> None:
    manifest = full_manifest()
    redacted = decode(encode(manifest.redact()))
    assert (redacted.version, redacted.commit_id) == (manifest.version, manifest.commit_id)
    assert list(redacted.keys()) == []
    assert b"a/b" not in redacted.model_dump_json().encode()


@given(segment_lists)
def test_a_segment_list_decodes_to_its_entries(entries: list[SegmentEntry]) -> None:
    assert decode_segments(encode_segments(entries)[0]) == entries


@given(segment_lists)
def test_a_segment_list_digest_is_free_of_nonces(entries: list[SegmentEntry]) -> None:
    """Seen to fail with ids in the digest."""
    other = [SegmentEntry(e.entity, e.id + "f", e.digest, e.events, e.bytes) for e in entries]
    assert encode_segments(other)[1] == encode_segments(entries)[1]


def test_a_month_list_decodes_to_its_days() -> None:
    days = {"2026-02-01": entry("a"), "2026-02-02": entry("b", covered=9)}
    assert decode_days(encode_days(days)[0]) == days


def test_the_fingerprint_of_a_day_changes_with_each_source() -> None:
    """Seen to fail when `erasures` was left out: a build from before a tombstone would fit."""
    day = entry("x", covered=7, erasures=1)
    others: list[DayEntry] = [entry("y"), entry("x", covered=8), entry("x", erasures=2)]
    assert len({day.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_covered_is_per_day_and_never_below_the_floor() -> None:
    manifest = full_manifest()
    assert manifest.covered("2026-03-04") == 7
    assert manifest.covered("2026-02-01") == 4, "rolled at 3, floor 4"
    assert manifest.covered("2026-02-02") == 4, "masked: what the month covered counts no more"
    assert manifest.covered("2026-01-01") == 4
    assert manifest.covered_max() == 7


# --- erasures -----------------------------------------------------------------------------------


@given(st.integers(0, 5), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_a_tombstone_hides_older_builds_and_older_writes(applied: int, seq: int, covered: int, number: int) -> None:
    key = "ab" * 16
    stone = Tombstone(seq=seq, hash=entity_hash(key, "a"), log_number=covered, erasure="e", at_us=0)
    erasures = Erasures.of(Manifest(tenant="t", erasure_key=key, erasures=5, tombstones=(stone,)))
    assert erasures.hides_built("a", applied) == (applied < seq)
    assert erasures.hides_log("a", number) == (number <= covered)
    assert not erasures.hides_built("b", applied)
    assert not erasures.hides_log("b", number)


# --- floor --------------------------------------------------------------------------------------

log_days = st.lists(
    st.lists(st.sampled_from(["2026-03-04", "2026-03-05"]), min_size=1, max_size=2, unique=True), max_size=6
)


@given(log_days, st.integers(0, 7), st.integers(0, 7))
def test_the_floor_stops_before_the_first_batch_that_is_owed(touched: list[list[str]], one: int, two: int) -> None:
    """Every batch up to the floor is covered on all of its days, and the next one is not (or not observed)."""
    manifest = Manifest(tenant="t", days={"2026-03-04": entry("a", covered=one), "2026-03-05": entry("b", covered=two)})
    observed = tuple(LogDays(number=n, days=tuple(days)) for n, days in enumerate(touched, start=1))
    floor = advance_floor(manifest, observed)
    owed = [batch.number for batch in observed if any(batch.number > manifest.covered(day) for day in batch.days)]
    assert floor == (min(owed) - 1 if owed else len(observed))


def test_the_floor_does_not_pass_a_gap() -> None:
    manifest = Manifest(tenant="t", days={"2026-03-04": entry("a", covered=9)})
    observed = (LogDays(number=1, days=("2026-03-04",)), LogDays(number=3, days=("2026-03-04",)))
    assert advance_floor(manifest, observed) == 1
