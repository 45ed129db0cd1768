"""Erased: a complete erasure checked again from its receipt, by reading every object of the tenant.

An object that mentions the entity is a problem unless it can only speak of a later life: a log batch above
the receipt's number, a manifest since the end of older snapshots, or an object such a manifest names.
When there is no later life, no unnamed object may mention it either. Landing files are exports given by
the tenant, which the plane never rewrites: they are reported, and whoever owns them deletes them. Requests to erase
are left out: an open one must name its entity, and goes once it is done.
"""

from __future__ import annotations

import io
from typing import Final

import orjson
import zstandard

from context_plane.catalog.head import load_head
from context_plane.catalog.manifest import Manifest, decode
from context_plane.catalog.named import named_keys
from context_plane.engine import Engine
from context_plane.erase import Receipt
from context_plane.erasure_requests import is_request
from context_plane.errors import NotFound
from context_plane.layout.keys import (
    LandingKey,
    LatestKey,
    LogKey,
    ManifestKey,
    SegmentKey,
    ShardFileKey,
    ShardKey,
    entity_part,
    parse,
    tenant_prefix,
)
from context_plane.layout.pack import MAGIC
from context_plane.model import check_entity

CONTENT_BYTES_MAX: Final = 1 << 30
"""Uncompressed bytes looked at of one object."""
OPAQUE_NAME_BYTES_MIN: Final = 6
"""In the files of Lance and tantivy a name has no quotes around it; shorter ones would be found by chance."""


async def verify_erasure(engine: Engine, tenant: str, entity: str, receipt: Receipt) -> list[str]:
    """One line a problem; empty when nothing of the erased life is left."""
    check_entity(entity)
    head = await load_head(engine.store, tenant)
    named = await named_keys(engine.store, head, {})
    later_life = False
    suspects: list[str] = []
    problems: list[str] = []
    async for info in engine.store.list(tenant_prefix(tenant)):
        if is_request(parse(info.key)):
            continue
        try:
            stored = await engine.store.get(info.key)
        except NotFound:
            continue
        if not mentions(info.key, stored, entity):
            continue
        match _verdict(info.key, stored, head, named, receipt):
            case "later":
                later_life = True
            case "unnamed":
                suspects.append(f"no manifest names it; collect, or ask for the erasure again: {info.key}")
            case problem:
                problems.append(f"{problem}: {info.key}")
    return problems if later_life else problems + suspects


def _verdict(key: str, stored: bytes, head: Manifest, named: set[str], receipt: Receipt) -> str:
    """`later`, `unnamed`, or what is wrong."""
    match parse(key):
        case LogKey(number=number):
            return "later" if number > receipt.log_number else "a log batch still holds it"
        case ManifestKey(version=version):
            return "later" if version >= receipt.snapshots_from else "an ended manifest still names it"
        case LatestKey():
            return "later" if decode(stored).version >= receipt.snapshots_from else "a stale hint names it; collect"
        case LandingKey():
            return "a landing file holds it; delete the file"
        case _ if key not in named:
            return "unnamed"
        case _:
            return "later" if head.version >= receipt.snapshots_from else "a named object still holds it"


def mentions(key: str, stored: bytes, entity: str) -> bool:
    """Whether an object's key or content holds the entity's id."""
    typed = parse(key)
    if isinstance(typed, SegmentKey):
        return typed.entity_part == entity_part(entity)
    if isinstance(typed, ShardFileKey) or (isinstance(typed, ShardKey) and typed.kind == "fulltext"):
        raw = entity.encode()
        return len(raw) >= OPAQUE_NAME_BYTES_MIN and raw in stored
    return orjson.dumps(entity) in contents(stored)


def contents(stored: bytes) -> bytes:
    """The uncompressed bytes of anything this layout writes: packs, frames one after another, or plain JSON."""
    frames = stored.removeprefix(MAGIC)
    if frames == stored and not stored.startswith(zstandard.FRAME_HEADER):
        return stored
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(frames), read_across_frames=True) as reader:
        return bytes(reader.read(CONTENT_BYTES_MAX))
