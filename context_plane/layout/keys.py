"""Every key of the store, formatted and parsed in one place: `parse(str(key)) == key`.

    tenants/{tenant}/log/{number}.jsonl.zst
    tenants/{tenant}/entities/{entity}/segments/{yyyy}/{mm}/{dd}/{id}.jsonl.zst
    tenants/{tenant}/indexes/{entity|fulltext|vector}/{yyyy}/{mm}[/{dd}]/shard-{id}.{pack|tantivy|lance/...}
    tenants/{tenant}/bundles/{spec}/{yyyy}/{mm}/{dd}/{id}.pack
    tenants/{tenant}/manifests/{inverted version}.json.zst, manifests/latest.json.zst
    tenants/{tenant}/manifests/lists/{yyyy}/{mm}[/{dd}]/{id}.json.zst          segment lists, month lists
    tenants/{tenant}/staging/{yyyy}/{mm}/{dd}/{artifact}.json
    tenants/{tenant}/staging/{yyyy}/{mm}/{dd}/bundles/{spec}/{id}.json.zst     what a build of bundles changed
    tenants/{tenant}/staging/{yyyy}/{mm}/{dd}/{artifact}/{id}.part            what was made of a range of entities
    tenants/{tenant}/erasures/{id}.json, tenants/{tenant}/control/..., control/...
    tenants/{tenant}/landing/{source}/{yyyy}/{mm}/{dd}/{file}
    control/audit/{tenant or _}/calls/{time}-{id}.json, control/audit/{tenant}/batches/{first}-{last}.jsonl.zst

An entity in a key is percent-encoded (RFC 3986 unreserved characters stay) up to 120 bytes, else `~`
and its SHA-256; the segment's header carries the entity itself, so nothing is ever decoded from a key.
Manifest versions are inverted so that the newest sorts first.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

from context_plane.errors import Corrupt

ShardKind: TypeAlias = Literal["entity", "fulltext", "vector"]

ENTITY_PART_BYTES_MAX: Final = 120
"""Keeps every local file name under 255 bytes and every S3 key under 1,024."""
NUMBER_MAX: Final = 10**19 - 1
_WHOLE_STORE: Final = "_"
"""In place of a tenant's name; no tenant is called so."""
_SUFFIX: Final[dict[str, str]] = {"entity": ".pack", "fulltext": ".tantivy", "vector": ".lance"}


def entity_part(entity: str) -> str:
    """The path segment of an entity: injective (a percent-encoded name never starts with `~`)."""
    encoded = quote(entity, safe="").replace("~", "%7E")
    if encoded in {".", ".."}:
        encoded = encoded.replace(".", "%2E")
    if len(encoded) <= ENTITY_PART_BYTES_MAX:
        return encoded
    return "~" + hashlib.sha256(entity.encode()).hexdigest()


def period_path(period: str) -> str:
    """`2026-03-04` -> `2026/03/04`, `2026-03` -> `2026/03`."""
    return period.replace("-", "/")


@dataclass(frozen=True, slots=True)
class LogKey:
    tenant: str
    number: int

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/log/{self.number:020d}.jsonl.zst"


@dataclass(frozen=True, slots=True)
class SegmentKey:
    tenant: str
    entity_part: str
    day: str
    id: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/entities/{self.entity_part}/segments/{period_path(self.day)}/{self.id}.jsonl.zst"


@dataclass(frozen=True, slots=True)
class ShardKey:
    """`period` is a day or a month. A vector shard is a folder; its files append a path to the key."""

    tenant: str
    kind: ShardKind
    period: str
    id: str

    def __str__(self) -> str:
        return (
            f"tenants/{self.tenant}/indexes/{self.kind}/{period_path(self.period)}/shard-{self.id}{_SUFFIX[self.kind]}"
        )


@dataclass(frozen=True, slots=True)
class ShardFileKey:
    """One file of a vector shard: `path` is relative to the Lance dataset."""

    shard: ShardKey
    path: str

    def __str__(self) -> str:
        return f"{self.shard}/{self.path}"


@dataclass(frozen=True, slots=True)
class BundleKey:
    tenant: str
    spec: str
    day: str
    id: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/bundles/{self.spec}/{period_path(self.day)}/{self.id}.pack"


@dataclass(frozen=True, slots=True)
class ManifestKey:
    tenant: str
    version: int

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/manifests/{NUMBER_MAX - self.version:020d}.json.zst"


@dataclass(frozen=True, slots=True)
class LatestKey:
    tenant: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/manifests/latest.json.zst"


@dataclass(frozen=True, slots=True)
class ListKey:
    """An immutable list that a manifest names: a day's segments, a month's days."""

    tenant: str
    period: str
    id: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/manifests/lists/{period_path(self.period)}/{self.id}.json.zst"


@dataclass(frozen=True, slots=True)
class StagingKey:
    """The record an artefact of a day leaves for the commit."""

    tenant: str
    day: str
    artifact: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/staging/{period_path(self.day)}/{self.artifact}.json"


@dataclass(frozen=True, slots=True)
class BundleDiffKey:
    """The table of what one build of a day's bundles changed, entity by entity."""

    tenant: str
    spec: str
    day: str
    id: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/staging/{period_path(self.day)}/bundles/{self.spec}/{self.id}.json.zst"


@dataclass(frozen=True, slots=True)
class PartKey:
    """What was made of a range of a day's entities; `id` says of what."""

    tenant: str
    day: str
    artifact: str
    id: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/staging/{period_path(self.day)}/{self.artifact}/{self.id}.part"


@dataclass(frozen=True, slots=True)
class ErasureKey:
    tenant: str
    id: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/erasures/{self.id}.json"


@dataclass(frozen=True, slots=True)
class LandingKey:
    tenant: str
    source: str
    day: str
    file: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/landing/{self.source}/{period_path(self.day)}/{self.file}"


@dataclass(frozen=True, slots=True)
class ControlKey:
    """Settings, keys, claims: of one tenant, or of the whole store when `tenant` is None."""

    tenant: str | None
    path: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/control/{self.path}" if self.tenant else f"control/{self.path}"


@dataclass(frozen=True, slots=True)
class AuditKey:
    """An audited call: of a tenant, or of the store as a whole when `tenant` is None. Keys sort by time."""

    tenant: str | None
    at_us: int
    id: str

    def __str__(self) -> str:
        return f"{audit_prefix(self.tenant)}{self.at_us:020d}-{self.id}.json"


@dataclass(frozen=True, slots=True)
class AuditedBatchesKey:
    """What was kept of the headers of log batches `first` to `last`, both included."""

    tenant: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{audited_batches_prefix(self.tenant)}{self.first:020d}-{self.last:020d}.jsonl.zst"


Key: TypeAlias = (
    LogKey
    | SegmentKey
    | ShardKey
    | ShardFileKey
    | BundleKey
    | ManifestKey
    | LatestKey
    | ListKey
    | StagingKey
    | BundleDiffKey
    | PartKey
    | ErasureKey
    | LandingKey
    | ControlKey
    | AuditKey
    | AuditedBatchesKey
)

_T = r"tenants/(?P<tenant>[a-z0-9-]{1,63})/"
_A = r"(?P<tenant>_|[a-z0-9-]{1,63})"
_D = r"(?P<day>\d{4}/\d{2}/\d{2})"
_P = r"(?P<period>\d{4}/\d{2}(?:/\d{2})?)"
_ID = r"(?P<id>[0-9a-zA-Z_-]+)"
_PATTERNS: Final = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("log", _T + r"log/(?P<number>\d{20})\.jsonl\.zst"),
        ("segment", _T + r"entities/(?P<part>[^/]+)/segments/" + _D + "/" + _ID + r"\.jsonl\.zst"),
        (
            "shard",
            _T + r"indexes/(?P<kind>entity|fulltext|vector)/" + _P + r"/shard-" + _ID + r"\.(?:pack|tantivy|lance)"
            r"(?:/(?P<file>.+))?",
        ),
        ("bundle", _T + r"bundles/(?P<spec>[^/]+)/" + _D + "/" + _ID + r"\.pack"),
        ("manifest", _T + r"manifests/(?P<number>\d{20})\.json\.zst"),
        ("latest", _T + r"manifests/latest\.json\.zst"),
        ("list", _T + r"manifests/lists/" + _P + "/" + _ID + r"\.json\.zst"),
        ("staging", _T + r"staging/" + _D + r"/(?P<artifact>[^/]+)\.json"),
        ("bundle_diff", _T + r"staging/" + _D + r"/bundles/(?P<spec>[^/]+)/" + _ID + r"\.json\.zst"),
        ("part", _T + r"staging/" + _D + r"/(?P<artifact>[^/]+)/" + _ID + r"\.part"),
        ("erasure", _T + r"erasures/" + _ID + r"\.json"),
        ("landing", _T + r"landing/(?P<source>[^/]+)/" + _D + r"/(?P<file>.+)"),
        ("tenant_control", _T + r"control/(?P<path>.+)"),
        ("audit", r"control/audit/" + _A + r"/calls/(?P<number>\d{20})-" + _ID + r"\.json"),
        ("batches", r"control/audit/" + _A + r"/batches/(?P<number>\d{20})-(?P<last>\d{20})\.jsonl\.zst"),
        ("control", r"control/(?P<path>.+)"),
    )
)


def parse(key: str) -> Key:
    """The typed key of a string. Raises `Corrupt(format_unknown)` for a key this layout never makes."""
    for name, pattern in _PATTERNS:
        found = pattern.fullmatch(key)
        if found:
            return _typed(name, found.groupdict())
    raise Corrupt("format_unknown", "a key outside the layout; was the store shared with something else?", key=key)


def _typed(name: str, part: dict[str, str]) -> Key:
    tenant = part.get("tenant", "")
    day = part.get("day", "").replace("/", "-")
    period = part.get("period", "").replace("/", "-")
    match name:
        case "log":
            return LogKey(tenant, int(part["number"]))
        case "segment":
            return SegmentKey(tenant, part["part"], day, part["id"])
        case "shard":
            kind: ShardKind = {"entity": "entity", "fulltext": "fulltext", "vector": "vector"}[part["kind"]]  # type: ignore[assignment]  # the pattern admits only these
            shard = ShardKey(tenant, kind, period, part["id"])
            return shard if part.get("file") is None else ShardFileKey(shard, part["file"])
        case "bundle":
            return BundleKey(tenant, part["spec"], day, part["id"])
        case "manifest":
            return ManifestKey(tenant, NUMBER_MAX - int(part["number"]))
        case "latest":
            return LatestKey(tenant)
        case "list":
            return ListKey(tenant, period, part["id"])
        case "staging":
            return StagingKey(tenant, day, part["artifact"])
        case "bundle_diff":
            return BundleDiffKey(tenant, part["spec"], day, part["id"])
        case "part":
            return PartKey(tenant, day, part["artifact"], part["id"])
        case "erasure":
            return ErasureKey(tenant, part["id"])
        case "landing":
            return LandingKey(tenant, part["source"], day, part["file"])
        case "tenant_control":
            return ControlKey(tenant, part["path"])
        case "audit":
            return AuditKey(None if tenant == _WHOLE_STORE else tenant, int(part["number"]), part["id"])
        case "batches":
            return AuditedBatchesKey(tenant, int(part["number"]), int(part["last"]))
        case _:
            return ControlKey(None, part["path"])


def built_id(content_digest: str, nonce: str) -> str:
    """Id of a built object: content digest plus a nonce of the attempt, so no key is ever written twice."""
    return f"{content_digest[:24]}-{nonce}"


def log_prefix(tenant: str) -> str:
    return f"tenants/{tenant}/log/"


def manifests_prefix(tenant: str) -> str:
    return f"tenants/{tenant}/manifests/"


def tenant_prefix(tenant: str) -> str:
    return f"tenants/{tenant}/"


def audit_prefix(tenant: str | None) -> str:
    return f"control/audit/{tenant or _WHOLE_STORE}/calls/"


def audited_batches_prefix(tenant: str) -> str:
    return f"control/audit/{tenant}/batches/"
