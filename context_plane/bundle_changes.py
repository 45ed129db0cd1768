"""Bundle changes: a day's made bundles beside those that readers have, before any reader sees them.

Only bundles of the same spec, unchanged, are compared: others are meant to differ. Entities that an erasure hides since
are no change. The counts come from the two directories; the bytes of what changed from the packs that hold it, read
once each. The table of entities is an object that nothing names unless the bundles wait: a collector takes it then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from context_plane.bundle.compiled import CompiledSpec
from context_plane.bundle.diff import Difference, compare_bytes, differences, encode_table
from context_plane.bundle.spool import Place, Spool
from context_plane.catalog.bundles import Bucket, BundleEntry
from context_plane.catalog.erasures import Erasures
from context_plane.catalog.manifest import BundleChanges, Manifest
from context_plane.engine import Engine
from context_plane.errors import Corrupt, NotFound
from context_plane.layout.keys import BundleDiffKey, built_id
from context_plane.layout.pack import decode_block
from context_plane.model import sha256_hex
from context_plane.store.base import Store

PARALLEL_PACKS: Final = 8
"""Replaced packs held at once, a megabyte each."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """What a build changes. `replaces`: directory of the bundles compared with; `table`: key of the entities that
    differ, empty where none does."""

    replaces: str
    changes: BundleChanges
    table: str


async def compare(
    engine: Engine, manifest: Manifest, spec: CompiledSpec, day: str, bundles: Spool, buckets: Sequence[Bucket]
) -> Replacement | None:
    """`buckets`: of the bundles that readers have. None where these are not of this spec as it is."""
    name = spec.spec.name
    held = manifest.bundles.get(name, {}).get(day)
    if held is None or held.spec_fingerprint != spec.fingerprint:
        return None
    erasures = Erasures.of(manifest)
    before = {
        entry.entity: entry
        for bucket in buckets
        for entry in bucket.entries
        if not erasures.hides_built(entry.entity, held.erasures)
    }
    after = bundles.by_entity()
    found = await asyncio.to_thread(differences, before, after)
    details = await _details(engine.store, buckets, found.to_compare, after, bundles)
    found = found.with_details(details)
    changes = found.changes(len(details))
    table = ""
    if found.differences:
        stored = await asyncio.to_thread(encode_table, name, day, changes, found.differences)
        table = str(BundleDiffKey(manifest.tenant, name, day, built_id(sha256_hex(stored), engine.nonce())))
        await engine.store.put_new(table, stored)
    return Replacement(held.directory.key, changes, table)


async def _details(
    store: Store, buckets: Sequence[Bucket], entities: Sequence[str], after: Mapping[str, Place], bundles: Spool
) -> dict[str, Difference]:
    """What changed in the bundles of these entities; without those whose old pack cannot be read."""
    wanted = set(entities)
    packs = [(bucket, entries) for bucket in buckets if (entries := [e for e in bucket.entries if e.entity in wanted])]
    found: dict[str, Difference] = {}
    for start in range(0, len(packs), PARALLEL_PACKS):
        some = packs[start : start + PARALLEL_PACKS]
        stored = await asyncio.gather(*(_pack(store, bucket) for bucket, _ in some))
        for (_, entries), pack in zip(some, stored, strict=True):
            if pack is not None:
                found |= await asyncio.to_thread(_compared, pack, entries, after, bundles)
    return found


async def _pack(store: Store, bucket: Bucket) -> bytes | None:
    try:
        return await store.get(bucket.key)
    except (NotFound, Corrupt):
        return None


def _compared(
    pack: bytes, entries: Sequence[BundleEntry], after: Mapping[str, Place], bundles: Spool
) -> dict[str, Difference]:
    made = bundles.read(after[entry.entity] for entry in entries)
    found = {}
    for entry, new in zip(entries, made, strict=True):
        try:
            old = decode_block(pack[entry.offset : entry.offset + entry.length])
        except Corrupt:
            continue
        plain = Difference(entry.entity, "changed", entry.tokens, new.tokens)
        found[entry.entity] = compare_bytes(plain, old, new.body)
    return found
