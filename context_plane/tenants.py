"""Tenants: the record that says a tenant exists, and its settings.

One small JSON object per tenant, beside the tenants' data so that a missing one costs one GET and names no
path of theirs. Settings are what the product obeys today.

An erased tenant leaves two objects: that it is erased, and once that is done, the receipt; each is created once and
never written again. Its name is never given again: numbers of its log would be, whoever still deletes would delete what
is new, and who is called by it next would read the audit of who was before.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from context_plane.audit import PROCESS, Actor, audited
from context_plane.catalog.head import commit
from context_plane.catalog.manifest import Manifest, ModelRef
from context_plane.engine import Engine
from context_plane.errors import Conflict, Corrupt, Invalid, NotFound
from context_plane.layout.keys import ControlKey
from context_plane.model import BYTES_PER_S_MAX, REQUESTS_PER_S_MAX, check_tenant
from context_plane.store.base import Store

WEIGHT_MAX: Final = 100.0
RETAIN_DAYS_MAX: Final = 36_500
MODEL_CHARS_MAX: Final = 200
SPECS_MAX: Final = 64
SpecName = Annotated[str, Field(min_length=1, max_length=100)]
_ERASED: Final = "control/erased-tenants/"
_RECEIPTS: Final = "control/tenant-receipts/"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class LegWeights(_Model):
    """Weights of the two legs in the fusion of hybrid searches; requests may override them."""

    text: float | None = Field(default=None, ge=0, le=WEIGHT_MAX, description="null: the default", examples=[1.0])
    vector: float | None = Field(default=None, ge=0, le=WEIGHT_MAX, description="null: the default", examples=[1.0])


class TenantSettings(_Model):
    """Settings of a tenant. Null is the product's default."""

    weights: LegWeights = Field(
        default=LegWeights(), description="of the legs of hybrid searches", examples=[{"text": 1.0, "vector": 1.0}]
    )
    requests_per_s: float | None = Field(
        default=None,
        gt=0,
        le=REQUESTS_PER_S_MAX,
        description="requests a second per process; null: no limit",
        examples=[500],
    )
    bytes_per_s: float | None = Field(
        default=None,
        ge=1,
        le=BYTES_PER_S_MAX,
        description="bytes a second per process that searches go through and answers hold; null: no limit",
        examples=[50_000_000],
    )
    events_per_s: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="events written a second per process, over some time: a full request may always come at once; "
        "null: no limit",
        examples=[1000],
    )
    retain_days: int | None = Field(
        default=None,
        ge=1,
        le=RETAIN_DAYS_MAX,
        description="days of events kept before today; null: all, for ever",
        examples=[365],
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=MODEL_CHARS_MAX,
        description="of the vectors: processes with another one do not build; null: that of the first build",
        examples=["minilm-static-256@752af54a759e"],
    )
    specs: list[SpecName] | None = Field(
        default=None,
        max_length=SPECS_MAX,
        description="bundle specs that are built; null: all",
        examples=[["customer_context_v0"]],
    )

    def builds(self, spec: str) -> bool:
        """Whether bundles of a spec are made for the tenant."""
        return self.specs is None or spec in self.specs


class Tenant(_Model):
    """A tenant as stored. Times are microseconds since 1970."""

    tenant: str
    created_us: int | None = None
    """None for a tenant that was written to before anybody created it."""
    updated_us: int | None = None
    settings: TenantSettings = TenantSettings()


class TenantErasure(_Model):
    """The erasure of a whole tenant, and its receipt once `completed_us` is set. Times are microseconds since 1970.

    The receipt counts what the run that completed it deleted. What processes that still knew the tenant leave
    afterwards is deleted by later runs of the job, each in the audit, and not counted here."""

    format: Literal[1] = 1
    erasure: str
    tenant: str
    requested_us: int
    completed_us: int | None = None
    log_number: int = 0
    """Writes up to this number are erased."""
    objects_deleted: int = 0
    bytes_deleted: int = 0
    keys_revoked: int = 0


async def load_tenant(store: Store, tenant: str) -> Tenant | None:
    """None when the tenant does not exist."""
    try:
        stored = await store.get(_object(check_tenant(tenant)))
    except NotFound:
        return None
    try:
        return Tenant.model_validate_json(stored)
    except ValidationError as error:
        raise Corrupt("format_unknown", "a tenant record does not decode; upgrade this process") from error


async def load_settings(store: Store, tenant: str) -> TenantSettings:
    """Of a tenant without a record: the defaults."""
    record = await load_tenant(store, tenant)
    return TenantSettings() if record is None else record.settings


async def put_tenant(
    engine: Engine, tenant: str, settings: TenantSettings, *, actor: Actor = PROCESS
) -> tuple[Tenant, bool]:
    """Create the tenant or replace its settings (the last writer wins); True when it is new. `actor`: for the audit.

    A model that is set binds the tenant to it. Raises `Conflict(tenant_erased)`, `Invalid(model_mismatch)`."""
    now_us = engine.now_us()
    await refuse_erased(engine.store, tenant)
    record = Tenant(tenant=check_tenant(tenant), created_us=now_us, updated_us=now_us, settings=settings)
    async with audited(engine, tenant, actor, "tenant_put") as counts:
        if settings.model is not None:
            await _bind(engine, tenant, settings.model)
        record, created = await _put(engine, record)
        await _give_way(engine.store, tenant)
        counts["created"] = int(created)
    return record, created


async def _put(engine: Engine, record: Tenant) -> tuple[Tenant, bool]:
    tenant = record.tenant
    try:
        await engine.store.put_new(_object(tenant), _encode(record))
    except Conflict:
        held = await load_tenant(engine.store, tenant)
        if held is not None:
            record = record.model_copy(update={"created_us": held.created_us})
        await engine.store.put(_object(tenant), _encode(record))
        return record, False
    return record, True


async def _bind(engine: Engine, tenant: str, model: str) -> None:
    """Name the model in the manifest, which every publish is held against."""

    def mutate(manifest: Manifest) -> Manifest:
        known = manifest.model or ModelRef(name=engine.embedder.model, dim=engine.embedder.dim)
        if known.name != model:
            detail = "the model is that of the vectors, or of this process before there are any; re-embed to change it"
            raise Invalid("model_mismatch", detail, model=model, known=known.name)
        return manifest if manifest.model == known else manifest.model_copy(update={"model": known})

    await commit(engine, tenant, mutate)


async def _give_way(store: Store, tenant: str) -> None:
    """An erasure that began before the record was put has deleted it already: what came after it goes too."""
    try:
        await refuse_erased(store, tenant)
    except Conflict:
        await delete_record(store, tenant)
        raise


async def delete_record(store: Store, tenant: str) -> None:
    await store.delete([_object(check_tenant(tenant))])


async def load_tenant_erasure(store: Store, tenant: str) -> TenantErasure | None:
    """None where no tenant of that name was ever erased."""
    check_tenant(tenant)
    begun, receipt = await asyncio.gather(
        _load_erasure(store, _erasure(tenant)), _load_erasure(store, _receipt(tenant))
    )
    return receipt or begun


async def _load_erasure(store: Store, key: str) -> TenantErasure | None:
    try:
        stored = await store.get(key)
    except NotFound:
        return None
    try:
        return TenantErasure.model_validate_json(stored)
    except ValidationError as error:
        raise Corrupt("format_unknown", "the erasure of a tenant does not decode; upgrade this process") from error


async def new_tenant_erasure(store: Store, erasure: TenantErasure) -> TenantErasure:
    """Record that the tenant is erased; the erasure that it has, where somebody was faster."""
    try:
        await store.put_new(_erasure(erasure.tenant), erasure.model_dump_json().encode())
    except Conflict:
        return await load_tenant_erasure(store, erasure.tenant) or erasure
    return erasure


async def new_tenant_receipt(store: Store, receipt: TenantErasure) -> TenantErasure:
    """Record that all is done; the receipt that is there, where somebody was faster: one that was read stays."""
    try:
        await store.put_new(_receipt(receipt.tenant), receipt.model_dump_json().encode())
    except Conflict:
        return await load_tenant_erasure(store, receipt.tenant) or receipt
    return receipt


async def refuse_erased(store: Store, tenant: str) -> None:
    """Raises `Conflict(tenant_erased)` where a tenant of that name was erased, or is being erased."""
    if await _load_erasure(store, _erasure(check_tenant(tenant))) is not None:
        raise Conflict("tenant_erased", "a tenant of that name was erased; take another name")


async def erased_tenants(store: Store) -> set[str]:
    """Names of tenants that are or were erased."""
    return {_name(info.key.removesuffix(".json")) async for info in store.list(_ERASED)}


def _erasure(tenant: str) -> str:
    return f"{_ERASED}{tenant}.json"


def _receipt(tenant: str) -> str:
    return f"{_RECEIPTS}{tenant}.json"


def _object(tenant: str) -> str:
    return str(ControlKey(None, f"tenants/{tenant}.json"))


def _encode(record: Tenant) -> bytes:
    """Without what is not set: processes of before a setting read records that do not use it."""
    return orjson.dumps(record.model_dump(mode="json", exclude_none=True))


async def list_tenants(store: Store) -> list[str]:
    """Every tenant that was created or has objects, ascending, but erased ones. Two LISTs, and then one per tenant in
    parallel.

    Names are found without reading what lies below them: between two known names a listing of one key tells
    whether anybody else is there.
    """
    known = {_name(info.key.removesuffix(".json")) async for info in store.list("control/tenants/")}
    erased = await erased_tenants(store)
    found: set[str] = set()
    gaps = ["tenants/", *(f"tenants/{name}/" for name in known)]
    while gaps:
        nexts = await asyncio.gather(*(_next_tenant(store, folder) for folder in gaps))
        new = {name for name in nexts if name is not None} - known - found
        found |= new
        gaps = [f"tenants/{name}/" for name in sorted(new)]
    return sorted((known | found) - erased)


async def _next_tenant(store: Store, folder: str) -> str | None:
    """The tenant whose objects come first after those of a folder. `~` sorts after every name a key may hold."""
    after = folder if folder == "tenants/" else f"{folder}~"
    async for info in store.list("tenants/", start_after=after, limit=1):
        return info.key.split("/")[1]
    return None


def _name(key: str) -> str:
    return key.rpartition("/")[2]
