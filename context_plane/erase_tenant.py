"""Erase a tenant: everything it has leaves the store, with a receipt, and its name is never given again.

Three steps, each of which can be repeated; the erasure's object in the store's control folder says how far it is.

    a  record the erasure, delete the tenant's record      the name does not exist any more, in seconds everywhere
    b  commit an empty manifest                            reads of who still knows the name find nothing; builds under
                                                           way are refused, as those of before any erasure are
    c  delete everything else, and the tenant's keys;      done
       write the receipt

The empty manifest stays, and with it the tenant's name in its key: it keeps what was begun before from coming back.

A build, or a process that knew the tenant a few seconds longer, may upload and acknowledge after (c): nobody reads it, and
`finish_all` deletes it whenever it runs, at the price of a listing for each tenant that was ever erased.
"""

from __future__ import annotations

from dataclasses import dataclass

from context_plane.access import delete_keys
from context_plane.audit import PROCESS, Actor, audited
from context_plane.catalog.head import commit, load_head, refresh_hint
from context_plane.catalog.log import list_log
from context_plane.catalog.manifest import Manifest
from context_plane.engine import Engine
from context_plane.erase import DELETE_CHUNK
from context_plane.errors import NotFound
from context_plane.layout.keys import LatestKey, ManifestKey, manifests_prefix, tenant_prefix
from context_plane.model import check_tenant
from context_plane.tenants import (
    TenantErasure,
    delete_record,
    erased_tenants,
    load_tenant_erasure,
    new_tenant_erasure,
    save_tenant_erasure,
)


@dataclass(frozen=True, slots=True)
class Finished:
    """`tenants`: whose erasure was completed; `late`: objects that came after a receipt, and are deleted too."""

    tenants: int
    late: int


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
    wanted = found or TenantErasure(
        erasure=engine.nonce() + engine.nonce(), tenant=tenant, requested_us=engine.now_us()
    )
    async with audited(engine, tenant, actor, "tenant_erasure_request", subject=wanted.erasure):
        begun = found or await new_tenant_erasure(engine.store, wanted)
        await delete_record(engine.store, tenant)
        await _empty(engine, tenant)
    return begun


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
        keys = await delete_keys(engine.store, tenant)
        done = found.model_copy(
            update={
                "completed_us": engine.now_us(),
                "log_number": swept.log_number,
                "objects_deleted": swept.objects,
                "bytes_deleted": swept.bytes,
                "keys_deleted": keys,
            }
        )
        await save_tenant_erasure(engine.store, done)
        counts |= {"objects_deleted": swept.objects, "keys_deleted": keys}
    return done


async def finish_all(engine: Engine, *, actor: Actor = PROCESS) -> Finished:
    """Complete every erasure of a tenant, and delete what came after a receipt."""
    tenants = late = 0
    for tenant in sorted(await erased_tenants(engine.store)):
        found = await load_tenant_erasure(engine.store, tenant)
        if found is None:
            continue
        if found.completed_us is None:
            await erase_tenant(engine, tenant, actor=actor)
            tenants += 1
        else:
            late += await _sweep_late(engine, found, actor)
    return Finished(tenants, late)


async def _sweep_late(engine: Engine, erasure: TenantErasure, actor: Actor) -> int:
    """Delete again where more is left than one manifest and the hint; how many objects."""
    tenant = erasure.tenant
    await delete_record(engine.store, tenant)  # of a `put_tenant` that ended between its put and its second look
    left = {info.key async for info in engine.store.list(tenant_prefix(tenant))} - {str(LatestKey(tenant))}
    if len(left) <= 1 and all(key.startswith(manifests_prefix(tenant)) for key in left):
        return 0
    async with audited(engine, tenant, actor, "tenant_erasure", subject=erasure.erasure) as counts:
        swept = await _sweep(engine, tenant)
        counts["objects_deleted"] = swept.objects
    return swept.objects


async def _sweep(engine: Engine, tenant: str) -> _Swept:
    """Delete everything but the newest manifest and its hint. Keys need not be ones that this layout knows."""
    head = await _empty(engine, tenant)
    newest = str(ManifestKey(tenant, head.version))
    kept = {newest, str(LatestKey(tenant))}
    listed = [info async for info in engine.store.list(tenant_prefix(tenant)) if info.key not in kept]
    gone = [info for info in listed if not (info.key.startswith(manifests_prefix(tenant)) and info.key < newest)]
    for start in range(0, len(gone), DELETE_CHUNK):
        await engine.store.delete([info.key for info in gone[start : start + DELETE_CHUNK]])
    await refresh_hint(engine.store, await load_head(engine.store, tenant))
    return _Swept(head.log_floor, len(gone), sum(info.size for info in gone))


async def _empty(engine: Engine, tenant: str) -> Manifest:
    """Commit a manifest of nothing, unless the newest is one and no batch of the log is above its floor."""
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
        if fresh == manifest and manifest.erasures > 0:
            return manifest
        changed = {"erasures": manifest.erasures + 1, "snapshots_from": manifest.version + 1}
        return fresh.model_copy(update=changed)

    return await commit(engine, tenant, mutate, known=head)
