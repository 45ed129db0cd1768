"""What the client reads between cuts and of one: changes, exports, the inputs of a bundle; and how new a read is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import httpx
import orjson
import pytest

from context_plane.client import AsyncClient, Client, methods
from context_plane.errors import NotFound, Unavailable
from tests.client.live import DAY, Face, Live, Lose, Shorten, event

LONG = "the export fails. " * 2000
"""Two of them fill a part of a streamed answer."""


async def test_changes_are_read_page_by_page(
    ask: Face, live: Live, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen not to end with a cursor that is not sent on."""
    monkeypatch.setattr(methods, "PAGE_CHANGES", 2)
    await ask("write", [event(1)])
    live.build(tenant, DAY)
    before = (await ask("snapshot")).snapshot
    assert await ask("changes", before) == []
    await ask("write", [event(n, f"acct-{n}") for n in range(1, 6)])
    now = (await ask("snapshot")).snapshot
    await ask("write", [event(9, "acct-9")])
    live.door.seen.clear()
    found = await ask("changes", before, snapshot=now)
    assert [(each.entity, each.changed) for each in found] == [(f"acct-{n}", "events") for n in range(1, 6)]
    assert len(live.door.seen) == 3
    assert [each.entity for each in await ask("changes", now)] == ["acct-9"]
    assert len(await ask("changes", before, limit=3)) == 3
    live.build(tenant, DAY)
    found = await ask("changes", now)
    assert {(each.spec, each.as_of) for each in found if each.changed == "bundle"} == {("customer_context_v0", DAY)}


async def test_an_export_is_every_event_of_its_cut_and_can_be_written_again(ask: Face, live: Live, tenant: str) -> None:
    """Seen to fail with the window left out."""
    await ask("write", [event(n, "a/b", text="line\u2028 feed") for n in range(3)])
    cut = (await ask("snapshot")).snapshot
    await ask("write", [event(9)])
    found = await ask("export", snapshot=cut)
    assert [(each["entity"], each["id"], each["text"]) for each in found] == [
        ("a/b", f"e{n}", "line\u2028 feed") for n in range(3)
    ]
    assert len(await ask("export")) == 4
    assert [each["id"] for each in await ask("export", since=event(1)["ts"], until=event(9)["ts"])] == ["e1", "e2"]
    await ask("delete", [("a/b", event(0)["ts"], "e0")])
    assert (await ask("write", found)).accepted == 3
    assert await ask("export", snapshot=(await ask("snapshot")).snapshot, until=event(9)["ts"]) == found


async def test_an_export_gives_its_events_as_they_come_and_raises_where_it_breaks_off(live: Live, tenant: str) -> None:
    """Seen to fail with what breaks a stream taken for its end."""
    with Client(live.url, tenant) as client:
        client.write([event(n, text=LONG) for n in range(6)])
        live.door.faults += [Lose(parts=1)]
        given = _ids(client)
        assert next(given) == "e0"
        with pytest.raises(Unavailable, match="broke off; name a snapshot"):
            list(given)
        assert list(_ids(client)) == [f"e{n}" for n in range(6)]
    async with AsyncClient(live.url, tenant) as asynchronous:
        live.door.faults += [Lose(parts=1)]
        stream = asynchronous.export()
        assert (await anext(stream))["id"] == "e0"
        with pytest.raises(Unavailable, match="broke off"):
            [each async for each in stream]


async def test_a_stream_that_ends_inside_a_line_broke_off(ask: Face, live: Live) -> None:
    """Seen to fail (JSONDecodeError) with the line read as it is."""
    await ask("write", [event(1)])
    live.door.faults += [Shorten(40)]
    with pytest.raises(Unavailable, match="broke off"):
        await ask("export")


async def test_who_closes_a_listing_early_gives_its_connection_back(live: Live, tenant: str) -> None:
    """When it is closed, not when it is collected. Seen to fail with the lines inside left open."""
    async with AsyncClient(live.url, tenant) as client:
        await client.write([event(n, text=LONG) for n in range(6)])
        async with aclosing(client.export()) as stream:
            assert (await anext(stream))["id"] == "e0"
            assert _taken(client) == 1
        assert _taken(client) == 0


def _taken(client: AsyncClient) -> int:
    """Connections of the pool that carry a request."""
    transport = client._http._transport
    assert isinstance(transport, httpx.AsyncHTTPTransport)
    return sum(not (each.is_idle() or each.is_closed()) for each in transport._pool.connections)


def _ids(client: Client) -> Iterator[Any]:
    return (each["id"] for each in client.export())


async def test_an_export_whose_last_line_is_an_error_raises_it(
    ask: Face, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with that line given as an event."""
    await ask("write", [event(1)])
    plane = live.app.state.service.plane
    whole = type(plane).export

    async def broken(*args: Any, **kwargs: Any) -> Any:
        snapshot, events = await whole(*args, **kwargs)

        async def some() -> Any:
            async for each in events:
                yield each
            raise Unavailable("store_unavailable", "the store went away")

        return snapshot, some()

    monkeypatch.setattr(type(plane), "export", broken)
    with pytest.raises(Unavailable, match="store_unavailable"):
        await ask("export")


async def test_a_bundle_leads_to_its_inputs(ask: Face, live: Live, tenant: str) -> None:
    """By the digest of either form. Seen to fail with the text's tag taken for the digest."""
    await ask("write", [event(1)])
    live.build(tenant, DAY)
    for form in ("json", "text"):
        bundle = await ask("context", "acct-1", format=form)
        why = await ask("why", bundle.digest, entity="acct-1", spec="customer_context_v0", as_of=DAY)
        assert why == await ask("why", bundle.digest, snapshot=bundle.snapshot)
        assert (why.digest, why.entity, why.as_of) == (bundle.digest, "acct-1", DAY)
        assert [(each.day, each.events) for each in why.segments] == [(DAY, 1)]
        assert {(each.id, each.ts) for each in why.citations} == {("e1", event(1)["ts"])}
    with pytest.raises(NotFound, match="bundle_not_found"):
        await ask("why", "0" * 64)


@pytest.mark.parametrize(
    ("method", "taken"),
    [
        ("context", ["acct-1"]),
        ("context_on_demand", ["acct-1", "export"]),
        ("contexts", [["acct-1"]]),
        ("search", ["export"]),
        ("timeline", ["acct-1"]),
        ("entities", []),
    ],
)
async def test_every_read_of_the_newest_cut_takes_its_consistency(
    ask: Face, live: Live, tenant: str, method: str, taken: list[Any]
) -> None:
    """Seen to fail with it left out of each."""
    await ask("write", [event(1)])
    live.build(tenant, DAY)
    for consistency in ("strong", "eventual", None):
        assert await ask(method, *taken, consistency=consistency)
        seen = live.door.seen[-1]
        sent = orjson.loads(seen.body) if seen.body else dict(part.split("=") for part in seen.query.split("&"))
        assert sent.get("consistency") == consistency
