"""Units: a step's tenants, cut into pieces of about the same bytes, each done by one worker.

What a unit does for one tenant never touches another: whatever one raises fails that tenant alone. A unit whose
worker died is done again, each of its tenants by itself, and a tenant whose worker dies twice is named
`worker_lost`. So every tenant that was asked for is reported, made or failed, and none is dropped in silence.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final, Generic, TypeAlias, TypeVar

from assets.plan import TENANTS_AT_ONCE, Failed
from assets.report import Made
from context_plane.errors import PlaneError
from context_plane.plane import Plane
from context_plane.settings import Settings
from context_plane.store.counting import Trace, count_elsewhere, trace
from resources.plane import OpenPlane, open_plane
from resources.workers import Lost, Workers

T = TypeVar("T")

log = logging.getLogger("context_plane.assets")

UNIT_BYTES: Final = 64 * 1024 * 1024
"""Of a unit's input: seconds of work, which is what a lost worker costs."""
UNIT_TENANTS_MAX: Final = 32
TENANT_BYTES_MIN: Final = 256 * 1024
"""What a tenant weighs at least: its requests take time however little they carry."""
HERE_BYTES_MAX: Final = 4 * 1024 * 1024
"""So little is done in this process: a worker takes seconds to start."""
WORKER_TENANTS_AT_ONCE: Final = 2
"""One computes while the other waits for the store: there is a worker for every processor."""
MEMORY_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of a worker's memory cache: a build reads most of its input once, and the rest from the disk cache."""

Work: TypeAlias = Callable[[Plane, str, str], Awaitable[Made]]
"""(plane, tenant, day) -> what was made. Raises `PlaneError` for this tenant-day alone. Sent to workers by pickle."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Work on some tenants of a day. `part`: which range of its one tenant's entities (`2 of 5`); empty: all."""

    settings: Settings
    step: str
    day: str
    tenants: tuple[str, ...]
    work: Work
    part: str = ""


@dataclass(frozen=True, slots=True)
class Gathered(Generic[T]):
    """What became of each tenant, ascending. `errors`: for the log."""

    done: Mapping[str, T]
    failed: tuple[Failed, ...]
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step, or a unit of it, did. `errors`: for the log. `units`: how many it was cut into. `spent`: by the
    worker of a unit; it is counted to the step as the worker reports."""

    made: Mapping[str, Made]
    failed: tuple[Failed, ...]
    errors: tuple[str, ...]
    spent: Trace = field(default_factory=Trace)
    units: int = 1
    lost: int = 0
    """Workers that died."""

    def only(self, made: Mapping[str, Made]) -> Outcome:
        """The same step, telling of these tenants."""
        return replace(self, made=made)


def do(opened: OpenPlane, workers: Workers, tenants: Mapping[str, int], day: str, step: str, work: Work) -> Outcome:
    """The work on every tenant: here where it is little, else by the workers. `tenants`: bytes of each one's input."""
    weights = {tenant: max(size, TENANT_BYTES_MIN) for tenant, size in tenants.items()}
    if len(weights) < 2 or sum(weights.values()) <= HERE_BYTES_MAX:
        return opened.run(each_tenant(opened.plane, list(weights), day, step, work))
    settings = settings_of_workers(opened.settings)
    return in_workers(workers, [Unit(settings, step, day, names, work) for names in cut(weights, workers.slots)])


def settings_of_workers(settings: Settings) -> Settings:
    return settings.model_copy(update={"cache_memory_bytes": min(MEMORY_BYTES_MAX, settings.cache_memory_bytes)})


def in_workers(workers: Workers, units: Sequence[Unit]) -> Outcome:
    """What the workers make of the units. Those whose worker died are done again, each tenant by itself."""
    done, lost = _through(workers, units)
    alone = [replace(unit, tenants=(tenant,)) for unit in lost for tenant in unit.tenants]
    again, dead = _through(workers, alone)
    failed = [
        Failed(tenant=tenant, step=unit.step, code="worker_lost", part=unit.part)
        for unit in dead
        for tenant in unit.tenants
    ]
    deaths = [
        f"{tenant} {_label(unit.day, unit.step, unit.part)}: its worker died twice"
        for unit in dead
        for tenant in unit.tenants
    ]
    whole = joined([*done, *again])
    return replace(
        whole,
        failed=tuple(sorted([*whole.failed, *failed], key=_by_name)),
        errors=(*whole.errors, *deaths),
        units=len(units),
        lost=len(lost) + len(dead),
    )


def cut(weights: Mapping[str, int], slots: int) -> list[tuple[str, ...]]:
    """Tenants in groups of about the same weight: enough for every slot, none above the bounds if it can be helped.

    Pure. The heaviest come first, each into the lightest group, so that what takes longest starts first (Graham 1969).
    """
    least = max(math.ceil(sum(weights.values()) / UNIT_BYTES), math.ceil(len(weights) / UNIT_TENANTS_MAX), slots)
    groups: list[tuple[int, list[str]]] = [(0, []) for _ in range(min(least, len(weights)))]
    for tenant in sorted(weights, key=lambda name: (-weights[name], name)):
        open_groups = [n for n, (_, names) in enumerate(groups) if len(names) < UNIT_TENANTS_MAX]
        lightest = min(open_groups, key=lambda n: (groups[n][0], n))
        weight, names = groups[lightest]
        groups[lightest] = (weight + weights[tenant], [*names, tenant])
    groups.sort(key=lambda group: -group[0])
    return [tuple(sorted(names)) for _, names in groups]


def joined(outcomes: Iterable[Outcome]) -> Outcome:
    """Outcomes of a step's units as one. Pure."""
    made: dict[str, Made] = {}
    failed: list[Failed] = []
    errors: list[str] = []
    units, lost = 0, 0
    for outcome in outcomes:
        made |= outcome.made
        failed += outcome.failed
        errors += outcome.errors
        units += outcome.units
        lost += outcome.lost
    ordered = tuple(sorted(failed, key=_by_name))
    return Outcome(dict(sorted(made.items())), ordered, tuple(errors), units=units, lost=lost)


def _by_name(failed: Failed) -> tuple[str, str]:
    return failed.tenant, failed.part


def _label(day: str, step: str, part: str) -> str:
    return f"{day} {step} {part}".rstrip()


async def each_tenant(
    plane: Plane,
    tenants: Sequence[str],
    day: str,
    step: str,
    work: Work,
    at_once: int = TENANTS_AT_ONCE,
    *,
    part: str = "",
) -> Outcome:
    """Work on every tenant of a day, some at once."""

    async def timed(tenant: str) -> Made:
        started = time.perf_counter()
        return replace(await work(plane, tenant, day), seconds=time.perf_counter() - started)

    found = await gathered(tenants, _label(day, step, part), step, timed, at_once)
    failed = tuple(item.model_copy(update={"part": part}) for item in found.failed)
    return Outcome(found.done, failed, found.errors)


async def gathered(
    tenants: Iterable[str], label: str, step: str, work: Callable[[str], Awaitable[T]], at_once: int = TENANTS_AT_ONCE
) -> Gathered[T]:
    """What `work` gives for every tenant, some at once. Whatever one raises fails that tenant alone."""
    gate = asyncio.Semaphore(at_once)
    done: dict[str, T] = {}
    failed: dict[str, Exception] = {}

    async def one(tenant: str) -> None:
        async with gate:
            try:
                done[tenant] = await work(tenant)
            except Exception as error:  # a foreign library's error too must cost its tenant alone
                failed[tenant] = error

    await asyncio.gather(*(one(tenant) for tenant in tenants))
    ordered = sorted(failed.items())
    errors = tuple(told(f"{tenant} {label}", error) for tenant, error in ordered)
    for (_, error), text in zip(ordered, errors, strict=True):
        if code_of(error) == "internal":  # also where no instance keeps the step's log
            log.error("unexpected: %s", text)
    return Gathered(
        dict(sorted(done.items())),
        tuple(Failed(tenant=tenant, step=step, code=code_of(error)) for tenant, error in ordered),
        errors,
    )


def code_of(error: Exception) -> str:
    return error.code if isinstance(error, PlaneError) else "internal"


def told(label: str, error: Exception) -> str:
    """An error for the log: its code, its type and the frames it came through. No message: those quote keys and ids,
    and a key may hold an entity that was erased since."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{label}: {code_of(error)} ({type(error).__name__})\n{frames}"


# --- in a worker --------------------------------------------------------------------------------


def run_unit(unit: Unit) -> Outcome:
    """A unit, over the plane that this worker keeps open. Raises nothing that one unit alone has met."""
    try:
        opened = _kept_open(unit.settings)
        at_once = WORKER_TENANTS_AT_ONCE
        work = each_tenant(opened.plane, unit.tenants, unit.day, unit.step, unit.work, at_once, part=unit.part)
        with trace() as spent:
            outcome = opened.run(work)
        return replace(outcome, spent=spent)
    except Exception as error:  # the store cannot be opened: every tenant of the unit has failed
        code, label = code_of(error), _label(unit.day, unit.step, unit.part)
        failed = tuple(Failed(tenant=tenant, step=unit.step, code=code, part=unit.part) for tenant in unit.tenants)
        return Outcome({}, failed, (told(label, error),))


def _through(workers: Workers, units: Sequence[Unit]) -> tuple[list[Outcome], list[Unit]]:
    """What the workers reported, and the units whose worker died."""
    done: list[Outcome] = []
    lost: list[Unit] = []
    for number, result in workers.map(run_unit, units) if units else ():
        if isinstance(result, Lost):
            lost.append(units[number])
        else:
            count_elsewhere(result.spent)
            done.append(result)
    return done, lost


@cache
def _kept_open(settings: Settings) -> OpenPlane:
    """Opened once for all units of a run. The process that started this one has probed the store."""
    return _STACK.enter_context(open_plane(settings, probe=False))


_STACK: Final = ExitStack()
