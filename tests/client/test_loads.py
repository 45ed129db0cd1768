"""Loads of any length, through both faces of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from context_plane.client import AsyncClient, Client, Ingested, requests, values
from tests.client.live import DAY, Face, Live, event


async def test_a_load_of_any_length_keeps_within_the_limits(
    ask: Face, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By count and by size, in order. Seen to fail with the last events left behind."""
    monkeypatch.setattr(requests, "EVENTS_MAX", 3)
    told: list[Ingested] = []
    total = await ask("ingest", (event(n) for n in range(8)), progress=told.append)
    assert [(each.events, each.requests) for each in told] == [(3, 1), (6, 2), (8, 3)]
    assert total == told[-1]
    assert total.bytes_sent == sum(len(seen.body) for seen in live.door.seen)
    assert total.days == {DAY}
    assert len(await ask("timeline", "acct-1")) == 8
    monkeypatch.setattr(requests, "BATCH_BYTES", 100)
    assert (await ask("ingest", [event(n) for n in range(2)])).requests == 2
    assert await ask("ingest", []) == Ingested()


async def test_a_named_load_is_written_once(ask: Face, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with a random name for every load."""
    monkeypatch.setattr(requests, "EVENTS_MAX", 2)
    for _ in range(2):
        await ask("ingest", [event(n) for n in range(4)], run="march")
    keys = [seen.headers["idempotency-key"] for seen in live.door.seen]
    assert len(set(keys)) == 2
    assert keys[:2] == keys[2:]
    assert (await ask("snapshot")).pending_log_objects == 2
    await ask("ingest", [event(n) for n in range(4)])
    assert (await ask("snapshot")).pending_log_objects == 4


async def test_a_load_goes_on_as_a_bulk_load_under_the_same_name(ask: Face) -> None:
    """As one does that a full tail stopped. Seen to fail (422) with a key that leaves `visible` out."""
    rows = [event(n) for n in range(4)]
    await ask("ingest", rows, run="march")
    assert (await ask("ingest", rows, run="march", visible="after_build")).events == 4
    assert len(await ask("timeline", "acct-1")) == 4


async def test_a_load_is_read_as_it_is_sent(live: Live, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read ahead of what was durable. Seen to fail with a list made of the iterator."""
    monkeypatch.setattr(requests, "EVENTS_MAX", 2)
    durable: list[int] = []

    def rows() -> Iterator[values.Event]:
        for number in range(6):
            durable.append(len(live.door.seen))
            yield event(number)

    async def arows() -> AsyncIterator[values.Event]:
        for made in rows():
            yield made

    with Client(live.url, tenant) as client:
        client.ingest(rows())
    assert durable == [0, 0, 1, 1, 2, 2]
    durable.clear()
    live.door.seen.clear()
    async with AsyncClient(live.url, tenant) as asynchronous:
        await asynchronous.ingest(arows())
    assert durable == [0, 0, 1, 1, 2, 2]
