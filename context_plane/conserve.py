"""Conserve: a staged day's shards hold exactly the events that the day's built shards and its log say, no more or less.

The events that must be there are derived a second time, from other bytes than the fold's: what the published entity
shard holds, and every log write of the day that it does not cover, in write order. They are compared by entity, id
and content digest with the columns of the staged entity shard. A fold that loses a write, an index that drops an
entity or writes one of another tenant, and a day that is emptied without a delete or an erasure are found here, before
anybody can read them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import orjson

from context_plane.catalog.days import load_day, load_segments
from context_plane.catalog.erasures import Erasures
from context_plane.catalog.lists import SegmentEntry
from context_plane.catalog.manifest import DayEntry
from context_plane.engine import Engine
from context_plane.errors import PlaneError
from context_plane.fold import load_pending, read_segments, writes_of
from context_plane.index.blocks import line_digest
from context_plane.index.rows import Rows
from context_plane.layout.batch import WriteLine
from context_plane.layout.keys import tenant_prefix
from context_plane.layout.segment import decode_lines
from context_plane.shards import read_columns
from context_plane.staging import Staged
from context_plane.store.base import Store

Held: TypeAlias = dict[tuple[str, str], bytes]
"""(entity, event id) -> content digest."""


@dataclass(frozen=True, slots=True)
class Conservation:
    """Events by how they differ from what must be there, and objects outside of the tenant's folder."""

    expected: int = 0
    missing: int = 0
    surplus: int = 0
    changed: int = 0
    foreign: int = 0

    @property
    def emptied(self) -> bool:
        """Nothing is left of a day of which something must be."""
        return 0 < self.expected == self.missing and not self.surplus

    @property
    def holds(self) -> bool:
        return not (self.missing or self.surplus or self.changed or self.foreign)


async def conservation(engine: Engine, staged: Staged, columns: Rows | None) -> Conservation | None:
    """What the staged day holds beside what it must. `columns`: of its entity shard, None where it has none.

    None when the day was published or erased from since it was staged: its publish is refused anyway. Raises
    `PlaneError` when something of it cannot be read."""
    store, stage = engine.store, staged.segments
    tenant, day = stage.tenant, stage.day
    pending = await load_pending(engine, tenant)
    manifest = pending.manifest
    if manifest.sources(day) != stage.base or manifest.erasures != stage.erasures:
        return None
    erasures = Erasures.of(manifest)
    covered = replace(pending, batches=tuple(b for b in pending.batches if b.number <= stage.covered))
    writes = await writes_of(store, tenant, day, covered, erasures)
    before = await _published(store, tenant, day, await load_day(store, manifest, day), erasures)
    found = {} if columns is None else held(columns)
    foreign = sum(not key.startswith(tenant_prefix(tenant)) for key in staged.keys)
    return replace(compared(after(before, writes), found), foreign=foreign)


def held(columns: Rows) -> Held:
    """The events of an entity shard's columns. Pure."""
    names = [columns.entities[n] for n in columns.event_entity]
    return {
        (entity, id): digest.tobytes()
        for entity, id, digest in zip(names, columns.ids, columns.event_digest, strict=True)
    }


def after(before: Held, writes: Mapping[str, Sequence[WriteLine]]) -> Held:
    """The events after the writes, by entity and in their order: the last of an identity wins. Pure."""
    found = dict(before)
    for entity, lines in writes.items():
        for write in lines:
            if write.line is None:
                found.pop((entity, write.id), None)
            else:
                found[entity, write.id] = line_digest(write.line)
    return found


def compared(expected: Held, found: Held) -> Conservation:
    """Pure."""
    both = expected.keys() & found.keys()
    return Conservation(
        expected=len(expected),
        missing=len(expected) - len(both),
        surplus=len(found) - len(both),
        changed=sum(expected[key] != found[key] for key in both),
    )


async def _published(store: Store, tenant: str, day: str, entry: DayEntry | None, erasures: Erasures) -> Held:
    """The day's events as published, without erased lives: of its segments where its shard cannot be read any more."""
    if entry is None or entry.shards is None:
        return {}
    try:
        events = held(await read_columns(store, entry.shards.entity))
    except PlaneError:  # derived state is disposable
        events = await _recorded(store, tenant, day, await load_segments(store, entry))
    gone = {entity for entity in {entity for entity, _ in events} if erasures.hides_built(entity, entry.erasures)}
    return {key: digest for key, digest in events.items() if key[0] not in gone}


async def _recorded(store: Store, tenant: str, day: str, entries: Sequence[SegmentEntry]) -> Held:
    """The events of the system of record."""
    stored = await read_segments(store, tenant, day, entries)

    def decode() -> Held:
        return {
            (entry.entity, str(orjson.loads(line)["id"])): line_digest(line)
            for entry, each in zip(entries, stored, strict=True)
            for line in decode_lines(each, digest=entry.digest)
        }

    return await asyncio.to_thread(decode)
