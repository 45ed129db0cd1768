"""Rates of keys and tenants: what is paid, by whom, and what answers tell of it."""

from __future__ import annotations

import re
import time

import httpx
import orjson
import pytest

from context_plane.access import AccessKey
from context_plane.errors import Unavailable
from context_plane.tenants import Tenant, TenantSettings
from serving.auth import Caller
from serving.mcp import tools
from serving.rates import REFUSALS_PER_S, Allowance, Rates
from tests.serving.conftest import Served, event, problem
from tests.serving.doors import CONTEXT, WAYS, Ask, Doors


class Clock:
    s = 0.0

    def __call__(self) -> float:
        return self.s


def tenant_of(name: str = "a", requests_per_s: float | None = None, bytes_per_s: float | None = None) -> Tenant:
    return Tenant(tenant=name, settings=TenantSettings(requests_per_s=requests_per_s, bytes_per_s=bytes_per_s))


def key_of(name: str, requests_per_s: float | None = None, bytes_per_s: float | None = None) -> AccessKey:
    scopes: frozenset[str] = frozenset({"read"})
    return AccessKey(name, "", "a", scopes, 0, None, None, "", requests_per_s, bytes_per_s)  # type: ignore[arg-type]  # a scope is a literal


def given(rates: Rates, key: AccessKey | None, tenant: Tenant) -> Allowance:
    allowance = rates.allowance(key, tenant)
    assert allowance is not None
    return allowance


def told(allowance: Allowance) -> tuple[str, str]:
    policy, left = allowance.fields()
    assert (policy[0], left[0]) == (b"ratelimit-policy", b"ratelimit")
    return policy[1].decode(), left[1].decode()


def test_a_rate_is_a_bucket_of_one_second() -> None:
    """Seen to fail with the bucket never filled again, and with the size of a second left out."""
    clock = Clock()
    rates = Rates(clock)
    one, other = given(rates, None, tenant_of("a", 5)), given(rates, None, tenant_of("b", 5))
    for _ in range(5):
        one.take()
    with pytest.raises(Unavailable, match="rate_limited") as refused:
        one.take()
    assert refused.value.retry_after_s == pytest.approx(0.2)
    other.take()
    clock.s = 0.21
    one.take()
    clock.s = 100.0
    assert [one.taken() for _ in range(6)] == [True] * 5 + [False]


def test_a_key_has_its_own_rate_or_shares_its_tenants() -> None:
    """Seen to fail with a bucket per key for all, and with the tenant's rate taken where a key has its own."""
    rates, tenant = Rates(Clock()), tenant_of("a", 1, 100)
    own = key_of("k1", requests_per_s=2)
    assert [given(rates, own, tenant).taken() for _ in range(3)] == [True, True, False]
    assert given(rates, key_of("k2"), tenant).taken()
    assert not given(rates, key_of("k3"), tenant).taken(), "another key of the tenant used it up"
    given(rates, own, tenant).spend(1_000)
    assert not given(rates, key_of("k4", requests_per_s=9), tenant).taken(), "bytes are the tenant's still"
    assert rates.allowance(key_of("k5"), tenant_of("free")) is None
    assert given(rates, None, tenant_of("a", 7)).taken(), "a new rate begins with a full bucket"


def test_bytes_are_paid_afterwards() -> None:
    """Seen to fail with the level not let below zero."""
    clock = Clock()
    allowance = given(Rates(clock), None, tenant_of("a", None, 100))
    assert allowance.taken()
    allowance.spend(350)
    assert told(allowance) == ('"bytes";q=100;qu="content-bytes";w=1', '"bytes";r=0;t=3')
    with pytest.raises(Unavailable) as refused:
        allowance.take()
    assert refused.value.retry_after_s == pytest.approx(2.51)
    clock.s = 2.52
    assert allowance.taken()


def test_the_fields_are_those_of_the_draft() -> None:
    """Structured fields (RFC 9651): a list of strings with integer parameters, and a window of whole seconds over 0."""
    item = r'"[a-z]+"(;(q|r|w|t)=\d{1,15}|;qu="content-bytes")+'
    for per_s in (0.1, 0.5, 1, 3.7, 100_000):
        allowance = given(Rates(Clock()), key_of("k", per_s, 1e12), tenant_of())
        allowance.take()
        for field in told(allowance):
            assert re.fullmatch(f"{item}, {item}", field), field
    slow = given(Rates(Clock()), None, tenant_of("a", 0.1))
    assert told(slow) == ('"requests";q=1;w=10', '"requests";r=1;t=10')
    slow.take()
    assert told(slow)[1] == '"requests";r=0;t=10'


def test_a_refusal_for_bytes_waits_for_bytes_alone() -> None:
    """Seen to fail (10 s) with the requests not filled up to the time of the refusal."""
    clock = Clock()
    allowance = given(Rates(clock), None, tenant_of("a", 0.1, 100))
    allowance.take()
    allowance.spend(1_100)
    clock.s = 10.0
    with pytest.raises(Unavailable) as refused:
        allowance.take()
    assert refused.value.retry_after_s == pytest.approx(0.01)
    clock.s = 10.02
    assert [allowance.taken(), allowance.taken()] == [True, False]


UNKNOWN = "0" * 32
OF_ADMIN = [
    ("GET", "/v1/tenants", 200),
    ("PUT", "/v1/tenants/other", 201),
    ("DELETE", "/v1/tenants/nobody", 404),
    ("GET", f"/v1/tenants/acme/erasures/{UNKNOWN}", 404),
    ("GET", f"/v1/tenants/nobody/erasures/{UNKNOWN}", 404),
]


@pytest.mark.parametrize(("method", "path", "status"), OF_ADMIN)
async def test_what_operators_ask_is_rated_too(served: Served, method: str, path: str, status: int) -> None:
    """Seen to fail with each route asking for the key and no more."""
    frozen = time.monotonic()
    served.service.rates.monotonic_s = lambda: frozen
    key = await served.key(None, "read", "admin", requests_per_s=1)

    async def ask() -> httpx.Response:
        return await served.client.request(method, path, headers=key, json={} if method == "PUT" else None)

    first = await ask()
    assert (first.status_code, first.headers["ratelimit"]) == (status, '"requests";r=0;t=1')
    problem(await ask(), 429, "rate_limited")


@pytest.mark.parametrize("path", ["/v1/tenants", f"/v1/tenants/acme/erasures/{UNKNOWN}"])
async def test_a_tenants_key_pays_its_tenants_rate_there(served: Served, path: str) -> None:
    """And who mends that rate does not wait for it. Seen to fail with the key's own rate alone."""
    await served.create(requests_per_s=1)
    frozen = time.monotonic()
    served.service.rates.monotonic_s = lambda: frozen
    key, operator = await served.key("acme", "read", "admin"), await served.key(None, "admin")
    assert (await served.client.get(path, headers=key)).status_code in (200, 404)
    problem(await served.client.get(path, headers=key), 429, "rate_limited")
    mended = await served.client.put(served.base, headers=operator, json={"settings": {"requests_per_s": 2}})
    assert mended.status_code == 200


async def test_answers_tell_a_limited_caller_what_is_left_and_others_nothing(served: Served) -> None:
    """Seen to fail with the fields left to answers that succeed."""
    key, free = await served.key("acme", "read", requests_per_s=2), await served.key("acme", "read")
    assert "ratelimit" not in (await served.client.get(served.base, headers=free)).headers
    answers = [await served.client.get(served.base, headers=key) for _ in range(3)]
    assert [answer.headers["ratelimit"] for answer in answers] == [f'"requests";r={left};t=1' for left in (1, 0, 0)]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"requests";q=2;w=1'}
    problem(answers[-1], 429, "rate_limited")
    assert answers[-1].headers["retry-after"] == "1"
    assert (await served.client.get(served.base, headers=free)).status_code == 200


async def test_a_refused_request_pays_nothing_however_often_it_is_sent_again(served: Served) -> None:
    """Seen to fail with the bodies of refusals paid: who asked again without a pause was never let in."""
    key = await served.key("acme", "read", bytes_per_s=1_000)
    frozen = time.monotonic()
    served.service.rates.monotonic_s = lambda: frozen
    assert (await served.client.get(served.base, headers=key)).status_code == 200
    bucket = served.service.rates._buckets[f"key {key['authorization'][10:26]}", "bytes"]
    assert bucket.level < 1_000, "an answer is paid"
    bucket.level = 0.0
    for _ in range(5):
        problem(await served.client.get(served.base, headers=key), 429, "rate_limited")
    assert bucket.level == 0.0


@pytest.mark.parametrize(("path", "status"), [("/v1/tenants/other/snapshot", 404), ("/v1/tenants/acme/audit", 403)])
async def test_what_a_key_does_not_open_is_paid_too(served: Served, path: str, status: int) -> None:
    """Each asks the store. Seen to fail with admitted requests paid alone."""
    await served.create()
    frozen = time.monotonic()
    served.service.rates.monotonic_s = lambda: frozen
    limited, free = await served.key("acme", "read", requests_per_s=1), await served.key("acme", "read")
    assert (await served.client.get(path, headers=limited)).status_code == status
    problem(await served.client.get(path, headers=limited), 429, "rate_limited")
    problem(await served.client.get(f"{served.base}/snapshot", headers=limited), 429, "rate_limited")
    for _ in range(int(REFUSALS_PER_S)):
        assert (await served.client.get(path, headers=free)).status_code == status
    problem(await served.client.get(path, headers=free), 429, "rate_limited")
    assert (await served.client.get(f"{served.base}/snapshot", headers=free)).status_code == 200


async def test_a_tenant_leaves_the_others_half(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with requests counted for all together."""
    await served.create()
    operator = await served.key(None, "admin", "read")
    created = await served.client.put("/v1/tenants/other", json={"settings": {}}, headers=operator)
    assert created.status_code == 201
    ledger, mine, other = served.service.ledger, await served.key("acme", "read"), await served.key("other", "read")
    monkeypatch.setattr(ledger, "of_tenant_max", 1)
    ledger.enter_tenant("acme")  # somebody does not read what it asked for
    problem(await served.client.get(f"{served.base}/snapshot", headers=mine), 429, "rate_limited")
    assert (await served.client.get("/v1/tenants/other/snapshot", headers=other)).status_code == 200
    ledger.leave_tenant("acme")
    for _ in range(2):
        assert (await served.client.get(f"{served.base}/snapshot", headers=mine)).status_code == 200
    assert (dict(ledger.of_tenant), ledger.requests) == ({}, 0)


async def test_a_search_pays_what_it_goes_through_however_warm(served: Served) -> None:
    """Seen to fail with the bytes that came from the store paid instead, and with answers not paid."""
    await served.write(event(id="e1"), event("other", id="e2"))
    await served.service.plane.build("acme", ["2026-03-04"])
    frozen = time.monotonic()
    served.service.rates.monotonic_s = lambda: frozen
    key = await served.key("acme", "read", bytes_per_s=1_000_000)

    async def left() -> int:
        bucket = served.service.rates._buckets[f"key {key['authorization'][10:26]}", "bytes"]
        return int(bucket.level)

    body, before = {"text": "export", "consistency": "eventual"}, 1_000_000
    for _ in range(3):
        answer = await served.client.post(f"{served.base}/search", json=body, headers=key)
        scanned = answer.json()["stats"]["bytes_scanned"]
        assert scanned > 0
        assert before - await left() == scanned + len(answer.content)
        before = await left()
    assert answer.json()["stats"]["bytes_read"] == 0
    served.service.rates._buckets[f"key {key['authorization'][10:26]}", "bytes"].level = 0.5
    refused = await served.client.post(f"{served.base}/search", content=orjson.dumps(body), headers=key)
    problem(refused, 429, "rate_limited")


async def test_a_search_of_an_agent_pays_as_the_route_does(served: Served) -> None:
    """Seen to fail with the tool asking the plane by itself."""
    await served.write(event(id="e1"), event("other", id="e2"))
    await served.service.plane.build("acme", ["2026-03-04"])
    found = await served.client.post(f"{served.base}/search", json={"text": "export"})
    scanned = found.json()["stats"]["bytes_scanned"]
    assert scanned > 0
    paying = tenant_of("acme", bytes_per_s=1_000_000)
    allowance = given(Rates(Clock()), None, paying)
    caller = Caller(served.service, paying, None, allowance)
    text, failed = await tools.call(caller, "search_context", {"query": "export"}, "r-1")
    assert (failed, text.startswith("2 events")) == (False, True)
    assert allowance.content is not None
    assert allowance.content.level == 1_000_000 - scanned


async def test_all_doors_pay_alike(doors: Doors) -> None:
    """Bundles from the router, straight and kept: one request and the body's bytes each. Seen to fail with kept answers
    that pay no bytes, and with those that tell no limits."""
    frozen = time.monotonic()
    doors.monkeypatch.setattr(doors.served.service.rates, "monotonic_s", lambda: frozen)
    own = await doors.served.key("acme", "read", requests_per_s=100, bytes_per_s=1e9)
    doors.key = own["authorization"].encode()
    await doors.ask(Ask(CONTEXT), "direct")
    paid = []
    for way in (*WAYS, "kept"):
        before = levels(doors)
        status, headers, body, _ = await doors.ask(Ask(CONTEXT), way)
        after = levels(doors)
        assert (status, b"ratelimit" in dict(headers)) == (200, True)
        assert dict(headers)[b"ratelimit-policy"].startswith(b'"requests";q=100;w=1, "bytes";q=1000000000')
        paid.append((before[0] - after[0], before[1] - after[1] - len(body)))
    assert doors.was_kept
    assert paid == [(1, 0)] * 4


def levels(doors: Doors) -> tuple[float, float]:
    buckets = doors.served.service.rates._buckets
    owner = f"key {doors.key.decode()[10:26]}"
    return buckets[owner, "requests"].level, buckets[owner, "bytes"].level


async def test_a_kept_answer_waits_for_the_bytes_of_those_before_it(doors: Doors) -> None:
    """Seen to fail (200) with the bytes of kept answers not asked for."""
    frozen = time.monotonic()
    doors.monkeypatch.setattr(doors.served.service.rates, "monotonic_s", lambda: frozen)
    own = await doors.served.key("acme", "read", bytes_per_s=1e9)
    doors.key = own["authorization"].encode()
    for _ in range(2):
        await doors.ask(Ask(CONTEXT), "direct")
    assert (await doors.ask(Ask(CONTEXT), "kept"))[0] == 200
    assert doors.was_kept
    doors.served.service.rates._buckets[f"key {doors.key.decode()[10:26]}", "bytes"].level = 0.0
    assert (await doors.ask(Ask(CONTEXT), "kept"))[0] == 429
    assert not doors.was_kept
