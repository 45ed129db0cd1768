"""Both faces of the client against the real service."""

from __future__ import annotations

import datetime as dt
import hashlib
import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import context_plane.client
from context_plane.client import Accepted, AsyncClient, Bundle, Client, NoBundle, methods, requests, values
from context_plane.client.problems import error_of
from context_plane.errors import CODES, Conflict, Corrupt, Denied, Fault, Invalid, NotFound, PlaneError, Unavailable
from serving import audit, limits, problems, shapes
from tests.client.live import DAY, Face, Live, Lose, Overloaded, Refuse, event, face

ODD = "a/b .. é?#%\u2028"


# --- the surface --------------------------------------------------------------------------------


def test_the_exported_names_are_these() -> None:
    assert context_plane.client.__all__ == sorted(context_plane.client.__all__)
    assert " ".join(context_plane.client.__all__) == (
        "Accepted AsyncClient AuditedCall Bundle BundleInputs Change Citation Client EntityInfo ErasureState Event "
        "FoundEvent Hit Ingested NoBundle Retries SearchAnswer Snapshot TenantInfo"
    )
    assert all(hasattr(context_plane.client, name) for name in context_plane.client.__all__)


def test_both_faces_have_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(Client) - {"close"} == public(AsyncClient) - {"aclose"}
    with Client("http://127.0.0.1:1", "acme") as client:
        assert "entity" in inspect.signature(client.context).parameters


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (values.Accepted, shapes.AcceptedOut),
        (values.Citation, shapes.CitationOut),
        (values.FoundEvent, shapes.TimelineEventOut),
        (values.Legs, shapes.LegValues),
        (values.Hit, shapes.HitOut),
        (values.Stats, shapes.StatsOut),
        (values.SearchAnswer, shapes.SearchOut),
        (values.EntityInfo, shapes.EntityOut),
        (values.Snapshot, shapes.SnapshotOut),
        (values.Change, shapes.ChangeOut),
        (values.InputSegment, shapes.InputSegmentOut),
        (values.Cited, shapes.CitedOut),
        (values.BundleInputs, shapes.WhyOut),
        (values.TenantInfo, shapes.TenantOut),
        (values.Receipt, shapes.ReceiptOut),
        (values.ErasureState, shapes.ErasureStateOut),
        (values.AuditedCall, audit.CallOut),
    ],
)
def test_answers_have_the_fields_that_the_service_describes(ours: Any, theirs: Any) -> None:
    """Seen to fail with a field left out of either side."""
    assert list(ours.model_fields) == list(theirs.model_fields)


def test_requests_keep_within_the_limits_of_the_service() -> None:
    event_bytes_max = (256 + 16 + 256 + 128) * 1024  # text, attrs, a vector of 4,096 numbers, names
    assert requests.EVENTS_MAX <= limits.EVENTS_MAX
    assert requests.BATCH_BYTES + event_bytes_max <= limits.EVENTS_BODY_BYTES_MAX
    assert requests.BATCH_ENTITIES <= limits.BATCH_ENTITIES_MAX


@given(st.lists(st.binary(max_size=20).map(lambda part: part.replace(b"\n", b"")), max_size=8), st.data())
def test_lines_are_the_same_however_they_arrive(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"\n".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    lines = requests.Lines()
    found: list[bytes] = []
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        found += lines.feed(whole[start:stop])
    assert found + lines.rest() == [part for part in parts if part]


# --- reads and writes ---------------------------------------------------------------------------


async def test_what_is_written_is_found(ask: Face, live: Live) -> None:
    accepted = await ask("write", [event(1), event(2, ODD)])
    assert isinstance(accepted, Accepted)
    assert (accepted.accepted, accepted.days) == (2, [DAY])
    answer = await ask("search", "export fails", entities=[ODD], where={"eq": ["source", "zendesk"]})
    assert [(hit.id, hit.entity) for hit in answer.hits] == [("e2", ODD)]
    assert answer.hits[0].ts == event(2)["ts"]
    assert answer.hits[0].citation.line == 3  # the log object's first line is its header
    assert [info.entity for info in await ask("entities")] == sorted(["acct-1", ODD])
    assert (await ask("snapshot")).pending_events == 2
    assert (await ask("tenant")).settings["requests_per_s"] is None
    await ask("warm", entities=["acct-1"])
    await ask("delete", [(ODD, event(2)["ts"], "e2")])
    assert await ask("search", "export fails", entities=[ODD]) != answer
    with pytest.raises(NotFound, match="entity_not_found"):
        await ask("timeline", "..")
    assert live.slept == []


async def test_a_bundle_that_did_not_change_is_not_sent_again(ask: Face, live: Live, tenant: str) -> None:
    """Seen to fail without If-None-Match."""
    await ask("write", [event(1)])
    live.build(tenant, DAY)
    for form in ("json", "text"):
        bundle = await ask("context", "acct-1", format=form)
        assert isinstance(bundle, Bundle)
        again = await ask("context", "acct-1", format=form, known=bundle)
        assert again == bundle
        assert live.door.seen[-1].headers["if-none-match"] == bundle.etag
        assert again.content is bundle.content, "the service sent it again"
    assert "acct-1" in bundle.content
    data = (await ask("context", "acct-1", format="json", as_of=dt.date(2026, 3, 4))).json()
    assert (data["entity"], data["as_of"]) == ("acct-1", DAY)
    asked = await ask("context_on_demand", "acct-1", "what is broken?", until=event(5)["ts"])
    assert "export fails" in asked.content


async def test_contexts_of_any_number_of_entities_are_of_one_cut(
    ask: Face, live: Live, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with the snapshot left out of the later requests."""
    monkeypatch.setattr(requests, "BATCH_ENTITIES", 2)
    names = [f"acct-{n}" for n in range(5)]
    await ask("write", [event(1, name, f"{name}\u2028 \x85 asks") for name in names if name != "acct-3"])
    live.build(tenant, DAY)
    live.door.seen.clear()
    found = await ask("contexts", iter(names), format="json")
    assert [item.entity for item in found] == names
    cuts = {item.snapshot for item in found if isinstance(item, Bundle)}
    assert [seen.json().get("snapshot") for seen in live.door.seen] == [None, *cuts, *cuts]
    assert isinstance(found[3], NoBundle)
    assert found[3].error.code == "entity_not_found"
    for item in (found[0], found[4]):
        assert item == await ask("context", item.entity, format="json")
        assert f'"{hashlib.sha256(item.content.encode()).hexdigest()}"' == item.etag
    everything = await ask("contexts", None)
    assert [item.entity for item in everything] == [name for name in names if name != "acct-3"]
    with pytest.raises(NotFound, match="spec_not_found"):
        await ask("contexts", names, spec="nothing_v0")


async def test_a_batch_that_begins_with_unknown_entities_is_of_one_cut(
    ask: Face, live: Live, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with the cut taken from the first bundle: the second request was of whichever was newest by then."""
    monkeypatch.setattr(requests, "BATCH_ENTITIES", 2)
    await ask("write", [event(1)])
    live.build(tenant, DAY)
    live.door.seen.clear()
    found = await ask("contexts", ["nobody", "no-one", "acct-1"])
    assert [isinstance(item, Bundle) for item in found] == [False, False, True]
    assert [seen.json().get("snapshot") for seen in live.door.seen] == [None, found[2].snapshot]


async def test_a_timeline_is_read_page_by_page(ask: Face, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with a cursor that is not sent on."""
    monkeypatch.setattr(methods, "PAGE_EVENTS", 2)
    await ask("write", [event(n) for n in range(5)])
    live.door.seen.clear()
    assert [found.id for found in await ask("timeline", "acct-1", kind=["ticket", "call"])] == [
        "e4", "e3", "e2", "e1", "e0",
    ]  # fmt: skip
    assert len(live.door.seen) == 3
    assert [found.id for found in await ask("timeline", "acct-1", order="asc", limit=3)] == ["e0", "e1", "e2"]
    assert len(live.door.seen) == 5
    assert await ask("timeline", "acct-1", limit=0) == []
    assert await ask("timeline", "acct-1", kind=["call"]) == []
    assert [found.id for found in await ask("timeline", "acct-1", since=event(4)["ts"])] == ["e4"]


# --- refusals -----------------------------------------------------------------------------------


async def test_a_refusal_that_says_when_is_waited_for(ask: Face, live: Live) -> None:
    """Seen to fail without the header's value."""
    live.door.faults += [Refuse(), Refuse("store_unavailable", 7.0), Refuse("tail_full", 600.0)]
    assert (await ask("search", "export")).hits == []
    assert live.slept == [3.0, 7.0, 30.0]
    live.door.faults += [Refuse()]
    assert await ask("entities") == []
    assert live.slept[3:] == [3.0]


async def test_no_refusal_is_asked_again_without_a_pause(ask: Face, live: Live) -> None:
    """Whatever stands between names no time at all, or a date that this machine's clock has passed. Seen to fail with
    what was named taken as it is."""
    live.door.faults += [Overloaded(503, "0"), Overloaded(429, "Wed, 21 Oct 2015 07:28:00 GMT")] * 3
    assert (await ask("search", "export")).hits == []
    assert all(0.25 * 2**n <= pause for n, pause in enumerate(live.slept)), live.slept
    assert len(live.slept) == 6


async def test_one_that_says_nothing_is_asked_a_few_times(ask: Face, live: Live) -> None:
    live.door.faults += [Overloaded()] * 9
    with pytest.raises(Unavailable, match="not from a context plane"):
        await ask("snapshot")
    assert len(live.door.seen) == 5
    assert live.slept == sorted(live.slept), "pauses grow"
    assert len(live.slept) == 4


async def test_what_a_service_that_stopped_may_have_written_is_sent_again_under_a_key_alone(
    ask: Face, live: Live
) -> None:
    """Seen to fail with a service that stopped taken for one that starts, which has done nothing."""
    live.door.faults += [Refuse("stopping")]
    with pytest.raises(Unavailable, match="stopping"):
        await ask("write", [event(1)], repeatable=False)
    live.door.faults += [Refuse("stopping")]
    assert (await ask("write", [event(1)])).accepted == 1
    assert len(live.door.seen) == 3


async def test_a_write_whose_answer_is_lost_is_written_once(ask: Face, live: Live) -> None:
    """Seen to fail with the key left out."""
    live.door.faults += [Lose(), Overloaded(502)]
    accepted = await ask("write", [event(1)])
    assert [seen.headers["idempotency-key"] for seen in live.door.seen] == [
        live.door.seen[0].headers["idempotency-key"]
    ] * 3
    assert accepted.accepted == 1
    assert (await ask("snapshot")).pending_log_objects == 1


def test_a_delete_whose_answer_is_lost_spares_what_was_written_since(live: Live, tenant: str) -> None:
    """Seen to fail with the key left out."""
    with Client(live.url, tenant) as other:
        other.write([event(1), event(2)])
        live.door.faults += [Lose()]

        def meanwhile(_: float) -> None:
            other.write([event(1)])

        with Client(live.url, tenant, sleep=meanwhile) as client:
            client.delete([("acct-1", event(1)["ts"], "e1")])
        assert [seen.path.rpartition("/")[2] for seen in live.door.seen][1:] == [
            "events:delete", "events", "events:delete",
        ]  # fmt: skip
        assert [found.id for found in other.timeline("acct-1")] == ["e2", "e1"]


async def test_a_write_without_a_key_is_not_sent_again_once_it_may_have_arrived(ask: Face, live: Live) -> None:
    """Seen to fail with every request repeatable."""
    live.door.faults += [Lose()]
    with pytest.raises(Unavailable, match="not_ready"):
        await ask("write", [event(1)], repeatable=False)
    assert len(live.door.seen) == 1
    assert "idempotency-key" not in live.door.seen[0].headers
    live.door.faults += [Refuse()]
    await ask("write", [event(1)], repeatable=False)
    assert live.slept == [3.0], "a refused one did not arrive"


async def test_an_answer_that_breaks_off_is_an_error(ask: Face, live: Live, tenant: str) -> None:
    """Of a page it is asked for again; of a stream that began, it is told. Seen to fail with errors left out."""
    await ask("write", [event(1)])
    live.door.faults += [Lose()]
    assert [found.id for found in await ask("timeline", "acct-1")] == ["e1"]
    live.build(tenant, DAY)
    live.door.faults += [Lose(parts=1)]
    with pytest.raises(Unavailable, match="broke off"):
        await ask("contexts", ["acct-1"])


async def test_what_cannot_succeed_is_not_repeated(ask: Face, live: Live) -> None:
    bad: dict[str, Any] = {**event(1), "ts": "yesterday"}
    with pytest.raises(Invalid) as raised:
        await ask("write", [event(2), bad])
    assert raised.value.code == "ts_invalid"
    assert [(fault.line, fault.code) for fault in raised.value.faults] == [(2, "ts_invalid")]
    with pytest.raises(Invalid, match="time zone"):
        await ask("search", "export", since=dt.datetime(2026, 3, 4))
    assert len(live.door.seen) == 1


@pytest.mark.parametrize("name", ["blocking", "asyncio"])
async def test_a_service_that_is_not_there(live: Live, name: Any) -> None:
    nowhere = Live("http://127.0.0.1:1", live.app, live.door, live.slept)
    async with face(nowhere, name, "acme") as asked:
        with pytest.raises(Unavailable, match="is it running there"):
            await asked("snapshot")
    assert len(live.slept) == 4
    for kind in (Client, AsyncClient):
        with pytest.raises(Invalid, match="http://host:port"):
            kind("127.0.0.1:8080", "acme")


@pytest.mark.parametrize("family", [Invalid, Denied, NotFound, Conflict, Unavailable, Corrupt])
def test_every_problem_becomes_the_error_it_was(family: type[PlaneError]) -> None:
    """Code, faults and the wait come along, and the family where the status tells it."""
    corrupt = {"corrupt_object", "format_unknown"}
    for code in CODES:
        fault = Fault(code, "what to do", line=3)
        sent = problems.response_of(family(code, "a detail", faults=[fault], retry_after_s=4.0), "r-1")
        found = error_of(sent.status_code, sent.headers, bytes(sent.body))
        assert (found.code, found.faults, found.retry_after_s) == (code, (fault,), 4.0)
        if code in corrupt or family is Corrupt:
            assert (type(found) is Corrupt) is (code in corrupt)
        elif code not in problems.STATUSES:
            assert type(found) is family


def test_a_problem_of_a_newer_service_is_told() -> None:
    found = error_of(404, {}, b'{"code": "brand_new", "detail": "look there", "status": 404}')
    assert (type(found), found.code, found.detail) == (NotFound, "internal", "brand_new: look there")


async def test_keys_are_sent(live: Live, tenant: str) -> None:
    async with face(live, "asyncio", tenant, key="cp_nonsense") as asked:
        with pytest.raises(Denied, match="key_invalid"):
            await asked("snapshot")
