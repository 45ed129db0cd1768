"""Re-embed: every built day of a tenant gets shards of another model, and one commit makes them visible together.

Vectors of two models do not compare, so a tenant has one model, and builds with another are refused. Here the shards
of all days are made anew from the segments with the engine's embedder; then one commit swaps all of them and the
model. A reader sees one snapshot, before or after. Nothing of the log is built: events acknowledged meanwhile stay in
the tail. Rolled months become open days, and are merged again as any closed month is.

Each made day leaves a staging record, so whoever starts again embeds nothing twice. Guards of the commit: every day
is what its shards were made from, no month was rolled up or opened, no erasure came in between, and no made object is
old enough to be collected. A day that changed is made again, and the commit tried again. Records older than
`REUSE_US` are made again from their own vectors: reading and writing, no embedding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from context_plane.ann_recall import check_graph
from context_plane.catalog import guards
from context_plane.catalog.days import load_days
from context_plane.catalog.head import Mutation, commit, load_head
from context_plane.catalog.manifest import DayEntry, Manifest, ModelRef, Shards
from context_plane.engine import Engine
from context_plane.errors import Conflict, NotFound, PlaneError
from context_plane.index import blocks, vector_shard
from context_plane.index.rows import F32
from context_plane.layout.keys import StagingKey
from context_plane.reindex import analyzed_blocks, load_events, make_vectors, pack_entities
from context_plane.shards import from_store, put_entities, put_fulltext, put_vectors, read_vectors
from context_plane.staging import Record, save

ROUNDS_MAX: Final = 20
"""Other builds publish meanwhile; every round has fewer days to make."""
REUSE_US: Final = guards.BUILD_AGE_MAX_US // 2
"""Of a staged day: as much time is left for making the others."""
PARALLEL_DAYS: Final = 2
"""One day is read or written while the other is embedded."""
ARTIFACT: Final = "reembed"


class _Stage(Record):
    """A made day. `source`: the segment list it was made from; `erasures`: of the tenant, then."""

    source: str
    erasures: int
    model: ModelRef
    started_us: int
    shards: Shards
    embedded: int


@dataclass(frozen=True, slots=True)
class Reembedded:
    """What was done, or what there is to do in a dry run (`embedded`, `reused`, `bytes` are 0 then).

    `changed` False: the tenant's vectors were of this model already, or it has none. `reused`: days that an earlier
    call had made. `bytes`: of the new shards.
    """

    changed: bool
    before: str
    after: str
    days: int = 0
    rows: int = 0
    embedded: int = 0
    reused: int = 0
    months_opened: int = 0
    bytes: int = 0


async def reembed(engine: Engine, tenant: str, *, dry_run: bool = True) -> Reembedded:
    """Give every built day vectors of the engine's embedder. Called again after an interruption it goes on.

    Raises `Conflict` when builds kept getting in between: call again. `Invalid(vector_invalid)` where events carry
    vectors of their own of another dimension: those nobody here can make.
    """
    model = ModelRef(name=engine.embedder.model, dim=engine.embedder.dim)
    made: dict[str, _Stage] = {}
    reused: set[str] = set()
    for _ in range(ROUNDS_MAX):
        head = await load_head(engine.store, tenant)
        if head.model is None or head.model == model:
            return Reembedded(False, head.model.name if head.model else "", model.name)
        days = await load_days(engine.store, head)
        if dry_run:
            return _report(head, model, days)
        reused |= await _make_days(engine, head, model, days, made)
        try:
            await commit(engine, tenant, _switch(engine, head, model, days, made), known=head)
        except Conflict as error:
            if error.code not in ("build_stale", "build_expired"):
                raise
            continue
        return _report(head, model, days, made, len(reused))
    raise Conflict("commit_conflict", "other builds kept getting in between; re-embed the tenant again")


def _switch(
    engine: Engine, head: Manifest, model: ModelRef, days: Mapping[str, DayEntry], made: Mapping[str, _Stage]
) -> Mutation:
    oldest_us = min((made[day].started_us for day in days if day in made), default=engine.now_us())

    def mutate(manifest: Manifest) -> Manifest:
        guards.young_build(engine.now_us(), oldest_us)
        guards.same_erasures(manifest, head.erasures)
        if manifest.model != head.model or manifest.months != head.months:
            raise Conflict("build_stale", "the months or the model changed meanwhile; re-embed again")
        if manifest.days.keys() != head.days.keys():
            raise Conflict("build_stale", "a day was published or retired meanwhile; re-embed again")
        for day in days:
            guards.same_sources(manifest, day, head.sources(day))
        swapped = {
            day: entry if entry.shards is None else entry.model_copy(update={"shards": made[day].shards})
            for day, entry in days.items()
        }
        return manifest.model_copy(update={"days": swapped, "months": {}, "model": model})

    return mutate


async def _make_days(
    engine: Engine, head: Manifest, model: ModelRef, days: Mapping[str, DayEntry], made: dict[str, _Stage]
) -> set[str]:
    """Make what `made` lacks, or holds of other sources. Returns the days whose staged shards were taken."""
    gate = asyncio.Semaphore(PARALLEL_DAYS)
    reused: set[str] = set()

    async def one(day: str, entry: DayEntry) -> None:
        async with gate:
            stage = made.get(day) or await _load_stage(engine, head.tenant, day)
            if stage is not None and _fits(stage, head, model, entry, engine.now_us()):
                if day not in made:
                    reused.add(day)
            else:
                stage = await _make_day(engine, head, model, day, entry, stage)
                await save(engine.store, head.tenant, day, ARTIFACT, stage)
            made[day] = stage

    await asyncio.gather(*(one(day, entry) for day, entry in days.items() if entry.shards is not None))
    return reused


def _fits(stage: _Stage, head: Manifest, model: ModelRef, entry: DayEntry, now_us: int) -> bool:
    source = entry.segments.key if entry.segments else ""
    same = (stage.source, stage.erasures, stage.model) == (source, head.erasures, model)
    return same and now_us - stage.started_us <= REUSE_US


async def _make_day(
    engine: Engine, head: Manifest, model: ModelRef, day: str, entry: DayEntry, before: _Stage | None
) -> _Stage:
    """Write the day's three shards. `before`: staged of other sources or long ago; its vectors are taken over."""
    assert entry.segments is not None, "a day with shards has segments"
    started_us = engine.now_us()
    tenant = head.tenant
    held = await load_events(engine, tenant, day, entry.segments)
    events = [event for group in held.groups for event in group]
    digests = await asyncio.to_thread(blocks.row_text_digests, events)
    known = await _known(engine, before, model)
    vectors, embedded = await make_vectors(engine, events, digests, known)
    analyzed = await asyncio.to_thread(analyzed_blocks, day, held)
    encoded, columns = await asyncio.to_thread(pack_entities, day, held.entries, analyzed, vectors)
    vector = await put_vectors(engine, tenant, day, columns, vectors, digests)
    await check_graph(vector, from_store(engine))
    shards = Shards(
        entity=await put_entities(engine, tenant, day, encoded),
        fulltext=await put_fulltext(engine, tenant, day, columns),
        vector=vector,
        entities=len(columns.entities),
        events=columns.event_count,
        rows=columns.row_count,
        first_ts_us=int(columns.event_ts_us.min()),
        last_ts_us=int(columns.event_ts_us.max()),
    )
    return _Stage(
        source=entry.segments.key,
        erasures=head.erasures,
        model=model,
        started_us=started_us,
        shards=shards,
        embedded=embedded,
    )


async def _known(engine: Engine, before: _Stage | None, model: ModelRef) -> dict[bytes, F32]:
    if before is None or before.model != model:
        return {}
    try:
        return vector_shard.reusable_vectors(await read_vectors(before.shards.vector, from_store(engine)))
    except (PlaneError, OSError, ValueError):
        return {}  # derived state is disposable: what cannot be read is computed again


async def _load_stage(engine: Engine, tenant: str, day: str) -> _Stage | None:
    try:
        return _Stage.model_validate_json(await engine.store.get(str(StagingKey(tenant, day, ARTIFACT))))
    except (NotFound, ValidationError):
        return None


def _report(
    head: Manifest,
    model: ModelRef,
    days: Mapping[str, DayEntry],
    made: Mapping[str, _Stage] | None = None,
    reused: int = 0,
) -> Reembedded:
    held = [entry.shards for entry in days.values() if entry.shards is not None]
    stages = [made[day] for day in days if day in made] if made is not None else []
    return Reembedded(
        changed=True,
        before=head.model.name if head.model else "",
        after=model.name,
        days=len(held),
        rows=sum(shards.rows for shards in held),
        embedded=sum(stage.embedded for stage in stages),
        reused=reused,
        months_opened=len(head.months),
        bytes=sum(stage.shards.bytes for stage in stages),
    )
