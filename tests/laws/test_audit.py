"""The audit: no act without an entry, every write once however old, and nothing of what was written."""

from __future__ import annotations

import asyncio
import random
import secrets
from pathlib import Path

import orjson
import pytest
import zstandard

from context_plane.access import create_key, list_keys, revoke_key, rotate_key
from context_plane.audit import Actor, AuditedBatch, Call, audited, keep_batches, read_batches, read_calls
from context_plane.catalog.head import newest_version
from context_plane.catalog.log import list_log
from context_plane.collect import collect
from context_plane.erasure_requests import request_erasure
from context_plane.errors import Conflict, Unavailable
from context_plane.fulfil import fulfil
from context_plane.ingest import GROUP_DAYS_MAX, GROUP_REQUESTS_MAX
from context_plane.layout.batch import DAY_US, HEADER_READ_BYTES, Origin, decode_header, encode
from context_plane.model import Delete, add_days, day_start_us, sha256_hex
from context_plane.plane import Plane
from context_plane.reindex import build_day
from context_plane.store.faults import Mishap
from context_plane.tenants import TenantSettings, put_tenant
from tests.laws.plane_world import DAY, TENANT, Clock, World, delete_of, event, month_of, puts
from tests.store.dictionary import DictStore

ONE, OTHER = Actor("0" * 16, "a" * 16), Actor("1" * 16, "b" * 16)


async def every_batch(plane: Plane, limit: int = 1_000) -> list[AuditedBatch]:
    found: list[AuditedBatch] = []
    after = 0
    while True:
        page = await read_batches(plane.engine.store, TENANT, after=after, limit=limit)
        assert len(page.batches) <= limit
        found += page.batches
        if page.next_after is None:
            return found
        after = page.next_after


async def every_call(plane: Plane, tenant: str | None = TENANT) -> list[Call]:
    return list((await read_calls(plane.engine.store, tenant, limit=1_000)).calls)


async def test_a_batch_tells_which_requests_it_joined(world: World) -> None:
    """Seen to fail with the origins of the first request of a group alone."""
    plane = world.plane()
    first, second = puts([event(1), event(2), event(2)]), [*puts([event(3)]), delete_of(event(4))]
    await asyncio.gather(
        plane.write(TENANT, first, body_bytes=100, actor=ONE), plane.write(TENANT, second, body_bytes=100, actor=OTHER)
    )
    (batch,) = await every_batch(plane)
    assert (batch.batch, batch.writes) == (1, 4)
    assert batch.requests == (Origin(ONE.name, ONE.request, 2, 0), Origin(OTHER.name, OTHER.request, 2, 1))


async def test_every_write_is_told_once_whatever_was_collected(tmp_path: Path) -> None:
    """Built batches leave the log, some after a crash between keeping and deleting; pages of any size tell the same.

    Seen to fail with nothing kept, with what is kept and still in the log told twice, and with pages that end where
    what is kept does."""
    world = World(DictStore(), tmp_path, clock=Clock(day_start_us("2026-04-10")))
    assert world.clock is not None
    plane = world.plane()
    for n in range(5):
        await plane.write(TENANT, puts([event(n)]), body_bytes=10, actor=Actor(f"key-{n}"))
    await plane.build(TENANT, [DAY])
    before = await every_batch(plane)
    assert [(each.batch, each.requests[0].actor) for each in before] == [(n + 1, f"key-{n}") for n in range(5)]
    await keep_batches(plane.engine.store, TENANT, (await list_log(plane.engine.store, TENANT, after=0))[:2])
    assert await every_batch(plane) == before
    world.clock.now_us += 3 * 86_400_000_000
    await collect(plane.engine, TENANT, dry_run=False)
    assert await list_log(plane.engine.store, TENANT, after=0) == []
    await plane.write(TENANT, puts([event(9)]), body_bytes=10, actor=ONE)
    whole = await every_batch(plane)
    assert whole[:-1] == before
    assert whole[-1].requests == (Origin(ONE.name, ONE.request, 1, 0),)
    for limit in range(1, 7):
        assert await every_batch(plane, limit) == whole, limit


async def test_a_dry_run_of_a_collection_keeps_nothing(tmp_path: Path) -> None:
    world = World(DictStore(), tmp_path, clock=Clock(day_start_us("2026-04-10")))
    plane = world.plane()
    await plane.write(TENANT, puts([event(1)]), body_bytes=10)
    await plane.build(TENANT, [DAY])
    before = dict(world.inner.objects)  # type: ignore[attr-defined]  # a dict's objects
    await collect(plane.engine, TENANT)
    assert world.inner.objects == before  # type: ignore[attr-defined]


async def test_runs_of_kept_batches_are_apart(world: World) -> None:
    """A gap is a batch that stays. Seen to fail (2 comes after 3, past the cursor) with one object for all."""
    plane = world.plane()
    for n in range(4):
        await plane.write(TENANT, puts([event(n)]), body_bytes=10)
    log = await list_log(plane.engine.store, TENANT, after=0)
    await keep_batches(plane.engine.store, TENANT, [log[0], *log[2:]])
    await keep_batches(plane.engine.store, TENANT, [log[1]])
    await plane.engine.store.delete([f"tenants/{TENANT}/log/{item.number:020d}.jsonl.zst" for item in log])
    assert [each.batch for each in await every_batch(plane, 1)] == [1, 2, 3, 4]


async def test_a_window_is_that_of_the_writes(world: World) -> None:
    """Seen to fail with the end of the window included."""
    clock = Clock(day_start_us("2026-04-10"))
    world.clock = clock
    plane = world.plane()
    at = []
    for n in range(4):
        at.append(clock.now_us)
        await plane.write(TENANT, puts([event(n)]), body_bytes=10)
        async with audited(plane.engine, TENANT, ONE, "tenant_put"):
            pass
        clock.advance(60)
    store = plane.engine.store
    calls = await read_calls(store, TENANT, since_us=at[1], until_us=at[3], limit=10)
    assert [call.at_us for call in calls.calls] == at[1:3]
    first = await read_calls(store, TENANT, since_us=at[1], limit=1)
    assert first.next_after is not None
    rest = await read_calls(store, TENANT, after=first.next_after, limit=10)
    assert [call.at_us for call in (*first.calls, *rest.calls)] == at[1:]
    # a dict does not know when its objects were written
    page = await read_batches(store, TENANT, until_us=at[2], limit=10)
    assert [each.at_us for each in page.batches] == at[:2]


async def test_no_act_without_an_entry(world: World) -> None:
    """Where the entry can not be written nothing is done. Seen to fail with the entry written afterwards."""
    plane = world.plane()
    with world.faults.on("control/audit/", Mishap(lost="request"), "put"), pytest.raises(Unavailable):
        await create_key(plane.engine, tenant=TENANT, scopes=["read"])
    assert await list_keys(plane.engine.store) == []


async def test_an_entry_tells_how_it_ended(world: World) -> None:
    """Seen to fail with the entry left as it was begun, and with errors that are not ours left out."""
    plane = world.plane()
    async with audited(plane.engine, TENANT, ONE, "erasure", subject="e") as counts:
        counts["objects"] = 3
        (begun,) = await every_call(plane)
    for error in (Conflict("commit_conflict", "lost"), ValueError("a defect that names acct-01")):
        with pytest.raises(type(error)):
            async with audited(plane.engine, TENANT, OTHER, "tenant_put"):
                raise error
    assert begun.outcome == "begun"
    done, failed, broken = await every_call(plane)
    assert done == begun.model_copy(update={"outcome": "done", "counts": {"objects": 3}})
    assert [(each.outcome, each.code) for each in (failed, broken)] == [
        ("failed", "commit_conflict"),
        ("failed", "internal"),
    ]
    assert (done.actor, done.request, done.subject) == (ONE.name, ONE.request, "e")


async def test_an_entry_whose_end_is_lost_stays_begun(world: World) -> None:
    """The act is done: its caller must not be told that it failed. Seen to fail with the error raised."""
    plane = world.plane()
    async with audited(plane.engine, TENANT, ONE, "tenant_put"):
        world.faults.rules.append((frozenset({"put"}), "control/audit/", Mishap(lost="request"), [1]))
    assert [call.outcome for call in await every_call(plane)] == ["begun"]


async def test_keys_and_erasures_are_audited_and_no_entity_is_named(world: World) -> None:
    """In no object of the store at all. Seen to fail with the entity as the subject of an erasure."""
    plane = world.plane()
    await plane.write(TENANT, puts(month_of(2, entities=2)), body_bytes=10, actor=ONE)
    await plane.build(TENANT, [DAY, add_days(DAY, 1)])
    made = await create_key(plane.engine, tenant=TENANT, scopes=["read"], actor=ONE)
    new = await rotate_key(plane.engine, made.key.id, actor=ONE)
    for _ in range(2):  # the second finds it done
        await revoke_key(plane.engine, made.key.id, actor=OTHER)
    await create_key(plane.engine, tenant=None, scopes=["admin"], actor=ONE)
    erasure = await request_erasure(plane.engine, TENANT, "acct-01", actor=OTHER)
    assert not (await fulfil(plane.engine, TENANT, erasure, build_day=build_day, actor=ONE)).problems
    calls = await every_call(plane)
    assert sorted((call.action, call.subject, call.actor) for call in calls) == sorted(
        [
            ("key_create", made.key.id, ONE.name),
            ("key_create", new.key.id, ONE.name),
            ("key_rotate", made.key.id, ONE.name),
            ("key_revoke", made.key.id, OTHER.name),
            ("erasure_request", erasure, OTHER.name),
            ("erasure", erasure, ONE.name),
        ]
    )
    assert {call.outcome for call in calls} == {"done"}
    assert [call.action for call in await every_call(plane, None)] == ["key_create"]
    (erased,) = [call for call in calls if call.action == "erasure"]
    assert erased.counts["batches_redacted"] == 1
    (batch,) = await every_batch(plane)
    assert (batch.writes, batch.requests) == (0, (Origin(ONE.name, ONE.request, 4, 0),)), "emptied, and still told"
    audit = [info.key async for info in plane.engine.store.list("control/audit/")]
    assert len(audit) == 7
    for key in audit:
        assert b"acct-01" not in await plane.engine.store.get(key)


async def test_a_rotation_that_stops_between_its_two_records_says_so(world: World) -> None:
    """The new key is there, whoever has its token. Seen to fail with both entries closed by the end of both."""
    plane = world.plane()
    old = (await create_key(plane.engine, tenant=TENANT, scopes=["read"])).key
    with world.faults.on("control/keys/", Mishap(lost="request"), "put"), pytest.raises(Unavailable):
        await rotate_key(plane.engine, old.id)
    (new,) = [key for key in await list_keys(world.inner) if key != old]
    assert sorted((call.action, call.subject, call.outcome) for call in (await every_call(plane))[1:]) == [
        ("key_create", new.id, "done"),
        ("key_rotate", old.id, "failed"),
    ]


async def test_of_two_who_revoke_a_key_one_has(world: World) -> None:
    """Seen to fail with nothing counted."""
    plane = world.plane()
    key = (await create_key(plane.engine, tenant=TENANT, scopes=["read"])).key
    await asyncio.gather(*(revoke_key(plane.engine, key.id, actor=actor) for actor in (ONE, OTHER)))
    calls = [call for call in await every_call(plane) if call.action == "key_revoke"]
    assert sorted(call.counts["revoked"] for call in calls) == [0, 1]


async def test_a_full_group_fits_the_first_range_of_a_header() -> None:
    """Random ids and days compress worst. Seen to fail with groups of as many requests as may wait, and with as many
    days as a request has."""
    rng = random.Random(7)
    origins = [Origin(secrets.token_hex(8), secrets.token_hex(8), 10_000, 9_999) for _ in range(GROUP_REQUESTS_MAX)]
    requests = [sha256_hex(secrets.token_bytes(8)) for _ in range(GROUP_REQUESTS_MAX)]
    days = [day for day in rng.sample(range(22_000), GROUP_DAYS_MAX) for _ in range(rng.randrange(1, 40))]
    writes = [Delete("acct-01", day * DAY_US, "e") for day in days]
    stored = encode(writes, writer="w", created_us=1, visible="now", requests=requests, origins=origins)
    header, offset = decode_header(stored)
    assert offset < HEADER_READ_BYTES * 2 // 3
    assert (header.origins, len(header.days)) == (tuple(origins), GROUP_DAYS_MAX)


def test_a_header_without_origins_is_as_it_was() -> None:
    """Processes of before them read it. Seen to fail with an empty list in it."""
    stored = encode(puts([event(1)]), writer="w", created_us=1, visible="now")
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(stored)
    assert "origins" not in orjson.loads(raw)
    assert decode_header(stored)[0].origins == ()


async def test_no_model_is_bound_without_its_entry(world: World) -> None:
    """The name of a model in the settings commits a manifest. Seen to fail with the model bound before the entry."""
    plane = world.plane()
    settings = TenantSettings(model=plane.engine.embedder.model)
    with world.faults.on("control/audit/", Mishap(lost="request"), "put"), pytest.raises(Unavailable):
        await put_tenant(plane.engine, TENANT, settings)
    assert await newest_version(plane.engine.store, TENANT) == 0
    await put_tenant(plane.engine, TENANT, settings)
    assert await newest_version(plane.engine.store, TENANT) == 1
