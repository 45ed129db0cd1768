"""This machine: the environment's settings, the libraries, the folder of the disk cache."""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from commands import show
from commands.doctor.finding import Finding
from commands.outcome import DEBUG

if TYPE_CHECKING:
    from context_plane.settings import Settings

PREFIX: Final = "CONTEXT_PLANE_"
LIBRARIES: Final = (
    "dagster",
    "fastapi",
    "lancedb",
    "numpy",
    "obstore",
    "polars",
    "pyarrow",
    "pydantic",
    "tantivy",
    "zstandard",
)
OF_DAGSTER: Final = frozenset(
    {
        "CONTEXT_PLANE_FIRST_DAY",
        "CONTEXT_PLANE_RAY_ADDRESS",
        "CONTEXT_PLANE_READ_URL",
        "CONTEXT_PLANE_WARM_KEY",
        "CONTEXT_PLANE_WORKERS",
        "CONTEXT_PLANE_WORKER_PROCESSES",
    }
)
"""Read by the deployment. By name, because its modules take seconds to import; a test compares them."""
OF_COMMANDS: Final = frozenset(
    {"CONTEXT_PLANE_TENANT", "CONTEXT_PLANE_KEY", "CONTEXT_PLANE_LOG_FORMAT", "CONTEXT_PLANE_URL", DEBUG}
)
OF_THE_SOURCE: Final = ("CONTEXT_PLANE_BENCH_", "CONTEXT_PLANE_EVAL_", "CONTEXT_PLANE_TOOLS")
"""Beginnings of what benchmarks and tests of a checkout read."""
RENAMED: Final = {"CONTEXT_PLANE_TRACEBACKS": DEBUG}
"""Variables that nothing reads any more, and what took their place."""


def known_variables() -> frozenset[str]:
    """Every variable of the environment that this product reads, `CONTEXT_PLANE_` ones."""
    from assets.cost import Prices
    from context_plane.embed.open import EmbedderSettings
    from context_plane.settings import Settings

    plain = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    embedder = {f"{PREFIX}EMBEDDER__{name.upper()}" for name in EmbedderSettings.model_fields}
    prices = {f"{PREFIX}PRICE_{name.upper()}" for name in Prices.model_fields}
    return frozenset(plain | embedder | prices) | OF_DAGSTER | OF_COMMANDS


def variables(environment: Iterable[str]) -> Finding:
    """Names that are set and that nothing reads. Values are not looked at: some are secrets. Pure."""
    known = known_variables()
    given = sorted(name for name in environment if name.upper().startswith(PREFIX))
    mistaken = [name for name in given if name.upper() not in known and not name.upper().startswith(OF_THE_SOURCE)]
    if not mistaken:
        return Finding("settings", "ok", f"{', '.join(given)} set" if given else "defaults: no CONTEXT_PLANE_ variable")
    told = []
    for name in mistaken:
        meant = RENAMED.get(name.upper()) or next(iter(get_close_matches(name.upper(), known, 1)), "")
        told.append(f"{name} ({'now' if name.upper() in RENAMED else 'perhaps'} {meant})" if meant else name)
    means = "nothing reads it, so it changes nothing"
    return Finding(
        "settings", "warn", ", ".join(told), means, "correct the name, or unset it; deploy/README.md has all"
    )


def versions() -> Finding:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found, missing = [f"python {platform.python_version()}"], []
    for name in ("context-plane", *LIBRARIES):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        means = "commands that need it will end in an error"
        return Finding("versions", "fail", f"not installed: {', '.join(missing)}", means, "run `make setup`")
    return Finding("versions", "ok", ", ".join(found))


async def cache(settings: Settings) -> Finding:
    """The folder is writable, not everybody's, and has room for its budget. Raises `OSError`."""
    folder, budget = settings.cache_folder, settings.cache_disk_bytes

    def look() -> Finding:
        if budget == 0:
            advice = "give CONTEXT_PLANE_CACHE_DISK_BYTES a budget"
            return Finding("cache", "warn", "no disk cache", "a restarted process reads everything again", advice)
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / ".doctor"
        mark.write_bytes(b"")
        mark.unlink()
        held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        free = shutil.disk_usage(folder).free
        fact = f"{folder} holds {show.size(held)} of {show.size(budget)}; {show.size(free)} free"
        if folder.stat().st_mode & stat.S_IWOTH:
            means = "whoever has an account here can replace what is cached, and read it"
            return Finding("cache", "warn", f"{folder} is writable by everybody", means, f"chmod o-rwx {folder}")
        if free < budget - held:
            means = "the disk is full before the budget is: what does not fit is fetched each time"
            return Finding("cache", "warn", fact, means, "lower CONTEXT_PLANE_CACHE_DISK_BYTES or free some space")
        return Finding("cache", "ok", fact)

    return await asyncio.to_thread(look)
