"""Export over HTTP: every event of one cut, as lines that can be written again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from context_plane import export
from context_plane.errors import Unavailable
from context_plane.export import export_events
from context_plane.recall.tail_view import TailView
from context_plane.retrieval import snapshots
from context_plane.store.base import Store
from tests.serving.conftest import DAY, NDJSON, Served, event

NEXT = "2026-03-05"


async def lines(served: Served, tenant: str = "acme", **params: Any) -> list[dict[str, Any]]:
    response = await served.client.get(f"/v1/tenants/{tenant}/export", params=params)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [orjson.loads(line) for line in response.content.splitlines()]


@pytest.fixture
async def built(served: Served) -> Served:
    dim = served.service.plane.engine.embedder.dim
    await served.write(*(event(f"acct-{n % 3}", id=f"e{n}", ts=f"{DAY}T0{n}:00:00Z", attrs={"n": n}) for n in range(8)))
    await served.write(event("acct-1", id="own", ts=f"{NEXT}T01:00:00Z", vector=[0.5] * dim))
    await served.service.plane.build("acme", [DAY, NEXT], specs=[])
    await served.write(event("acct-1", "rewritten", id="e1", ts=f"{DAY}T01:00:00Z"))
    await served.post("/events:delete", {"events": [{"entity": "acct-2", "ts": f"{DAY}T00:00:00Z", "id": "e2"}]})
    return served


async def test_an_export_written_into_another_tenant_reads_the_same(built: Served) -> None:
    """Vectors and unbuilt writes included. Seen to fail with vectors left out, and with deletes of the tail."""
    whole = await lines(built)
    assert [one["id"] for one in whole] == ["e0", "e3", "e6", "e1", "e4", "e7", "e5", "own"]
    assert whole[3]["text"] == "rewritten"
    assert len(whole[-1]["vector"]) == built.service.plane.engine.embedder.dim
    raw = (await built.client.get(f"{built.base}/export")).content
    written = await built.client.post("/v1/tenants/copy/events", content=raw, headers=NDJSON)
    assert written.status_code == 404, "tenants are made first"
    await built.client.put("/v1/tenants/copy", json={})
    assert (await built.client.post("/v1/tenants/copy/events", content=raw, headers=NDJSON)).status_code == 201
    assert await lines(built, "copy") == whole


async def test_an_export_has_a_window_and_a_cut(built: Served) -> None:
    window = {"since": f"{DAY}T04:00:00Z", "until": f"{NEXT}T00:00:00Z"}
    assert [one["id"] for one in await lines(built, **window)] == ["e6", "e4", "e7", "e5"]
    assert await lines(built, until="1960-01-01T00:00:00Z") == []
    snapshot = (await built.client.get(f"{built.base}/export")).headers["x-snapshot"]
    before = await lines(built)
    await built.write(event("acct-9", id="later"), event("acct-1", "again", id="e4", ts=f"{DAY}T04:00:00Z"))
    await built.service.plane.build("acme", [DAY], specs=[])
    assert await lines(built, snapshot=snapshot) == before != await lines(built)


async def test_an_export_reads_as_it_is_taken(built: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few runs ahead, not the day. Seen to fail with a day's segments read at once."""
    plane = built.service.plane
    await built.write(*(event(f"many-{n:03}", id="x") for n in range(100)))
    await plane.build("acme", [DAY], specs=[])
    monkeypatch.setattr(export, "RUN_BYTES", 1)
    read: list[str] = []
    get = type(plane.engine.store).get

    async def counted(store: Store, key: str) -> bytes:
        read.append(key)
        return await get(store, key)

    monkeypatch.setattr(type(plane.engine.store), "get", counted)
    cut = await plane.snapshots.current("acme", "strong")
    events = export_events(plane.engine, cut, TailView.of(cut))
    for _ in range(10):
        await anext(events)
    assert len([key for key in read if "/segments/" in key]) <= 10 + export.RUNS_AHEAD


async def test_a_long_tail_is_looked_through_in_a_thread(built: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with the export looking for itself."""
    left: list[object] = []
    original = asyncio.to_thread

    async def noted(function: Callable[..., object], *arguments: object, **named: object) -> object:
        left.append(function)
        return await original(function, *arguments, **named)

    monkeypatch.setattr(snapshots, "INLINE_WRITES_MAX", -1)
    monkeypatch.setattr(asyncio, "to_thread", noted)
    _, events = await built.service.plane.export("acme")
    assert TailView.of in left
    assert [event async for event in events]


async def test_an_export_that_breaks_off_says_so_in_its_last_line(
    built: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> Any:
        async def events() -> Any:
            raise Unavailable("store_unavailable", "key='secret'")
            yield

        return "1.1", events()

    monkeypatch.setattr(type(built.service.plane), "export", broken)
    response = await built.client.get(f"{built.base}/export")
    assert [orjson.loads(line)["error"]["code"] for line in response.content.splitlines()] == ["store_unavailable"]
    assert "secret" not in response.text
