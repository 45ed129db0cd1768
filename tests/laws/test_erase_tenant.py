"""An erased tenant leaves nothing, whoever still knew it, and its name is never given again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import orjson
import pytest

from context_plane.access import create_key, list_keys, load_key, rotate_key
from context_plane.audit import JOB, Actor, read_batches, read_calls
from context_plane.catalog.erasures import entity_hash
from context_plane.catalog.head import load_head
from context_plane.erase_tenant import Finished, begin, erase_tenant, finish_all
from context_plane.erased import mentions
from context_plane.errors import Conflict, PlaneError, Unavailable
from context_plane.fold import fold_day
from context_plane.fulfil import fulfil, start
from context_plane.layout.keys import LatestKey, ManifestKey, parse
from context_plane.plane import Plane
from context_plane.reindex import build_day
from context_plane.store.base import ByteRange, Store
from context_plane.store.faults import Mishap, Operation
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
    """Somebody is faster than the first create, or read of a range, of a key that holds `part`."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part = part
        self.somebody: Callable[[], Awaitable[object]] | None = None

    async def put_new(self, key: str, data: bytes) -> None:
        await self._before(key)
        await super().put_new(key, data)

    async def get_range(self, key: str, byte_range: ByteRange) -> bytes:
        await self._before(key)
        return await super().get_range(key, byte_range)

    async def _before(self, key: str) -> None:
        if self.part in key and self.somebody is not None:
            somebody, self.somebody = self.somebody, None
            await somebody()


async def left(world: World) -> list[str]:
    return [info.key async for info in world.inner.list(f"tenants/{TENANT}/")]


async def writers(store: Store) -> list[str]:
    """Who wrote each batch, by the audit."""
    page = await read_batches(store, TENANT, limit=100)
    return [batch.requests[0].actor for batch in page.batches]


async def known(plane: Plane) -> None:
    """A tenant with a record, a key, a built day and two batches in its log."""
    await put_tenant(plane.engine, TENANT, TenantSettings())
    await create_key(plane.engine, tenant=TENANT, scopes=["read"])
    for n in range(2):
        await plane.write(TENANT, puts([event(n)]), body_bytes=10, actor=Actor(f"key-{n}"))
    await plane.build(TENANT, [DAY])


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


@pytest.mark.parametrize("lost", ["request", "response"])
@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("put", f"control/audit/{TENANT}/"),
        ("put_new", "control/erased-tenants/"),
        ("delete", "control/tenants/"),
        ("put_new", "/manifests/0"),
        ("list", f"tenants/{TENANT}/"),
        ("put_new", f"control/audit/{TENANT}/batches/"),
        ("delete", f"tenants/{TENANT}/log/"),
        ("put_new", "control/keys/"),
        ("put_new", "control/tenant-receipts/"),
    ],
)
async def test_whoever_comes_after_a_crash_at_any_step_does_the_rest(
    world: World, operation: Operation, part: str, lost: Literal["request", "response"]
) -> None:
    """Seen to fail with nothing kept of the log, with the keys left, and with another id each time."""
    await known(world.plane())
    other = world.plane()
    with world.faults.on(part, Mishap(lost=lost), operation), suppress(PlaneError):
        await erase_tenant(world.plane().engine, TENANT)
    done = await erase_tenant(other.engine, TENANT)
    assert done.completed_us is not None
    assert done == await load_tenant_erasure(world.inner, TENANT)
    assert [type(parse(key)) for key in await left(world)] == [ManifestKey, LatestKey]
    assert await writers(world.inner) == ["key-0", "key-1"]
    assert [key.revoked_us is not None for key in await list_keys(world.inner)] == [True]
    assert not await other.tenant_exists(TENANT)
    calls = (await read_calls(world.inner, TENANT, limit=100)).calls
    assert {call.subject for call in calls if call.action.startswith("tenant_erasure")} == {done.erasure}


@pytest.mark.parametrize(
    "part",
    [
        "control/erased-tenants/",
        "/manifests/0",
        f"tenants/{TENANT}/log/",
        "/batches/",
        ".revoked",
        "control/tenant-receipts/",
    ],
)
async def test_two_processes_erase_a_tenant_at_the_same_time(tmp_path: Path, part: str) -> None:
    """The second does all of it while the first is at `part`. There is one erasure, and one receipt.

    Seen to fail with an id for each, with one look at the log, and with the receipt of the first put over the other,
    unconditionally or after a look."""
    store = Overtaken(part)
    world = World(store, tmp_path)
    plane, other = world.plane(), world.plane()
    await known(plane)
    receipts: list[TenantErasure] = []

    async def second() -> None:
        receipts.append(await erase_tenant(other.engine, TENANT))

    store.somebody = second
    first = await erase_tenant(plane.engine, TENANT)
    assert [first] == receipts
    assert first == await load_tenant_erasure(store, TENANT)
    assert await writers(store) == ["key-0", "key-1"]
    assert [type(parse(key)) for key in await left(world)] == [ManifestKey, LatestKey]
    calls = (await read_calls(store, TENANT, limit=100)).calls
    assert {call.subject for call in calls if call.action.startswith("tenant_erasure")} == {first.erasure}


async def test_many_at_once_come_to_one_receipt(world: World) -> None:
    await known(world.plane())
    receipts = await asyncio.gather(*(erase_tenant(world.plane().engine, TENANT) for _ in range(5)))
    assert len({receipt.erasure for receipt in receipts}) == 1
    assert [type(parse(key)) for key in await left(world)] == [ManifestKey, LatestKey]
    assert await writers(world.inner) == ["key-0", "key-1"]


async def test_an_erased_tenant_is_given_no_key(world: World) -> None:
    """Seen to fail with keys made without a look at the erasure."""
    plane = world.plane()
    await known(plane)
    await erase_tenant(plane.engine, TENANT)
    before = await list_keys(world.inner)
    with pytest.raises(Conflict, match="tenant_erased"):
        await create_key(plane.engine, tenant=TENANT, scopes=["read"])
    assert await list_keys(world.inner) == before


async def test_a_rotation_that_an_erasure_overtook_leaves_no_key(tmp_path: Path) -> None:
    """Seen to fail with the look before the put: the erasure revoked the keys that it found, and then came this one."""
    store = Overtaken("control/keys/")
    plane = World(store, tmp_path).plane()
    await known(plane)
    (old,) = await list_keys(store)
    store.somebody = lambda: erase_tenant(plane.engine, TENANT)
    with pytest.raises(Conflict, match="tenant_erased"):
        await rotate_key(plane.engine, old.id)
    (key,) = await list_keys(store)
    assert (key.id, key.revoked_us is not None) == (old.id, True)


async def test_a_key_that_goes_while_it_is_revoked_stops_no_erasure(tmp_path: Path) -> None:
    """Whoever made it too late takes it away. Seen to fail with `key_not_found` raised."""
    store = Overtaken(".revoked")
    plane = World(store, tmp_path).plane()
    await known(plane)
    (key,) = await list_keys(store)
    store.somebody = lambda: store.delete([f"control/keys/{key.id}.json"])
    assert (await erase_tenant(plane.engine, TENANT)).completed_us is not None
    assert await list_keys(store) == []


async def test_a_tenant_whose_erasure_fails_stops_no_other(world: World) -> None:
    """Seen to fail with the first error raised."""
    plane = world.plane()
    for tenant in ("acme", "beta"):
        await plane.write(tenant, puts([event(1)]), body_bytes=10)
        await begin(plane.engine, tenant)
    with world.faults.on("tenants/acme/", Mishap(lost="request"), "delete"):
        assert await finish_all(plane.engine) == Finished(1, 0, (("acme", "store_unavailable"),))
    assert await finish_all(plane.engine) == Finished(1, 0)


async def test_the_key_of_an_erased_tenants_hashes_goes(world: World) -> None:
    """Ids of erasures in the audit are hashes of entities under it. Seen to fail with the key kept."""
    plane = world.plane()
    await known(plane)
    key = (await load_head(world.inner, TENANT)).erasure_key
    await erase_tenant(plane.engine, TENANT)
    after = (await load_head(world.inner, TENANT)).erasure_key
    assert after not in ("", key)
    await finish_all(plane.engine)
    assert (await load_head(world.inner, TENANT)).erasure_key == after


async def test_so_does_that_of_a_tenant_that_was_empty_before(world: World) -> None:
    """An entity's erasure had left nothing. Seen to fail with its manifest taken for the tenant's: the key stayed."""
    plane = world.plane()
    await put_tenant(plane.engine, TENANT, TenantSettings())
    erasure = await start(plane.engine, TENANT, "acct-01")
    await fulfil(plane.engine, TENANT, erasure, build_day=build_day)
    key = (await load_head(world.inner, TENANT)).erasure_key
    assert entity_hash(entity_hash(key, "erased up to 0"), "acct-01") == erasure, "whoever has the key can guess"
    await erase_tenant(plane.engine, TENANT)
    after = await load_head(world.inner, TENANT)
    assert after.erasure_key not in ("", key)
    await finish_all(plane.engine)
    await plane.engine.store.put(f"tenants/{TENANT}/control/late", b"")
    await finish_all(plane.engine)
    assert await load_head(world.inner, TENANT) == after, "emptied once"


async def test_who_goes_on_with_an_erasure_has_not_asked_for_it(world: World) -> None:
    """Seen to fail with an entry for each who goes on, by a job that asked for nothing."""
    plane = world.plane()
    await known(plane)
    await begin(plane.engine, TENANT, actor=Actor("key-9"))
    await begin(plane.engine, TENANT, actor=Actor("key-8"))
    assert await finish_all(plane.engine, actor=JOB) == Finished(1, 0)
    calls = (await read_calls(world.inner, TENANT, limit=100)).calls
    asked = [(call.actor, call.counts) for call in calls if call.action == "tenant_erasure_request"]
    assert asked == [("key-9", {"filed": 1})]
    assert [call.actor for call in calls if call.action == "tenant_erasure"] == ["job"]


async def test_a_key_that_nobody_can_read_stops_no_erasure(world: World) -> None:
    """Neither one of a later version, which is revoked, nor what is no record at all. Seen to fail with all keys read
    before the first was revoked."""
    plane = world.plane()
    await known(plane)
    made = await create_key(plane.engine, tenant=TENANT, scopes=["read"])
    path = f"control/keys/{made.key.id}.json"
    later = orjson.loads(await world.inner.get(path)) | {"networks": ["10.0.0.0/8"]}
    await world.inner.put(path, orjson.dumps(later))
    for number, stored in enumerate((b"{}", b"[]", b"no JSON")):
        await world.inner.put(f"control/keys/{number:016x}.json", stored)
    assert (await erase_tenant(plane.engine, TENANT)).keys_revoked == 2
    revoked = await load_key(world.inner, made.key.id)
    assert revoked is not None
    assert revoked.revoked_us is not None


async def test_a_defect_stops_no_other_erasure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Seen to fail with errors of ours alone caught."""
    store = Overtaken("/batches/")
    plane = World(store, tmp_path).plane()
    for tenant in ("acme", "beta"):
        await plane.write(tenant, puts([event(1)]), body_bytes=10)
        await begin(plane.engine, tenant)

    async def defect() -> None:
        raise ValueError("a defect")

    store.somebody = defect
    assert await finish_all(plane.engine) == Finished(1, 0, (("acme", "internal"),))
    assert "ValueError: a defect" in caplog.text
    assert await finish_all(plane.engine) == Finished(1, 0)
