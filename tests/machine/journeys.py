"""The journeys a schedule drives, over the real engine modules, and the reader that checks them.

The index of most schedules is small: an entity shard with a block of canonical lines per entity, a token
file for each of the other two. The reader answers from segments and from entity shards and wants them
to agree, so an index built from other segments is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from context_plane import reindex
from context_plane.catalog.days import load_segments
from context_plane.catalog.erasures import Erasures
from context_plane.catalog.head import load_head, load_snapshot
from context_plane.catalog.lists import decode_days
from context_plane.catalog.manifest import (
    DayEntry,
    FileRef,
    Manifest,
    ObjectRef,
    PackRef,
    Shards,
    VectorRef,
    object_ref,
    pack_ref,
    shard_keys,
)
from context_plane.catalog.tail import load_tail
from context_plane.engine import Engine
from context_plane.errors import NotFound
from context_plane.fold import fold_day, read_events
from context_plane.index.rows import decode_rows
from context_plane.layout import pack
from context_plane.layout.keys import ShardKey, built_id
from context_plane.model import Event, Put, day_of, event_digest, identity, sha256_hex, text_digest
from context_plane.publish import publish_staged
from context_plane.rollup import Merge
from context_plane.staging import EntityStage, FulltextStage, VectorStage, load_segments_stage, load_staged, save
from tests.machine.oracle import DIGEST_CHARS, State

TENANT = "acme"


class SmallEmbedder:
    """Unit vectors of two components, from a text's digest."""

    model = "small"
    dim = 2

    async def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray([await self.embed_query(text) for text in texts], np.float32).reshape(-1, 2)

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        angle = text_digest(text)[0] / 256 * 6.28
        return np.asarray([np.cos(angle), np.sin(angle)], np.float32)


def short_digest(event: Event) -> str:
    return event_digest(event)[:DIGEST_CHARS]


# --- building -----------------------------------------------------------------------------------


async def index_small(engine: Engine, tenant: str, day: str) -> None:
    """The three index stages of a day, from its staged segments."""
    stage = await load_segments_stage(engine.store, tenant, day)
    blocks: dict[str, list[list[object]]] = {}
    if stage.segments is not None:
        entry = DayEntry(covered=0, segments=stage.segments, shards=None, erasures=0, built_us=0)
        entries = await load_segments(engine.store, entry)
        groups = await read_events(engine.store, tenant, day, entries)
        for listed, events in zip(entries, groups, strict=True):
            blocks[listed.entity] = [[event.id, day, short_digest(event), event.ts_us] for event in events]
    shards = await put_small(engine, tenant, day, blocks)
    count = shards.events if shards else 0
    source = stage.source
    vector = VectorStage(source=source, shard=shards.vector if shards else None, rows=count, embedded=0, bytes=0)
    entity = EntityStage(
        source=source,
        shard=shards.entity if shards else None,
        entities=len(blocks),
        events=count,
        rows=count,
        first_ts_us=0,
        last_ts_us=0,
    )
    fulltext = FulltextStage(source=source, shard=shards.fulltext if shards else None, rows=count)
    await save(engine.store, tenant, day, "vector", vector)
    await save(engine.store, tenant, day, "entity", entity)
    await save(engine.store, tenant, day, "fulltext", fulltext)


async def put_small(
    engine: Engine, tenant: str, period: str, blocks: Mapping[str, list[list[object]]]
) -> Shards | None:
    if not blocks:
        return None
    encoded = pack.encode([pack.Block(name, orjson.dumps(blocks[name])) for name in sorted(blocks)])
    entity_id = built_id(encoded.digest, engine.nonce())
    entity_ref: PackRef = pack_ref(str(ShardKey(tenant, "entity", period, entity_id)), encoded)
    token = f"terms of {period} {encoded.digest}".encode()
    fulltext_key = str(ShardKey(tenant, "fulltext", period, entity_id))
    fulltext: ObjectRef = object_ref(fulltext_key, token, encoded.digest)
    vector_key = str(ShardKey(tenant, "vector", period, entity_id))
    file = FileRef(path="data/0.lance", bytes=len(token), sha256=sha256_hex(token))
    vector = VectorRef(key=vector_key, digest=encoded.digest, files=(file,), dim=2, model="small")
    await asyncio.gather(
        engine.store.put_new(entity_ref.key, encoded.stored),
        engine.store.put_new(fulltext_key, token),
        engine.store.put_new(f"{vector_key}/{file.path}", token),
    )
    count = sum(len(lines) for lines in blocks.values())
    return Shards(
        entity=entity_ref,
        fulltext=fulltext,
        vector=vector,
        entities=len(blocks),
        events=count,
        rows=count,
        first_ts_us=0,
        last_ts_us=0,
    )


async def index_real(engine: Engine, tenant: str, day: str) -> None:
    """The three real shards, from the staged segments."""
    vector = await reindex.index_vectors(engine, tenant=tenant, day=day)
    stage = await load_segments_stage(engine.store, tenant, day)
    entity = await reindex.index_entities(engine, stage, vector)
    await reindex.index_fulltext(engine, stage, entity)


async def build_small(engine: Engine, tenant: str, day: str) -> None:
    await fold_day(engine, tenant, day)
    await index_small(engine, tenant, day)
    await publish_staged(engine, await load_staged(engine.store, tenant, day))


def merge_small(engine: Engine, tenant: str, month: str) -> Merge:
    async def merge(days: Mapping[str, DayEntry]) -> Shards:
        blocks: dict[str, list[list[object]]] = {}
        for entry in days.values():
            assert entry.shards is not None
            for name, lines in (await _blocks(engine, entry.shards)).items():
                blocks.setdefault(name, []).extend(lines)
        shards = await put_small(engine, tenant, month, blocks)
        assert shards is not None
        return shards

    return merge


async def _blocks(engine: Engine, shards: Shards) -> dict[str, list[list[object]]]:
    stored = await engine.store.get(shards.entity.key)
    assert sha256_hex(stored) == shards.entity.sha256
    return {entry.key: _lines(raw) for entry, raw in pack.blocks_of(stored, shards.entity.layout_pages())}


def _lines(raw: bytes) -> list[list[object]]:
    """[id, day, digest, ts] of each event, from a block of the small index or of the real one."""
    if raw.startswith(b"["):
        small: list[list[object]] = orjson.loads(raw)
        return small
    rows = decode_rows(raw)
    digests = [bytes(row).hex() for row in rows.event_digest]
    times = [int(ts) for ts in rows.event_ts_us]
    return [[i, day_of(ts), digest, ts] for i, digest, ts in zip(rows.ids, digests, times, strict=True)]


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    version: int
    """Manifest that was read."""
    log_number: int
    head_version: int
    """Newest manifest at the read: its tombstones hide rows."""
    state: State


async def read_small(engine: Engine, tenant: str, *, snapshot: tuple[int, int] | None = None) -> Answer:
    """Every visible event under a snapshot, or the newest cut. An ended manifest is reread twice."""
    for _ in range(2):
        try:
            return await _read_once(engine, tenant, snapshot)
        except NotFound:
            if snapshot is not None:
                raise
    return await _read_once(engine, tenant, snapshot)


async def _read_once(engine: Engine, tenant: str, snapshot: tuple[int, int] | None) -> Answer:
    head = await load_head(engine.store, tenant)
    manifest, log_number = head, None
    if snapshot is not None:
        manifest, log_number = await load_snapshot(engine.store, head, snapshot[0]), snapshot[1]
    erasures = Erasures.of(head)
    tail = await load_tail(engine.store, manifest, log_number=log_number)
    built = await built_rows(engine, manifest, erasures)
    masked = {identity(item.write) for item in tail.writes}
    state = {who: digest for who, digest in built.items() if who not in masked}
    for item in tail.writes:
        if erasures.hides_log(identity(item.write)[0], item.number):
            continue
        if isinstance(item.write, Put):
            state[identity(item.write)] = short_digest(item.write.event)
        else:
            state.pop(identity(item.write), None)
    return Answer(manifest.version, tail.log_number, head.version, state)


async def built_rows(engine: Engine, manifest: Manifest, erasures: Erasures) -> State:
    """Rows of every shard; each must also be in its segments, and the other way round."""
    built: State = {}
    for day, entry in manifest.days.items():
        await _add_day(engine, manifest.tenant, day, entry, erasures, entry.erasures, built)
    for month in manifest.months.values():
        listed = decode_days(await engine.store.get(month.days.key))
        rolled = await _blocks(engine, month.shards)
        wanted: State = {}
        for day, entry in listed.items():
            if day not in month.masked:
                await _add_day(engine, manifest.tenant, day, entry, erasures, month.erasures, wanted)
        lines = _state(rolled, erasures, month.erasures)
        shown = {who: digest for who, digest in lines.items() if who[1] not in month.masked}
        assert shown == wanted, "a rolled month differs from its days"
        assert not built.keys() & shown.keys(), "an event is built twice"
        built |= shown
    return built


async def _add_day(
    engine: Engine, tenant: str, day: str, entry: DayEntry, erasures: Erasures, applied: int, built: State
) -> None:
    entries = await load_segments(engine.store, entry)
    groups = await read_events(engine.store, tenant, day, entries)
    events = {
        (event.entity, day, event.id): short_digest(event)
        for group in groups
        for event in group
        if not erasures.hides_built(event.entity, applied)
    }
    if entry.shards is None:
        assert not entries
        return
    for key in list(shard_keys(entry.shards))[1:]:
        await engine.store.get(key)
    rows = _state(await _blocks(engine, entry.shards), erasures, applied)
    assert rows == events, f"the shard of {day} differs from its segments"
    assert not built.keys() & rows.keys(), "an event is built twice"
    built |= rows


def _state(blocks: Mapping[str, Iterable[list[object]]], erasures: Erasures, applied: int) -> State:
    return {
        (name, str(line[1]), str(line[0])): str(line[2])
        for name, lines in blocks.items()
        if not erasures.hides_built(name, applied)
        for line in lines
    }
