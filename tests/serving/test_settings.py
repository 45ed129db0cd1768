"""Settings of a tenant are obeyed: its rates, its model, its specs."""

from __future__ import annotations

import time

import httpx
import orjson
import pytest

from context_plane import ingest
from context_plane.catalog.head import load_head
from context_plane.errors import Conflict
from context_plane.settings import Settings
from context_plane.tenants import load_settings
from tests.serving.conftest import DAY, JSON, NDJSON, Served, event, in_days, ndjson, problem, serve

SPEC = "customer_context_v0"


async def test_events_have_a_rate_and_a_full_request_may_always_come(served: Served) -> None:
    """Seen to fail with requests counted instead of their events."""
    await served.create(events_per_s=1)
    many = ndjson([event(id=f"e{n}") for n in range(9_999)])
    post = served.client.post
    assert (await post(f"{served.base}/events", content=many, headers=NDJSON)).status_code == 201
    refused = await post(
        f"{served.base}/events", content=ndjson([event(id=f"f{n}") for n in range(500)]), headers=NDJSON
    )
    problem(refused, 429, "rate_limited")
    assert 400 < int(refused.headers["retry-after"]) <= 500
    assert (await post(f"{served.base}/events", content=ndjson([event(id="g")]), headers=NDJSON)).status_code == 201


async def test_events_that_are_not_written_are_not_paid(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused or failed before it is durable, and a replay. Seen to fail (429) with events paid before the write and
    kept, with replays paid, and (409) with the claim kept of a request that was over its rate, or for which too many
    waited already."""
    await served.create(events_per_s=1)
    frozen = time.monotonic()
    monkeypatch.setattr(served.service.rates, "monotonic_s", lambda: frozen)
    many, few = (ndjson([event(id=f"e{n}") for n in range(count)]) for count in (9_999, 5))

    async def post(body: bytes, key: str | None = None) -> httpx.Response:
        headers = NDJSON if key is None else NDJSON | {"idempotency-key": key}
        return await served.client.post(f"{served.base}/events", content=body, headers=headers)

    for bound, code in (("TAIL_OBJECTS_MAX", "tail_full"), ("WAITING_MAX", "rate_limited")):
        with monkeypatch.context() as patched:
            patched.setattr(ingest, bound, 0)
            problem(await post(many, "load"), 429, code)
    first = await post(many, "load")
    assert first.status_code == 201
    again = await post(many, "load")
    assert (again.status_code, again.json()) == (201, first.json())
    problem(await post(few, "more"), 429, "rate_limited")
    frozen += 4.0
    assert (await post(few, "more")).status_code == 201
    problem(await post(few), 429, "rate_limited")


async def test_a_model_binds_builds(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with the model stored and not named in the manifest."""
    plane = served.service.plane
    own = plane.engine.embedder.model
    wrong = await served.client.put(served.base, json={"settings": {"model": "another"}})
    problem(wrong, 422, "model_mismatch")
    await served.create(model=own)
    assert (await load_head(plane.engine.store, "acme")).model is not None
    await served.write(event())
    with monkeypatch.context() as patched:
        patched.setattr(type(plane.engine.embedder), "model", "another")
        with pytest.raises(Conflict, match="model_mismatch"):
            await plane.build("acme", [DAY])
    await plane.build("acme", [DAY])
    await served.create(model=own)
    problem(await served.client.put(served.base, json={"settings": {"model": "another"}}), 422, "model_mismatch")


async def test_specs_say_which_bundles_are_built(served: Served) -> None:
    await served.write(event("acct-1"))
    problem(await served.client.put(served.base, json={"settings": {"specs": ["none"]}}), 404, "spec_not_found")
    await served.create(specs=[])
    await served.service.plane.build("acme", [DAY])
    problem(await served.client.get(served.of("acct-1", "context")), 404, "bundle_not_built")
    await served.create(specs=[SPEC])
    await served.service.plane.build("acme", [DAY])
    await served.ids("acct-1")  # a strong read: the newest cut is known then
    assert (await served.client.get(served.of("acct-1", "context"))).status_code == 200


async def test_settings_are_of_their_types(served: Served) -> None:
    """Seen to fail with numbers taken from strings."""
    for wrong in ({"requests_per_s": "5"}, {"retain_days": 1.5}, {"specs": SPEC}, {"weights": {"text": True}}):
        answer = await served.client.put(served.base, content=orjson.dumps({"settings": wrong}), headers=JSON)
        problem(answer, 422, "query_invalid")
    await served.create(retain_days=30, weights={"text": 1})
    assert (await load_settings(served.service.plane.engine.store, "acme")).retain_days == 30


async def test_the_horizon_of_event_times_is_a_setting(settings: Settings) -> None:
    """Seen to fail with the two days of the default kept."""
    async with serve(settings.model_copy(update={"horizon_days": 10})) as served:
        await served.create()
        await served.write(event(ts=in_days(9)))
        for form in (NDJSON, JSON):
            body = (
                ndjson([event(ts=in_days(11))]) if form is NDJSON else orjson.dumps({"events": [event(ts=in_days(11))]})
            )
            refused = await served.client.post(f"{served.base}/events", content=body, headers=form)
            assert refused.json()["errors"][0]["code"] == "ts_out_of_range"
