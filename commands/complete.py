"""What a shell completes beside the program's own words: names of tenants and specs.

Asked for at every press of the key, so it reads a folder or one listing, gives up after a second, and is silent
about whatever goes wrong. Entities are not completed: a store holds too many.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import typer

GIVE_UP_S: Final = 1.0
"""A person who waits longer for a completion types on."""


def tenants(ctx: typer.Context, incomplete: str) -> list[str]:
    """Tenants of the store named by --store or the environment."""
    try:
        names = asyncio.run(asyncio.wait_for(_tenants(ctx.params.get("store")), GIVE_UP_S))
    except Exception:  # a half-typed command line may be wrong in any way
        return []
    return [name for name in names if name.startswith(incomplete)]


def specs(incomplete: str) -> list[str]:
    """Bundle specs of the configured folder: a spec's file bears its name."""
    from commands.options import settings_of

    try:
        folder = settings_of(None).specs_dir or Path(__file__).resolve().parents[1] / "specs"
        names = sorted(path.stem for path in folder.glob("*.yaml"))
    except Exception:  # as above
        return []
    return [name for name in names if name.startswith(incomplete)]


async def _tenants(store: Any) -> list[str]:
    from commands.options import settings_of
    from context_plane.settings import store_options_from_environment
    from context_plane.store.open import open_store
    from context_plane.tenants import list_tenants

    opened = open_store(settings_of(store).store_url, options=store_options_from_environment())
    try:
        return await list_tenants(opened)
    finally:
        await opened.aclose()
