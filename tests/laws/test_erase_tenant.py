"""An erased tenant leaves nothing, whoever still knew it, and its name is never given again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from context_plane.audit import read_calls
from context_plane.erase_tenant import Finished, begin, erase_tenant, finish_all
from context_plane.erased import mentions
from context_plane.errors import Conflict, Unavailable
from context_plane.fold import fold_day
from context_plane.layout.keys import LatestKey, ManifestKey, parse
from context_plane.store.faults import Mishap
from context_plane.tenants import (
    TenantErasure,
    TenantSettings,
    list_tenants,
    load_tenant,
    load_tenant_erasure,
    new_tenant_erasure,
    put_tenant,
)
from tests.laws.plane_world import DAY, TENANT, World, event, puts
from tests.store.dictionary import DictStore


class Overtaken(DictStore):
    """Somebody is faster than the create of `key`."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self.somebody: Callable[[], Awaitable[object]] | None = None

    async def put_new(self, key: str, data: bytes) -> None:
        if key == self.key and self.somebody is not None:
            somebody, self.somebody = self.somebody, None
            await somebody()
        await super().put_new(key, data)


async def left(world: World) -> list[str]:
    return [info.key async for info in world.inner.list(f"tenants/{TENANT}/")]


async def test_the_name_is_never_given_again(world: World) -> None:
    """Neither by a PUT nor by a write of who still knows the tenant, before and after all is deleted.

    Seen to fail with the check left out of either."""
    plane, other = world.plane(), world.plane()
    await world.write(plane, puts([event(1)]))

    async def refused() -> None:
        before = await left(world)
        with pytest.raises(Conflict, match="tenant_erased"):
            await put_tenant(plane.engine, TENANT, TenantSettings(model=plane.engine.embedder.model))
        with pytest.raises(Conflict, match="tenant_erased"):
            await other.write(TENANT, puts([event(2)]), body_bytes=10)
        assert await left(world) == before, "the name of a model is not in a manifest either"
        assert await list_tenants(plane.engine.store) == []
        assert not await plane.tenant_exists(TENANT)

    await begin(plane.engine, TENANT)
    await refused()
    receipt = await erase_tenant(plane.engine, TENANT)
    await refused()
    assert await erase_tenant(plane.engine, TENANT) == receipt


async def test_a_put_that_an_erasure_overtook_leaves_no_record(tmp_path: Path) -> None:
    """Seen to fail with the check before the put alone."""
    store = Overtaken(f"control/tenants/{TENANT}.json")
    plane = World(store, tmp_path).plane()
    store.somebody = lambda: begin(plane.engine, TENANT)
    with pytest.raises(Conflict, match="tenant_erased"):
        await put_tenant(plane.engine, TENANT, TenantSettings())
    assert await load_tenant(store, TENANT) is None


async def test_no_erasure_is_begun_without_its_entry(world: World) -> None:
    """Seen to fail with the erasure recorded before the entry."""
    plane = world.plane()
    await put_tenant(plane.engine, TENANT, TenantSettings())
    with world.faults.on("control/audit/", Mishap(lost="request"), "put"), pytest.raises(Unavailable):
        await begin(plane.engine, TENANT)
    assert await load_tenant_erasure(plane.engine.store, TENANT) is None
    assert await list_tenants(plane.engine.store) == [TENANT]


async def test_an_erasure_that_was_recorded_alone_is_carried_out(world: World) -> None:
    """Seen to fail with step (c) alone: the tenant's record stayed."""
    plane = world.plane()
    await put_tenant(plane.engine, TENANT, TenantSettings())
    recorded = TenantErasure(erasure="0" * 32, tenant=TENANT, requested_us=plane.engine.now_us())
    await new_tenant_erasure(plane.engine.store, recorded)
    assert await finish_all(plane.engine) == Finished(1, 0)
    assert await load_tenant(plane.engine.store, TENANT) is None
    found = await load_tenant_erasure(plane.engine.store, TENANT)
    assert found is not None
    assert (found.erasure, found.completed_us is not None) == ("0" * 32, True)


async def test_what_came_after_the_receipt_is_deleted_by_the_next_run(world: World) -> None:
    """A writer and a build that knew the tenant a moment longer; the build even published.

    Seen to fail with erasures that are done left alone, and with the newest manifest kept as it is."""
    plane, other = world.plane(), world.plane()
    await other.write(TENANT, puts([event(1)]), body_bytes=10)  # knows the tail for two seconds
    receipt = await erase_tenant(plane.engine, TENANT)
    await other.write(TENANT, puts([event(2)]), body_bytes=10)
    await fold_day(other.engine, TENANT, DAY)
    await other.build(TENANT, [DAY])
    await plane.engine.store.put(f"control/tenants/{TENANT}.json", b'{"tenant": "acme"}')
    late = len(await left(world)) - 2
    finished = await finish_all(plane.engine)
    assert finished.tenants == 0
    assert finished.late >= late > 3
    assert [type(parse(key)) for key in await left(world)] == [ManifestKey, LatestKey]
    for key in await left(world):
        assert not mentions(key, await world.inner.get(key), "acct-01")
    assert await load_tenant(world.inner, TENANT) is None
    assert await load_tenant_erasure(world.inner, TENANT) == receipt
    calls = (await read_calls(world.inner, TENANT, limit=100)).calls
    assert [call.counts["objects_deleted"] for call in calls if call.action == "tenant_erasure"][-1] == finished.late
    assert await finish_all(plane.engine) == Finished(0, 0)
