"""Which rows a manifest's tombstones hide. Pure.

A tombstone hides (1) every built row of the entity in a day, month or bundle that had not applied it, and
(2) every log write of the entity up to its log number. What was built later than the tombstone applied
it by a guard of the commit, so later events of the same entity begin a new life.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from context_plane.catalog.manifest import Manifest, Tombstone


def entity_hash(key: str, entity: str) -> str:
    """Keyed hash (HMAC-SHA-256, RFC 2104, first 128 bits, hex) under which an erased entity is remembered."""
    return hmac.new(bytes.fromhex(key), entity.encode(), hashlib.sha256).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Erasures:
    """The tombstones of one manifest, ready to ask."""

    key: str
    newest: int
    by_hash: dict[str, Tombstone] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest) -> Erasures:
        newest: dict[str, Tombstone] = {}
        for stone in manifest.tombstones:
            if stone.hash not in newest or stone.seq > newest[stone.hash].seq:
                newest[stone.hash] = stone
        return cls(manifest.erasure_key, manifest.erasures, newest)

    def _stone(self, entity: str) -> Tombstone | None:
        return self.by_hash.get(entity_hash(self.key, entity)) if self.by_hash else None

    def hides_built(self, entity: str, applied: int) -> bool:
        """`applied`: the `erasures` count recorded with the day, month or bundles."""
        if applied >= self.newest:
            return False
        stone = self._stone(entity)
        return stone is not None and stone.seq > applied

    def hides_log(self, entity: str, number: int) -> bool:
        stone = self._stone(entity)
        return stone is not None and number <= stone.log_number
