"""Erasures over HTTP: reads stop with the answer, receipts name nobody, an erased tenant does not exist."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from context_plane.access import list_keys
from context_plane.audit import read_calls
from context_plane.erase_tenant import Finished, begin, erase_tenant, finish_all
from context_plane.errors import Conflict, Unavailable
from context_plane.fold import fold_day
from context_plane.fulfil import fulfil
from context_plane.layout.keys import LatestKey, ManifestKey, parse
from context_plane.publish import publish_day
from context_plane.reindex import build_day, index_entities, index_fulltext, index_vectors
from context_plane.staging import Staged
from context_plane.tenants import list_tenants
from serving import shapes
from tests.serving.conftest import DAY, JSON, Served, event, problem

GONE = "acct-1"


@pytest.fixture
async def built(served: Served) -> Served:
    await served.write(*(event(name, f"{name} asks", id=f"e{n}") for n, name in enumerate((GONE, "acct-2", GONE))))
    await served.service.plane.build("acme", [DAY])
    await served.write(event(GONE, "the newest", id="tail"))
    return served


async def erase(served: Served, entity: str = GONE) -> str:
    response = await served.client.delete(served.of(entity, "x").removesuffix("/x"))
    assert response.status_code == 202, response.text
    assert list(response.json()) == ["erasure"]
    erasure: str = response.json()["erasure"]
    return erasure


async def state(served: Served, erasure: str, tenant: str = "acme") -> dict[str, Any]:
    response = await served.client.get(f"/v1/tenants/{tenant}/erasures/{erasure}")
    assert response.status_code == 200, response.text
    shapes.ErasureStateOut.model_validate_json(response.content)
    found: dict[str, Any] = response.json()
    return found


async def test_reads_stop_with_the_answer_and_the_job_does_the_rest(built: Served) -> None:
    """Built rows, tail, bundle, pinned snapshots. Seen to fail with the request filed and no tombstone committed."""
    snapshot = (await built.client.get(f"{built.base}/snapshot")).json()["snapshot"]
    assert (await built.client.get(built.of(GONE, "context"))).status_code == 200
    erasure = await erase(built)
    for pinned in ({}, {"snapshot": snapshot}):
        problem(await built.client.get(built.of(GONE, "context"), params=pinned), 404, "entity_not_found")
        problem(await built.client.get(built.of(GONE, "timeline"), params=pinned), 404, "entity_not_found")
        found = await built.post("/search", {"text": "asks", **pinned})
        assert [hit["entity"] for hit in found.json()["hits"]] == ["acct-2"]
        exported = await built.client.get(f"{built.base}/export", params=pinned)
        assert [orjson.loads(line)["entity"] for line in exported.content.splitlines()] == ["acct-2"]
    begun = await state(built, erasure)
    assert (begun["state"], begun["receipt"], begun["completed"]) == ("hidden", None, None)
    await fulfil(built.service.plane.engine, "acme", erasure, build_day=build_day)
    done = await state(built, erasure)
    assert done["state"] == "done"
    assert done["receipt"]["days_rebuilt"] == 1
    assert GONE not in orjson.dumps(done).decode()
    ended = await built.client.get(built.of("acct-2", "timeline"), params={"snapshot": snapshot})
    problem(ended, 410, "snapshot_erased")


async def test_asked_again_it_is_the_same_erasure_unless_writes_came_since(built: Served) -> None:
    """Seen to fail with the open request answered whatever was written: the new events stayed."""
    first = await erase(built)
    assert await erase(built) == first
    await built.write(event(GONE, "a new life", id="again"))
    assert await built.ids(GONE) == ["again"]
    second = await erase(built)
    assert second != first
    assert await built.ids(GONE) == []
    for each in (first, second):
        await fulfil(built.service.plane.engine, "acme", each, build_day=build_day)
        assert (await state(built, each))["state"] == "done"
    await built.write(event(GONE, "after all of it", id="later"))
    assert await built.ids(GONE) == ["later"]


async def test_erasing_needs_the_scope_admin(built: Served) -> None:
    reads, admin = await built.key("acme", "read", "write"), await built.key("acme", "admin")
    path = f"{built.base}/entities/{GONE}"
    problem(await built.client.delete(path, headers=reads), 403, "scope_missing")
    problem(await built.client.get(f"{built.base}/erasures/{'0' * 32}", headers=reads), 403, "scope_missing")
    problem(await built.client.get(f"{built.base}/erasures/{'0' * 32}", headers=admin), 404, "erasure_not_found")
    problem(await built.client.get(f"{built.base}/erasures/x", headers=admin), 422, "query_invalid")
    problem(await built.client.delete(built.base, headers=admin), 403, "scope_missing")
    foreign = await built.key("other", "admin")
    problem(await built.client.delete(path, headers=foreign), 404, "tenant_not_found")
    assert (await built.client.delete(path, headers=admin)).status_code == 202


async def test_an_erased_tenant_does_not_exist_and_leaves_an_empty_manifest(built: Served) -> None:
    """Seen to fail with the keys left as they were, and with a listing that finds the folder of the empty manifest."""
    engine = built.service.plane.engine
    own, operator = await built.key("acme", "admin"), await built.key(None, "read", "write", "admin")
    await built.client.put("/v1/tenants/acme-2", json={}, headers=operator)
    response = await built.client.delete(built.base, headers=operator)
    assert response.status_code == 202
    erasure = response.json()["erasure"]
    problem(await built.client.get(built.base, headers=operator), 404, "tenant_not_found")
    await asyncio.gather(*built.service.under_way)
    answer = await built.client.get(f"{built.base}/erasures/{erasure}", headers=operator)
    shapes.ErasureStateOut.model_validate_json(answer.content)
    assert answer.json()["state"] == "done"
    assert answer.json()["receipt"]["keys_revoked"] == 1
    kinds = {type(key) async for key in _keys(built)}
    assert kinds == {ManifestKey, LatestKey}
    assert await list_tenants(engine.store) == ["acme-2"]
    again = await built.client.delete(built.base, headers=operator)
    assert (again.status_code, again.json()["erasure"]) == (202, erasure), "the same erasure"
    response = await built.client.put(built.base, content=b"{}", headers={**operator, **JSON})
    problem(response, 409, "tenant_erased")
    built.service.keyring._keys._held.clear()
    problem(await built.client.get(built.base, headers=own), 401, "key_invalid")


async def test_a_store_whose_last_keys_were_those_of_an_erased_tenant_is_not_open(built: Served) -> None:
    """Seen to fail with the keys deleted: anybody on the machine was served the other tenants."""
    engine = built.service.plane.engine
    own, more = await built.key("acme", "read"), await built.key("acme", "admin")
    receipt = await erase_tenant(engine, "acme")
    assert receipt.keys_revoked == 2
    built.service.keyring._any._held.clear()
    built.service.keyring._keys._held.clear()
    problem(await built.client.get("/v1/tenants"), 401, "key_missing")
    for each in (own, more):
        problem(await built.client.get("/v1/tenants", headers=each), 401, "key_invalid")
    revoked = [call.subject for call in (await read_calls(engine.store, "acme", limit=100)).calls]
    assert {key.id for key in await list_keys(engine.store)} < set(revoked)
    assert all(key.revoked_us is not None for key in await list_keys(engine.store))


async def _keys(served: Served) -> Any:
    async for info in served.service.plane.engine.store.list("tenants/acme/"):
        yield parse(info.key)


async def test_what_was_begun_before_a_tenant_was_erased_does_not_come_back(built: Served) -> None:
    """A build under way is refused. Seen to fail without the empty manifest."""
    engine = built.service.plane.engine
    new_day = "2026-03-06"  # nothing was published of it: its sources alone would let the build in
    await built.write(event("acct-7", id="e7", ts=f"{new_day}T01:00:00Z"))
    segments = await fold_day(engine, "acme", new_day)
    vector = await index_vectors(engine, segments)
    entity = await index_entities(engine, segments, vector)
    staged = Staged(segments, vector, entity, await index_fulltext(engine, segments, entity))
    await erase_tenant(engine, "acme")
    with pytest.raises(Conflict, match="build_stale"):
        await publish_day(engine, staged.segments, staged.vector, staged.entity, staged.fulltext)


async def test_a_tenant_is_deleted_once_however_often_it_is_asked_for(
    built: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with a task for each request."""
    store, go = type(built.service.plane.engine.store), asyncio.Event()
    delete = store.delete

    async def slow(self: Any, keys: Any) -> None:
        if keys[0].startswith("tenants/"):
            await go.wait()
        await delete(self, keys)

    monkeypatch.setattr(store, "delete", slow)
    answers = [await built.client.delete(built.base) for _ in range(3)]
    assert len({answer.json()["erasure"] for answer in answers}) == 1
    (task,) = built.service.under_way
    go.set()
    await task
    assert (await state(built, answers[0].json()["erasure"]))["state"] == "done"


async def test_an_interrupted_erasure_of_a_tenant_is_finished_by_anybody(
    built: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with step (c) left out of `finish_all`."""
    engine = built.service.plane.engine
    begun = await begin(engine, "acme")
    assert (await begin(engine, "acme")).erasure == begun.erasure
    with monkeypatch.context() as patched:

        async def down(*_: object) -> None:
            raise Unavailable("store_unavailable", "no")

        patched.setattr(type(engine.store), "delete", down)
        assert await finish_all(engine) == Finished(0, 0, (("acme", "store_unavailable"),))
    assert (await state(built, begun.erasure))["state"] == "hidden"
    assert await finish_all(engine) == Finished(1, 0)
    assert await finish_all(engine) == Finished(0, 0)
    assert (await state(built, begun.erasure))["state"] == "done"
