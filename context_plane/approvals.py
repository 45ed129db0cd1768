"""Approvals: which bundles may replace others however much they change, until when. Small objects of the tenant.

An approval names a spec, days, and an end. It is created once, under the tenant's `control/approvals/`, and never
changed; it holds no entity. While it is in force, builds of its days are committed without waiting.
"""

from __future__ import annotations

import asyncio
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from context_plane.engine import Engine
from context_plane.errors import Corrupt, Invalid, NotFound
from context_plane.layout.keys import ControlKey
from context_plane.model import check_tenant, day_start_us
from context_plane.store.base import Store

FOLDER: Final = "approvals/"
LIFE_MAX_US: Final = 31 * 86_400 * 1_000_000
"""A longer one would be no gate: whoever approves has seen what waits, not what a month of builds will bring."""
APPROVALS_MAX: Final = 256
"""In force at once: they are read one by one whenever bundles are about to wait."""


class Approval(BaseModel):
    """As stored. Days are inclusive; times are microseconds since 1970."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    spec: str
    since: str
    until: str
    expires_us: int
    approved_us: int

    def covers(self, spec: str, day: str, now_us: int) -> bool:
        return spec == self.spec and self.since <= day <= self.until and now_us < self.expires_us


async def file_approval(engine: Engine, tenant: str, spec: str, *, since: str, until: str, expires_us: int) -> Approval:
    """Create an approval; expired ones are deleted on the way. Raises `Invalid(query_invalid)`."""
    now_us = engine.now_us()
    day_start_us(since)
    day_start_us(until)
    if since > until:
        raise Invalid("query_invalid", "the first day comes after the last; swap them", since=since, until=until)
    if not now_us < expires_us <= now_us + LIFE_MAX_US:
        detail = "an approval ends within 31 days from now; choose a time in between"
        raise Invalid("query_invalid", detail)
    there = await load_approvals(engine.store, tenant)
    ended = [_key(tenant, each.id) for each in there if each.expires_us <= now_us]
    if ended:
        await engine.store.delete(ended)
    if len(there) - len(ended) >= APPROVALS_MAX:
        detail = "too many approvals are in force; wait for some to end, or name more days in one"
        raise Invalid("query_invalid", detail, approvals_max=APPROVALS_MAX)
    id = engine.nonce() + engine.nonce()
    made = Approval(id=id, spec=spec, since=since, until=until, expires_us=expires_us, approved_us=now_us)
    await engine.store.put_new(_key(tenant, id), made.model_dump_json().encode())
    return made


async def load_approvals(store: Store, tenant: str) -> list[Approval]:
    """Every approval, those that ended too."""
    prefix = str(ControlKey(check_tenant(tenant), FOLDER))
    keys = [info.key async for info in store.list(prefix)]
    found = await asyncio.gather(*(_load(store, key) for key in keys))
    return [each for each in found if each is not None]


async def is_approved(engine: Engine, tenant: str, spec: str, day: str) -> bool:
    """Whether an approval in force covers the day."""
    now_us = engine.now_us()
    return any(each.covers(spec, day, now_us) for each in await load_approvals(engine.store, tenant))


async def _load(store: Store, key: str) -> Approval | None:
    try:
        return Approval.model_validate_json(await store.get(key))
    except NotFound:
        return None  # it ended, and was deleted since it was listed
    except ValidationError as error:
        raise Corrupt("format_unknown", "an approval does not decode; upgrade this process", key=key) from error


def _key(tenant: str, id: str) -> str:
    return str(ControlKey(check_tenant(tenant), f"{FOLDER}{id}.json"))
