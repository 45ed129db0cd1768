"""Erase a tenant: everything it has leaves the store, with a receipt, and its name is never given again.

Three steps, each of which can be repeated; the erasure's objects in the store's control folder say how far it is.

    a  record the erasure, delete the tenant's record      the name does not exist any more, in seconds everywhere
    b  commit an empty manifest                            reads of who still knows the name find nothing; builds under
                                                           way are refused, as those of before any erasure are
    c  keep who wrote for the audit, delete everything     done
       else, revoke the tenant's keys; write the receipt

Whoever comes to a record without a receipt, after a crash or beside another process, does all three again: each looks
at what is there. The empty manifest stays, and with it the tenant's name in its key: it keeps what was begun before
from coming back.

A build, or a process that knew the tenant a few seconds longer, may upload and acknowledge after (c): nobody reads it,
and `finish_all` deletes it whenever it runs, at the price of a listing for each tenant that was ever erased.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from context_plane.access import revoke_keys
from context_plane.audit import PROCESS, Actor, audited, keep_batches
from context_plane.catalog.head import commit, load_head, refresh_hint
from context_plane.catalog.log import list_log
from context_plane.catalog.manifest import Manifest
from context_plane.engine import Engine
from context_plane.erase import DELETE_CHUNK
from context_plane.errors import NotFound, PlaneError, Unavailable
from context_plane.layout.keys import LatestKey, ManifestKey, manifests_prefix, tenant_prefix
from context_plane.model import check_tenant, sha256_hex
from context_plane.tenants import (
    TenantErasure,
    delete_record,
    erased_tenants,
    load_tenant_erasure,
    new_tenant_erasure,
    new_tenant_receipt,
)

log = logging.getLogger("context_plane.erase_tenant")

LOOKS_MAX: Final = 3
"""Each further look means that another process took a batch of the log away while it was read."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """`late`: it came after the tenant's receipt, which does not count it."""

    objects: int
    bytes: int
    late: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """`tenants`: whose erasure was completed; `late`: objects that came after a receipt, and are deleted too; `failed`:
    tenants that it has to be called again for, and the code of the error. `deleted`: what went of whom, in all."""

    tenants: int
    late: int
    failed: tuple[tuple[str, str], ...] = ()
    deleted: Mapping[str, Deleted] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class _Swept:
    log_number: int
    objects: int
    bytes: int


async def erase_tenant(engine: Engine, tenant: str, *, actor: Actor = PROCESS) -> TenantErasure:
    """Erase a tenant, or go on with its erasure. `actor`: for the audit. Raises `Unavailable` when it must be called
    again."""
    await begin(engine, tenant, actor=actor)
    return await finish(engine, tenant, actor=actor)


async def begin(engine: Engine, tenant: str, *, actor: Actor = PROCESS) -> TenantErasure:
    """Steps (a) and (b): the tenant does not exist from here on. Its erasure, where it has one."""
    found = await load_tenant_erasure(engine.store, check_tenant(tenant))
    if found is not None and found.completed_us is not None:
        return found
    begun = found or await _request(engine, tenant, actor)
    await delete_record(engine.store, tenant)
    await _empty(engine, tenant)
    return begun


async def _request(engine: Engine, tenant: str, actor: Actor) -> TenantErasure:
    """Record the erasure. Who goes on with one has not asked for it: the audit names whose record it is."""
    wanted = TenantErasure(erasure=_id(tenant), tenant=tenant, requested_us=engine.now_us())
    async with audited(engine, tenant, actor, "tenant_erasure_request", subject=wanted.erasure) as counts:
        begun = await new_tenant_erasure(engine.store, wanted)
        counts["filed"] = int(begun is wanted)
    return begun


def _id(tenant: str) -> str:
    """A name is erased once: who asks at the same time asks for the same erasure, and the audit names that one."""
    return sha256_hex(f"the erasure of {tenant}".encode())[:32]


async def finish(engine: Engine, tenant: str, *, actor: Actor = PROCESS) -> TenantErasure:
    """Step (c) of what `begin` began. One that is done already is answered as it is, and what came late goes.

    Raises `NotFound(erasure_not_found)`."""
    found = await load_tenant_erasure(engine.store, tenant)
    if found is None:
        raise NotFound("erasure_not_found", "the erasure of the tenant was not begun", tenant=tenant)
    if found.completed_us is not None:
        await _sweep_late(engine, found, actor)
        return found
    async with audited(engine, tenant, actor, "tenant_erasure", subject=found.erasure) as counts:
        swept = await _sweep(engine, tenant)
        keys = await revoke_keys(engine, tenant, actor=actor)
        counts |= {"objects_deleted": swept.objects, "keys_revoked": keys}
        done = found.model_copy(
            update={
                "completed_us": engine.now_us(),
                "log_number": swept.log_number,
                "objects_deleted": swept.objects,
                "bytes_deleted": swept.bytes,
                "keys_revoked": keys,
            }
        )
        return await new_tenant_receipt(engine.store, done)


async def finish_all(engine: Engine, *, actor: Actor = PROCESS) -> Finished:
    """Complete every erasure of a tenant, and delete what came after a receipt. One that fails stops no other, whatever
    the error: a defect is told as `internal`, and logged."""
    deleted: dict[str, Deleted] = {}
    failed: list[tuple[str, str]] = []
    for tenant in sorted(await erased_tenants(engine.store)):
        try:
            found = await load_tenant_erasure(engine.store, tenant)
            if found is not None and found.completed_us is None:
                done = await erase_tenant(engine, tenant, actor=actor)
                deleted[tenant] = Deleted(done.objects_deleted, done.bytes_deleted, late=False)
            elif found is not None and (swept := await _sweep_late(engine, found, actor)) is not None:
                deleted[tenant] = Deleted(swept.objects, swept.bytes, late=True)
        except PlaneError as error:
            failed.append((tenant, error.code))
        except Exception:
            log.exception("the erasure of the tenant %s stopped", tenant)
            failed.append((tenant, "internal"))
    late = [each.objects for each in deleted.values() if each.late]
    return Finished(len(deleted) - len(late), sum(late), tuple(failed), deleted)


async def _sweep_late(engine: Engine, erasure: TenantErasure, actor: Actor) -> _Swept | None:
    """Delete again where more is left than one manifest and the hint; None where nothing is."""
    tenant = erasure.tenant
    await delete_record(engine.store, tenant)  # of a `put_tenant` that ended between its put and its second look
    left = {info.key async for info in engine.store.list(tenant_prefix(tenant))} - {str(LatestKey(tenant))}
    if len(left) <= 1 and all(key.startswith(manifests_prefix(tenant)) for key in left):
        return None
    async with audited(engine, tenant, actor, "tenant_erasure", subject=erasure.erasure) as counts:
        swept = await _sweep(engine, tenant)
        counts["objects_deleted"] = swept.objects
    return swept


async def _sweep(engine: Engine, tenant: str) -> _Swept:
    """Delete everything but the newest manifest and its hint. Keys need not be ones that this layout knows."""
    head = await _empty(engine, tenant)
    newest = str(ManifestKey(tenant, head.version))
    kept = {newest, str(LatestKey(tenant))}
    listed = [info async for info in engine.store.list(tenant_prefix(tenant)) if info.key not in kept]
    gone = [info for info in listed if not (info.key.startswith(manifests_prefix(tenant)) and info.key < newest)]
    await _keep_audit(engine, tenant)
    for start in range(0, len(gone), DELETE_CHUNK):
        await engine.store.delete([info.key for info in gone[start : start + DELETE_CHUNK]])
    await refresh_hint(engine.store, await load_head(engine.store, tenant))
    return _Swept(head.log_floor, len(gone), sum(info.size for info in gone))


async def _keep_audit(engine: Engine, tenant: str) -> None:
    """Who wrote stays known: of a batch that another process takes away meanwhile, that process has kept it."""
    for _ in range(LOOKS_MAX):
        with suppress(NotFound):
            return await keep_batches(engine.store, tenant, await list_log(engine.store, tenant, after=0))
    raise Unavailable("store_unavailable", "another process deletes the tenant; ask for the erasure again")


async def _empty(engine: Engine, tenant: str) -> Manifest:
    """Commit a manifest of nothing, unless the newest was committed here and no batch of the log is above its floor.

    It has a key of its own: without the tenant's, ids of erasures in the audit tell nobody whom they were of. Whatever
    else left nothing has the old key, and is told apart by this: an emptying ends the snapshots before itself, and an
    erasure of an entity commits once more after it ended them, to retire its tombstone."""
    head = await load_head(engine.store, tenant)
    listed = await list_log(engine.store, tenant, after=head.log_floor)
    floor = max(listed[-1].number if listed else 0, head.log_floor)

    def mutate(manifest: Manifest) -> Manifest:
        fresh = Manifest(
            tenant=tenant,
            version=manifest.version,
            commit_id=manifest.commit_id,
            committed_us=manifest.committed_us,
            log_floor=max(floor, manifest.log_floor),
            erasure_key=manifest.erasure_key,
            erasures=manifest.erasures,
            snapshots_from=manifest.snapshots_from,
        )
        if fresh == manifest and manifest.erasures > 0 and manifest.snapshots_from == manifest.version:
            return manifest
        changed = {"erasures": manifest.erasures + 1, "snapshots_from": manifest.version + 1, "erasure_key": ""}
        return fresh.model_copy(update=changed)

    return await commit(engine, tenant, mutate, known=head)
