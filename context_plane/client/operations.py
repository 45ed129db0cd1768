"""The methods for operators: the tenant, its erasures, its audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from context_plane.client.asking import asks, lists, moment
from context_plane.client.requests import Call, Listing, Pages, Reply, Request, get, name_in_path, post
from context_plane.client.values import AuditedCall, ErasureState, TenantInfo, Time

PAGE_TENANTS: Final = 1000
"""The service's limit."""
PAGE_CALLS: Final = 100
"""Of the audit: the service reads an object for each."""


class Operations:
    """What operators ask."""

    @asks
    def tenant(self) -> Call[TenantInfo]:
        """The tenant's settings."""
        return Call(get(""), lambda reply: TenantInfo.model_validate_json(reply.content))

    @asks
    def put_tenant(self, settings: Mapping[str, Any] | None = None) -> Call[TenantInfo]:
        """Create the tenant, or replace its settings. For operator keys with the scope `admin`."""
        request = post("", {"settings": dict(settings or {})}, method="PUT")
        return Call(request, lambda reply: TenantInfo.model_validate_json(reply.content))

    @lists
    def tenants(self, *, limit: int | None = None) -> Listing[str]:
        """Names of the tenants that the key opens, ascending, whichever tenant this client is of."""
        return Pages("", {}, page=PAGE_TENANTS, limit=limit, read=_tenants_page, of_tenant=False)

    @asks
    def erase_tenant(self) -> Call[str]:
        """Erase the whole tenant: it does not exist any more when this returns, and its objects go. Returns the id of
        the erasure, of which `erasure` tells. Not sent again once it may have arrived. For operator keys with the scope
        `admin`."""
        return Call(Request("DELETE", "", repeatable=False), _erasure_id)

    @asks
    def erase_entity(self, entity: str) -> Call[str]:
        """Hide everything written of the entity so far, on every snapshot; the store's erasure job removes it. Returns
        the id of the erasure, of which `erasure` tells. Not sent again once it may have arrived: writes that came since
        would be erased too. Needs the scope `admin`."""
        return Call(Request("DELETE", f"/entities/{name_in_path(entity)}", repeatable=False), _erasure_id)

    @asks
    def erasure(self, erasure: str) -> Call[ErasureState]:
        """How far an erasure is, and its receipt. Needs the scope `admin`."""
        request = get(f"/erasures/{name_in_path(erasure)}")
        return Call(request, lambda reply: ErasureState.model_validate_json(reply.content))

    @lists
    def audit(
        self, *, since: Time | None = None, until: Time | None = None, limit: int | None = None
    ) -> Listing[AuditedCall]:
        """Calls that changed keys, settings or erasures of the tenant, oldest first. Needs the scope `admin`."""
        params = {"since": moment(since), "until": moment(until)}
        return Pages("/audit", params, page=PAGE_CALLS, limit=limit, read=_calls_page)


# --- leaves -------------------------------------------------------------------------------------


def _erasure_id(reply: Reply) -> str:
    return str(orjson.loads(reply.content)["erasure"])


def _tenants_page(line: bytes) -> tuple[list[str], str | None]:
    held = orjson.loads(line)
    return [each["tenant"] for each in held["tenants"]], held["cursor"]


def _calls_page(line: bytes) -> tuple[list[AuditedCall], str | None]:
    held = orjson.loads(line)
    return [AuditedCall.model_validate(each) for each in held["calls"]], held["cursor"]
