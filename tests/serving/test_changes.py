"""Changes over HTTP: pages of one cut, and what ends them. The law itself is in tests/laws/test_changes.py."""

from __future__ import annotations

from typing import Any

from serving import shapes
from tests.serving.conftest import DAY, Served, event, problem

SPEC = "customer_context_v0"


async def page(served: Served, **params: Any) -> dict[str, Any]:
    response = await served.client.get(f"{served.base}/changes", params=params)
    assert response.status_code == 200, response.text
    shapes.ChangesOut.model_validate_json(response.content)
    found: dict[str, Any] = response.json()
    assert response.headers["x-snapshot"] == found["snapshot"]
    return found


async def test_a_run_learns_what_changed_and_where_to_go_on(served: Served) -> None:
    """Pages after the first are of its cut. Seen to fail with the newest cut read for every page."""
    since = (await served.write(event("acct-1", id="e1"), event("acct-2", id="e2")))["snapshot"]
    await served.service.plane.build("acme", [DAY])
    await served.write(event("acct-3", id="e3"), event("acct-1", id="e4"))
    first = await page(served, since=since, limit=1)
    assert first["changes"] == [{"entity": "acct-3", "changed": "events", "spec": None, "as_of": None}]
    await served.write(event("acct-9", id="e9"))
    found, cursor = first["changes"], first["cursor"]
    while cursor is not None:
        following = await page(served, since=since, limit=2, cursor=cursor)
        assert following["snapshot"] == first["snapshot"]
        found, cursor = found + following["changes"], following["cursor"]
    assert [(one["entity"], one["changed"], one["spec"], one["as_of"]) for one in found] == [
        ("acct-3", "events", None, None),
        ("acct-1", "events", None, None),
        ("acct-1", "bundle", SPEC, DAY),
        ("acct-2", "bundle", SPEC, DAY),
    ]
    after = await page(served, since=first["snapshot"])
    assert [one["entity"] for one in after["changes"]] == ["acct-9"]
    assert (await page(served, since=after["snapshot"]))["changes"] == []


async def test_what_changes_refuse(served: Served) -> None:
    snapshot = (await served.write(event("acct-1", id="e1"), event("acct-2", id="e2")))["snapshot"]
    later = (await served.write(event("acct-1", id="e3"), event("acct-2", id="e4")))["snapshot"]
    get, path = served.client.get, f"{served.base}/changes"
    problem(await get(path), 422, "query_invalid")
    problem(await get(path, params={"since": "7"}), 400, "snapshot_invalid")
    problem(await get(path, params={"since": "999.9"}), 404, "snapshot_not_found")
    problem(await get(path, params={"since": later, "snapshot": snapshot}), 422, "query_invalid")
    cursor = (await page(served, since=snapshot, limit=1))["cursor"]
    assert cursor
    problem(await get(path, params={"since": later, "cursor": cursor}), 400, "cursor_invalid")
