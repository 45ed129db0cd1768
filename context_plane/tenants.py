"""Tenants: the record that says a tenant exists, and its settings.

One small JSON object per tenant, beside the tenants' data so that a missing one costs one GET and names no
path of theirs. Settings are what the product obeys today: fusion weights, a request rate, and a retention.
"""

from __future__ import annotations

import asyncio
from typing import Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from context_plane.engine import Engine
from context_plane.errors import Conflict, Corrupt, NotFound
from context_plane.layout.keys import ControlKey
from context_plane.model import check_tenant
from context_plane.store.base import Store

WEIGHT_MAX: Final = 100.0
RETAIN_DAYS_MAX: Final = 36_500


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LegWeights(_Model):
    """Weights of the two legs in the fusion of hybrid searches; requests may override them."""

    text: float | None = Field(default=None, ge=0, le=WEIGHT_MAX)
    vector: float | None = Field(default=None, ge=0, le=WEIGHT_MAX)


class TenantSettings(_Model):
    weights: LegWeights = LegWeights()
    requests_per_s: float | None = Field(
        default=None, gt=0, le=100_000, description="requests a second per process; null: no limit"
    )
    retain_days: int | None = Field(
        default=None, ge=1, le=RETAIN_DAYS_MAX, description="days of events kept before today; null: all, for ever"
    )


class Tenant(_Model):
    """A tenant as stored. Times are microseconds since 1970."""

    tenant: str
    created_us: int | None = None
    """None for a tenant that was written to before anybody created it."""
    updated_us: int | None = None
    settings: TenantSettings = TenantSettings()


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


async def put_tenant(engine: Engine, tenant: str, settings: TenantSettings) -> tuple[Tenant, bool]:
    """Create the tenant or replace its settings (the last writer wins); True when it is new."""
    now_us = engine.now_us()
    record = Tenant(tenant=check_tenant(tenant), created_us=now_us, updated_us=now_us, settings=settings)
    try:
        await engine.store.put_new(_object(tenant), _encode(record))
    except Conflict:
        held = await load_tenant(engine.store, tenant)
        if held is not None:
            record = record.model_copy(update={"created_us": held.created_us})
        await engine.store.put(_object(tenant), _encode(record))
        return record, False
    return record, True


def _object(tenant: str) -> str:
    return str(ControlKey(None, f"tenants/{tenant}.json"))


def _encode(record: Tenant) -> bytes:
    """Without what is not set: processes of before a setting read records that do not use it."""
    return orjson.dumps(record.model_dump(mode="json", exclude_none=True))


async def list_tenants(store: Store) -> list[str]:
    """Every tenant that was created or has objects, ascending. One LIST, and then one per tenant in parallel.

    Names are found without reading what lies below them: between two known names a listing of one key tells
    whether anybody else is there.
    """
    known = {_name(info.key.removesuffix(".json")) async for info in store.list("control/tenants/")}
    found: set[str] = set()
    gaps = ["tenants/", *(f"tenants/{name}/" for name in known)]
    while gaps:
        nexts = await asyncio.gather(*(_next_tenant(store, folder) for folder in gaps))
        new = {name for name in nexts if name is not None} - known - found
        found |= new
        gaps = [f"tenants/{name}/" for name in sorted(new)]
    return sorted(known | found)


async def _next_tenant(store: Store, folder: str) -> str | None:
    """The tenant whose objects come first after those of a folder. `~` sorts after every name a key may hold."""
    after = folder if folder == "tenants/" else f"{folder}~"
    async for info in store.list("tenants/", start_after=after, limit=1):
        return info.key.split("/")[1]
    return None


def _name(key: str) -> str:
    return key.rpartition("/")[2]
