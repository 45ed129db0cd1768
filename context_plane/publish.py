"""Publish: the commit that swaps a day's segments and shards and advances what the log still owes.

Everything before it only wrote unreferenced objects. The mutation is pure; its guards make it safe
against other builds, erasures and collectors whatever the interleaving. A day that came out as it is published, of
which the log owes nothing, is not committed: no version is made, and no bundle that looks back at it gets stale.
"""

from __future__ import annotations

from dataclasses import dataclass

from context_plane.catalog import guards
from context_plane.catalog.head import commit
from context_plane.catalog.manifest import DayEntry, Manifest, ModelRef, Shards
from context_plane.engine import Engine
from context_plane.errors import Conflict
from context_plane.staging import (
    EntityStage,
    FulltextStage,
    LogDays,
    SegmentsStage,
    Staged,
    VectorStage,
)


@dataclass(frozen=True, slots=True)
class Published:
    """A day as readers see it now. `unchanged`: it was so before."""

    entry: DayEntry
    unchanged: bool


async def publish_staged(engine: Engine, staged: Staged) -> Published:
    """Publish what a day's staging records, as they were read, name: a later build may have put others in their place.
    Raises `Conflict` when they do not fit or are stale."""
    return await publish_day(engine, staged.segments, staged.vector, staged.entity, staged.fulltext)


async def publish_day(
    engine: Engine, segments: SegmentsStage, vector: VectorStage, entity: EntityStage, fulltext: FulltextStage
) -> Published:
    entry = _entry(segments, vector, entity, fulltext, engine.now_us())
    model = ModelRef(name=engine.embedder.model, dim=engine.embedder.dim)

    def mutate(manifest: Manifest) -> Manifest:
        guards.young_build(engine.now_us(), segments.started_us)
        return published(manifest, segments, entry, model)

    await commit(engine, segments.tenant, mutate)
    if segments.before is not None and is_unchanged(segments, entry):
        return Published(segments.before, unchanged=True)
    return Published(entry, unchanged=False)


def is_unchanged(stage: SegmentsStage, entry: DayEntry) -> bool:
    """Whether the built day is named by what is published, and no batch that touches it waits to be covered. Pure."""
    before = stage.before
    if before is None or entry.shards != before.shards:
        return False
    return not any(stage.day in batch.days and batch.number > before.covered for batch in stage.observed)


def published(manifest: Manifest, stage: SegmentsStage, entry: DayEntry, model: ModelRef) -> Manifest:
    """The manifest with the day swapped, the same one where that changes nothing. Pure. Raises `Conflict` from a
    guard, or on another model."""
    guards.same_sources(manifest, stage.day, stage.base)
    guards.same_erasures(manifest, stage.erasures)
    if manifest.model is not None and manifest.model != model:
        detail = "the tenant's vectors come from another model; re-embed every day with the new one"
        raise Conflict("model_mismatch", detail, built=manifest.model.name, configured=model.name)
    if is_unchanged(stage, entry):
        floor = advance_floor(manifest, stage.observed)
        return manifest if floor == manifest.log_floor else manifest.model_copy(update={"log_floor": floor})
    days = {**manifest.days, stage.day: entry}
    months = dict(manifest.months)
    month = months.get(stage.day[:7])
    if month is not None and stage.day in month.covered and stage.day not in month.masked:
        months[stage.day[:7]] = month.model_copy(update={"masked": (*month.masked, stage.day)})
    after = manifest.model_copy(update={"days": days, "months": months, "model": model})
    return after.model_copy(update={"log_floor": advance_floor(after, stage.observed)})


def advance_floor(manifest: Manifest, observed: tuple[LogDays, ...]) -> int:
    """Largest number up to which every observed batch, without a gap, is covered on all of its days."""
    floor = manifest.log_floor
    for batch in observed:
        if batch.number <= floor:
            continue
        if batch.number != floor + 1 or any(batch.number > manifest.covered(day) for day in batch.days):
            break
        floor = batch.number
    return floor


def _entry(
    segments: SegmentsStage, vector: VectorStage, entity: EntityStage, fulltext: FulltextStage, built_us: int
) -> DayEntry:
    """Checks that the three indexes were made from these segments and agree on their rows."""
    _same_segments(segments, vector=vector.source, entity=entity.source, fulltext=fulltext.source)
    events = segments.segments.events if segments.segments else 0
    if not (vector.rows == entity.rows == fulltext.rows) or entity.events != events:
        raise Conflict(
            "check_failed",
            "row counts disagree across the day's segments and shards; rebuild the day",
            tenant=segments.tenant,
            day=segments.day,
            segment_events=events,
            entity_events=entity.events,
            rows=(vector.rows, entity.rows, fulltext.rows),
        )
    shards = None
    if entity.shard is not None and fulltext.shard is not None and vector.shard is not None:
        shards = Shards(
            entity=entity.shard,
            fulltext=fulltext.shard,
            vector=vector.shard,
            entities=entity.entities,
            events=entity.events,
            rows=entity.rows,
            first_ts_us=entity.first_ts_us,
            last_ts_us=entity.last_ts_us,
        )
    return DayEntry(
        covered=segments.covered,
        segments=segments.segments,
        shards=shards,
        erasures=segments.erasures,
        built_us=built_us,
    )


def _same_segments(segments: SegmentsStage, **sources: str) -> None:
    """Counts alone cannot tell: an event updated in place leaves every count as it was."""
    for name, source in sources.items():
        if source != segments.source:
            detail = f"the {name} shard was built from other segments; materialize it again"
            raise Conflict("build_incomplete", detail, tenant=segments.tenant, day=segments.day)
