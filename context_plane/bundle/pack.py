"""Bundle packs: a tenant-day's bundles in a few immutable objects, addressed by the hash of the entity.

The number of buckets is a power of two that follows from the number of entities, so one bundle is found
from the manifest alone: bucket, directory page, block. A block is the bundle's JSON; its text is derived
when served. A directory entry carries the bundle's digest and tokens: a conditional read stops there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from context_plane.bundle.materialize import Bundle
from context_plane.layout.pack import PAGE_ENTRIES, Block, EncodedPack, Entry, encode

BUCKET_ENTITIES: Final = PAGE_ENTRIES // 2
"""On average, so that a bucket nearly always has one directory page."""
BUCKETS_MAX: Final = 4_096
"""Packs of one tenant-day; a million entities, still a small list in the manifest."""


@dataclass(frozen=True, slots=True)
class BundlePack:
    """One bucket's pack; `pack.digest` covers entities and bundle bytes, so equal content is not rewritten."""

    bucket: int
    pack: EncodedPack


def bucket_count(entities: int) -> int:
    """Buckets for a number of entities: the least power of two that keeps them at most half a page each."""
    count = 1
    while count * BUCKET_ENTITIES < entities and count < BUCKETS_MAX:
        count *= 2
    return count


def bucket_of(entity: str, buckets: int) -> int:
    """Bucket of an entity: the last bits of its SHA-256. Doubling the buckets splits each in two."""
    assert buckets & (buckets - 1) == 0, "buckets are a power of two"
    return int.from_bytes(hashlib.sha256(entity.encode()).digest()[-8:], "big") & (buckets - 1)


def encode_packs(bundles: Iterable[Bundle], buckets: int) -> list[BundlePack]:
    """Packs of the non-empty buckets, ascending. Any order of bundles gives the same bytes."""
    by_bucket: dict[int, list[Bundle]] = {}
    for bundle in bundles:
        by_bucket.setdefault(bucket_of(bundle.entity, buckets), []).append(bundle)
    return [
        BundlePack(
            bucket,
            encode(
                Block(bundle.entity, bundle.body, (bundle.digest, bundle.tokens))
                for bundle in sorted(by_bucket[bucket], key=lambda bundle: bundle.entity)
            ),
        )
        for bucket in sorted(by_bucket)
    ]


def entry_digest(entry: Entry) -> str:
    """The bundle's digest as its directory entry names it: the ETag, before the block is read."""
    return str(entry.meta[0])
