"""Laws of the pure parts: coalescing of ranges, keys, and listing order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from context_plane.errors import Invalid
from context_plane.store import ByteRange, ObjectInfo
from context_plane.store.key import ByteOrder, check_key, check_prefix, is_past, listing_offset, tree_order
from context_plane.store.ranges import PARTS_MAX, RANGE_LENGTH_MAX, coalesce, cut, parts

BODY = bytes(range(256)) * 4
ranges = st.lists(st.builds(ByteRange, st.integers(0, 1100), st.integers(0, 200)), max_size=12)
limits = st.integers(0, 64)

segments = st.sampled_from(["a", "a-", "a-b", "a.b", "a0", "a1", "ab", "a~", "0", "]", "%2F", "-"])
names = st.lists(segments, min_size=1, max_size=3).map("/".join)
prefixes = st.just("") | st.builds(lambda name, end: name[:end], names, st.integers(0, 8))


def is_key(name: str) -> bool:
    try:
        check_key(name)
    except Invalid:
        return False
    return True


def without_folders(keys: set[str]) -> set[str]:
    return {key for key in keys if not any(other.startswith(f"{key}/") for other in keys)}


key_sets = st.sets(names.filter(is_key), max_size=12).map(without_folders)


@given(ranges, limits, st.integers(1, 400))
def test_spans_answer_every_range(wanted: list[ByteRange], gap_max: int, length_max: int) -> None:
    """Seen to fail when a member is cut from the wrong end of its span, and when gaps were not bounded."""
    spans = coalesce(wanted, gap_max=gap_max, length_max=length_max)
    bodies = [BODY[span.range.offset : span.range.stop] for span in spans]
    assert cut(wanted, spans, bodies) == [BODY[part.offset : part.stop] for part in wanted]
    members = sorted(position for span in spans for position in span.members)
    assert members == [position for position, part in enumerate(wanted) if part.length]
    for span in spans:
        longest = max(wanted[position].length for position in span.members)
        assert span.range.length <= max(length_max, longest)
        covered = {at for position in span.members for at in range(wanted[position].offset, wanted[position].stop)}
        gaps = sorted(covered)
        assert all(after - before - 1 <= gap_max for before, after in itertools.pairwise(gaps))


@given(ranges, limits)
def test_near_ranges_share_a_request(wanted: list[ByteRange], gap_max: int) -> None:
    """Neighbouring spans are further apart than the gap when no length stops them."""
    spans = coalesce(wanted, gap_max=gap_max, length_max=10**9)
    for before, after in itertools.pairwise(spans):
        assert after.range.offset - before.range.stop > gap_max


@settings(max_examples=300)
@example(keys={"a-b", "a/a"}, prefix="", after="a-b", in_tree=True)
@example(keys={"a-b", "a/a"}, prefix="a", after="", in_tree=True)
@given(key_sets, prefixes, prefixes, st.booleans())
def test_listing_is_right_over_servers_of_either_order(keys: set[str], prefix: str, after: str, in_tree: bool) -> None:
    """A server that walks folders, and skips the folder an offset names, still lists in byte order.

    Seen to fail with the plain `start_after` as offset, and with a `ByteOrder` that passes all at once.
    """
    try:
        check_prefix(prefix)
        check_prefix(after)
    except Invalid:
        return
    offset = listing_offset(prefix, after)
    folder = prefix[: prefix.rfind("/") + 1]
    served = sorted((key for key in keys if key.startswith(folder)), key=tree_order if in_tree else str)
    if offset is not None:
        check_prefix(offset)
        order_of = tree_order if in_tree else str
        served = [k for k in served if order_of(k) > order_of(offset) and not (in_tree and k.startswith(f"{offset}/"))]
    order, listed = ByteOrder(len(folder)), []
    for key in served:
        if is_past(key, prefix):
            break
        if key.startswith(prefix):
            listed += order.push(ObjectInfo(key, 0, 0))
    listed += order.drain()
    if after > prefix and not after.startswith(prefix):
        return
    assert [info.key for info in listed if info.key > after] == sorted(
        key for key in keys if key.startswith(prefix) and key > after
    )


def test_a_file_listing_starts_next_to_where_it_is_asked_to() -> None:
    """The log's listing, on the read path, is served from the neighbouring number, not from the start."""
    assert listing_offset("t/log/", "t/log/0000000041.jsonl.zst") == "t/log/0000000040~"


@pytest.mark.parametrize("key", ["a" * 256, "a/" * 600 + "a", "a/" + "b" * 256])
def test_a_key_has_a_length(key: str) -> None:
    with pytest.raises(Invalid):
        check_key(key)


@given(offset=st.integers(0, 10**12), length=st.integers(1, 5 * 10**9))
def test_a_long_range_is_read_in_parts_side_by_side(offset: int, length: int) -> None:
    """They cover it without a gap, and are never more than PARTS_MAX. Seen to fail with a fixed length of parts."""
    whole = ByteRange(offset, length)
    found = parts(whole)
    assert (found[0].offset, found[-1].stop) == (whole.offset, whole.stop)
    assert all(one.stop == other.offset and one.length for one, other in itertools.pairwise(found))
    assert len(found) <= PARTS_MAX
    assert (len(found) == 1) == (length <= RANGE_LENGTH_MAX)
