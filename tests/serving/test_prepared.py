"""Answers that are kept: sent again only while the normal path would say the same, and counted as it counts them.

That they are the same bytes is held by `test_hot_path`.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest

from context_plane.access import revoke_key, rotate_key
from context_plane.cache.recent import Held, Latest
from context_plane.catalog.log import LogObject
from context_plane.catalog.manifest import Manifest
from context_plane.erase import erase_entity
from context_plane.reindex import build_day
from context_plane.retrieval.snapshots import Snapshots
from serving import prepared
from serving.prepared import KeptAnswers, RequestIds
from tests.serving.conftest import DAY, event
from tests.serving.doors import CONTEXT, Ask, Doors, of

ASK = Ask(CONTEXT)


def kept_of(doors: Doors) -> KeptAnswers:
    app: Any = doors.served.app
    found: KeptAnswers = app.kept
    return found


def key_id(doors: Doors) -> str:
    return doors.key.decode().removeprefix("Bearer cp_")[:16]


def cut_of(doors: Doors) -> Held[Any]:
    held = doors.served.service.plane.snapshots.look("acme")
    assert held is not None
    return held


def key_of(doors: Doors) -> Held[Any]:
    held = doors.served.service.keyring.look(key_id(doors))
    assert held is not None
    return held


async def keep(doors: Doors, ask: Ask = ASK) -> None:
    """The answer is kept, and all it was given under was asked for just now."""
    for _ in range(2):  # the first may be cold
        assert (await doors.ask(ask, "direct"))[0] == 200
    tenant = doors.served.service.tenants.look("acme")
    for held in (cut_of(doors), key_of(doors), tenant):
        assert held is not None
        held.at_s = doors.served.service.plane.engine.monotonic_s()
    assert (await doors.ask(ask))[0] == 200
    assert doors.was_kept


async def refreshed(doors: Doors) -> None:
    keys = doors.served.service.keyring._keys
    while keys._flights:
        await asyncio.gather(*keys._flights.values())


async def test_a_revoked_key_ends_as_it_does_without_what_is_kept(doors: Doors) -> None:
    """Known for 2.5 s it is used and asked for again, for 5 s it is waited for. Seen to fail (200 after the key was
    known to be revoked) with the key's record no witness, and with a record that does not end when it is replaced."""
    await keep(doors)
    await revoke_key(doors.served.service.plane.engine, key_id(doors))
    assert (await doors.ask(ASK))[0] == 200
    assert doors.was_kept
    key_of(doors).at_s -= 2.6
    assert (await doors.ask(ASK))[0] == 200
    assert not doors.was_kept, "the normal path asks for the key again"
    await refreshed(doors)
    assert (await doors.ask(ASK))[0] == 401
    assert not len(kept_of(doors)), "what a gone key was answered does not stay"


async def test_a_key_known_for_too_long_is_waited_for(doors: Doors) -> None:
    """Seen to fail with no bound on a witness's age."""
    await keep(doors)
    await revoke_key(doors.served.service.plane.engine, key_id(doors))
    key_of(doors).at_s -= 5.1
    assert (await doors.ask(ASK))[0] == 401


@pytest.mark.parametrize("rotated", [False, True])
async def test_an_expired_key_is_refused_at_once(doors: Doors, rotated: bool) -> None:
    """Seen to fail (200) with the expiry left to the normal path, and with the end of a grace left to it."""
    engine = doors.served.service.plane.engine
    own = await doors.served.key("acme", expires_us=None if rotated else engine.now_us() + 3_600_000_000)
    doors.key = own["authorization"].encode()
    if rotated:
        await rotate_key(engine, key_id(doors))
    await keep(doors)
    ends_us = key_of(doors).value.ends_us
    assert ends_us is not None
    object.__setattr__(engine, "now_us", lambda: ends_us)
    doors.monkeypatch.setattr(doors.served.service.keyring, "_now_us", engine.now_us)
    assert (await doors.ask(ASK))[0] == 401
    assert not doors.was_kept


async def test_nobody_is_answered_what_another_may_read(doors: Doors) -> None:
    """Seen to fail (200) with the Authorization left out of what answers are kept under."""
    await keep(doors)
    other = (await doors.served.key("other"))["authorization"].encode()
    writer = (await doors.served.key("acme", "write"))["authorization"].encode()
    for status, keys in ((404, [other]), (403, [writer]), (401, [b"", doors.key[:-1], doors.key + b"A"])):
        for key in keys:
            for _ in range(2):
                found = await doors.ask(Ask(CONTEXT, headers=((b"authorization", key),), key=False))
                assert (found[0], doors.was_kept) == (status, False)
    both = Ask(CONTEXT, headers=((b"authorization", other),))
    assert (await doors.ask(both))[0] == 404, "the first of two headers is read"
    await keep(doors)


async def test_an_open_store_keeps_nothing(doors: Doors) -> None:
    """Who may read there depends on more than what answers are kept under: host, socket, keys made since."""
    assert (await doors.ask(Ask(CONTEXT, key=False)))[0] in (200, 401)
    assert not any(asked[2] is None for asked in kept_of(doors)._kept)


async def test_a_write_is_seen_at_the_next_cut(doors: Doors) -> None:
    """As without what is kept: a cut is used for a second, and confirmed beside a read before that. Seen to fail (the
    old snapshot) with the cut no witness."""
    await keep(doors)
    before = dict((await doors.ask(ASK))[1])[b"x-snapshot"]
    await doors.served.write(event("acct-2", "more", id="e9", ts="2026-03-06T08:00:00Z"))
    assert dict((await doors.ask(ASK))[1])[b"x-snapshot"] == before
    assert doors.was_kept
    cut_of(doors).at_s -= 1.1
    assert dict((await doors.ask(ASK))[1])[b"x-snapshot"] != before
    assert not doors.was_kept


async def test_a_publish_brings_the_new_bundle(doors: Doors) -> None:
    """Seen to fail (the old tag) with the cut no witness, and with a forgotten cut that does not end."""
    await keep(doors)
    await doors.served.write(event("acct-1", "a second thing", id="e2"))
    await doors.served.service.plane.build("acme", [DAY])
    _, headers, body, _ = await doors.ask(ASK)
    assert dict(headers)[b"etag"] != doors.etag
    assert b"a second thing" in body
    assert not doors.was_kept
    await keep(doors)
    assert (await doors.ask(ASK))[2] == body


async def test_an_erased_entity_is_gone_at_the_next_cut(doors: Doors) -> None:
    """Seen to fail (200) with the cut no witness."""
    ask = Ask(of(b"acct-2"))
    await keep(doors, ask)
    await erase_entity(doors.served.service.plane.engine, "acme", "acct-2", build_day=build_day)
    assert (await doors.ask(ask, "kept"))[0] == 200, "this process does not know yet"
    cut_of(doors).at_s -= 1.1
    assert (await doors.ask(ask))[0] == 404
    assert not doors.was_kept
    assert (await doors.ask(ask, "kept"))[0] == 404


async def test_a_new_rate_holds_at_once_and_is_taken(doors: Doors) -> None:
    """Seen to fail (all 200) with the tenant's record no witness, and with the token not taken."""
    await keep(doors)
    operator = await doors.served.key(None, "admin")
    body = {"settings": {"requests_per_s": 3}}
    assert (await doors.served.client.put("/v1/tenants/acme", json=body, headers=operator)).status_code == 200
    frozen = time.monotonic()
    doors.monkeypatch.setattr(doors.served.service.rates, "monotonic_s", lambda: frozen)
    found = [((await doors.ask(ASK, "kept"))[0], doors.was_kept) for _ in range(5)]
    assert found == [(200, False), (200, True), (200, True), (429, False), (429, False)]


async def test_a_full_process_refuses_what_is_kept_too(doors: Doors) -> None:
    """Seen to fail (200) with the ledger not asked."""
    await keep(doors)
    ledger = doors.served.service.ledger
    ledger.requests = ledger.requests_max
    assert (await doors.ask(ASK))[0] == 429
    ledger.requests = 0
    assert (await doors.ask(ASK))[0] == 200
    assert (doors.was_kept, ledger.requests) == (True, 0)


async def test_emptied_caches_are_empty(doors: Doors) -> None:
    """The next read is a cold one. Seen to fail (memory) with cuts that do not end when all are forgotten."""
    await keep(doors)
    await doors.served.service.plane.empty_caches()
    assert dict((await doors.ask(ASK))[1])[b"x-cache"] == b"cold"
    assert not doors.was_kept


async def test_what_is_kept_stays_warm_where_it_comes_from(doors: Doors) -> None:
    """The cache counts each read, the warmer hears of it, and a bundle that the cache let go is read again. Seen to
    fail with the touch left out."""
    plane = doors.served.service.plane
    noted: list[tuple[str, str]] = []
    doors.monkeypatch.setattr(
        type(plane.warmer), "note_bundle", lambda warmer, tenant, entity, spec: noted.append((tenant, entity))
    )
    await keep(doors)
    noted.clear()
    before = plane.cache.stats.memory_hits
    await doors.ask(ASK, "direct")
    each = plane.cache.stats.memory_hits - before
    for n in range(1, 4):
        await doors.ask(ASK, "kept")
        assert (doors.was_kept, plane.cache.stats.memory_hits) == (True, before + each * (1 + n))
    assert noted == [("acme", "acct-1")] * 2, "the direct read, and the first that was kept"
    plane.cache._memory.clear()
    for kept in kept_of(doors)._kept.values():
        kept.touched_s = -math.inf
    assert dict((await doors.ask(ASK, "kept"))[1])[b"x-cache"] != b"memory"
    assert not doors.was_kept


async def test_what_is_kept_is_bounded(doors: Doors) -> None:
    """Seen to fail with either bound left out, and with a replaced answer still counted."""
    kept = kept_of(doors)
    kept.clear()
    doors.monkeypatch.setattr(prepared, "ANSWERS_MAX", 2)
    asks = [Ask(CONTEXT), Ask(of(b"acct-2")), Ask(CONTEXT, b"format=text")]
    for ask in asks * 2:
        await doors.ask(ask, "direct")
    assert [asked[:2] for asked in kept._kept] == [(ask.path, ask.query) for ask in asks[1:]]
    assert kept._bytes == sum(prepared._size(asked, each) for asked, each in kept._kept.items())
    doors.monkeypatch.setattr(prepared, "BYTES_MAX", kept._bytes - 1)
    await doors.ask(asks[0], "direct")
    assert len(kept) == 1
    doors.monkeypatch.setattr(prepared, "ANSWER_BYTES_MAX", 100)
    await doors.ask(asks[0], "direct")
    assert (len(kept), kept._bytes) == (0, 0)


def test_an_odd_request_id_is_replaced_by_one_of_its_own() -> None:
    """Seen to fail with the number left out."""
    ids = RequestIds()
    assert ids.of(b"a-b.c_1") == b"a-b.c_1"
    made = {ids.of(given) for given in (b"", b"\n", b"a b", b"x" * 65)}
    assert len(made) == 4
    assert all(ids.of(each) == each for each in made)


def test_what_leaves_ends() -> None:
    """Seen to fail with each of the four ways out left to the base class."""
    latest: Latest[str] = Latest(2)
    first, second, third, fourth = (Held(name, 1.0, 2.0) for name in "abcd")
    latest["a"] = first
    latest["a"] = second
    assert (first.ended, second.ended, second.fresh(3.0), second.fresh(3.1)) == (True, False, True, False)
    latest["b"], latest["c"] = third, fourth
    assert (second.ended, third.ended) == (True, False)
    latest.pop("b")
    assert (third.ended, fourth.ended) == (True, False)
    latest.clear()
    assert fourth.ended


async def test_a_confirmation_under_way_revives_no_cut(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with the age of a forgotten cut moved on."""
    snapshots, cut = doors.served.service.plane.snapshots, cut_of(doors)
    read_head = Snapshots._read_head

    async def forgetting(
        self: Snapshots, tenant: str, known: Manifest | None, started: Any
    ) -> tuple[Manifest, list[LogObject]]:
        found = await read_head(self, tenant, known, started)
        self.forget(tenant)
        return found

    monkeypatch.setattr(Snapshots, "_read_head", forgetting)
    await snapshots.outline("acme", "strong")
    assert cut.ended
