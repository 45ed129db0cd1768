"""The directory of one bundle day: which pack holds which bundle. Pure codec.

A directory is a pack without blocks; section n is the JSON of bucket n. Buckets are a power of two in
number and an entity's bucket follows from its hash, so the manifest alone tells which section to read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from context_plane.layout import pack


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """Address of one bundle in its bucket's pack."""

    entity: str
    """Whom the bundle is about."""
    offset: int
    """Of its block in the pack, bytes."""
    length: int
    """Of its block, bytes."""
    digest: str
    """SHA-256 of its canonical JSON, hex."""
    tokens: int
    """Of its text, as counted for the budget."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket: its pack's key and content digest (empty for an empty bucket), entries ascending by entity."""

    key: str
    digest: str
    entries: tuple[BundleEntry, ...]

    @property
    def bytes(self) -> int:
        """Of the pack's blocks, which come first in it."""
        return max((entry.offset + entry.length for entry in self.entries), default=0)

    def find(self, entity: str) -> BundleEntry | None:
        at = bisect_left(self.entries, entity, key=lambda entry: entry.entity)
        found = self.entries[at : at + 1]
        return found[0] if found and found[0].entity == entity else None


def encode_directory(buckets: Sequence[Bucket]) -> pack.EncodedPack:
    return pack.encode([], sections=[_encode(bucket) for bucket in buckets])


def decode_bucket(frame: bytes) -> Bucket:
    fields = orjson.loads(pack.decode_block(frame))
    return Bucket(fields["key"], fields["digest"], tuple(BundleEntry(*row) for row in fields["entries"]))


def _encode(bucket: Bucket) -> bytes:
    entries = [[e.entity, e.offset, e.length, e.digest, e.tokens] for e in bucket.entries]
    return orjson.dumps({"key": bucket.key, "digest": bucket.digest, "entries": entries})
