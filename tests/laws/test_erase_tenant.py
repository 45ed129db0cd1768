"""An erased tenant leaves nothing, whoever still knew it, and its name is never given again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from context_plane.erase_tenant import begin, erase_tenant
from context_plane.errors import Conflict
from context_plane.tenants import TenantSettings, list_tenants, load_tenant, put_tenant
from tests.laws.plane_world import TENANT, World, event, puts
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
