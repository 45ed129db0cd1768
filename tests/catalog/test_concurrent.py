"""Eight committers and eight appenders at once lose nothing, on every durable store."""

from __future__ import annotations

import asyncio

import pytest

from context_plane.catalog.head import commit, load_head
from context_plane.catalog.log import LogHead, append, list_log
from context_plane.catalog.manifest import DayEntry, Manifest
from context_plane.engine import Engine
from context_plane.layout.batch import decode_header, encode
from context_plane.layout.keys import LogKey
from context_plane.model import Event, Put
from context_plane.store import Store
from tests.catalog.values import TENANT, make_engine

WRITERS = 8
COMMITS = 200
"""In all on each store: each commit is several round trips, and a lost race is paid again."""
APPENDS = 96
EMPTY_DAY = DayEntry(covered=0, segments=None, shards=None, erasures=0, built_us=0)


@pytest.mark.timeout(120)
async def test_eight_committers_lose_no_change(any_store: Store) -> None:
    """Each commit marks its own fake day; every mark of an acknowledged commit is in the newest manifest.

    Seen to fail with a `put` in place of the create: the marks of lost races were overwritten.
    """
    engine = make_engine(any_store)
    versions: list[int] = []

    async def committer(writer: int) -> None:
        for n in range(COMMITS // WRITERS):
            name = f"{1000 + writer}-01-{n:02d}"

            def mark(manifest: Manifest, name: str = name) -> Manifest:
                assert name not in manifest.days
                return manifest.model_copy(update={"days": {**manifest.days, name: EMPTY_DAY}})

            versions.append((await commit(engine, TENANT, mark)).version)

    await asyncio.gather(*(committer(writer) for writer in range(WRITERS)))
    head = await load_head(engine.store, TENANT)
    assert len(head.days) == COMMITS
    assert sorted(versions) == list(range(1, COMMITS + 1)), "every acknowledged commit has its own version"


@pytest.mark.timeout(120)
async def test_eight_appenders_lose_no_batch(any_store: Store) -> None:
    """Numbers are dense, and every acknowledged number holds its writer's batch."""
    engine = make_engine(any_store)
    acknowledged: dict[int, str] = {}

    async def appender(writer: int) -> None:
        head: LogHead | None = None
        for n in range(APPENDS // WRITERS):
            name = f"w{writer}-{n}"
            head = await append(engine, TENANT, batch(engine, name), writer=name, head=head)
            assert head.number not in acknowledged
            acknowledged[head.number] = name

    await asyncio.gather(*(appender(writer) for writer in range(WRITERS)))
    objects = await list_log(engine.store, TENANT, after=0)
    assert [item.number for item in objects] == sorted(acknowledged) == list(range(1, APPENDS + 1))
    for number, name in acknowledged.items():
        header, _ = decode_header(await engine.store.get(str(LogKey(TENANT, number))))
        assert header.writer == name


def batch(engine: Engine, writer: str) -> bytes:
    event = Event("a", engine.now_us(), writer, "s", "k", text="t")
    return encode([Put(event)], writer=writer, created_us=engine.now_us(), visible="now")
