"""One operation on several tenants, one after another: what one of them meets does not stop the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from commands import show
from context_plane.errors import NotFound, PlaneError

if TYPE_CHECKING:
    from context_plane.plane import Plane

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failed:
    tenant: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What each tenant came to, by name, and those that could not be worked on."""

    told: Mapping[str, T]
    failed: tuple[Failed, ...]

    def failures(self) -> list[dict[str, Any]]:
        return [asdict(one) for one in self.failed]


async def each_tenant(
    plane: Plane, named: Sequence[str] | None, doing: str, work: Callable[[str], Awaitable[T]]
) -> Done[T]:
    """Run `work` on the tenants named, or on all, with a progress bar.

    Raises the first error when every tenant met one: then it is the store or the command that is wrong.
    """
    from context_plane.tenants import list_tenants

    told: dict[str, T] = {}
    failed: list[Failed] = []
    first: PlaneError | None = None
    with show.progress() as bar:
        tenants = sorted(set(named or ())) or await list_tenants(plane.engine.store)
        task = bar.add_task(doing, total=len(tenants))
        for tenant in tenants:
            bar.update(task, description=f"{doing} {tenant}")
            try:
                if named and not await plane.tenant_exists(tenant):
                    raise NotFound("tenant_not_found", "no such tenant in this store", tenant=tenant)
                told[tenant] = await work(tenant)
            except PlaneError as error:
                first = first or error
                failed.append(Failed(tenant, error.code, error.detail))
            bar.advance(task)
    if first is not None and not told:
        raise first
    return Done(told, tuple(failed))


def print_failures(done: Done[Any]) -> None:
    out = show.console()
    for one in done.failed:
        out.print(f"{one.tenant}: {one.code}: {one.detail}", soft_wrap=True)
