"""A bundle and a search without the framework's router: the same bytes, headers and errors as with it."""

from __future__ import annotations

import asyncio
import re
import time
from urllib.parse import quote_from_bytes, unquote_to_bytes

import orjson
from hypothesis import given
from hypothesis import strategies as st

from serving.paths import _KEPT, canonical_path
from tests.serving.conftest import DAY
from tests.serving.doors import CONTEXT, ODD, Ask, Doors, of

SEARCH = b"/v1/tenants/acme/search"


async def test_bundles_are_the_same_through_all_doors(doors: Doors) -> None:
    """Seen to fail with the query ignored, with `If-None-Match` not handed on, and with the entity left encoded."""
    tag = doors.etag
    odd = quote_from_bytes(ODD.encode(), safe="").encode()
    lower = re.sub(rb"%[0-9A-F]{2}", lambda found: found[0].lower(), odd)
    cases: list[tuple[int, Ask]] = [
        (200, Ask(CONTEXT)),
        (200, Ask(of(b"acct%2D1"))),
        (200, Ask(of(odd))),
        (200, Ask(of(lower))),
        (200, Ask(of(b"%2E%2E"))),
        (200, Ask(CONTEXT, b"format=text")),
        (200, Ask(CONTEXT, b"format=json&spec=customer_context_v0")),
        (200, Ask(CONTEXT, b"as_of=" + DAY.encode())),
        (200, Ask(CONTEXT, b"spec=customer%5Fcontext_v0")),
        (200, Ask(CONTEXT, headers=((b"if-none-match", b'"other"'),))),
        (200, Ask(CONTEXT, b"format=text", headers=((b"if-none-match", tag),))),
        (200, Ask(CONTEXT, headers=((b"if-none-match", b'"other"'), (b"if-none-match", tag)))),
        *((304, Ask(CONTEXT, headers=((b"if-none-match", each),))) for each in (tag, b"W/" + tag, b'"x",' + tag, b"*")),
        (404, Ask(of(b"nobody"))),
        (404, Ask(of(b"newcomer"))),
        (404, Ask(CONTEXT, b"spec=none")),
        (404, Ask(CONTEXT, b"as_of=2020-01-01")),
        (404, Ask(CONTEXT, b"snapshot=99.1")),
        (404, Ask(CONTEXT + b"/")),
        (404, Ask(of(b"a/b"))),
        (404, Ask(of(b""))),
        (400, Ask(CONTEXT, b"snapshot=new")),
        (422, Ask(CONTEXT, b"as_of=march")),
        (422, Ask(CONTEXT, b"format=xml")),
        (422, Ask(CONTEXT, b"formats=text")),
        (422, Ask(CONTEXT, b"spec=a&spec=b&nonsense")),
        (404, Ask(CONTEXT, b"spec=a&spec=b")),
        (404, Ask(CONTEXT, b"spec=")),
        (404, Ask(CONTEXT, b"spec=" + b"x" * 400)),
        (422, Ask(of(b"%FF"))),
        (422, Ask(of(b"x" * 257))),
        (405, Ask(CONTEXT, method="HEAD")),
        (405, Ask(CONTEXT, method="DELETE")),
    ]  # fmt: skip
    for status, ask in cases:
        assert (await doors.same(ask))[0] == status, ask
        assert doors.was_kept == (status in (200, 304)), ask
    snapshot = dict((await doors.same(Ask(CONTEXT)))[1])[b"x-snapshot"]
    assert (await doors.same(Ask(CONTEXT, b"snapshot=" + snapshot)))[0] == 200
    assert not doors.was_kept


async def test_who_may_not_read_is_told_the_same_through_all_doors(doors: Doors) -> None:
    """Seen to fail (200) with keys not asked for, and (403) with another scope asked for."""
    expired = await doors.served.key("acme", expires_us=time.time_ns() // 1000 + 100_000)
    await asyncio.sleep(0.11)
    unknown = b"Bearer cp_0123456789abcdef_" + b"A" * 43
    keys = {
        401: [b"", b"Bearer", b"Basic abc", unknown, expired["authorization"].encode()],
        403: [(await doors.served.key("acme", "write"))["authorization"].encode()],
        404: [(await doors.served.key("other"))["authorization"].encode()],
    }  # fmt: skip
    search = (b"content-type", b"application/json"), orjson.dumps({"text": "export"})
    for status, headers in keys.items():
        for header in headers:
            who = (b"authorization", header)
            assert (await doors.same(Ask(CONTEXT, headers=(who,), key=False)))[0] == status
            found = await doors.same(Ask(SEARCH, b"", "POST", (who, search[0]), search[1], key=False))
            assert found[0] == status
    operator = (b"authorization", (await doors.served.key(None))["authorization"].encode())
    for tenant, status in ((b"ghost", 404), (b"NOT-A-NAME", 422), (b"%2e%2e", 422)):
        path = CONTEXT.replace(b"acme", tenant)
        assert (await doors.same(Ask(path, headers=(operator,), key=False)))[0] == status
    doors.served.service.keyring._any.forget("any")  # the process had met a store without keys
    assert (await doors.same(Ask(CONTEXT, key=False)))[0] == 401


async def test_searches_are_the_same_through_all_doors(doors: Doors) -> None:
    """Seen to fail (403) with another scope asked for, and (500) with errors not turned into problems."""
    json = (b"content-type", b"application/json")
    cases: list[tuple[int, tuple[tuple[bytes, bytes], ...], object]] = [
        (200, (json,), {"text": "export fails", "consistency": "eventual"}),
        (200, (json,), {"text": "export", "entities": ["acct-1", ODD], "include": ["snippet", "vector"]}),
        (200, (json,), {"text": "export", "mode": "text", "group_by": "entity", "explain": True}),
        (422, (json,), {"text": "export", "limit": 0}),
        (422, (json,), {"nonsense": 1}),
        (422, (json,), {}),
        (400, (json,), b"{"),
        (415, (), {"text": "export"}),
        (415, ((b"content-type", b"text/plain"),), {"text": "export"}),
        (400, (json, (b"content-encoding", b"gzip")), {"text": "export"}),
        (404, (json,), {"text": "export", "snapshot": "99.1"}),
    ]
    for status, headers, body in cases:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        found = await doors.same(Ask(SEARCH, b"any=thing", "POST", headers, raw))
        assert found[0] == status, (found, body)
    assert (await doors.same(Ask(SEARCH)))[0] == 405


async def test_a_rate_is_one_for_all_doors(doors: Doors) -> None:
    """Seen to fail (all are answered) with the rate not taken by the direct way."""
    service = doors.served.service
    frozen = time.monotonic()
    doors.monkeypatch.setattr(service.rates, "monotonic_s", lambda: frozen)
    operator = await doors.served.key(None, "admin")
    made = await doors.served.client.put("/v1/tenants/acme", json={"settings": {"requests_per_s": 4}}, headers=operator)
    assert made.status_code == 200
    found = [await doors.ask(Ask(CONTEXT), way) for way in ("direct", "routed", "any") * 2]
    assert [answer[0] for answer in found] == [200] * 4 + [429] * 2
    assert found[4][1:] == found[5][1:]


async def test_a_plain_bundle_does_not_meet_the_router(doors: Doors) -> None:
    """Seen to fail with every query string declined. The parity above would hold without any direct way."""
    router = doors.served.app.router

    async def met(*_: object) -> None:
        raise AssertionError("the router was asked")

    doors.monkeypatch.setattr(router, "app", met, raising=False)
    doors.monkeypatch.setattr(type(router), "__call__", met)
    for query in (b"", b"format=text"):
        assert (await doors.ask(Ask(CONTEXT, query)))[0] == 200
    body = orjson.dumps({"text": "export", "consistency": "eventual"})
    json = (b"content-type", b"application/json")
    assert (await doors.ask(Ask(SEARCH, b"", "POST", (json,), body)))[0] == 200


@given(st.one_of(st.binary(max_size=40), st.text("aZ09/%~.-_:@!$&'()*+,;=2Ff", max_size=40).map(str.encode)))
def test_a_canonical_path_is_each_segment_decoded_and_encoded(raw: bytes) -> None:
    """Seen to fail with `%` among the characters that are left as they are."""
    slow = "/".join(quote_from_bytes(unquote_to_bytes(part), safe=_KEPT) for part in raw.split(b"/"))
    assert canonical_path(raw) == slow
    assert canonical_path(slow.encode()) == slow
