"""Strong reads have what another process wrote a moment ago; eventual ones answer from the cut they know."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from context_plane.reindex import build_day
from context_plane.retrieval import snapshots
from tests.serving.conftest import DAY, Served, event

SPEC = "customer_context_v0"
LONG_S = 3600.0


@pytest.fixture
async def behind(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """A service that knows a cut, for long, with one event; a second one is written, built and bundled past it."""
    monkeypatch.setattr(snapshots, "EVENTUAL_AGE_MAX_S", LONG_S)
    monkeypatch.setattr(snapshots, "CONFIRM_AFTER_S", LONG_S)
    plane = served.service.plane
    await served.write(event("acct-1", "the first", id="e1"))
    await plane.build("acme", [DAY])
    await plane.snapshots.outline("acme", "strong")
    await served.write(event("acct-1", "the second", id="e2"), event("acct-2", id="e3"))
    await build_day(plane.engine, "acme", DAY)
    await plane.materialize("acme", SPEC, DAY)
    return served


async def reads(served: Served, consistency: str) -> dict[str, bytes]:
    """Each read of the contract that has the choice, and what of it tells the cut."""
    get, choice = served.client.get, {"consistency": consistency}
    answers: dict[str, Any] = {
        "timeline": await get(served.of("acct-1", "timeline"), params=choice),
        "entities": await get(f"{served.base}/entities", params=choice),
        "bundle": await get(served.of("acct-1", "context"), params=choice),
        "batch": await served.post("/context:batch", {"entities": "*", **choice}),
        "search": await served.post("/search", {"text": "second", **choice}),
        "on demand": await served.post("/entities/acct-1/context", {"text": "second", **choice}),
    }
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 200)
    return {name: answer.headers["x-snapshot"].encode() for name, answer in answers.items()}


async def test_the_choice_reaches_every_read(behind: Served) -> None:
    """Seen to fail with each route's choice dropped on the way in turn."""
    known = await reads(behind, "eventual")
    assert len(set(known.values())) == 1
    newest = await reads(behind, "strong")
    assert len(set(newest.values())) == 1
    assert set(known.values()) != set(newest.values())


async def test_a_strong_bundle_is_not_answered_from_what_was_kept(behind: Served) -> None:
    """Seen to fail with strong answers kept beside the eventual ones."""
    own, path = await behind.key("acme", "read"), behind.of("acct-1", "context")
    strong = {"consistency": "strong"}
    first = await behind.client.get(path, params=strong, headers=own)
    assert "the second" in first.text
    for _ in range(2):
        await behind.client.get(path, params=strong, headers=own)
    await behind.write(event("acct-1", "the third", id="e4"))
    await build_day(behind.service.plane.engine, "acme", DAY)
    await behind.service.plane.materialize("acme", SPEC, DAY)
    assert "the third" in (await behind.client.get(path, params=strong, headers=own)).text


async def test_a_run_reads_everything_at_one_pinned_cut(behind: Served) -> None:
    """Writes, builds and bundles between its requests change nothing. Seen to fail with a read that ignores the pin."""

    async def run(snapshot: str) -> list[bytes]:
        pin, get = {"snapshot": snapshot}, behind.client.get
        digest = (await get(behind.of("acct-1", "context"), params=pin)).headers["etag"].strip('"')
        answers = [
            await get(behind.of("acct-1", "context"), params=pin),
            await behind.post("/context:batch", {"entities": "*", **pin}),
            await behind.post("/entities/acct-1/context", {"text": "second", **pin}),
            await get(behind.of("acct-1", "timeline"), params=pin),
            await get(f"{behind.base}/entities", params=pin),
            await get(f"{behind.base}/export", params=pin),
            await get(f"{behind.base}/why/{digest}", params=pin),
            await get(f"{behind.base}/changes", params={"since": snapshot, **pin}),
            await behind.post("/search", {"text": "second", **pin}),
        ]
        for answer in answers:
            assert answer.headers["x-snapshot"] == snapshot, answer.request.url
        found = orjson.loads(answers.pop().content)
        return [*(answer.content for answer in answers), orjson.dumps(found["hits"])]

    snapshot = (await behind.client.get(f"{behind.base}/snapshot")).json()["snapshot"]
    before = await run(snapshot)
    await behind.write(event("acct-1", "the third", id="e1"), event("acct-9", id="e9"))
    await behind.service.plane.build("acme", [DAY])
    assert await run(snapshot) == before
