"""Reads over HTTP on built days and tail: form of the answers, caching headers, paging, streams."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from context_plane.bundle.spec import QUERY_SECTION
from context_plane.errors import Unavailable
from context_plane.model import sha256_hex
from context_plane.recall.fleet import FleetItems
from serving import shapes
from serving.bundle_shapes import BundleOut
from tests.serving.conftest import DAY, Served, event, problem

GOLDEN = Path(__file__).parents[1] / "bundle" / "golden_v1.json"
ENTITIES = ("acct-1", "acct-2", "acct-3")


@pytest.fixture
async def built(served: Served) -> Served:
    """One built day of three entities, and a later event in the tail."""
    await served.write(
        *(
            event(entity, f"{entity} asks why the export fails, case {n}", id=f"e{n}", ts=f"{DAY}T0{n}:00:00Z")
            for entity in ENTITIES
            for n in range(1, 5)
        )
    )
    await served.service.plane.build("acme", [DAY])
    await served.write(event("acct-1", "the export works again", id="tail", ts="2026-03-05T08:00:00Z"))
    return served


async def test_a_bundle_is_revalidated_by_its_digest(built: Served) -> None:
    path = built.of("acct-1", "context")
    first = await built.client.get(path)
    assert first.status_code == 200
    assert first.headers["content-type"] == "application/json"
    assert first.headers["etag"] == f'"{sha256_hex(first.content)}"'
    assert first.headers["x-freshness"] in ("fresh", "stale", "building")
    assert first.headers["x-cache"] in ("memory", "disk", "cold")
    assert first.headers["x-snapshot"].count(".") == 1
    assert "no-cache" in first.headers["cache-control"]
    etag = first.headers["etag"]
    for header in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await built.client.get(path, headers={"if-none-match": header})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await built.client.get(path, headers={"if-none-match": '"other"'})).status_code == 200
    assert (await built.client.get(path)).headers["x-cache"] == "memory"


async def test_text_is_the_same_bundle_under_its_own_tag(built: Served) -> None:
    path = built.of("acct-1", "context")
    json, text = await built.client.get(path), await built.client.get(path, params={"format": "text"})
    assert text.headers["content-type"].startswith("text/plain")
    assert f"acct-1 as of {DAY}" in text.text
    assert text.headers["etag"] != json.headers["etag"]
    assert (
        await built.client.get(path, params={"format": "text"}, headers={"if-none-match": json.headers["etag"]})
    ).status_code == 200


async def test_a_day_or_entity_without_a_bundle_says_so(built: Served) -> None:
    get = built.client.get
    problem(await get(built.of("acct-1", "context"), params={"as_of": "2026-03-05"}), 404, "bundle_not_built")
    problem(await get(built.of("nobody", "context")), 404, "entity_not_found")
    await built.write(event("newcomer"))
    assert await built.ids("newcomer"), "a strong read: bundles are read at what the process knows, up to 1 s old"
    problem(await get(built.of("newcomer", "context")), 404, "bundle_not_built")


async def test_on_demand_has_the_tail_and_the_same_bytes_each_time(built: Served) -> None:
    path = built.of("acct-1", "context").removeprefix(built.base)
    first, again = [await built.post(path, {"text": "does the export work"}) for _ in range(2)]
    assert first.content == again.content
    assert "works again" in first.text
    assert first.headers["etag"] == f'"{sha256_hex(first.content)}"'


async def test_a_batch_streams_in_request_order_with_errors_inline(built: Served) -> None:
    asked = ["acct-3", "nobody", "acct-1", "acct-3"]
    response = await built.post("/context:batch", {"entities": asked})
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [orjson.loads(line) for line in response.content.splitlines()]
    assert [line["entity"] for line in lines] == asked
    assert lines[1]["error"]["code"] == "entity_not_found"
    single = await built.client.get(built.of("acct-3", "context"))
    assert orjson.loads(single.content) == lines[0]["bundle"]
    assert f'"{lines[0]["digest"]}"' == single.headers["etag"]
    every = await built.post("/context:batch", {"entities": "*", "format": "text"})
    lines = [orjson.loads(line) for line in every.content.splitlines()]
    assert [line["entity"] for line in lines] == list(ENTITIES)
    assert all("as of" in line["text"] for line in lines)


async def test_a_batch_names_its_cut_whatever_its_lines_hold(built: Served) -> None:
    """Seen to fail (no header) where the first entity, or every one, has no bundle."""
    [bundle] = (await built.post("/context:batch", {"entities": ["acct-1"]})).content.splitlines()
    cut = orjson.loads(bundle)["snapshot"]
    for entities in (["nobody"], ["nobody", "acct-1"], ["acct-1"], "*"):
        response = await built.post("/context:batch", {"entities": entities})
        assert response.headers["x-snapshot"] == cut
        assert {orjson.loads(line)["snapshot"] for line in response.content.splitlines()} == {cut}


async def test_timelines_listings_and_batches_tell_their_temperature(built: Served) -> None:
    """Seen to fail without the header, and with each answered from a count that another read began."""
    asked: dict[str, tuple[str, str, object]] = {
        "/entities/{entity}/timeline": ("GET", "/entities/acct-1/timeline", None),
        "/entities": ("GET", "/entities", None),
        "/why/{bundle_digest}": ("GET", await _why(built), None),
        "/context:batch": ("POST", "/context:batch", {"entities": ["nobody", "acct-1"]}),
    }
    for path, (method, place, body) in asked.items():
        await built.service.plane.empty_caches()
        for wanted in ("cold", "memory"):
            response = await built.client.request(method, built.base + place, json=body)
            assert (response.status_code, response.headers["x-cache"]) == (200, wanted), path
    told = (await built.client.get("/metrics")).text
    for path in asked:
        for cache in ("cold", "memory"):
            labels = f'cache="{cache}",method="{asked[path][0]}",route="/v1/tenants/{{tenant}}{path}",status="200"'
            assert f"context_plane_request_seconds_count{{{labels}}}" in told, path


async def _why(built: Served) -> str:
    bundle = await built.client.get(built.of("acct-1", "context"))
    return f"/why/{bundle.headers['etag'].strip(chr(34))}?entity=acct-1"


async def test_a_batch_that_breaks_off_says_so_in_its_last_line(built: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = await built.service.plane.bundle("acme", "acct-1", spec="customer_context_v0")

    async def broken(*_: object, **__: object) -> tuple[str, FleetItems]:
        async def items() -> FleetItems:
            yield bundle
            raise Unavailable("store_unavailable", "key='tenants/secret'")

        return bundle.snapshot, items()

    monkeypatch.setattr(type(built.service.plane), "bundle_batch", broken)
    response = await built.post("/context:batch", {"entities": "*"})
    lines = [orjson.loads(line) for line in response.content.splitlines()]
    assert [next(iter(line)) for line in lines] == ["entity", "error"]
    assert lines[1]["error"]["code"] == "store_unavailable"
    assert "secret" not in response.text
    assert lines[1]["error"]["request_id"] == response.headers["x-request-id"]


async def test_pages_of_a_timeline_are_the_whole_whatever_is_written_between(built: Served) -> None:
    """The cursor is a position in time. Seen to fail with an offset as cursor: `late` shifted the second page."""
    path, seen, cursor = built.of("acct-1", "timeline"), [], None
    for _ in range(10):
        params: dict[str, Any] = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await built.client.get(path, params=params)).json()
        seen += [item["id"] for item in page["events"]]
        cursor = page["cursor"]
        if cursor is None:
            break
        await built.write(event("acct-1", id=f"late-{len(seen)}", ts="2026-03-06T00:00:00Z"))
        await built.service.plane.build("acme", ["2026-03-06"])
    assert seen == ["tail", "e4", "e3", "e2", "e1"]


async def test_a_cursor_serves_its_own_listing_only(built: Served) -> None:
    get = built.client.get
    cursor = (await get(built.of("acct-1", "timeline"), params={"limit": 1})).json()["cursor"]
    assert cursor
    problem(await get(built.of("acct-2", "timeline"), params={"cursor": cursor}), 400, "cursor_invalid")
    problem(await get(built.of("acct-1", "timeline"), params={"cursor": cursor, "order": "asc"}), 400, "cursor_invalid")
    problem(await get(f"{built.base}/entities", params={"cursor": cursor}), 400, "cursor_invalid")


async def test_timeline_filters(built: Served) -> None:
    await built.write(event("acct-1", id="call", kind="call", source="phone", ts=f"{DAY}T12:00:00Z"))

    async def ids(**params: Any) -> list[str]:
        page = (await built.client.get(built.of("acct-1", "timeline"), params=params)).json()
        return [item["id"] for item in page["events"]]

    assert await ids(source="phone") == ["call"]
    assert await ids(kind=["call", "note"]) == ["call"]
    assert await ids(since=f"{DAY}T03:00:00Z", until=f"{DAY}T04:00:00Z") == ["e3"]
    assert await ids(order="asc", limit=2) == ["e1", "e2"]


async def test_entities_are_listed_in_pages(built: Served) -> None:
    first = (await built.client.get(f"{built.base}/entities", params={"limit": 2})).json()
    rest = (await built.client.get(f"{built.base}/entities", params={"limit": 2, "cursor": first["cursor"]})).json()
    listed = first["entities"] + rest["entities"]
    assert [item["entity"] for item in listed] == list(ENTITIES)
    assert listed[0] == {"entity": "acct-1", "events": 5, "last_ts": "2026-03-05T08:00:00Z"}
    assert rest["cursor"] is None
    prefixed = (await built.client.get(f"{built.base}/entities", params={"prefix": "acct-3"})).json()
    assert [item["entity"] for item in prefixed["entities"]] == ["acct-3"]


async def test_search_includes_what_is_asked_for_and_cites(built: Served) -> None:
    body = {"text": "export fails", "limit": 3, "include": ["snippet", "vector"], "explain": True}
    answer = (await built.post("/search", body)).json()
    assert len(answer["hits"]) == 3
    for hit in answer["hits"]:
        assert "text" not in hit
        assert "attrs" not in hit
        assert len(hit["vector"]) == built.service.plane.engine.embedder.dim
        assert hit["citation"]["segment"].startswith("tenants/acme/")
    grouped = (await built.post("/search", {"text": "export", "group_by": "entity", "per_group": 1})).json()
    assert sorted(hit["entity"] for hit in grouped["hits"]) == list(ENTITIES)
    again = await built.post("/search", body | {"snapshot": answer["snapshot"]})
    assert again.json()["hits"] == answer["hits"]
    assert again.headers["x-snapshot"] == answer["snapshot"]


async def test_dates_of_a_text_are_a_window_of_the_search(built: Served) -> None:
    """Seen to fail (every event was found) with the window left out of the request, and with its sides not joined with
    those asked for."""

    async def asked(**more: Any) -> tuple[list[str], Any]:
        body = {"text": "did the export work yesterday?", "entities": ["acct-1"], "limit": 20} | more
        response = await built.post("/search", body)
        shapes.SearchOut.model_validate_json(response.content)
        answer = response.json()
        return sorted(hit["id"] for hit in answer["hits"]), answer.get("window", "none")

    of_day, every = ["e1", "e2", "e3", "e4"], ["e1", "e2", "e3", "e4", "tail"]
    day, following, third = (f"2026-03-0{n}T00:00:00Z" for n in (4, 5, 6))
    assert await asked() == (every, "none")
    assert await asked(now="2026-03-06T12:00:00Z") == (every, "none")
    window = {"since": following, "until": third, "phrases": ["yesterday"]}
    assert await asked(resolve_time=True, now="2026-03-06T12:00:00Z") == (["tail"], window)
    window = {"since": day, "until": following, "phrases": ["yesterday"]}
    assert await asked(resolve_time=True, now="2026-03-05T12:00:00Z") == (of_day, window)
    narrower = {"since": f"{DAY}T02:00:00Z", "until": f"{DAY}T04:00:00Z"}
    assert await asked(resolve_time=True, now="2026-03-05T12:00:00Z", **narrower) == (["e2", "e3"], window)
    wider = {"since": "2026-01-01T00:00:00Z", "until": "2026-04-01T00:00:00Z"}
    assert await asked(resolve_time=True, now="2026-03-05T12:00:00Z", **wider) == (of_day, window)
    assert await asked(resolve_time=True, text="does the export work") == (every, None)


async def test_a_bundle_for_a_question_keeps_to_filter_window_and_budget(built: Served) -> None:
    """Seen to fail with each of the fields left out of the request."""
    path = built.of("acct-1", "context").removeprefix(built.base)
    await built.write(event("acct-1", "they called", id="call", kind="call", source="phone", ts=f"{DAY}T02:30:00Z"))

    async def made(**body: Any) -> dict[str, Any]:
        response = await built.post(path, body)
        assert response.status_code == 200, response.text
        shown: dict[str, Any] = response.json()
        return shown

    async def found(**body: Any) -> list[str]:
        bundle = await made(**body)
        [section] = [each for each in bundle["sections"] if each["name"] == QUERY_SECTION]
        return [bundle["citations"][n - 1]["id"] for item in section["items"] for n in item["citations"]]

    assert await found(where={"eq": ["source", "phone"]}) == ["call"]
    assert await found(text="did they call", where={"eq": ["source", "phone"]}) == ["call"]
    assert await found(since=f"{DAY}T03:00:00Z") == ["tail", "e4", "e3"]
    window = {"since": f"{DAY}T02:00:00Z", "until": f"{DAY}T04:00:00Z"}
    assert await found(**window) == ["e3", "call", "e2"]
    assert await found(**window, where={"ne": ["kind", "call"]}) == ["e3", "e2"]
    usual, small = await made(text="export"), await made(text="export", budget_tokens=60)
    assert usual["budget_tokens"] > small["budget_tokens"] == 60
    assert usual["tokens"] > 60 >= small["tokens"]


async def test_groups_hold_the_best_of_each_entity(built: Served) -> None:
    """Seen to fail with `per_group` left out of the request."""
    for per_group in (1, 2, 3):
        body = {"text": "why the export fails", "group_by": "entity", "per_group": per_group, "limit": 3}
        hits = (await built.post("/search", body)).json()["hits"]
        assert dict(Counter(hit["entity"] for hit in hits)) == dict.fromkeys(ENTITIES, per_group)


async def test_tenant_weights_are_the_default(built: Served) -> None:
    async def scores(**fusion: Any) -> list[float]:
        body = {"text": "export works", "entities": ["acct-1"]} | ({"fusion": fusion} if fusion else {})
        return [hit["score"] for hit in (await built.post("/search", body)).json()["hits"]]

    plain = await scores()
    await built.create(weights={"text": 0, "vector": 1})
    assert await scores() == await scores(weights={"text": 0, "vector": 1})
    assert await scores() != plain
    assert await scores(weights={"text": 1, "vector": 0}) != await scores()
    by_rank = await scores(k=10)
    assert by_rank == await scores(k=10, method="reciprocal_rank") != await scores(method="relative_score")


async def test_answers_are_what_the_document_says(built: Served) -> None:
    """Models describe, functions write: seen to fail with a field of either left out."""
    include = ["text", "attrs", "snippet", "vector"]
    got: list[tuple[type[BaseModel], bytes]] = [
        (shapes.SearchOut, (await built.post("/search", {"text": "export", "include": include})).content),
        (shapes.TimelineOut, (await built.client.get(built.of("acct-1", "timeline"))).content),
        (shapes.EntitiesOut, (await built.client.get(f"{built.base}/entities")).content),
        (shapes.SnapshotOut, (await built.client.get(f"{built.base}/snapshot")).content),
        (shapes.TenantOut, (await built.client.get(built.base)).content),
        (shapes.TenantsOut, (await built.client.get("/v1/tenants")).content),
        (shapes.AcceptedOut, orjson.dumps(await built.write(event()))),
        (shapes.HealthOut, (await built.client.get("/healthz")).content),
        (shapes.Problem, (await built.post("/search", {})).content),
        (shapes.BatchLineOut, (await built.post("/context:batch", {"entities": ["acct-1"]})).content),
        (shapes.BatchLineOut, (await built.post("/context:batch", {"entities": ["nobody"]})).content),
    ]
    for model, content in got:
        shown = model.model_validate_json(content)
        assert orjson.loads(shown.model_dump_json(exclude_unset=True)) == orjson.loads(content)


async def test_bundles_are_what_the_document_says(built: Served) -> None:
    """With sections of every kind. Seen to fail with a field of an item left out."""
    place = built.of("acct-1", "context")
    path = place.removeprefix(built.base)
    bundles = [
        orjson.loads(GOLDEN.read_bytes())["bundle"],
        (await built.client.get(place)).json(),
        (await built.post(path, {"text": "why does it fail"})).json(),
        (await built.post(path, {"where": {"eq": ["kind", "ticket"]}})).json(),
    ]
    for held in bundles:
        assert orjson.loads(BundleOut.model_validate(held).model_dump_json(exclude_unset=True)) == held
    kinds = {section["kind"] for held in bundles for section in held["sections"]}
    assert kinds == {"profile", "metrics", "signals", "evidence", "recent"}


async def test_the_snapshot_tells_what_waits(built: Served) -> None:
    info = (await built.client.get(f"{built.base}/snapshot")).json()
    assert info["days"] == [DAY]
    assert info["dirty_days"] == ["2026-03-05"]
    assert info["pending_events"] == 1
    assert info["max_event_time"] == "2026-03-05T08:00:00Z"
    assert info["bundles"] == {"customer_context_v0": DAY}
