"""Packs of bundles: found by manifest, page and block; equal content has equal digests."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from context_plane.bundle.materialize import Bundle
from context_plane.bundle.pack import BUCKET_ENTITIES, BUCKETS_MAX, bucket_count, bucket_of, encode_packs, entry_digest
from context_plane.layout.pack import decode_block, decode_page, find, page_of
from context_plane.model import sha256_hex


def bundle(entity: str) -> Bundle:
    body = b'{"entity":"%s"}' % entity.encode().hex().encode()
    return Bundle(entity, "2026-03-30", body, sha256_hex(body), 3)


@given(st.sets(st.text(min_size=1, max_size=8).filter(lambda s: s.isprintable()), min_size=1, max_size=30))
def test_every_bundle_is_found_by_page_and_block(entities: set[str]) -> None:
    packs = {p.bucket: p.pack for p in encode_packs(map(bundle, entities), 4)}
    for entity in entities:
        pack = packs[bucket_of(entity, 4)]
        page = page_of(pack.pages, entity)
        assert page is not None
        entry = find(decode_page(pack.stored[page.offset : page.offset + page.length]), entity)
        assert entry is not None
        raw = decode_block(pack.stored[entry.offset : entry.offset + entry.length])
        assert raw == bundle(entity).body
        assert entry_digest(entry) == sha256_hex(raw)


def test_a_changed_bundle_changes_its_pack_alone() -> None:
    """Seen to fail when bundles were packed in the order given."""
    bundles = [bundle(f"acct-{n:04d}") for n in range(100)]
    before = {p.bucket: p.pack.digest for p in encode_packs(bundles, 8)}
    assert {p.bucket: p.pack.digest for p in encode_packs(bundles[::-1], 8)} == before
    bundles[7] = dataclasses.replace(bundles[7], body=b"{}")
    after = {p.bucket: p.pack.digest for p in encode_packs(bundles, 8)}
    assert {b for b in after if after[b] != before[b]} == {bucket_of("acct-0007", 8)}


def test_buckets() -> None:
    assert [bucket_count(n) for n in (0, 1, BUCKET_ENTITIES, BUCKET_ENTITIES + 1, 1_000, 10**9)] == [
        1, 1, 1, 2, 4, BUCKETS_MAX,
    ]  # fmt: skip
    for entity in ("a", "acct-0042", "日本"):
        assert bucket_of(entity, 8) % 4 == bucket_of(entity, 4), "doubling splits each bucket in two"
