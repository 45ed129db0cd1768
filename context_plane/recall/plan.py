"""Plan: what a read will fetch and about what that costs, decided from the manifest alone. Pure.

Filter first: periods outside of the time window are pruned by the manifest's zones before any byte is read. What is
read of a period has four forms:

    blocks    the blocks of the entities named, found through directory pages
    columns   the shard's rows without texts and vectors, and the vector shard's files when vectors are wanted
    vectors   the same with the vectors in fixed point: the end of the entity shard, half the bytes of the vector shard
    pack      the whole entity shard, where it was built before it had a section of vectors

A tenant-wide search of more rows than are scored one by one is answered from candidates: the shard's indexes propose
rows, and are fetched with it.

Expected costs are those of a process that knows nothing and a tail that is empty. Round trips and requests are as many
as it takes: an entity of the scope may be missing from a period. Bytes are about: a block counts as a mean one of its
shard, and a manifest does not know its own length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias, assert_never

from context_plane.cache.tiers import PARTS_PARALLEL
from context_plane.catalog.manifest import Manifest, PackRef, Shards
from context_plane.index.entity_shard import wide_range
from context_plane.layout.pack import page_of
from context_plane.model import sha256_hex
from context_plane.recall.periods import Period, periods_of
from context_plane.retrieval.where import Bounds
from context_plane.shards import UNREAD
from context_plane.store.base import ByteRange
from context_plane.store.ranges import parts

Form: TypeAlias = Literal["blocks", "columns", "vectors", "pack"]
Index: TypeAlias = Literal["fulltext", "graph"]

EXACT_ROWS_MAX: Final = 500_000
"""Columns hold the postings, and are read for either leg: so many rows are scored exactly faster than tantivy proposes
some of them, and cold, without its files (300,000 rows: benchmarks/notes/tenant_cold.md)."""
PLANE_BYTES_MAX: Final = 1 << 30
"""Of one shard's int8 plane, a pass of some 50 ms on one core. Beyond it, the shard's graph proposes rows."""

BLOCKS_MIN: Final = 32
"""So few entities always take their blocks: a few requests side by side, and the bytes of nobody else."""
BLOCKS_SHARE: Final = 16
"""A longer list that names more than one in so many of a shard's entities takes the shard: its requests would cost
more than its bytes save."""
WIDE_BYTES_MAX: Final = 2 * 1024**3
"""More is not read as one range, for it is held three times while it is decoded: the vector shard has files."""
PACK_BYTES_MAX: Final = 256 * 1024 * 1024
"""Longer packs are not read whole: half a vector shard's bytes no longer make up for holding all texts."""
CUT_ROUNDS: Final = 1
CUT_GETS: Final = 1
"""The newest manifest, with the listings beside it."""


@dataclass(frozen=True, slots=True)
class Read:
    """What is fetched of one period."""

    period: Period
    form: Form
    vectors: bool
    gets: int
    bytes: int
    indexes: tuple[Index, ...] = ()
    """What proposes its rows, fetched with them and part of the cost; none: every row is scored."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`entities` None: the whole tenant. `name` is the same for two plans that fetch the same objects."""

    entities: tuple[str, ...] | None
    vectors: bool
    reads: tuple[Read, ...]
    pruned: int
    """Periods that no byte is fetched of."""
    hits: int
    """Events an answer may hold."""
    name: str
    rows: int
    """Of the periods: of the scope at most."""

    @property
    def exact(self) -> bool:
        """Whether every row is scored, rather than what indexes propose."""
        return not any(read.indexes for read in self.reads)

    @property
    def texts(self) -> int:
        """Blocks that hits may need, in a round of their own."""
        return min(self.hits, sum(shards.entities for shards in self._wide))

    @property
    def text_bytes(self) -> int:
        """Of these, as of mean blocks."""
        entities = sum(shards.entities for shards in self._wide)
        return self.texts * sum(_blocks_bytes(shards.entity) for shards in self._wide) // max(1, entities)

    @property
    def _wide(self) -> list[Shards]:
        """What is read without its texts, or without saying where they begin."""
        return [read.period.shards for read in self.reads if read.form != "blocks"]

    @property
    def round_trips(self) -> int:
        blocks = 2 if any(read.form == "blocks" for read in self.reads) else 0
        wide = sum(read.gets for read in self.reads if read.form != "blocks")
        return CUT_ROUNDS + max(blocks, -(-wide // PARTS_PARALLEL) + (self.texts > 0))

    @property
    def gets(self) -> int:
        return CUT_GETS + sum(read.gets for read in self.reads) + self.texts

    @property
    def bytes(self) -> int:
        """Of what is gone through: the hits' texts are not."""
        return sum(read.bytes for read in self.reads)

    def describe(self) -> dict[str, Any]:
        """For a person to read; plain JSON values."""
        return {
            "scope": "tenant" if self.entities is None else "entities",
            "path": "exact" if self.exact else "candidates",
            "entities": None if self.entities is None else len(self.entities),
            "reads": [
                {
                    "period": read.period.name,
                    "form": read.form,
                    "indexes": list(read.indexes),
                    "rows": read.period.shards.rows,
                    "entities": read.period.shards.entities,
                    "masked_days": list(read.period.masked),
                    "gets": read.gets,
                    "bytes": read.bytes,
                }
                for read in self.reads
            ],
            "pruned": self.pruned,
            "expected": {"round_trips": self.round_trips, "gets": self.gets, "bytes": self.bytes + self.text_bytes},
        }


def plan(
    manifest: Manifest,
    entities: tuple[str, ...] | None,
    since_us: int | None,
    until_us: int | None,
    *,
    vectors: bool,
    hits: int,
    text: bool = False,
    bounds: Bounds | None = None,
    exact_rows_max: int = EXACT_ROWS_MAX,
) -> Plan:
    """`text`, `vectors`: the legs that will rank. `bounds`: what the filter demands of every hit; given only where no
    statistics are taken over the scope."""
    if bounds is not None:
        since_us, until_us = bounds.narrowed(since_us, until_us)
        if bounds.entities is not None:
            entities = tuple(sorted(bounds.entities if entities is None else bounds.entities & {*entities}))
    periods = periods_of(manifest, since_us, until_us)
    reads = tuple(read_of(period, entities, vectors=vectors) for period in periods)
    rows = sum(read.period.shards.rows for read in reads)
    if entities is None and rows > exact_rows_max:
        reads = tuple(_proposed(read, text=text) for read in reads)
    return Plan(
        entities=entities,
        vectors=vectors,
        reads=reads,
        pruned=len(manifest.days) + len(manifest.months) - len(periods),
        hits=hits,
        name=_name(manifest.tenant, entities, reads, vectors=vectors),
        rows=rows,
    )


def _name(tenant: str, entities: tuple[str, ...] | None, reads: Sequence[Read], *, vectors: bool) -> str:
    named = entities if any(read.form == "blocks" for read in reads) else None
    wanted = [tenant, named, vectors, [(read.form, read.period.shards.entity.key) for read in reads]]
    return f"{tenant}|{sha256_hex(repr(wanted).encode())}"


def read_of(period: Period, entities: tuple[str, ...] | None, *, vectors: bool) -> Read:
    """What of a period answers for these entities, or for all (None)."""
    shards = period.shards
    form = _form(shards, entities, vectors=vectors)
    match form:
        case "blocks":
            assert entities is not None
            return Read(period, form, vectors, *_blocks_cost(shards, entities))
        case "pack":
            return Read(period, form, vectors, 1, shards.entity.bytes)
        case "vectors":
            wide = _wide(shards, vectors=True)
            return Read(period, form, vectors, len(parts(wide)), wide.length)
        case "columns":
            files = _files(shards) if vectors else ()
            return Read(period, form, vectors, *_cost([_wide(shards, vectors=False), *files]))
        case _:
            assert_never(form)


def has_graph(shards: Shards) -> bool:
    """Whether rows are proposed by the shard's graph: it has one, and its plane would be too large to keep."""
    return shards.vector.ann and shards.rows * shards.vector.dim > PLANE_BYTES_MAX


def _proposed(read: Read, *, text: bool) -> Read:
    """The read with the indexes that propose its rows."""
    shards, indexes, spans = read.period.shards, list[Index](), list[ByteRange]()
    if text:
        indexes.append("fulltext")
        spans.append(ByteRange(0, shards.fulltext.bytes))
    if read.vectors and has_graph(shards):
        indexes.append("graph")
        spans += _files(shards) if read.form != "columns" else ()  # they are read already
    gets, size = _cost(spans)
    return replace(read, indexes=tuple(indexes), gets=read.gets + gets, bytes=read.bytes + size)


def _files(shards: Shards) -> list[ByteRange]:
    """Of the vector shard, as far as reads want them."""
    return [file.range for file in shards.vector.files if not file.path.startswith(UNREAD)]


def _cost(spans: Sequence[ByteRange]) -> tuple[int, int]:
    """(requests, bytes) of ranges that are read in parts."""
    return sum(len(parts(span)) for span in spans), sum(span.length for span in spans)


def _form(shards: Shards, entities: tuple[str, ...] | None, *, vectors: bool) -> Form:
    few = entities is not None and (len(entities) <= BLOCKS_MIN or len(entities) * BLOCKS_SHARE <= shards.entities)
    if few:
        return "blocks"
    if not vectors:
        return "columns"
    if len(shards.entity.sections) > 1:
        return "vectors" if _wide(shards, vectors=True).length <= WIDE_BYTES_MAX else "columns"
    return "pack" if shards.entity.bytes <= PACK_BYTES_MAX else "columns"


def _wide(shards: Shards, *, vectors: bool) -> ByteRange:
    span = wide_range(shards.entity.ranges, shards.entity.bytes, vectors=vectors)
    assert span is not None, "asked of shards with the section"
    return span


def _blocks_cost(shards: Shards, entities: tuple[str, ...]) -> tuple[int, int]:
    """(requests, bytes): the pages the entities can be on, and a mean block for each."""
    ref = shards.entity
    pages = ref.layout_pages()
    found = [page_of(pages, name) for name in entities]
    wanted = {page.offset: page.length for page in found if page is not None}
    blocks = min(sum(page is not None for page in found), shards.entities)
    return len(wanted) + blocks, sum(wanted.values()) + blocks * block_bytes(ref, shards.entities)


def block_bytes(ref: PackRef, entities: int) -> int:
    """A mean block of the pack."""
    return _blocks_bytes(ref) // max(1, entities)


def _blocks_bytes(ref: PackRef) -> int:
    """Of all blocks, which are what a pack begins with."""
    return ref.sections[0].offset
