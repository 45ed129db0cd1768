"""Erase a tenant: everything it has leaves the store, with a receipt, and its name is never given again.

Three steps, each of which can be repeated; the erasure's object in the store's control folder says how far it is.

    a  record the erasure, delete the tenant's record      the name does not exist any more, in seconds everywhere
    b  commit an empty manifest                            reads of who still knows the name find nothing; builds under
                                                           way are refused, as those of before any erasure are
    c  delete everything else, and the tenant's keys;      done
       write the receipt

The empty manifest stays, and with it the tenant's name in its key: it keeps what was begun before from coming back.
"""

from __future__ import annotations

from context_plane.access import delete_keys
from context_plane.audit import PROCESS, Actor, audited
from context_plane.catalog.head import commit, load_head, refresh_hint
from context_plane.catalog.log import list_log
from context_plane.catalog.manifest import Manifest
from context_plane.engine import Engine
from context_plane.erase import DELETE_CHUNK
from context_plane.layout.keys import LatestKey, ManifestKey, parse, tenant_prefix
from context_plane.model import check_tenant
from context_plane.store.base import ObjectInfo
from context_plane.tenants import (
    TenantErasure,
    delete_record,
    erased_tenants,
    load_tenant_erasure,
    new_tenant_erasure,
    save_tenant_erasure,
)


async def erase_tenant(engine: Engine, tenant: str, *, actor: Actor = PROCESS) -> TenantErasure:
    """Erase a tenant, or go on with its erasure. `actor`: for the audit. Raises `Unavailable` when it must be called
    again."""
    return await finish(engine, await begin(engine, tenant, actor=actor), actor=actor)


async def begin(engine: Engine, tenant: str, *, actor: Actor = PROCESS) -> TenantErasure:
    """Steps (a) and (b): the tenant does not exist from here on. Its erasure, where it has one."""
    found = await load_tenant_erasure(engine.store, check_tenant(tenant))
    if found is None:
        fresh = TenantErasure(erasure=engine.nonce() + engine.nonce(), tenant=tenant, requested_us=engine.now_us())
        found = await new_tenant_erasure(engine.store, fresh)
    if found.completed_us is not None:
        return found
    async with audited(engine, tenant, actor, "tenant_erasure_request", subject=found.erasure):
        await delete_record(engine.store, tenant)
        await _empty(engine, tenant)
    return found


async def finish(engine: Engine, erasure: TenantErasure, *, actor: Actor = PROCESS) -> TenantErasure:
    """Step (c). One that is done already is answered as it is."""
    if erasure.completed_us is not None:
        return erasure
    async with audited(engine, erasure.tenant, actor, "tenant_erasure", subject=erasure.erasure) as counts:
        done = await _delete(engine, erasure)
        counts |= {"objects_deleted": done.objects_deleted, "keys_deleted": done.keys_deleted}
    return done


async def _delete(engine: Engine, erasure: TenantErasure) -> TenantErasure:
    tenant, store = erasure.tenant, engine.store
    head = await _empty(engine, tenant)
    kept = {str(ManifestKey(tenant, head.version)), str(LatestKey(tenant))}
    objects = size = 0
    gone: list[ObjectInfo] = []

    async def delete() -> None:
        nonlocal objects, size, gone
        await store.delete([info.key for info in gone])
        objects, size, gone = objects + len(gone), size + sum(info.size for info in gone), []

    async for info in store.list(tenant_prefix(tenant)):
        key = parse(info.key)
        newer = isinstance(key, ManifestKey) and key.version > head.version
        if info.key not in kept and not newer:
            gone.append(info)
        if len(gone) >= DELETE_CHUNK:
            await delete()
    if gone:
        await delete()
    await refresh_hint(store, await load_head(store, tenant))
    keys = await delete_keys(store, tenant)
    done = erasure.model_copy(
        update={
            "completed_us": engine.now_us(),
            "log_number": head.log_floor,
            "objects_deleted": objects,
            "bytes_deleted": size,
            "keys_deleted": keys,
        }
    )
    await save_tenant_erasure(store, done)
    return done


async def finish_all(engine: Engine, *, actor: Actor = PROCESS) -> int:
    """Step (c) of every erasure of a tenant that was begun and is not done; how many there were."""
    count = 0
    for tenant in sorted(await erased_tenants(engine.store)):
        found = await load_tenant_erasure(engine.store, tenant)
        if found is not None and found.completed_us is None:
            await finish(engine, found, actor=actor)
            count += 1
    return count


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
