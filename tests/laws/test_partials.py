"""Law 6: what is late or unavailable is named; what is damaged is an error; a damaged cache is neither."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from context_plane.errors import Corrupt, Unavailable
from context_plane.model import add_days
from context_plane.plane import Plane
from context_plane.recall import plan
from context_plane.recall.candidates import Proposals, Proposers
from context_plane.recall.search import Searcher
from context_plane.retrieval.where import parse
from context_plane.store.faults import Mishap
from context_plane.tenants import Tenant
from serving.auth import Caller
from serving.limits import Ledger
from serving.metrics import Metrics
from serving.read import found
from serving.service import Service
from tests.laws.plane_world import BEACON, DAY, TENANT, World, event, ids, month_of, puts, timeline

SECOND = add_days(DAY, 1)
SLOW, GONE = Mishap(delay_s=30.0), Mishap(lost="request")
QUERY = replace(BEACON, mode="hybrid")
DEADLINE_MS = 1000


async def built(world: World) -> list[str]:
    """Three days of two entities; returns the ids of all days but the second."""
    plane = world.plane()
    await world.write(plane, puts(month_of(3, entities=2)))
    await plane.build(TENANT, world.days())
    return sorted(each.id for each in world.events() if each.day != SECOND)


@pytest.mark.parametrize("mishap", [SLOW, GONE], ids=["slow", "gone"])
@pytest.mark.parametrize("kind", ["entity", "vector"])
@pytest.mark.parametrize("entities", [None, ("acct-00", "acct-01")], ids=["tenant", "entities"])
async def test_a_shard_that_does_not_come_is_named(
    world: World, mishap: Mishap, kind: str, entities: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the deadline, with the rest of the answer. Seen to fail with `missing` never filled."""
    monkeypatch.setattr(plan, "WIDE_BYTES_MAX", 0)  # as of large shards: columns, and the vector shard beside them
    others = await built(world)
    plane = world.plane()
    started = time.monotonic()
    with world.faults.on(f"indexes/{kind}/2026/03/02/", mishap):
        answer = await plane.search(TENANT, replace(QUERY, entities=entities, deadline_ms=DEADLINE_MS))
    if kind == "vector" and entities is not None:  # blocks hold their vectors
        assert not answer.partial
        return
    assert answer.partial
    assert answer.missing_days == (SECOND,)
    assert sorted(hit.id for hit in answer.hits) == others
    assert time.monotonic() - started < SLOW.delay_s / 2
    assert len(await ids(world.plane(), QUERY, entities=entities)) == 6


async def test_a_partial_answer_of_the_service_is_counted(world: World) -> None:
    """Seen to fail with the count left out."""
    await built(world)
    service = Service.of(world.plane(), ledger=Ledger(), metrics=Metrics(), loopback=True)
    with world.faults.on("indexes/vector/2026/03/02/", GONE), world.faults.on("indexes/entity/2026/03/02/", GONE):
        assert (await found(Caller(service, Tenant(tenant=TENANT), None), QUERY)).partial
    assert "context_plane_partial_answers_total 1.0" in service.metrics.text().decode()


async def test_late_texts_of_hits_are_named(world: World) -> None:
    """A tenant's columns came, the block of a hit did not. Seen to fail with hits presented without a deadline."""
    others = await built(world)
    plane = world.plane()
    await ids(
        plane, QUERY, where=parse({"eq": ["source", "none"]})
    )  # the columns are in memory now, the blocks are not
    with world.faults.on("indexes/entity/2026/03/02/", SLOW):
        answer = await plane.search(TENANT, replace(QUERY, deadline_ms=DEADLINE_MS))
    assert answer.missing_days == (SECOND,)
    assert sorted(hit.id for hit in answer.hits) == others


@pytest.mark.parametrize("mishap", [SLOW, GONE], ids=["slow", "gone"])
async def test_an_index_that_does_not_come_is_named_on_the_candidates_path(world: World, mishap: Mishap) -> None:
    """Seen to fail with the full-text shards gathered without the deadline."""
    others = await built(world)
    plane = candidates(world.plane())
    with world.faults.on("indexes/fulltext/2026/03/02/", mishap):
        answer = await plane.search(TENANT, replace(BEACON, deadline_ms=DEADLINE_MS))
    assert not answer.stats.exact
    assert answer.missing_days == (SECOND,)
    assert sorted(hit.id for hit in answer.hits) == others


def candidates(plane: Plane) -> Plane:
    """A plane that never scans a tenant."""
    return replace(
        plane,
        searcher=Searcher(plane.engine, plane.store, plane.snapshots, plane.reader, plane.folders, exact_rows_max=-1),
    )


@pytest.mark.parametrize("without", [{"weight_text": 0.0}, {"text": "?!"}])
async def test_a_search_without_a_text_leg_fetches_no_index_for_it(world: World, without: dict[str, Any]) -> None:
    """Seen to fail with what the request says it has taken for what will be ranked."""
    await built(world)
    plane = candidates(world.plane())
    with world.faults.on("indexes/fulltext/", Mishap(), times=100):
        assert (await plane.search(TENANT, replace(QUERY, **without))).hits
        *_, left = world.faults.rules[-1]
    assert left == [100]


async def test_indexes_of_a_search_that_ended_are_not_opened(world: World) -> None:
    """Its cut may come later than its end. Seen to fail with tasks that nobody waits for."""
    await built(world)
    plane = world.plane()
    manifest = (await plane.snapshots.current(TENANT, "strong")).manifest
    asked = plan.plan(manifest, None, None, None, vectors=False, hits=10)
    proposers = Proposers(plane.reader, plane.folders)
    before = asyncio.all_tasks()
    with Proposals(proposers, text=True, vector=False) as proposals:
        proposals.start(asked)
        opening = asyncio.all_tasks() - before
        assert len(opening) == len(asked.reads)
    await asyncio.wait(opening)
    assert all(task.cancelled() for task in opening)
    with Proposals(proposers, text=True, vector=False) as late:
        pass
    late.start(asked)
    assert asyncio.all_tasks() == before


async def test_a_tail_that_is_not_ready_is_named(world: World) -> None:
    """Its embedder is slow. Seen to fail with the tail awaited without the deadline."""
    await built(world)
    plane = world.plane()
    await world.write(plane, puts([event(90, day=SECOND, text="beacon of the tail")]))

    async def never(texts: object) -> None:
        await asyncio.sleep(SLOW.delay_s)

    await plane.engine.embedder.embed_query("beacon")
    world.embedder.embed_documents = never  # type: ignore[method-assign,assignment]  # a slow endpoint
    answer = await plane.search(TENANT, replace(QUERY, deadline_ms=DEADLINE_MS))
    assert answer.missing_days == (SECOND,)
    assert "e90" not in [hit.id for hit in answer.hits]


async def test_reads_that_rank_by_no_vector_do_not_wait_for_an_embedder(world: World) -> None:
    """It is away. Seen to fail with the tail embedded for every read: no timeline came, and no newest day."""
    await built(world)
    plane = world.plane()
    new = event(90, entity="acct-00", day=SECOND, text="beacon of the tail")
    await world.write(plane, puts([new]))

    async def away(texts: object) -> None:
        raise Unavailable("embedder_unavailable", "the embedding endpoint does not answer")

    world.embedder.embed_documents = away  # type: ignore[method-assign,assignment]  # an endpoint that is away
    assert new.id in [each.id for each in (await timeline(plane, "acct-00")).events]
    for entities in (None, ("acct-00",)):
        assert new.id in await ids(plane, entities=entities)
    assert len((await plane.entities(TENANT)).entities) == 2
    answer = await plane.search(TENANT, QUERY)
    assert answer.missing_days == (SECOND,)


@pytest.mark.parametrize("part", ["/manifests/", "/log/"])
async def test_without_a_cut_there_is_no_answer(world: World, part: str) -> None:
    """Late is `deadline_exceeded`, not an empty answer. Seen to fail with the plan made without the deadline."""
    await built(world)
    started = time.monotonic()
    with world.faults.on(part, SLOW, "get", "list"), pytest.raises(Unavailable) as late:
        await world.plane().search(TENANT, replace(QUERY, deadline_ms=300))
    assert late.value.code == "deadline_exceeded"
    assert time.monotonic() - started < SLOW.delay_s / 2


async def test_listings_have_no_partial_answer(world: World) -> None:
    """Seen to fail without `whole()`."""
    await built(world)
    plane = world.plane()
    with world.faults.on("indexes/entity/2026/03/02/", GONE):
        with pytest.raises(Unavailable):
            await timeline(plane, "acct-00")
        with pytest.raises(Unavailable):
            await plane.entities(TENANT)


@pytest.mark.parametrize("kind", ["entity", "pack", "vector", "fulltext"])
async def test_a_damaged_object_is_an_error(world: World, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One flipped byte of the second day. Seen to fail with `Corrupt` counted among what is missing, and with
    the files of vector and full-text shards taken without their digest."""
    if kind != "pack":
        monkeypatch.setattr(plan, "WIDE_BYTES_MAX", 0)
    await built(world)
    objects: dict[str, bytes] = world.inner.objects  # type: ignore[attr-defined]  # a DictStore
    healthy = dict(objects)
    folder = "entity" if kind == "pack" else kind
    for key in [key for key in objects if f"indexes/{folder}/2026/03/02/" in key]:
        middle = len(objects[key]) // 2
        objects[key] = bytes(byte ^ 0x40 if abs(n - middle) < 300 else byte for n, byte in enumerate(objects[key]))
    plane = world.plane()
    if kind == "fulltext":
        plane = candidates(plane)
    with pytest.raises(Corrupt):
        await plane.search(TENANT, QUERY)
    objects.update(healthy)
    assert len(await ids(plane, QUERY)) == 6, "what was damaged on its way is not kept"


@pytest.mark.parametrize("recomputed", [False, True], ids=["flipped", "with a checksum that fits"])
async def test_a_damaged_cache_file_is_fetched_again(world: World, recomputed: bool) -> None:
    """Seen to fail with bytes from disk that do not decode taken for the object's own damage."""
    await built(world)
    folder = world.folder / "shared-cache"
    plane = world.plane(cache=folder)
    for scope in (None, ("acct-00",)):
        await plane.search(TENANT, replace(QUERY, entities=scope))
    await plane.cache.settled()
    files = [path for path in (folder / "objects").glob("??/*") if path.is_file()]
    assert files
    for path in files:
        damage(path, recomputed)
    again = world.plane(cache=folder)
    assert len(await ids(again, QUERY)) == 6
    assert len(await ids(again, QUERY, entities=("acct-00",))) == 3
    assert again.cache.stats.misses > 0
    await again.cache.settled()
    third = world.plane(cache=folder)
    assert len(await ids(third, QUERY)) == 6
    assert third.cache.stats.misses == 0, "the healthy bytes were kept"


def damage(path: Path, recomputed: bool) -> None:
    data = bytearray(path.read_bytes())
    data[32 + (len(data) - 32) // 2] ^= 0x40
    payload = bytes(data[32:])
    path.write_bytes((hashlib.sha256(payload).digest() if recomputed else bytes(data[:32])) + payload)
