"""What every command shares: its options, the settings they make, and the tenant that is meant."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from commands import complete
from context_plane.errors import Invalid

if TYPE_CHECKING:
    from context_plane.plane import Plane
    from context_plane.settings import Settings

T = TypeVar("T")

EVERYWHERE: Final = "Everywhere"
"""The panel of the help that holds what most commands share."""

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="CONTEXT_PLANE_STORE",
        metavar="URL",
        help="file:///folder, s3://bucket/prefix, gs://… or az://…; default: ./.plane/store",
        rich_help_panel=EVERYWHERE,
    ),
]
Tenant = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        envvar="CONTEXT_PLANE_TENANT",
        metavar="NAME",
        help="default: the store's only tenant",
        autocompletion=complete.tenants,
        rich_help_panel=EVERYWHERE,
    ),
]
Tenants = Annotated[
    list[str] | None,
    typer.Option(
        "--tenant",
        envvar="CONTEXT_PLANE_TENANT",
        metavar="NAME",
        help="repeat it; default: every tenant",
        autocompletion=complete.tenants,
        rich_help_panel=EVERYWHERE,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="one JSON document on standard output", rich_help_panel=EVERYWHERE)
]
Since = Annotated[str | None, typer.Option("--since", metavar="DAY", help="first day, YYYY-MM-DD")]
Until = Annotated[str | None, typer.Option("--until", metavar="DAY", help="last day, included")]
Spec = Annotated[str, typer.Option("--spec", metavar="NAME", help="the bundle spec", autocompletion=complete.specs)]
Snapshot = Annotated[str | None, typer.Option("--snapshot", metavar="ID", help="read at this cut")]


def settings_of(store: str | None) -> Settings:
    """Settings from the environment, with the store of the option. Raises `Invalid(settings_invalid)`."""
    from pydantic import ValidationError

    from context_plane.settings import Settings

    try:
        return Settings() if store is None else Settings(store=store)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "CONTEXT_PLANE_" + "__".join(str(part).upper() for part in first["loc"])
        raise Invalid("settings_invalid", f"{name}: {first['msg']}; mend the environment variable") from error


@contextmanager
def uncached(settings: Settings) -> Iterator[Settings]:
    """The settings of a plane that reads nothing from the user's cache, and leaves nothing in it."""
    with tempfile.TemporaryDirectory(prefix="context-plane-") as folder:
        yield settings.model_copy(update={"cache_disk_bytes": 0, "cache_dir": Path(folder)})


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@asynccontextmanager
async def opened(store: str | None, *, probe: bool = False) -> AsyncIterator[Plane]:
    """A plane for one command. `probe`: refuse a store whose creates are not exclusive, before writing to it."""
    from context_plane import plane

    async with plane.open(settings_of(store), probe_store=probe) as found:
        yield found


def is_typed(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line, rather than in the environment."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


async def tenant_of(plane: Plane, tenant: str | None) -> str:
    """The tenant named, which exists, or the only one there is. Raises `Invalid(tenant_invalid)`, `NotFound`."""
    from context_plane.errors import NotFound
    from context_plane.tenants import list_tenants

    if tenant is not None:
        if await plane.tenant_exists(tenant):
            return tenant
        known = ", ".join(await list_tenants(plane.engine.store)) or "none"
        raise NotFound("tenant_not_found", f"no such tenant in this store; known: {known}", tenant=tenant)
    known_names = await list_tenants(plane.engine.store)
    if len(known_names) == 1:
        return known_names[0]
    if not known_names:
        raise NotFound("tenant_not_found", "the store has no tenant; write something with `context-plane ingest`")
    raise Invalid("tenant_invalid", f"the store has several tenants, name one with --tenant: {', '.join(known_names)}")
