"""Land: the export files of a tenant's `landing/{source}/{day}/` folder become log batches, each file once.

A file is known by its source, its day and the SHA-256 of its bytes: an export that says again what an older one said
is another file, for there may be one between them; not so where the day before landed the same. What became of it is
recorded under `control/landing/{source}/{day}/{digest}.json` after its last batch is durable; every batch is appended
under an idempotency key of day, file, content and the record of the landing before: one that died halfway writes
nothing twice, and one under a mapping that came back writes again. Rows that were refused are an object beside the
record.

The mapping of a source is `tenants/{tenant}/control/mappings/{source}.yaml`, else the shipped one of that
name. A file is read again when its mapping changed: events keep their ids, so the later reading replaces.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from pydantic import BaseModel, ConfigDict

import context_plane
from context_plane.audit import JOB
from context_plane.errors import Invalid, NotFound, PlaneError
from context_plane.layout.keys import ControlKey, LandingKey, parse, period_path
from context_plane.model import Write, add_days, canonical_json, identity, sha256_hex
from context_plane.plane import Plane
from context_plane.sources.mapping import SourceMapping, parse_mapping
from context_plane.sources.read import Reject, Row, WireEvent, read_events
from context_plane.store.base import ObjectInfo, Store
from context_plane.wire import parse_event

FILE_BYTES_MAX: Final = 1 << 30
"""A file is fetched whole to a local disk; larger exports are cut by their exporter."""
FILES_MAX: Final = 1_000
"""Files of one source and day: their lookups share one folder."""
DAY_BYTES_MAX: Final = 8 << 30
"""Bytes of one source and day: they lie on a local disk together, because lookups join them."""
FILE_NAME_BYTES_MAX: Final = 255
"""Of one name in a folder, on the file systems there are."""
BATCH_EVENTS_MAX: Final = 5_000
BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
"""Half of what a request may hold: a row whose events exceed the rest of a batch still fits."""
REJECTS_MAX: Final = 10_000
"""Past this it is the wrong file or mapping; at 16 Ki characters a reject this bounds the rejects object."""


class Landed(BaseModel):
    """What one reading of a file came to. `batches`: log numbers; `rejects`: key of the refused rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    day: str
    file: str
    digest: str
    mapping: str
    bytes: int
    rows: int
    events: int
    rejected: int
    batches: tuple[int, ...]
    days: tuple[str, ...]
    rejects: str | None


@dataclass(frozen=True, slots=True)
class Landing:
    """Files of one tenant and day. `known` were landed before; `failed`: (file, its error)."""

    landed: tuple[Landed, ...] = ()
    known: tuple[Landed, ...] = ()
    failed: tuple[tuple[str, PlaneError], ...] = ()


@dataclass(frozen=True, slots=True)
class _Mapping:
    digest: str
    mapping: SourceMapping


@dataclass(slots=True)
class _Read:
    """What was read of a file so far."""

    rows: int = 0
    rejected: int = 0
    events: int = 0


async def land_day(plane: Plane, tenant: str, day: str) -> Landing:
    """Land every file that is new. A file or mapping that cannot be read is named; the others go on."""
    landing = Landing()
    for source in await _sources(plane.engine.store, tenant):
        done = await _land_source(plane, tenant, source, day)
        landing = Landing(landing.landed + done.landed, landing.known + done.known, landing.failed + done.failed)
    return landing


async def load_source_mapping(store: Store, tenant: str, source: str) -> _Mapping:
    """The tenant's mapping, else the shipped one. Raises `Invalid(mapping_invalid)`."""
    key = ControlKey(tenant, f"mappings/{source}.yaml")
    try:
        text = (await store.get(str(key))).decode()
    except NotFound:
        shipped = shipped_mappings() / f"{source}.yaml"
        if not shipped.is_file():
            detail = "the source has no mapping; put one under the key, then land again"
            raise Invalid("mapping_invalid", detail, source=source, key=str(key)) from None
        text = await asyncio.to_thread(shipped.read_text, encoding="utf-8")
    return _Mapping(sha256_hex(text.encode()), parse_mapping(text))


def shipped_mappings() -> Path:
    """The mappings that come with the product, beside the package."""
    return Path(context_plane.__file__).resolve().parent.parent / "examples" / "mappings"


# --- one source ---------------------------------------------------------------------------------


async def _sources(store: Store, tenant: str) -> list[str]:
    """Sources that ever landed a file, by one LIST of one key each."""
    found: list[str] = []
    folder = f"tenants/{tenant}/landing/"
    after = ""
    while True:
        listed = [info async for info in store.list(folder, start_after=after, limit=1)]
        if not listed:
            return found
        source = listed[0].key.removeprefix(folder).split("/")[0]
        found.append(source)
        after = f"{folder}{source}/~"  # sorts after every day


async def _land_source(plane: Plane, tenant: str, source: str, day: str) -> Landing:
    store = plane.engine.store
    prefix = f"tenants/{tenant}/landing/{source}/{period_path(day)}/"
    infos = [info async for info in store.list(prefix, limit=FILES_MAX + 1)]
    if not infos:
        return Landing()
    try:
        _check_sizes(source, infos)
        mapping = await load_source_mapping(store, tenant, source)
    except PlaneError as error:
        return Landing(failed=((source, error),))
    landed: list[Landed] = []
    known: list[Landed] = []
    failed: list[tuple[str, PlaneError]] = []
    with tempfile.TemporaryDirectory(prefix="context-plane-") as scratch:
        files = [await _fetch(store, info, Path(scratch)) for info in infos]
        same = await _same_as_before(store, tenant, source, day, mapping, [digest for _, digest in files])
        for info, (path, digest) in zip(infos, files, strict=True):
            record = f"landing/{source}/{day}/{digest}"
            if digest in same:
                known.append(same[digest].model_copy(update={"day": day, "file": path.name}))
                await _keep(store, tenant, record, known[-1])
                continue
            before = await _record(store, tenant, record)
            if before is not None and before.mapping == mapping.digest:
                known.append(before)
                continue
            try:
                landed.append(await _land_file(plane, tenant, mapping, day, path, digest, record, info.size, before))
            except PlaneError as error:
                failed.append((f"{source}/{path.name}", error))
    return Landing(tuple(landed), tuple(known), tuple(failed))


def _check_sizes(source: str, infos: Sequence[ObjectInfo]) -> None:
    if len(infos) > FILES_MAX:
        raise Invalid("body_too_large", f"a source lands at most {FILES_MAX} files a day; join them", source=source)
    for info in infos:
        if info.size > FILE_BYTES_MAX:
            raise Invalid("body_too_large", f"a landed file is at most {FILE_BYTES_MAX} bytes; cut it", bytes=info.size)
        if len(_name(info)) > FILE_NAME_BYTES_MAX:
            raise Invalid(
                "object_key_invalid", f"a landed file's name is at most {FILE_NAME_BYTES_MAX} bytes; rename it"
            )
    total = sum(info.size for info in infos)
    if total > DAY_BYTES_MAX:
        detail = f"a source lands at most {DAY_BYTES_MAX} bytes a day; spread them over several days"
        raise Invalid("body_too_large", detail, source=source, bytes=total)


def _name(info: ObjectInfo) -> str:
    """The file's own name; below a folder, one that no other file of the day has."""
    key = parse(info.key)
    assert isinstance(key, LandingKey)
    return key.file.replace("%", "%25").replace("/", "%2F")


async def _fetch(store: Store, info: ObjectInfo, folder: Path) -> tuple[Path, str]:
    """The file in `folder` under its own name, and its digest."""
    data = await store.get(info.key)
    path = folder / _name(info)
    await asyncio.to_thread(path.write_bytes, data)
    return path, await asyncio.to_thread(sha256_hex, data)


async def _record(store: Store, tenant: str, record: str) -> Landed | None:
    try:
        return Landed.model_validate_json(await store.get(str(ControlKey(tenant, f"{record}.json"))))
    except NotFound:
        return None


async def _same_as_before(
    store: Store, tenant: str, source: str, day: str, mapping: _Mapping, digests: Sequence[str]
) -> dict[str, Landed]:
    """What the day before landed, by digest: where that is every file of a day that has landed none yet, or nothing."""
    own = str(ControlKey(tenant, f"landing/{source}/{day}/"))
    if [info async for info in store.list(own, limit=1)]:
        return {}
    found: dict[str, Landed] = {}
    for digest in digests:
        landed = await _record(store, tenant, f"landing/{source}/{add_days(day, -1)}/{digest}")
        if landed is None or landed.mapping != mapping.digest:
            return {}
        found[digest] = landed
    return found


async def _keep(store: Store, tenant: str, record: str, landed: Landed) -> None:
    await store.put(str(ControlKey(tenant, f"{record}.json")), landed.model_dump_json().encode())


# --- one file -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Batch:
    """Writes of whole rows, at most one row over the limits. `digest`: of the events as they were read."""

    writes: list[Write]
    bytes: int
    digest: str


async def _land_file(
    plane: Plane,
    tenant: str,
    mapping: _Mapping,
    day: str,
    path: Path,
    digest: str,
    record: str,
    size: int,
    before: Landed | None,
) -> Landed:
    read, rejects = _Read(), bytearray()
    since = sha256_hex(before.model_dump_json().encode())[:32] if before is not None else ""
    batches = _batches(plane, mapping.mapping, path, read, rejects)
    numbers: list[int] = []
    days: set[str] = set()
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        accepted = await plane.write(
            tenant,
            batch.writes,
            body_bytes=batch.bytes,
            visible="after_build",
            idempotency_key=f"landing:{day}:{digest}:{since}:{len(numbers)}:{batch.digest[:32]}",
            body_digest=batch.digest,
            actor=JOB,
        )
        numbers.append(accepted.batch)
        days |= {identity(write)[1] for write in batch.writes}
    rejects_key = str(ControlKey(tenant, f"{record}.rejects.jsonl")) if rejects else None
    if rejects_key is not None:
        await plane.engine.store.put(rejects_key, bytes(rejects))
    landed = Landed(
        source=mapping.mapping.source,
        day=day,
        file=path.name,
        digest=digest,
        mapping=mapping.digest,
        bytes=size,
        rows=read.rows,
        events=read.events,
        rejected=read.rejected,
        batches=tuple(numbers),
        days=tuple(sorted(days)),
        rejects=rejects_key,
    )
    await _keep(plane.engine.store, tenant, record, landed)
    return landed


def _batches(plane: Plane, mapping: SourceMapping, path: Path, read: _Read, rejects: bytearray) -> Iterator[_Batch]:
    """Batches of a file in order; counts into `read` and appends refused rows to `rejects`. Blocking."""
    now_us, dim, horizon_us = plane.engine.now_us(), plane.engine.embedder.dim, plane.settings.horizon_us
    row_writes: list[Write] = []
    row_bytes: list[bytes] = []

    def validate(event: WireEvent) -> None:
        row_writes.append(parse_event(event, now_us=now_us, dim=dim, horizon_us=horizon_us))
        row_bytes.append(canonical_json(event))

    writes: list[Write] = []
    size, digest = 0, hashlib.sha256()
    for outcome in read_events(mapping, [path], validate=validate, rejects_max=REJECTS_MAX):
        read.rows += 1
        match outcome:
            case Reject():
                read.rejected += 1
                rejects += orjson.dumps(outcome.record()) + b"\n"
            case Row():
                read.events += len(row_writes)
                writes += row_writes
                size += sum(map(len, row_bytes))
                for raw in row_bytes:
                    digest.update(raw + b"\n")
        row_writes.clear()
        row_bytes.clear()
        if len(writes) >= BATCH_EVENTS_MAX or size >= BATCH_BYTES_MAX:
            yield _Batch(writes, size, digest.hexdigest())
            writes, size, digest = [], 0, hashlib.sha256()
    if writes:
        yield _Batch(writes, size, digest.hexdigest())
