"""Why: from a bundle's digest to the stored lines it was made from."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from context_plane.layout.segment import decode
from context_plane.model import event_digest
from context_plane.recall import why
from serving import shapes
from tests.serving.conftest import DAY, Served, event, problem

SPEC = "customer_context_v0"


@pytest.fixture
async def built(served: Served) -> Served:
    await served.write(
        *(
            event(entity, f"{entity} asks why the export fails, case {n}", id=f"e{n}", ts=f"{DAY}T0{n}:00:00Z")
            for entity in ("acct-1", "acct-2")
            for n in range(1, 4)
        )
    )
    await served.service.plane.build("acme", [DAY])
    return served


async def digest_of(served: Served, entity: str = "acct-1", **params: Any) -> str:
    response = await served.client.get(served.of(entity, "context"), params=params)
    return response.headers["etag"].strip('"')


async def ask(served: Served, digest: str, **params: Any) -> Any:
    response = await served.client.get(f"{served.base}/why/{digest}", params=params)
    assert response.status_code == 200, response.text
    assert response.headers["x-snapshot"] == response.json()["snapshot"]
    shapes.WhyOut.model_validate_json(response.content)
    return response.json()


async def test_a_digest_leads_to_the_lines_it_was_made_from(built: Served) -> None:
    """Read back from the store, by hand. Seen to fail with lines counted from 0."""
    digest = await digest_of(built)
    shown = await ask(built, digest)
    assert (shown["digest"], shown["entity"], shown["spec"], shown["as_of"]) == (digest, "acct-1", SPEC, DAY)
    assert [(one["day"], one["events"]) for one in shown["segments"]] == [(DAY, 3)]
    bundle = orjson.loads((await built.client.get(built.of("acct-1", "context"))).content)
    assert [(c["day"], c["id"], c["digest"]) for c in bundle["citations"]] == [
        (c["day"], c["id"], c["digest"]) for c in shown["citations"]
    ]
    assert shown["spec_fingerprint"].startswith(bundle["spec_fingerprint"])
    assert shown["citations"]
    for cited in shown["citations"]:
        assert cited["segment"] == shown["segments"][0]["segment"]
        stored = decode(await built.service.plane.engine.store.get(cited["segment"]))
        found = stored[cited["line"] - 2]  # line 1 is the header
        assert (found.id, event_digest(found)[:32]) == (cited["id"], cited["digest"])


async def test_what_is_known_beside_the_digest_narrows_and_never_misleads(built: Served) -> None:
    digest = await digest_of(built)
    whole = await ask(built, digest)
    assert await ask(built, digest, entity="acct-1", spec=SPEC, as_of=DAY) == whole
    get, path = built.client.get, f"{built.base}/why/{digest}"
    problem(await get(path, params={"entity": "acct-2"}), 404, "bundle_not_found")
    problem(await get(path, params={"as_of": "2026-03-05"}), 404, "bundle_not_found")
    problem(await get(path, params={"spec": "none"}), 404, "spec_not_found")
    problem(await get(f"{built.base}/why/{'0' * 64}"), 404, "bundle_not_found")
    problem(await get(f"{built.base}/why/short"), 422, "query_invalid")


async def test_a_replaced_bundle_is_explained_at_its_own_snapshot(built: Served) -> None:
    """Its citations lead to the lines as they were. Seen to fail with the newest cut read instead of the pinned one."""
    old = await digest_of(built)
    snapshot = (await ask(built, old))["snapshot"]
    await built.write(*(event("acct-1", f"rewritten {n}", id=f"e{n}", ts=f"{DAY}T0{n}:00:00Z") for n in range(1, 4)))
    await built.service.plane.build("acme", [DAY])
    get = built.client.get
    problem(await get(f"{built.base}/why/{old}"), 404, "bundle_not_found")
    assert all(cited["segment"] for cited in (await ask(built, old, snapshot=snapshot))["citations"])
    assert (await ask(built, await digest_of(built)))["digest"] != old


async def test_a_citation_whose_event_changed_since_says_so(built: Served) -> None:
    """The day is built again and its bundles are not. Seen to fail with identities compared without digests."""
    digest = await digest_of(built)
    await built.write(event("acct-1", "rewritten", id="e1", ts=f"{DAY}T01:00:00Z"))
    await built.service.plane.build("acme", [DAY], specs=[])
    shown = await ask(built, digest)
    assert shown["freshness"] == "stale"
    gone = {cited["id"] for cited in shown["citations"] if cited["segment"] is None}
    assert gone == {"e1"} & {cited["id"] for cited in shown["citations"]}
    assert gone


async def test_the_search_for_a_digest_is_bounded(built: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = await digest_of(built)
    monkeypatch.setattr(why, "DIRECTORIES_MAX", 0)
    body = problem(await built.client.get(f"{built.base}/why/{digest}"), 404, "bundle_not_found")
    assert "looked_through=0" in body["detail"]
