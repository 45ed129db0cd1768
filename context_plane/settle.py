"""Settle: bundles that wait are committed as they are, built again where something moved, or dropped.

What waited was made of sources that the manifest names; while these are the same, committing it computes nothing. Each
day is settled by itself, so an interrupted call is made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from context_plane.approvals import file_approval, is_approved
from context_plane.bundle.compiled import CompiledSpec
from context_plane.catalog.head import commit, load_head
from context_plane.catalog.manifest import BundleDay, Manifest
from context_plane.catalog.named import read_buckets
from context_plane.engine import Engine
from context_plane.errors import Conflict
from context_plane.materialize import materialize_day, sources_of
from context_plane.pending import approved, dropped, pending_of
from context_plane.retrieval.reader import Reader
from context_plane.store.base import Store

State: TypeAlias = Literal["committed", "moved", "waits", "nothing"]
"""What became of a day: `moved`: it cannot be committed as it is: build it; `waits`: no approval is in force."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Days whose bundles readers got: as they waited, and built again."""

    committed: tuple[str, ...] = ()
    rebuilt: tuple[str, ...] = ()


async def approve(
    engine: Engine, reader: Reader, tenant: str, spec: CompiledSpec, *, since: str, until: str, expires_us: int
) -> Settled:
    """File an approval of these days, and settle what waits for them. Raises `Invalid(query_invalid)`."""
    await file_approval(engine, tenant, spec.spec.name, since=since, until=until, expires_us=expires_us)
    done: list[str] = []
    rebuilt: list[str] = []
    for day in waiting_days(await load_head(engine.store, tenant), spec.spec.name, since, until):
        match await commit_pending(engine, tenant, spec, day):
            case "committed":
                done.append(day)
            case "moved":
                await materialize_day(engine, reader, tenant, spec, day)
                rebuilt.append(day)
            case _:
                continue
    return Settled(tuple(done), tuple(rebuilt))


async def commit_pending(engine: Engine, tenant: str, spec: CompiledSpec, day: str) -> State:
    """Commit what waits for a day, if an approval is in force and nothing moved."""
    name = spec.spec.name
    head = await load_head(engine.store, tenant)
    pending = pending_of(head, name, day)
    if pending is None:
        return "nothing"
    if not await is_approved(engine, tenant, name, day):
        return "waits"
    if not await _is_stored(engine.store, pending.bundles):
        return "moved"

    def mutate(manifest: Manifest) -> Manifest:
        sources = sources_of(manifest, spec.spec, day)
        return approved(manifest, name, day, pending, fingerprint=spec.fingerprint, sources=sources)

    try:
        await commit(engine, tenant, mutate, known=head)
    except Conflict as error:
        if error.code != "build_stale":
            raise
        return "moved" if pending_of(await load_head(engine.store, tenant), name, day) is not None else "nothing"
    return "committed"


async def _is_stored(store: Store, bundles: BundleDay) -> bool:
    """Whether the directory reads and every pack it names is listed: somebody may have deleted what nobody read yet."""
    buckets = await read_buckets(store, bundles)
    if buckets is None:
        return False
    folder = bundles.directory.key.rpartition("/")[0] + "/"
    there = {info.key async for info in store.list(folder)}
    return all(bucket.key in there for bucket in buckets if bucket.key)


async def reject(engine: Engine, tenant: str, spec: str, *, since: str, until: str) -> tuple[str, ...]:
    """Drop what waits for these days; returns them. The next build compares anew."""
    gone: list[str] = []

    def mutate(manifest: Manifest) -> Manifest:
        gone[:] = waiting_days(manifest, spec, since, until)
        return dropped(manifest, spec, gone)

    await commit(engine, tenant, mutate)
    return tuple(gone)


def waiting_days(manifest: Manifest, spec: str, since: str, until: str) -> list[str]:
    """Days of the spec for which something waits, ascending. Pure."""
    return sorted(day for day in manifest.pending.get(spec, {}) if since <= day <= until)
