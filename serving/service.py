"""What every request of one process shares, and what the routes ask of the plane."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import Request

from context_plane.access import Keyring
from context_plane.cache.recent import Recent
from context_plane.errors import Unavailable
from context_plane.tenants import Tenant, load_tenant
from serving.limits import Ledger
from serving.metrics import Metrics
from serving.rates import Rates

if TYPE_CHECKING:
    from context_plane.plane import Plane
    from serving.auth import Admission, Asked


@dataclass(frozen=True, slots=True)
class Service:
    """`loopback`: the socket is bound to loopback, so a store without keys may be served openly."""

    plane: Plane
    keyring: Keyring
    tenants: Recent[Tenant | None]
    ledger: Ledger
    rates: Rates
    metrics: Metrics
    loopback: bool
    admissions: dict[Asked, Admission] = field(default_factory=dict, repr=False)
    """By what was sent, tokens included: never shown."""
    under_way: set[asyncio.Task[None]] = field(default_factory=set, repr=False)
    """What goes on after its request was answered."""

    @classmethod
    def of(cls, plane: Plane, *, ledger: Ledger, metrics: Metrics, loopback: bool) -> Service:
        engine = plane.engine
        return cls(
            plane=plane,
            keyring=Keyring(engine),
            tenants=Recent(lambda name: _tenant(plane, name), monotonic_s=engine.monotonic_s),
            ledger=ledger,
            rates=Rates(engine.monotonic_s),
            metrics=metrics,
            loopback=loopback,
        )

    def begin(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Go on with this in the background, in a context of its own, until the service ends; once, while it does."""
        if any(task.get_name() == name for task in self.under_way):
            return
        task = asyncio.create_task(work(), name=name, context=contextvars.Context())
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)

    async def aclose(self) -> None:
        """End what is under way. Whatever it is can be asked for again."""
        for task in list(self.under_way):
            task.cancel()
        await asyncio.gather(*self.under_way, return_exceptions=True)


async def _tenant(plane: Plane, name: str) -> Tenant | None:
    """The record; defaults for a tenant that was written to without being created."""
    record = await load_tenant(plane.engine.store, name)
    if record is None and await plane.tenant_exists(name):
        return Tenant(tenant=name)
    return record


def service_of(request: Request) -> Service:
    """Raises `Unavailable(not_ready)` outside of the app's lifespan."""
    service = getattr(request.app.state, "service", None)
    if not isinstance(service, Service):
        raise Unavailable("not_ready", "the service is starting; retry", retry_after_s=1.0)
    return service


def answer_headers(*, snapshot: str, cache: str | None = None, freshness: str | None = None) -> Mapping[str, str]:
    """The headers of an answer that was read at a cut."""
    headers = {"x-snapshot": snapshot}
    if cache is not None:
        headers["x-cache"] = cache
    if freshness is not None:
        headers["x-freshness"] = freshness
    return headers
