"""The audit over HTTP: who may read it, what it tells of requests, and pages."""

from __future__ import annotations

import hashlib
from typing import Any

from context_plane.erase_tenant import erase_tenant
from tests.serving.conftest import NDJSON, Served, event, ndjson, problem


async def read(served: Served, key: dict[str, str], what: str = "audit", **query: Any) -> dict[str, Any]:
    response = await served.client.get(f"{served.base}/{what}", headers=key, params=query)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def id_of(key: dict[str, str]) -> str:
    return key["authorization"].removeprefix("Bearer cp_")[:16]


async def test_the_audit_is_its_tenants_and_needs_admin(served: Served) -> None:
    """Seen to fail with the scope read, and (calls of others) with the prefix of a name taken for the name."""
    await served.client.put("/v1/tenants/acme2", json={})
    admin, reader = await served.key("acme", "admin"), await served.key("acme", "read", "write")
    other = await served.key("acme2", "admin")
    for what in ("audit", "audit/writes"):
        problem(await served.client.get(f"{served.base}/{what}", headers=reader), 403, "scope_missing")
        problem(await served.client.get(f"{served.base}/{what}", headers=other), 404, "tenant_not_found")
    calls = (await read(served, admin))["calls"]
    assert [(call["action"], call["subject"], call["actor"], call["outcome"]) for call in calls] == [
        ("tenant_put", None, "open", "done"),
        ("key_create", id_of(admin), "process", "done"),
        ("key_create", id_of(reader), "process", "done"),
    ]


async def test_writes_name_the_key_and_a_digest_of_the_request(served: Served) -> None:
    """A request that is named after an entity leaves no trace of it. Seen to fail with the id as it was sent."""
    writer, admin = await served.key("acme", "write"), await served.key("acme", "admin")
    sent = {"x-request-id": "acct-0042"}
    body = ndjson([event(id="a"), event(id="b")])
    answer = await served.client.post(f"{served.base}/events", content=body, headers=NDJSON | writer | sent)
    assert (answer.status_code, answer.headers["x-request-id"]) == (201, "acct-0042")
    gone = {"events": [{"entity": "acct-0042", "ts": "2026-03-04T00:00:00Z", "id": "a"}]}
    await served.client.post(f"{served.base}/events:delete", json=gone, headers=writer)
    first, second = (await read(served, admin, "audit/writes"))["batches"]
    assert first["requests"] == [
        {
            "actor": id_of(writer),
            "request": hashlib.sha256(b"acct-0042").hexdigest()[:16],
            "writes": 2,
            "deletes": 0,
        }
    ]
    assert (second["batch"], second["requests"][0]["writes"], second["requests"][0]["deletes"]) == (2, 1, 1)


async def test_the_audit_of_an_erased_tenant_is_for_operators(served: Served) -> None:
    """Seen to fail with the tenant as every route wants it, with its log deleted before who wrote was kept, and with
    requests that are not paid."""
    writer, operator = await served.key("acme", "write"), await served.key(None, "admin")
    reader, other = await served.key(None, "read"), await served.key("acme2", "admin")
    await served.client.post(f"{served.base}/events", content=ndjson([event()]), headers=NDJSON | writer)
    receipt = await erase_tenant(served.service.plane.engine, "acme")
    served.service.tenants.forget("acme")
    calls = (await read(served, operator))["calls"]
    assert [(call["action"], call["subject"]) for call in calls][-3:] == [
        ("tenant_erasure_request", receipt.erasure),
        ("tenant_erasure", receipt.erasure),
        ("key_revoke", id_of(writer)),
    ]
    (batch,) = (await read(served, operator, "audit/writes"))["batches"]
    assert (batch["requests"][0]["actor"], batch["writes"]) == (id_of(writer), 1)
    first = await read(served, operator, limit=1)
    assert (await read(served, operator, limit=1000, cursor=first["cursor"]))["calls"] == calls[1:]
    for what in ("audit", "audit/writes"):
        problem(await served.client.get(f"{served.base}/{what}", headers=reader), 403, "scope_missing")
        problem(await served.client.get(f"{served.base}/{what}", headers=other), 404, "tenant_not_found")
        nobody = f"/v1/tenants/nobody/{what}"
        problem(await served.client.get(nobody, headers=operator), 404, "tenant_not_found")
    slow = await served.key(None, "admin", requests_per_s=0.001)
    assert (await read(served, slow))["calls"] == calls
    problem(await served.client.get(f"{served.base}/audit", headers=slow), 429, "rate_limited")


async def test_settings_are_audited_before_they_hold(served: Served) -> None:
    operator = await served.key(None, "admin")
    sent = operator | {"x-request-id": "r-1"}
    answer = await served.client.put(served.base, json={"settings": {"requests_per_s": 5}}, headers=sent)
    assert answer.status_code == 200
    call = (await read(served, operator))["calls"][-1]
    assert (call["action"], call["actor"], call["outcome"]) == ("tenant_put", id_of(operator), "done")
    assert call["request"] == hashlib.sha256(b"r-1").hexdigest()[:16]
    assert call["counts"] == {"created": 0}


async def test_pages_tell_everything_once(served: Served) -> None:
    """Seen to fail with the last entry of a page told again by the next."""
    for n in range(5):
        await served.write(event(id=str(n)))
    admin, *_ = [await served.key("acme", "admin") for _ in range(4)]
    for what, name in (("audit", "calls"), ("audit/writes", "batches")):
        whole = (await read(served, admin, what, limit=1000))[name]
        assert len(whole) >= 4
        found: list[Any] = []
        page = await read(served, admin, what, limit=2)
        while True:
            found += page[name]
            if page["cursor"] is None:
                break
            page = await read(served, admin, what, limit=2, cursor=page["cursor"])
        assert found == whole
        later = await read(served, admin, what, since=whole[2]["at"], limit=1000)
        assert later[name] == whole[2:]
    other = await read(served, admin, limit=1)
    refused = await served.client.get(f"{served.base}/audit/writes", headers=admin, params={"cursor": other["cursor"]})
    problem(refused, 400, "cursor_invalid")
