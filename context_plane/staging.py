"""What the artefacts of a day leave for the commit: one small record each, under `staging/`.

Until a publish names it, everything a build wrote is an unreferenced object plus such a record. Records
are overwritten by later builds of the same day; the publish refuses records that do not fit together.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from context_plane.catalog.manifest import DayEntry, ObjectRef, PackRef, SegmentListRef, Shards, VectorRef
from context_plane.errors import Conflict, NotFound
from context_plane.layout.keys import StagingKey
from context_plane.store.base import Store


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LogDays(Record):
    """One observed log batch: which days it touches."""

    number: int
    days: tuple[str, ...]


class SegmentsStage(Record):
    """A folded day. `base`: what the day's sources were; `covered`: the newest log number that was read."""

    tenant: str
    day: str
    base: str
    erasures: int
    started_us: int
    covered: int
    observed: tuple[LogDays, ...]
    segments: SegmentListRef | None
    changed: int
    """Entities whose segment is new, changed or gone."""
    objects: int
    """Written."""
    bytes: int
    """Of all segments of the day and their list, as stored."""
    before: DayEntry | None = None
    """The day as built, where its segments stay as they are: what is the same of its shards is named again."""

    @property
    def shards_before(self) -> Shards | None:
        return None if self.before is None else self.before.shards

    @property
    def source(self) -> str:
        """Which segments the indexes of this build must have been made from."""
        return self.segments.key if self.segments else ""


class VectorStage(Record):
    source: str
    shard: VectorRef | None
    rows: int
    embedded: int
    """Rows whose vector was computed; the others were reused or given by the caller."""
    bytes: int
    reused: bool = False
    """The shard is the one that the day was published with: nothing was written. So below."""


class EntityStage(Record):
    source: str
    shard: PackRef | None
    entities: int
    events: int
    rows: int
    first_ts_us: int
    last_ts_us: int
    reused: bool = False


class FulltextStage(Record):
    source: str
    shard: ObjectRef | None
    rows: int
    reused: bool = False


async def save(store: Store, tenant: str, day: str, artifact: str, record: Record) -> None:
    await store.put(str(StagingKey(tenant, day, artifact)), record.model_dump_json().encode())


async def load_segments_stage(store: Store, tenant: str, day: str) -> SegmentsStage:
    return SegmentsStage.model_validate_json(await _load(store, tenant, day, "segments"))


async def load_vector_stage(store: Store, tenant: str, day: str) -> VectorStage:
    return VectorStage.model_validate_json(await _load(store, tenant, day, "vector"))


async def load_entity_stage(store: Store, tenant: str, day: str) -> EntityStage:
    return EntityStage.model_validate_json(await _load(store, tenant, day, "entity"))


async def load_fulltext_stage(store: Store, tenant: str, day: str) -> FulltextStage:
    return FulltextStage.model_validate_json(await _load(store, tenant, day, "fulltext"))


@dataclass(frozen=True, slots=True)
class Staged:
    """Everything that was staged of a day."""

    segments: SegmentsStage
    vector: VectorStage
    entity: EntityStage
    fulltext: FulltextStage

    @property
    def keys(self) -> list[str]:
        """Of the objects that a publish of it would name."""
        refs = (self.segments.segments, self.vector.shard, self.entity.shard, self.fulltext.shard)
        return [ref.key for ref in refs if ref is not None]


async def load_staged(store: Store, tenant: str, day: str) -> Staged:
    """Raises `Conflict(build_incomplete)` where one of them is not there."""
    return Staged(
        await load_segments_stage(store, tenant, day),
        await load_vector_stage(store, tenant, day),
        await load_entity_stage(store, tenant, day),
        await load_fulltext_stage(store, tenant, day),
    )


async def _load(store: Store, tenant: str, day: str, artifact: str) -> bytes:
    try:
        return await store.get(str(StagingKey(tenant, day, artifact)))
    except NotFound as error:
        detail = f"the day's {artifact} artefact is not built; materialize it first"
        raise Conflict("build_incomplete", detail, tenant=tenant, day=day) from error
