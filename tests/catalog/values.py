"""Manifests for tests: a full one with every kind of entry, and the engine around a store."""

from __future__ import annotations

from context_plane.catalog.lists import SegmentEntry, encode_segments
from context_plane.catalog.manifest import (
    BundleDay,
    DayEntry,
    FileRef,
    Manifest,
    ModelRef,
    MonthEntry,
    ObjectRef,
    PackRef,
    PageRef,
    SegmentListRef,
    Shards,
    Span,
    Tombstone,
    VectorRef,
)
from context_plane.engine import Engine
from context_plane.store import Store
from tests.machine.journeys import SmallEmbedder

TENANT = "acme"


def make_engine(store: Store) -> Engine:
    return Engine(store=store, embedder=SmallEmbedder())


def pack(name: str) -> PackRef:
    return PackRef(
        key=f"tenants/acme/indexes/entity/2026/03/04/shard-{name}.pack",
        bytes=10,
        sha256="1" * 64,
        digest="2" * 64,
        pages=(PageRef(first="a/b é", offset=8, length=9),),
        sections=(Span(offset=17, length=3),),
    )


def shards(name: str) -> Shards:
    token = ObjectRef(
        key=f"tenants/acme/indexes/fulltext/2026/03/04/shard-{name}.tantivy", bytes=3, sha256="3" * 64, digest="4" * 64
    )
    vector = VectorRef(
        key=f"tenants/acme/indexes/vector/2026/03/04/shard-{name}.lance",
        digest="5" * 64,
        files=(FileRef(path="data/0.lance", bytes=4, sha256="6" * 64),),
        dim=3,
        model="m",
    )
    return Shards(
        entity=pack(name), fulltext=token, vector=vector, entities=1, events=2, rows=3, first_ts_us=4, last_ts_us=5
    )


def entry(name: str = "x", *, covered: int = 7, erasures: int = 1) -> DayEntry:
    stored, digest = encode_segments([SegmentEntry("a/b é", f"{name}-1", "7" * 64, 2, 99)])
    listed = SegmentListRef(
        key=f"tenants/acme/manifests/lists/2026/03/04/{name}.json.zst",
        bytes=len(stored),
        sha256="8" * 64,
        digest=digest,
        entities=1,
        events=2,
    )
    return DayEntry(covered=covered, segments=listed, shards=shards(name), erasures=erasures, built_us=6)


def full_manifest() -> Manifest:
    month = MonthEntry(
        shards=shards("m"),
        days=ObjectRef(
            key="tenants/acme/manifests/lists/2026/02/l.json.zst", bytes=1, sha256="9" * 64, digest="a" * 64
        ),
        covered={"2026-02-01": 3, "2026-02-02": 5},
        masked=("2026-02-02",),
        erasures=1,
        built_us=8,
    )
    bundles = BundleDay(directory=pack("d"), spec_fingerprint="f", sources="s", entities=1, erasures=1, built_us=9)
    return Manifest(
        tenant=TENANT,
        version=12,
        commit_id="c" * 16,
        committed_us=1_772_582_400_000_000,
        log_floor=4,
        model=ModelRef(name="m", dim=3),
        days={"2026-03-04": entry()},
        months={"2026-02": month},
        bundles={"customer_context_v0": {"2026-03-04": bundles}},
        erasure_key="ab" * 16,
        erasures=2,
        tombstones=(Tombstone(seq=2, hash="d" * 32, log_number=6, erasure="e" * 32, at_us=10),),
        snapshots_from=3,
    )
