"""Hints over HTTP, and the figures that tell whether they were worth it."""

from __future__ import annotations

import re

from tests.serving.conftest import DAY, Served, event, problem


async def figures(served: Served) -> dict[str, float]:
    """Sample -> value."""
    text = (await served.client.get("/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^(context_plane_\S+) (\S+)$", text, re.MULTILINE)}


async def built(served: Served) -> None:
    await served.write(*(event(f"acct-{n}", id=f"e{n}") for n in range(3)))
    await served.service.plane.build("acme", [DAY])
    await served.service.plane.empty_caches()


async def test_a_hint_is_taken_at_once_and_followed(served: Served) -> None:
    """The next search is answered from memory. Seen to fail with the hint dropped."""
    await built(served)
    before = await figures(served)
    response = await served.post("/warm", {"entities": ["acct-1", "acct-1"], "pin": True})
    assert response.status_code == 202
    assert response.json() == {"entities": 1, "days": 0, "pin": True}
    await served.service.plane.warmer.settled()
    found = await served.post("/search", {"text": "export fails", "entities": ["acct-1"]})
    assert found.json()["stats"]["cache"] == "memory"
    after = await figures(served)
    assert after["context_plane_cache_prefetches_total"] > before["context_plane_cache_prefetches_total"]
    assert after["context_plane_cache_prefetched_bytes_total"] > 0
    assert after["context_plane_cache_pinned_bytes"] > 0
    assert (await served.post("/warm", {"entities": ["acct-1"], "pin": False})).status_code == 202
    assert (await figures(served))["context_plane_cache_pinned_bytes"] == 0
    await served.service.plane.warmer.settled()


async def test_days_are_warmed_for_the_whole_tenant(served: Served) -> None:
    """Seen to fail with days read as entities."""
    await built(served)
    assert (await served.post("/warm", {"days": [DAY]})).json() == {"entities": 0, "days": 1, "pin": None}
    await served.service.plane.warmer.settled()
    gets = served.service.plane.store.total.gets
    assert (await served.post("/search", {"text": "export fails", "limit": 1})).json()["hits"]
    assert served.service.plane.store.total.gets <= gets + 1, "the text of the hit"


async def test_bad_hints_are_refused(served: Served) -> None:
    bodies: list[dict[str, object]] = [
        {},
        {"entities": ["a"], "days": [DAY]},
        {"days": ["2026-3-4"]},
        {"entities": []},
        {"pins": True},
    ]
    for body in bodies:
        problem(await served.post("/warm", body), 422, "query_invalid")
    problem(await served.post("/warm", {"entities": [""]}), 422, "entity_invalid")


async def test_only_who_may_read_a_tenant_warms_it(served: Served) -> None:
    """Seen to fail without the scope."""
    writer, stranger = await served.key("acme", "write"), await served.key("other")
    answers = [
        await served.client.post(f"{served.base}/warm", json={"days": [DAY]}, headers=key) for key in (writer, stranger)
    ]
    problem(answers[0], 403, "scope_missing")
    problem(answers[1], 404, "tenant_not_found")


async def test_metrics_tell_the_hit_ratio_of_each_tier(served: Served) -> None:
    """The same search three times: cold, from memory, and after memory was forgotten from disk. Seen to fail with
    figures carried over once."""
    await built(served)
    search = {"text": "export fails", "entities": ["acct-1"]}
    seen = [await figures(served)]
    for forget in (False, False, True):
        if forget:
            await served.service.plane.cache.settled()  # disk is written behind the reads
            served.service.plane.cache._memory.clear()
        await served.post("/search", search)
        seen.append(await figures(served))

    def grown(name: str, of: int) -> bool:
        return seen[of][name] > seen[of - 1][name]

    hits, misses = 'context_plane_cache_hits_total{tier="%s"}', 'context_plane_cache_misses_total{tier="%s"}'
    assert grown(misses % "memory", 1)
    assert grown(misses % "disk", 1)
    assert grown('context_plane_store_requests_total{operation="get"}', 1)
    assert grown(hits % "memory", 2)
    assert not grown(misses % "disk", 2)
    assert grown(hits % "disk", 3)
    assert not grown(misses % "disk", 3)
    assert seen[3]["context_plane_cache_memory_bytes"] > 0
    assert seen[3]["context_plane_cache_disk_bytes"] > 0
