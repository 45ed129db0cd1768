"""What operators ask through the client: tenants, erasures, the audit."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from context_plane.client import operations
from context_plane.errors import Denied, NotFound, Unavailable
from context_plane.fulfil import fulfil
from context_plane.reindex import build_day
from tests.client.live import DAY, Face, Live, Lose, event, face

ODD = "a/b .. é?#%"


async def test_an_erased_entity_is_hidden_at_once_and_has_a_receipt_in_the_end(
    ask: Face, live: Live, tenant: str
) -> None:
    """Seen to fail with the entity's name unescaped."""
    await ask("write", [event(1), event(2, ODD)])
    live.build(tenant, DAY)
    before = (await ask("snapshot")).snapshot
    erasure = await ask("erase_entity", ODD)
    assert [info.entity for info in await ask("entities")] == ["acct-1"]
    begun = await ask("erasure", erasure)
    assert (begun.erasure, begun.state, begun.completed, begun.receipt) == (erasure, "hidden", None, None)
    live.run(fulfil(live.app.state.service.plane.engine, tenant, erasure, build_day=build_day))
    done = await ask("erasure", erasure)
    assert done.state == "done"
    assert done.completed >= done.requested
    assert (done.receipt.days_rebuilt, done.receipt.keys_revoked) == (1, None)
    assert done.receipt.objects_deleted > 0
    with pytest.raises(NotFound, match="snapshot_erased"):
        await ask("changes", before)
    with pytest.raises(NotFound, match="erasure_not_found"):
        await ask("erasure", "0" * 32)


async def test_an_erasure_is_not_asked_for_again_once_it_may_have_begun(ask: Face, live: Live) -> None:
    """Writes that came since would be erased too. Seen to fail with erasures that may be repeated."""
    await ask("write", [event(1)])
    for method, named in (("erase_entity", ["acct-1"]), ("erase_tenant", [])):
        live.door.seen.clear()
        live.door.faults += [Lose()]
        with pytest.raises(Unavailable, match="not_ready"):
            await ask(method, *named)
        assert [seen.method for seen in live.door.seen] == ["DELETE"]


async def test_an_erased_tenant_is_gone_and_its_receipt_stays(ask: Face, live: Live, tenant: str) -> None:
    """Seen to fail with fields of entities' receipts required of it."""
    await ask("write", [event(1)])
    erasure = await ask("erase_tenant")
    with pytest.raises(NotFound):
        await ask("tenant")
    while (state := await ask("erasure", erasure)).state != "done":
        assert (state.state, state.receipt) == ("hidden", None)
        await asyncio.sleep(0.01)
    assert state.receipt.objects_deleted > 0
    assert (state.receipt.keys_revoked, state.receipt.hash) == (0, None)
    assert tenant not in await ask("tenants")


async def test_tenants_are_listed_whichever_this_client_is_of(
    ask: Face, live: Live, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with the path below the tenant."""
    monkeypatch.setattr(operations, "PAGE_TENANTS", 1)
    other = f"a-{uuid.uuid4().hex[:12]}"
    async with face(live, "asyncio", other) as another:
        await another("put_tenant")
    names = await ask("tenants")
    assert {tenant, other} <= set(names)
    assert names == sorted(names)
    pages = [seen for seen in live.door.seen if seen.method == "GET"]
    assert ({seen.path for seen in pages}, len(pages)) == ({"/v1/tenants"}, len(names))
    assert await ask("tenants", limit=1) == names[:1]


async def test_the_audit_tells_who_did_what(
    ask: Face, live: Live, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oldest first, page by page. Seen not to end with a cursor left out, and to fail with times left out."""
    monkeypatch.setattr(operations, "PAGE_CALLS", 1)
    await ask("write", [event(1)])
    erasure = await ask("erase_entity", "acct-1")
    calls = await ask("audit")
    told = [(call.action, call.actor, call.outcome) for call in calls]
    assert told == [("tenant_put", "open", "done"), ("erasure_request", "open", "done")]
    assert calls[1].subject == erasure
    assert await ask("audit", since=calls[1].at) == calls[1:]
    assert await ask("audit", until=calls[1].at) == calls[:1]
    assert await ask("audit", limit=1) == calls[:1]


async def test_operators_need_a_key_that_may(live: Live, tenant: str) -> None:
    async with face(live, "asyncio", tenant, key="cp_nonsense") as asked:
        for method, named in (("erase_entity", ["acct-1"]), ("erase_tenant", []), ("audit", []), ("tenants", [])):
            with pytest.raises(Denied, match="key_invalid"):
                await asked(method, *named)
