"""`context-plane doctor`: is this installation able to work, and if not, what to do."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final

from commands import show
from commands.doctor import machine, storage, tenants
from commands.doctor.finding import Finding, guarded
from commands.options import AsJson, Store, Tenants, run, settings_of, uncached
from commands.outcome import DEFECTS
from context_plane.errors import PlaneError

if TYPE_CHECKING:
    from context_plane.plane import Plane
    from context_plane.settings import Settings

TENANTS_MAX: Final = 100
"""Looked at unless named: each takes a few requests, and a screen holds no more."""
_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(tenant: Tenants = None, store: Store = None, as_json: AsJson = False) -> None:
    """Look at settings, store, clock, versions, model, cache, keys and tenants, and say what to do.

    Writes a few bytes to the store and takes them away again. `warn` is worth knowing; `fail` must be mended."""
    findings = run(_look(settings_of(store), tenant))
    failed = any(finding.state == "fail" for finding in findings)
    if as_json:
        show.json({"ok": not failed, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    if failed:
        raise SystemExit(DEFECTS)


async def _look(settings: Settings, named: Sequence[str] | None) -> list[Finding]:
    nothing_cached = "processes may not start, or fetch everything again"
    findings = [
        machine.variables(os.environ),
        machine.versions(),
        await guarded("cache", nothing_cached, lambda: machine.cache(settings)),
    ]
    try:
        with uncached(settings) as bare:  # the folder of the cache may be what is wrong
            findings += await _look_inside(bare, named)
    except PlaneError as error:
        findings.append(Finding("plane", "fail", str(error), "no command works", "mend the setting it names"))
    return findings


async def _look_inside(settings: Settings, named: Sequence[str] | None) -> list[Finding]:
    """Store, model, and where the store may be read: keys and tenants. Raises what opening a plane raises."""
    from context_plane import plane

    async with plane.open(settings, probe_store=False) as opened:
        findings = await _look_at_store(opened)
        usable = all(finding.state != "fail" for finding in findings if finding.name in ("store", "permissions"))
        findings.append(await guarded("model", "nothing can be embedded", lambda: tenants.model(opened)))
        if usable:
            findings.append(await guarded("keys", "", lambda: tenants.keys(opened)))
            findings += await _look_at_tenants(opened, named)
    return findings


async def _look_at_store(opened: Plane) -> list[Finding]:
    """Each look needs the one before: what cannot be reached has no rights, without rights there is no race."""
    looks: list[tuple[str, str, Callable[[], Awaitable[Finding]]]] = [
        ("store", "nothing works without it", lambda: storage.answers(opened)),
        ("permissions", "", lambda: storage.rights(opened.store, opened.engine.nonce())),
        ("creates", "two writers could both win, and one would be lost", lambda: storage.exclusive(opened)),
        ("clock", "", lambda: storage.clock(opened)),
    ]
    findings: list[Finding] = []
    for name, means, look in looks:
        findings.append(await guarded(name, means, look))
        if findings[-1].state == "fail":
            return findings
    free = storage.room(opened.settings.store_url)
    return findings if free is None else [*findings, free]


async def _look_at_tenants(opened: Plane, named: Sequence[str] | None) -> list[Finding]:
    from context_plane.tenants import list_tenants

    names = sorted(set(named or ())) or await list_tenants(opened.store)
    means = "its reads or builds may fail"
    findings = [
        await guarded(f"tenant {name}", means, partial(tenants.tenant, opened, name)) for name in names[:TENANTS_MAX]
    ]
    left = len(names) - len(findings)
    if left > 0:
        findings.append(Finding("tenants", "warn", f"{left:,} more were not looked at", "", "name them with --tenant"))
    return findings


def _print(findings: Sequence[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings:
        told = Text(finding.fact)
        if finding.means:
            told.append(f"\n{finding.means}", style="dim")
        if finding.advice:
            told.append(f"\n→ {finding.advice}", style=show.ACCENT)
        grid.add_row(Text(finding.state, style=_STYLES[finding.state]), finding.name, told)
    out = show.console()
    out.print(grid)
    failed, warned = (sum(finding.state == state for finding in findings) for state in ("fail", "warn"))
    if failed or warned:
        out.print(f"\n{failed} to mend, {warned} to know of")
    else:
        out.print("\nall is well", style="green")
