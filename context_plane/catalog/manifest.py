"""The manifest: everything built and visible of one tenant, and the only thing that changes. Format 1.

A manifest is an immutable, numbered object (zstd JSON); a commit creates the next number. Small things
are inline (open days, one reference per closed month, bundle days); large lists are immutable objects it
names. Values only here: no I/O. `covered` of a day is the log number up to which its writes are built;
for every day it is at least `log_floor`, below which the whole log is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from context_plane.errors import Corrupt
from context_plane.layout.compression import compress, decompress
from context_plane.layout.pack import EncodedPack, Page
from context_plane.model import sha256_hex
from context_plane.store.base import ByteRange

FORMAT: Final = 1
MANIFEST_BYTES_MAX: Final = 256 * 1024 * 1024


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ObjectRef(Value):
    """A stored object. `sha256` is of the stored bytes, `digest` of the canonical content."""

    key: str
    bytes: int
    sha256: str
    digest: str


class Span(Value):
    offset: int
    length: int

    @property
    def range(self) -> ByteRange:
        return ByteRange(self.offset, self.length)


class PageRef(Span):
    first: str


class PackRef(ObjectRef):
    """A pack with its directory pages' and sections' addresses."""

    pages: tuple[PageRef, ...]
    sections: tuple[Span, ...] = ()

    @property
    def ranges(self) -> list[ByteRange]:
        """Of the sections."""
        return [section.range for section in self.sections]

    def layout_pages(self) -> list[Page]:
        return [Page(page.first, page.offset, page.length) for page in self.pages]


class FileRef(Value):
    """One file of a Lance dataset; `path` is relative to the dataset."""

    path: str
    bytes: int
    sha256: str

    @property
    def range(self) -> ByteRange:
        return ByteRange(0, self.bytes)


class VectorRef(Value):
    """A Lance dataset: `key` is its folder. `ann`: whether it carries an approximate index."""

    key: str
    digest: str
    files: tuple[FileRef, ...]
    dim: int
    model: str
    ann: bool = False


class Shards(Value):
    """The three indexes over the same rows, and what they hold."""

    entity: PackRef
    fulltext: ObjectRef
    vector: VectorRef
    entities: int
    events: int
    rows: int
    first_ts_us: int
    last_ts_us: int

    @property
    def bytes(self) -> int:
        """As stored, of all three."""
        return self.entity.bytes + self.fulltext.bytes + sum(file.bytes for file in self.vector.files)


class SegmentListRef(ObjectRef):
    """Names a day's segments: see `catalog/lists.py`. `digest` is over entity and segment digests only."""

    entities: int
    events: int


class DayEntry(Value):
    """What readers see of one day."""

    covered: int
    """Log number up to which the day's writes are built."""
    segments: SegmentListRef | None
    """The list of its segments; None for a day whose every event was deleted."""
    shards: Shards | None
    """The three shards; None for such a day, too."""
    erasures: int
    """How many of the tenant's tombstones the build had applied."""
    built_us: int
    """When it was published, microseconds since 1970."""

    @property
    def fingerprint(self) -> str:
        """Identifies the day's sources: what a build started from, and what a publish replaces."""
        segments = self.segments.key if self.segments else ""
        return sha256_hex(f"{self.covered}|{segments}|{self.erasures}".encode())[:32]

    @property
    def content(self) -> str:
        """Identifies the day's events: what is derived from them stays right while this does."""
        return sha256_hex(self.segments.key.encode())[:32] if self.segments else ""


class MonthEntry(Value):
    """A closed month rolled up."""

    shards: Shards
    """The three shards over all of its days."""
    days: ObjectRef
    """The object that lists the days' entries."""
    covered: Mapping[str, int]
    """The month's days -> log number up to which the day's writes are built."""
    masked: tuple[str, ...] = ()
    """Days that left the rollup and are open again."""
    sources: Mapping[str, str] = Field(default_factory=dict)
    """Day -> its fingerprint as it was published, so that rolling up makes nothing stale."""
    contents: Mapping[str, str] = Field(default_factory=dict)
    """Day -> its content."""
    erasures: int
    """How many of the tenant's tombstones the merge had applied."""
    built_us: int
    """When it was merged, microseconds since 1970."""


class BundleDay(Value):
    """Bundles of one spec and day. Section n of `directory` lists bucket n: its pack and the bundles in it
    (see `catalog/bundles.py`), so one bundle is read in three steps: manifest, section, block; in two where `packs`
    names each bucket's pack (the last part of its key; empty: the bucket is): section and pack are read together."""

    directory: PackRef
    packs: tuple[str, ...] = ()
    spec_fingerprint: str
    sources: str
    """Fingerprint over the look-back days' contents: another value means the bundles are stale."""
    entities: int
    erasures: int
    built_us: int


class BundleChanges(Value):
    """How a day's new bundles differ from those that readers have: numbers alone, no entity.

    `fields`: section, or `signals` -> changed bundles in which it differs. `tokens_…`: of all bundles. `citations_…`
    and `fields` are of the `compared` changed bundles, which are all of them unless there are very many.
    """

    added: int = 0
    removed: int = 0
    changed: int = 0
    unchanged: int = 0
    compared: int = 0
    fields: Mapping[str, int] = Field(default_factory=dict)
    tokens_before: int = 0
    tokens_after: int = 0
    citations_added: int = 0
    citations_removed: int = 0

    @property
    def share(self) -> float:
        """Of the bundles that readers have: how many they lose, or get with other bytes."""
        before = self.removed + self.changed + self.unchanged
        return (self.removed + self.changed) / before if before else 0.0


class PendingBundles(Value):
    """Bundles of one spec and day that wait for an approval. `replaces`: the directory that readers keep meanwhile.
    `table`: key of the object that names each entity that differs."""

    bundles: BundleDay
    replaces: str
    changes: BundleChanges
    table: str


class Tombstone(Value):
    """An erased life: rows of the entity up to `log_number` do not exist. `hash` is keyed (see erase)."""

    seq: int
    hash: str
    log_number: int
    erasure: str
    at_us: int


class ModelRef(Value):
    name: str
    dim: int


class Manifest(Value):
    format: Literal[1] = FORMAT
    tenant: str
    version: int = 0
    commit_id: str = ""
    committed_us: int = 0
    log_floor: int = 0
    model: ModelRef | None = None
    days: Mapping[str, DayEntry] = Field(default_factory=dict)
    months: Mapping[str, MonthEntry] = Field(default_factory=dict)
    bundles: Mapping[str, Mapping[str, BundleDay]] = Field(default_factory=dict)
    pending: Mapping[str, Mapping[str, PendingBundles]] = Field(default_factory=dict)
    """Spec -> day -> what waits for an approval. No reader sees it; named, so that its objects stay."""
    erasure_key: str = ""
    """Keys the hashes of tombstones; made with the first version, hex."""
    erasures: int = 0
    """Counts the steps of erasures that end builds under way: every tombstone, whose `seq` it becomes, and
    every end of older snapshots."""
    tombstones: tuple[Tombstone, ...] = ()
    snapshots_from: int = 0
    """Snapshots of earlier versions were ended by an erasure."""
    redacted: bool = False
    """An erasure emptied this version; only its number and commit id still count."""

    def covered(self, day: str) -> int:
        """Log number up to which the day's writes are built."""
        entry = self.days.get(day)
        if entry is not None:
            return max(entry.covered, self.log_floor)
        month = self.months.get(day[:7])
        if month is not None and day not in month.masked:
            return max(month.covered.get(day, 0), self.log_floor)
        return self.log_floor

    def covered_max(self) -> int:
        """The newest log number any built day may hold: a cut of the log below it would show half a batch."""
        rolled = (number for month in self.months.values() for number in month.covered.values())
        return max((self.log_floor, *(entry.covered for entry in self.days.values()), *rolled))

    def redact(self) -> Manifest:
        """What an erasure leaves of a version that it ended: the number stays taken, and the commit id known."""
        return Manifest(
            tenant=self.tenant,
            version=self.version,
            commit_id=self.commit_id,
            committed_us=self.committed_us,
            log_floor=self.log_floor,
            redacted=True,
        )

    def sources(self, day: str) -> str:
        """Fingerprint of what the day's built state is now: a build starts from one, a publish replaces it."""
        entry = self.days.get(day)
        if entry is not None:
            return entry.fingerprint
        month = self.months.get(day[:7])
        if month is not None and day not in month.masked and day in month.covered:
            return month.sources.get(day) or sha256_hex(f"{month.days.key}|{day}".encode())[:32]
        return "none"

    def content(self, day: str) -> str:
        """Which events the built day has: the same while it is published anew with the same ones."""
        entry = self.days.get(day)
        if entry is not None:
            return entry.content
        month = self.months.get(day[:7])
        held = None if month is None or day in month.masked else month.contents.get(day)
        return self.sources(day) if held is None else held

    def keys(self) -> Iterator[str]:
        """Every object this version names (vector shards by their files); lists name further ones."""
        for entry in self.days.values():
            if entry.segments:
                yield entry.segments.key
            if entry.shards:
                yield from shard_keys(entry.shards)
        for month in self.months.values():
            yield month.days.key
            yield from shard_keys(month.shards)
        for days in self.bundles.values():
            for day in days.values():
                yield day.directory.key
        for waiting in self.pending.values():
            for pending in waiting.values():
                yield pending.bundles.directory.key
                yield pending.table


def shard_keys(shards: Shards) -> Iterator[str]:
    yield shards.entity.key
    yield shards.fulltext.key
    yield from (f"{shards.vector.key}/{file.path}" for file in shards.vector.files)


def object_ref(key: str, stored: bytes, digest: str) -> ObjectRef:
    return ObjectRef(key=key, bytes=len(stored), sha256=sha256_hex(stored), digest=digest)


def pack_ref(key: str, pack: EncodedPack) -> PackRef:
    return PackRef(
        key=key,
        bytes=len(pack.stored),
        sha256=sha256_hex(pack.stored),
        digest=pack.digest,
        pages=tuple(PageRef(first=p.first, offset=p.offset, length=p.length) for p in pack.pages),
        sections=tuple(Span(offset=s.offset, length=s.length) for s in pack.sections),
    )


def encode(manifest: Manifest) -> bytes:
    return compress(manifest.model_dump_json().encode())


def decode(stored: bytes) -> Manifest:
    """Raises `Corrupt(format_unknown)` for another format version."""
    raw = decompress(stored, size_max=MANIFEST_BYTES_MAX)
    try:
        return Manifest.model_validate_json(raw)
    except ValueError as error:
        raise Corrupt("format_unknown", f"a manifest does not decode; upgrade this process: {error}") from error
