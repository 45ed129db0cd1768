"""Law 1: what was acknowledged is durable, and written once."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest

from context_plane import fold, ingest
from context_plane.audit import Actor
from context_plane.catalog.log import LogObject, list_log
from context_plane.catalog.tail import TAIL_OBJECTS_MAX, read_headers
from context_plane.errors import Conflict, Invalid, PlaneError, Unavailable
from context_plane.idempotency import ABANDONED_US, KEEP_US
from context_plane.ingest import GAUGE_AGE_MAX_S, GROUP_REQUESTS_MAX, Accepted
from context_plane.layout.batch import BATCH_RAW_BYTES_MAX, DAY_US, BatchHeader
from context_plane.model import VECTOR_DIM_MAX, Delete, sha256_hex
from context_plane.plane import Plane
from context_plane.store import Store
from context_plane.store.faults import Mishap
from tests.laws.plane_world import BEACON, DAY, TENANT, Clock, World, event, ids, puts
from tests.store.dictionary import DictStore

LOST = Mishap(lost="response")
UNSENT = Mishap(lost="request")


async def keyed(plane: Plane, key: str, *numbers: int, body: str = "b") -> Accepted:
    return await plane.write(
        TENANT, puts(event(n) for n in numbers), body_bytes=100, idempotency_key=key, body_digest=body
    )


def batches(world: World) -> list[str]:
    return [key for key in world.inner.objects if "/log/" in key]  # type: ignore[attr-defined]  # a DictStore


@pytest.mark.parametrize("mishap", [LOST, UNSENT])
async def test_a_lost_log_create_is_settled_and_acknowledged_once(world: World, mishap: Mishap) -> None:
    """Seen to fail with `_create` of the log taking a lost response for a failure (a second batch appears)."""
    plane = world.plane()
    with world.faults.on("/log/", mishap, "put_new", times=1):
        accepted = await world.write(plane, puts([event(1)]))
    assert len(batches(world)) == 1
    assert accepted.batch == 1
    assert await ids(world.plane()) == ["e1"]


async def test_a_listing_that_misses_a_batch_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that grows while it is read may show a batch and not the one before.

    Seen to fail with `load_pending` taking every listed batch: the day was covered up to the third.
    """
    plane = world.plane()
    for n in (1, 2, 3):
        await world.write(plane, puts([event(n)]))

    async def gapped(store: Store, tenant: str, *, after: int) -> list[LogObject]:
        return [item for item in await list_log(store, tenant, after=after) if item.number != 2]

    with monkeypatch.context() as patch:
        patch.setattr(fold, "list_log", gapped)
        await plane.build(TENANT, [DAY])
    assert await ids(world.plane()) == ["e1", "e2", "e3"]
    await plane.build(TENANT, [DAY])
    assert await ids(world.plane()) == ["e1", "e2", "e3"]
    assert not (await plane.snapshot_info(TENANT)).dirty_days


async def test_a_refused_append_is_not_acknowledged_and_its_retry_is(world: World) -> None:
    """Seen to fail with `_drain` answering requests before `_append` returned."""
    plane = world.plane()
    with world.faults.on("/log/", UNSENT, "put_new"), pytest.raises(Unavailable):
        await world.write(plane, puts([event(1)]))
    assert not batches(world)
    await world.write(plane, puts([event(1)]))
    assert await ids(world.plane()) == ["e1"]


async def test_each_request_is_acknowledged_by_a_batch_that_holds_it(world: World) -> None:
    """Group commit: forty requests at once need few objects, and each answer's snapshot shows its events.

    Seen to fail with `_drain` answering a group with the number before its own.
    """
    plane = world.plane()
    answers = await asyncio.gather(*(world.write(plane, puts([event(n)])) for n in range(40)))
    assert len(batches(world)) <= 3
    reader = world.plane()
    for n in (0, 7, 39):
        assert f"e{n}" in await ids(reader, snapshot=answers[n].snapshot)
    assert len({answer.batch for answer in answers}) == len(batches(world))


async def every_header(world: World) -> list[BatchHeader]:
    """Read as every read of the tenant begins. Raises `Corrupt`."""
    batches = await read_headers(world.inner, TENANT, await list_log(world.inner, TENANT, after=0))
    return [batch.header for batch in batches]


async def test_a_group_ends_before_its_header_is_longer_than_what_is_read_of_it(world: World) -> None:
    """As many keyed requests as may be joined, a hundred days each. Seen to fail with groups that end by requests and
    bytes alone: all are refused, and without the limit of `encode` no read of the tenant passes."""
    plane, rng = world.plane(), random.Random(7)

    async def load(n: int) -> None:
        writes = [Delete("acct-01", day * DAY_US, f"e{n}") for day in rng.sample(range(20_000), 100)]
        actor = Actor(rng.randbytes(8).hex(), rng.randbytes(8).hex())
        await plane.ingest.write(TENANT, writes, body_bytes=10_000, key_hash=sha256_hex(rng.randbytes(8)), actor=actor)

    await asyncio.gather(*(load(n) for n in range(GROUP_REQUESTS_MAX)))
    headers = await every_header(world)
    assert sum(len(header.requests) for header in headers) == GROUP_REQUESTS_MAX
    assert sum(header.writes for header in headers) == GROUP_REQUESTS_MAX * 100


async def test_a_request_of_a_day_for_each_event_is_read_and_one_of_more_days_is_never_written(world: World) -> None:
    """The service takes 10,000 events in a request; whoever writes without it may send any number. Seen to fail, with
    the tenant unreadable, without the limit of `encode`."""
    plane, rng = world.plane(), random.Random(7)
    days = [rng.sample(range(22_000), 10_000), rng.sample(range(600_000), 40_000)]
    largest, beyond = ([Delete("acct-01", day * DAY_US, "e") for day in chosen] for chosen in days)
    with pytest.raises(Invalid, match="body_too_large"):
        await plane.write(TENANT, beyond, body_bytes=1_000_000)
    assert (await plane.write(TENANT, largest, body_bytes=1_000_000)).batch == 1
    assert [len(header.days) for header in await every_header(world)] == [10_000]


async def test_requests_are_joined_by_what_they_become(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the largest bodies, of vectors of one-digit numbers: stored, each is 8/3 of that, and both are more than a
    batch holds. Seen to fail with groups by the bodies' bytes: neither was written."""
    monkeypatch.setattr(ingest, "INLINE_WRITES_MAX", 10_000)  # on the loop, so both wait when the group is taken
    monkeypatch.setattr(ingest, "INLINE_BYTES_MAX", 16 * 1024 * 1024)
    plane, vector = world.plane(), np.ones(VECTOR_DIM_MAX, np.float32)
    loads = [puts(event(n, id=f"{part}{n}", text="", vector=vector) for n in range(2_000)) for part in "ab"]
    answers = await asyncio.gather(*(plane.write(TENANT, load, body_bytes=16 * 1024 * 1024) for load in loads))
    assert [answer.batch for answer in answers] == [1, 2]
    assert [header.writes for header in await every_header(world)] == [2_000, 2_000]
    assert all(header.raw_bytes > BATCH_RAW_BYTES_MAX // 2 for header in await every_header(world))


async def test_the_same_key_again_is_answered_alike_and_written_once(world: World) -> None:
    """From this process, and from another. Seen to fail with the replay's snapshot made of version 0."""
    plane = world.plane()
    await keyed(plane, "other", 1)
    await plane.build(TENANT, ["2026-03-01"])
    first = await keyed(plane, "k", 2, 3, 3)
    assert await keyed(plane, "k", 2, 3, 3) == first
    assert await keyed(world.plane(), "k", 2, 3, 3) == first
    assert first.duplicates == 1
    assert len(batches(world)) == 2
    assert await ids(plane, snapshot=first.snapshot) == ["e1", "e2", "e3"]
    with pytest.raises(Invalid) as refused:
        await keyed(plane, "k", 4, body="another")
    assert refused.value.code == "idempotency_key_reused"


async def test_a_retry_after_a_crash_between_append_and_result_finds_the_batch(world: World) -> None:
    """Seen to fail with the batch's header not naming its requests' keys: the retry is told to wait."""
    plane = world.plane()
    with world.faults.on(".result", UNSENT, "put"):
        first = await keyed(plane, "k", 1)
    assert not any(key.endswith(".result") for key in world.inner.objects)  # type: ignore[attr-defined]  # a DictStore
    assert await keyed(world.plane(), "k", 1) == first
    assert len(batches(world)) == 1


async def test_a_lost_claim_does_not_shut_its_maker_out(world: World) -> None:
    """Seen to fail with `_create` of the claim not reading back what became of it."""
    with world.faults.on(".claim", LOST, "put_new", times=1):
        await keyed(world.plane(), "k", 1)
    assert len(batches(world)) == 1


async def test_concurrent_requests_of_one_key_append_once(world: World) -> None:
    """Two processes at once: one writes; the other is told to come back, and then gets the same answer.

    Seen to fail with the claim written by `put` instead of `put_new`.
    """
    planes = [world.plane() for _ in range(3)]
    answers = await asyncio.gather(*(keyed(plane, "k", 1) for plane in planes), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, PlaneError)]
    assert {error.code for error in refused} <= {"idempotency_in_progress"}
    assert len(batches(world)) == 1
    agreed = {(await keyed(plane, "k", 1)).batch for plane in planes}
    assert agreed == {answer.batch for answer in answers if isinstance(answer, Accepted)}


@pytest.mark.parametrize("age_us", [ABANDONED_US, KEEP_US + 1])
async def test_concurrent_retries_of_an_old_claim_append_once(timed: World, age_us: int) -> None:
    """Its maker died before the append, or a day has passed. Seen to fail with claims that are overwritten."""
    assert timed.clock is not None
    plane = timed.plane()
    with timed.faults.on("/log/", UNSENT, "put_new"), pytest.raises(Unavailable):
        await keyed(plane, "k", 1)
    with pytest.raises(Conflict, match="under way"):
        await keyed(plane, "k", 1)
    timed.clock.advance(age_us / 1e6)
    planes = [timed.plane() for _ in range(3)]
    answers = await asyncio.gather(*(keyed(plane, "k", 1) for plane in planes), return_exceptions=True)
    assert sum(isinstance(answer, Accepted) for answer in answers) >= 1
    assert len(batches(timed)) == 1


async def test_a_result_that_outlives_its_claim_answers_no_later_request(timed: World) -> None:
    """Each is collected by itself. Seen to fail with the result believed whoever made it: a lost write was answered."""
    assert timed.clock is not None
    plane = timed.plane()
    first = await keyed(plane, "k", 1)
    claims = [info.key async for info in timed.inner.list(f"tenants/{TENANT}/control/") if info.key.endswith(".claim")]
    await timed.inner.delete(claims)
    timed.clock.advance(26 * 3600)
    with timed.faults.on("/log/", UNSENT, "put_new"), pytest.raises(Unavailable):
        await keyed(plane, "k", 1)
    timed.clock.advance(ABANDONED_US / 1e6 + 1)
    again = await keyed(plane, "k", 1)
    assert again.batch == first.batch + 1
    assert len(batches(timed)) == 2
    assert await keyed(timed.plane(), "k", 1) == again


class Slow(DictStore):
    """The first create of a log batch waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.go = asyncio.Event(), asyncio.Event()

    async def put_new(self, key: str, data: bytes) -> None:
        if "/log/" in key and not self.waits.is_set():
            self.waits.set()
            await self.go.wait()
        await super().put_new(key, data)


async def test_a_write_that_was_held_up_does_not_follow_its_retry(tmp_path: Path) -> None:
    """Its claim counts as abandoned by then. Seen to fail with the next number tried however late: a second batch."""
    store = Slow()
    world = World(store, tmp_path, clock=Clock())
    assert world.clock is not None
    held = asyncio.create_task(keyed(world.plane(), "k", 1))
    await store.waits.wait()
    world.clock.advance(ABANDONED_US / 1e6 + 1)
    again = await keyed(world.plane(), "k", 1)
    store.go.set()
    with pytest.raises(Unavailable, match="deadline_exceeded"):
        await held
    assert len(batches(world)) == 1
    assert await keyed(world.plane(), "k", 1) == again


async def test_a_full_tail_refuses_before_it_writes_and_opens_after_a_build(timed: World) -> None:
    """Bulk loads still pass; a refused key may be used again at once. Seen to fail without the claim given back."""
    assert timed.clock is not None
    plane = timed.plane()
    for n in range(TAIL_OBJECTS_MAX):
        await timed.write(plane, puts([event(n)]))
    with pytest.raises(Unavailable) as refused:
        await keyed(plane, "k", 900)
    assert refused.value.code == "tail_full"
    with pytest.raises(Unavailable, match="batches wait"):
        await timed.write(timed.plane(), puts([event(901)]))
    assert len(batches(timed)) == TAIL_OBJECTS_MAX
    await timed.write(plane, puts([event(902)]), visible="after_build")
    await plane.build(TENANT, timed.days())
    timed.clock.advance(GAUGE_AGE_MAX_S)
    await keyed(plane, "k", 900)
    assert len(await ids(plane)) == TAIL_OBJECTS_MAX + 2


async def test_bulk_loads_stay_out_of_the_searched_tail_and_are_built(world: World) -> None:
    """Seen to fail with `load_tail` reading every pending batch."""
    plane = world.plane()
    await world.write(plane, puts([event(1)]))
    await world.write(plane, puts([event(2)]), visible="after_build")
    assert await ids(world.plane()) == ["e1"]
    await plane.build(TENANT, world.days())
    assert await ids(world.plane()) == ["e1", "e2"]


async def test_a_process_remembers_a_bounded_number_of_tenants(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that it forgot is written to as before, and nobody who waits is forgotten. Seen to fail with plain dicts, and
    with lanes that stay when nobody waits in them."""
    monkeypatch.setattr(ingest, "TENANTS_KNOWN", 2)
    plane = world.plane()
    for batch in (1, 2):
        answers = await asyncio.gather(
            *(plane.write(f"tenant-{n}", puts([event(batch)]), body_bytes=100) for n in range(6))
        )
        assert [answer.batch for answer in answers] == [batch] * 6
    assert (len(plane.ingest._gauges), len(plane.ingest._heads), len(plane.ingest._lanes)) == (2, 2, 0)


async def test_a_process_that_slept_through_many_appends_appends_at_once(world: World) -> None:
    """Seen to fail with the log's head learned only from own appends: it would try every number since."""
    sleeper, busy = world.plane(), world.plane()
    await world.write(sleeper, puts([event(1)]))
    for n in range(2, 30):
        await world.write(busy, puts([event(n)]))
    sleeper.ingest._gauges.clear()  # as if two seconds had passed
    before = sleeper.store.total.puts
    await world.write(sleeper, puts([event(99)]))
    assert sleeper.store.total.puts - before == 1
    assert len(await ids(world.plane(), BEACON)) == 30
