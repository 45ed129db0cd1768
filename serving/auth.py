"""Who calls, and may they: bearer keys, scopes, and the open mode of a store without keys.

A key of another tenant is answered like a tenant that does not exist, and the answer waits for nothing of
that tenant: same body, same time. Open mode holds only while the store has no key object, the socket is bound to
loopback, and the request names a loopback host (a page that rebinds its own name to 127.0.0.1 does not).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

from fastapi import Depends, Path, Request
from fastapi.security import HTTPBearer

from context_plane.access import AccessKey, Scope, is_token
from context_plane.audit import Actor, actor_of
from context_plane.cache.recent import Held
from context_plane.errors import Denied, NotFound
from context_plane.model import check_tenant
from context_plane.tenants import Tenant
from serving.headers import header, header_text
from serving.rates import Allowance
from serving.service import Service, service_of

ADMISSIONS_MAX: Final = 1_024
"""Remembered by the Authorization as it was sent, which is looked up by a hash that is seeded at random per process.
Then all are forgotten at once: admitting anew waits for nothing."""
AUTHORIZATION_BYTES_MAX: Final = 256
"""Of what is remembered; a token has 63."""
CALLER: Final = "context_plane.caller"
"""Where a request's scope holds its caller."""
KEY_ID: Final = "context_plane.key_id"
"""And the id of a key that is one, whether or not it was let in."""
Asked: TypeAlias = tuple[bytes, str, Scope]
LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})

NO_TENANT: Final = Tenant(tenant="")
"""Whose rate holds for a key without one where no tenant is asked, or where it does not exist: nobody's."""

bearer = HTTPBearer(auto_error=False, description="`cp_<id>_<secret>`, made by `context-plane keys create`")
"""For the OpenAPI document; the header is read by `authenticate`."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A request that may go on: the tenant it names exists, and its key has the scope. `key` None: open mode.

    `allowance`: what its requests and bytes are paid from; None where nothing limits them."""

    service: Service
    tenant: Tenant
    key: AccessKey | None
    allowance: Allowance | None = None

    @property
    def name(self) -> str:
        return self.tenant.tenant

    def actor(self, request: Request) -> Actor:
        """Who acts, for the audit."""
        return requester(self.key, request)

    def spend(self, count: int) -> None:
        """Pay bytes that were gone through to answer."""
        if self.allowance is not None:
            self.allowance.spend(count)


@dataclass(frozen=True, slots=True, eq=False)
class Admission:
    """A caller with a key, when that key ends, and the records of key and tenant that it was admitted under, as this
    process holds them."""

    caller: Caller
    ends_us: int | None
    key: Held[AccessKey | None]
    tenant: Held[Tenant | None]

    def stands(self) -> bool:
        """Whether the same request would be admitted again without asking anybody (but for its rate)."""
        engine = self.caller.service.plane.engine
        now_s = engine.monotonic_s()
        fresh = self.key.fresh(now_s) and self.tenant.fresh(now_s)
        return fresh and (self.ends_us is None or engine.now_us() < self.ends_us)


async def authenticate(service: Service, request: Request) -> AccessKey | None:
    """The key of the request; None in open mode. The envelope is told its id.

    Raises `Denied(key_missing | key_invalid)`.
    """
    token = _token(request)
    if token is None:
        await _check_open_mode(service, request)
        return None
    key = await service.keyring.authenticate(token)
    request.scope[KEY_ID] = key.id
    return key


def _token(request: Request) -> str | None:
    """The token as it was sent; None without an Authorization. Raises `Denied(key_invalid)` for another scheme."""
    sent = header(request.scope, b"authorization")
    if sent is None:
        return None
    scheme, _, token = sent.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        raise Denied("key_invalid", "send the API key as Authorization: Bearer cp_<id>_<secret>")
    return token.strip()


async def _check_open_mode(service: Service, request: Request) -> None:
    host = header_text(request.scope, b"host").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if not service.loopback or name not in LOOPBACK_HOSTS or await service.keyring.configured():
        raise Denied("key_missing", "send an API key as Authorization: Bearer cp_<id>_<secret>")


TenantName = Annotated[str, Path(description="1-63 of a-z 0-9 and -", examples=["acme"])]


def allow(scope: Scope) -> Callable[[Request, str], Awaitable[Caller]]:
    """A dependency: the caller of a tenant's route that needs `scope`."""

    async def dependency(request: Request, tenant: TenantName) -> Caller:
        return await admit(request, tenant, scope)

    return dependency


async def admit(request: Request, tenant: str, scope: Scope) -> Caller:
    """The caller of a tenant's route, as every route admits it: key, scope, tenant, rate."""
    service = service_of(request)
    asked = (header(request.scope, b"authorization") or b"", tenant, scope)
    admission = service.admissions.get(asked)
    if admission is not None and admission.stands():
        _pay(request, admission.caller)
        return admission.caller
    caller = await _admitted(service, request, tenant, scope)
    _remember(asked, caller)
    return caller


async def _admitted(service: Service, request: Request, tenant: str, scope: Scope) -> Caller:
    token = _token(request)
    if token is not None and is_token(token):  # without any the store is not asked for the tenant
        service.tenants.prefetch(tenant)  # in one round trip with the key; a refusal does not wait for it
    key = await authorize(service, request, tenant, scope)
    found = await service.tenants.get(tenant)
    if found is None:
        raise no_tenant(service, key)
    return let_in(service, request, found, key)


def let_in(service: Service, request: Request, tenant: Tenant, key: AccessKey | None) -> Caller:
    """The caller, whose key was found to reach the tenant, and who pays. Raises `Unavailable(rate_limited)`."""
    caller = Caller(service, tenant, key, service.rates.allowance(key, tenant))
    _pay(request, caller)
    return caller


def _pay(request: Request, caller: Caller) -> None:
    """Pay the request, and tell the envelope who pays for the answer's bytes and whose request it is. Raises
    `Unavailable(rate_limited)`."""
    caller.service.ledger.enter_tenant(caller.name)
    request.scope[CALLER] = caller
    if caller.key is not None:
        request.scope[KEY_ID] = caller.key.id
    if caller.allowance is not None:
        caller.allowance.take()


def _remember(asked: Asked, caller: Caller) -> None:
    """What the caller was admitted under, if this process still holds it. No await since it was admitted."""
    service = caller.service
    if caller.key is None or len(asked[0]) > AUTHORIZATION_BYTES_MAX:
        return
    key, tenant = service.keyring.look(caller.key.id), service.tenants.look(caller.name)
    if key is None or tenant is None or key.value is not caller.key or tenant.value is not caller.tenant:
        return
    if asked not in service.admissions and len(service.admissions) >= ADMISSIONS_MAX:
        service.admissions.clear()
    service.admissions[asked] = Admission(caller, caller.key.ends_us, key, tenant)


async def authorize(service: Service, request: Request, tenant: str, scope: Scope) -> AccessKey | None:
    """Raises `Denied`, `NotFound(tenant_not_found)`, `Invalid(tenant_invalid)`. Waits for nothing of the tenant."""
    key = await authenticate(service, request)
    if key is not None:
        if not key.opens(tenant):
            service.rates.pay_refusal(key)
            raise unknown_tenant()
        if scope not in key.scopes:
            service.rates.pay_refusal(key)
            raise Denied("scope_missing", f"the API key lacks the scope {scope}")
    check_tenant(tenant)
    return key


def requester(key: AccessKey | None, request: Request) -> Actor:
    """Who sent the request, for the audit."""
    return actor_of(None if key is None else key.id, request.scope["request_id"])


def no_tenant(service: Service, key: AccessKey | None) -> NotFound:
    """The refusal of a tenant that the store was asked for and has not got; paid. Raises `Unavailable`."""
    if key is not None:
        service.rates.pay_refusal(key)
    return unknown_tenant()


def unknown_tenant() -> NotFound:
    return NotFound("tenant_not_found", "no such tenant for this key")


Reads = Annotated[Caller, Depends(allow("read"))]
Writes = Annotated[Caller, Depends(allow("write"))]
Administers = Annotated[Caller, Depends(allow("admin"))]
