"""RavenStack and HERB, loaded, built and asked as a user would: the newest weeks of each.

The whole of both (731 and 620 days) is what `context-plane build` takes minutes for; here the last days are built, and
the rest stays in the log, bulk loaded.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson
import pytest

from benchmarks import herb
from context_plane import plane
from context_plane.bundle.render import render_text
from context_plane.layout.batch import Visible
from context_plane.model import Put, Write
from context_plane.plane import Plane
from context_plane.recall.values import SearchRequest, TimelineRequest
from context_plane.settings import Settings
from context_plane.sources.mapping import load_mapping
from context_plane.sources.read import Row, read_events
from context_plane.wire import parse_event

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CONTEXT_PLANE_EVAL_DATA", ROOT.parent / "shared" / "data"))
SPEC = "customer_context_v0"


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Plane]:
    async with plane.open(Settings(store=(tmp_path / "store").as_uri(), cache_dir=tmp_path / "cache")) as one:
        yield one


async def load(opened: Plane, tenant: str, writes: Sequence[Write], visible: Visible = "after_build") -> list[str]:
    """Days of the writes, ascending, after loading them in requests of ten thousand."""
    for start in range(0, len(writes), 10_000):
        await opened.write(tenant, writes[start : start + 10_000], body_bytes=8_000_000, visible=visible)
    return sorted({write.event.day for write in writes if isinstance(write, Put)})


async def test_ravenstack_gives_a_bundle_a_person_finds_right(opened: Plane) -> None:
    folder = DATA / "ravenstack"
    if not folder.is_dir():
        pytest.skip("the RavenStack data is not here; set CONTEXT_PLANE_EVAL_DATA to the folder that holds ravenstack/")
    now_us = opened.engine.now_us()
    writes: list[Write] = []
    mapping = load_mapping(ROOT / "examples" / "mappings" / "ravenstack.yaml")
    for row in read_events(mapping, sorted(folder.glob("*.csv")), validate=lambda event: None):
        assert isinstance(row, Row)
        writes += [parse_event(event, now_us=now_us) for event in row.events]
    days = await load(opened, "raven", writes)
    assert (len(days), days[0], days[-1]) == (731, "2023-01-01", "2024-12-31")
    await opened.build("raven", days[-30:], specs=[])
    await opened.materialize("raven", SPEC, days[-1])
    answer = await opened.bundle("raven", "A-2e4581", spec=SPEC)
    text = render_text(answer.json_bytes)
    assert "churn reported, last reason competitor" in text
    bundle = orjson.loads(answer.json_bytes)
    assert bundle["tokens"] <= 200
    mine = {
        write.event.id: write.event for write in writes if isinstance(write, Put) if write.event.entity == "A-2e4581"
    }
    for citation in bundle["citations"]:
        assert mine[citation["id"]].day == citation["day"]
    built = {event.id for event in mine.values() if event.day >= days[-30]}
    timeline = await opened.timeline("raven", TimelineRequest("A-2e4581", limit=1000))
    assert {event.id for event in timeline.events} == built


async def test_herb_answers_with_the_cited_events(opened: Plane) -> None:
    """The questions of one product, over its newest built days and over the unbuilt rest of it."""
    folder = herb.data_folder()
    if folder is None:
        pytest.skip("the evaluation data is not on this machine; set CONTEXT_PLANE_EVAL_DATA to the folder with herb/")
    product = herb.products(folder)[0]
    events = herb.events(folder, product)
    days = await load(opened, "herb", [Put(event) for event in events], "now")
    await opened.build("herb", days[-20:], specs=[])
    asked = [question for question in herb.questions(folder) if question.product == product][:20]
    found = 0
    for question in asked:
        request = SearchRequest(text=question.text, entities=(product,), limit=10, deadline_ms=60_000)
        answer = await opened.search("herb", request)
        assert not answer.partial
        assert len(answer.hits) == 10
        found += any(hit.id in question.citations for hit in answer.hits)
    assert found >= len(asked) // 2
