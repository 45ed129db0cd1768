"""Writes over HTTP: every form means the same, all or nothing, durable when answered."""

from __future__ import annotations

import asyncio
import gzip

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from context_plane.errors import Invalid
from serving.limits import decode
from tests.serving.conftest import JSON, NDJSON, Served, event, ndjson


async def test_every_form_of_a_body_is_the_same_write(served: Served) -> None:
    events = [event(id="b"), event(id="a", ts="2026-03-05T00:00:00Z")]
    plain, wrapped = ndjson(events), b'{"events": [' + b",".join(ndjson([e]) for e in events) + b"]}"
    forms = [
        (plain, NDJSON),
        (plain.rstrip(), {"content-type": "application/x-ndjson; charset=utf-8"}),
        (plain.replace(b"\n", b"\r\n\r\n"), NDJSON),
        (wrapped, JSON),
        (zstandard.ZstdCompressor().compress(plain), NDJSON | {"content-encoding": "zstd"}),
        (gzip.compress(wrapped), JSON | {"content-encoding": "gzip"}),
        (gzip.compress(plain[:40]) + gzip.compress(plain[40:]), NDJSON | {"content-encoding": "gzip"}),
    ]
    for number, (body, headers) in enumerate(forms, start=1):
        response = await served.client.post(f"{served.base}/events", content=body, headers=headers)
        assert response.status_code == 201, response.text
        assert response.json() == {
            "accepted": 2,
            "duplicates": 0,
            "batch": number,
            "days": ["2026-03-04", "2026-03-05"],
            "snapshot": f"0.{number}",
        }
        assert await served.ids("acct-0042") == ["b", "a"]


async def test_the_last_of_one_identity_wins_and_deletes_are_writes(served: Served) -> None:
    answer = await served.write(event(id="1", text="first"), event(id="1", text="second"), event(id="2"))
    assert (answer["accepted"], answer["duplicates"]) == (2, 1)
    timeline = (await served.client.get(served.of("acct-0042", "timeline"))).json()
    assert {item["id"]: item["text"] for item in timeline["events"]}["1"] == "second"
    gone = {"events": [{"entity": "acct-0042", "ts": "2026-03-04T00:00:00Z", "id": "1"}]}
    assert (await served.post("/events:delete", gone)).status_code == 201
    assert await served.ids("acct-0042") == ["2"]
    await served.write({"entity": "acct-0042", "ts": "2026-03-04T00:00:00Z", "id": "2", "op": "delete"})
    assert await served.ids("acct-0042") == []


async def test_bulk_loads_stay_out_of_reads_until_built(served: Served) -> None:
    response = await served.client.post(
        f"{served.base}/events?visible=after_build", content=ndjson([event(id="bulk")]), headers=NDJSON
    )
    assert response.status_code == 201
    assert await served.ids("acct-0042") == []
    await served.service.plane.build("acme", ["2026-03-04"])
    assert await served.ids("acct-0042") == ["bulk"]


async def test_concurrent_writers_share_batches_and_lose_nothing(served: Served) -> None:
    made = await asyncio.gather(*(served.write(event(id=f"{n:03}", ts="2026-03-04T00:00:00Z")) for n in range(40)))
    assert len({answer["batch"] for answer in made}) < 40
    assert await served.ids("acct-0042") == [f"{n:03}" for n in range(40)]
    assert (served.service.ledger.bytes_held, served.service.ledger.requests) == (0, 0)


async def test_a_tenant_that_was_only_written_to_exists(served: Served) -> None:
    plane = served.service.plane
    from context_plane.wire import parse_event

    write = parse_event(event(), now_us=plane.engine.now_us())
    await plane.write("cli-made", [write], body_bytes=100)
    found = (await served.client.get("/v1/tenants/cli-made")).json()
    assert (found["tenant"], found["created"]) == ("cli-made", None)


BODIES = st.binary(max_size=5000)


@given(BODIES, st.integers(0, 3))
def test_decoding_gives_back_what_was_encoded(body: bytes, copies: int) -> None:
    frames = zstandard.ZstdCompressor().compress(body)
    members = gzip.compress(body)
    assert decode(frames * (copies + 1), "zstd", bytes_max=20_000) == body * (copies + 1)
    assert decode(members * (copies + 1), "gzip", bytes_max=20_000) == body * (copies + 1)


@given(BODIES, st.data())
def test_no_cut_body_is_taken_for_a_whole_one(body: bytes, data: st.DataObject) -> None:
    for name, sent in (("zstd", zstandard.ZstdCompressor().compress(body)), ("gzip", gzip.compress(body))):
        cut = data.draw(st.integers(0, len(sent) - 1))
        with pytest.raises(Invalid, match="encoding_invalid"):
            decode(sent[:cut], name, bytes_max=20_000)


@given(st.binary(min_size=1, max_size=5000))
def test_the_bound_is_exact(body: bytes) -> None:
    for name, sent in (("zstd", zstandard.ZstdCompressor().compress(body)), ("gzip", gzip.compress(body))):
        assert decode(sent, name, bytes_max=len(body)) == body
        with pytest.raises(Invalid, match="body_too_large"):
            decode(sent, name, bytes_max=len(body) - 1)
