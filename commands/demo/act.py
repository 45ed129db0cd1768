"""The demo's acts: the growth agent's run over every customer, and a write that is found at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import orjson

from commands.demo.report import Contact, Cost, Report, Run
from commands.demo.stage import SPEC, Wanted
from commands.options import run
from context_plane.client import Bundle, Client
from context_plane.demo.agent import Ranked, items_of, rank
from context_plane.errors import Invalid, Unavailable
from context_plane.model import add_days, format_time
from context_plane.settings import Settings

DEADLINE_MS: Final = 30_000
"""The first search over a whole tenant fills the caches of 30 days."""
TICKET: Final = (
    "Webhook deliveries return 502 since this morning\n"
    "Our warehouse gets nothing since about eight. Finance closes the quarter tonight and needs those rows."
)
QUESTION: Final = "webhooks fail, quarter close blocked"


def agent_run(client: Client, settings: Settings, wanted: Wanted, report: Report) -> Sequence[Contact]:
    """Every customer's context at one cut, ranked; the contacts, best first."""
    with report.step("agent", "reading every customer's context") as step:
        snapshot = client.snapshot().snapshot
        started_s = time.perf_counter()
        bundles = _bundles(client, snapshot)
        read_s = time.perf_counter() - started_s
        ranked = rank(bundles)
        tokens = sum(int(bundle["tokens"]) for bundle in bundles)
        step.done(f"read {len(bundles):,} customers, {tokens:,} tokens, in one run at snapshot {snapshot}")
    if len(bundles) != wanted.customers:
        detail = "the tenant holds other customers; use another --tenant, or `make clean` for a fresh store"
        raise Invalid("query_invalid", detail, held=len(bundles), wanted=wanted.customers)
    by_entity = {str(bundle["entity"]): bundle for bundle in bundles}
    with report.step("cite", "resolving citations") as step:
        contacts = [_contact(client, snapshot, one, by_entity[one.entity]) for one in ranked]
        step.done(f"{sum(len(c.sources) for c in contacts):,} citations resolved to stored lines")
    truth = orjson.loads((wanted.export / "truth.json").read_bytes())
    cost = run(_cost(settings, wanted.tenant, snapshot))
    saved = wanted.folder / "contacts.json"
    saved.write_bytes(orjson.dumps([one.record() for one in contacts], option=orjson.OPT_INDENT_2))
    due = {entity for entity, fact in truth.items() if fact["contact"]}
    report.run(Run(len(bundles), tokens, read_s, contacts, due, cost, saved))
    return contacts


def live_write(client: Client, contacts: Sequence[Contact], report: Report) -> None:
    """A ticket written now is the first hit of the next search, before any build."""
    entity = contacts[0].entity if contacts else "acct-0001"
    now_us = time.time_ns() // 1000
    event_id = f"live-{now_us}"
    event = {
        "id": event_id,
        "entity": entity,
        "ts": format_time(now_us),
        "source": "demo",
        "kind": "ticket_opened",
        "text": TICKET,
        "attrs": {"ticket": event_id, "priority": "urgent", "open": True},
    }
    started_s = time.perf_counter()
    client.write([event])
    written_s = time.perf_counter()
    answer = client.search(QUESTION, limit=5, deadline_ms=DEADLINE_MS)
    found_s = time.perf_counter()
    places = [n for n, hit in enumerate(answer.hits, start=1) if hit.id == event_id]
    if not places:
        raise Unavailable("internal", "an acknowledged event was not found by the next search", entity=entity)
    cited = answer.hits[places[0] - 1].citation
    report.live(
        entity=entity,
        question=QUESTION,
        place=places[0],
        citation=f"{cited.segment} line {cited.line}",
        write_ms=(written_s - started_s) * 1000,
        search_ms=(found_s - written_s) * 1000,
    )


def _bundles(client: Client, snapshot: str) -> list[dict[str, Any]]:
    bundles = []
    for read in client.contexts(None, spec=SPEC, format="json", snapshot=snapshot):
        if not isinstance(read, Bundle):
            raise Unavailable("internal", f"a context could not be read: {read.error.detail}")
        bundles.append(read.json())
    return bundles


def _contact(client: Client, snapshot: str, ranked: Ranked, bundle: dict[str, Any]) -> Contact:
    """The judgement with names, and each citation with the stored line it stands on."""
    facts = {str(item["name"]): str(item["text"]) for item in items_of(bundle, "profile")}
    days = [str(cited["day"]) for cited in ranked.citations]
    places: dict[tuple[str, str], str] = {}
    if days:
        since, until = f"{min(days)}T00:00:00Z", f"{add_days(max(days), 1)}T00:00:00Z"
        for event in client.timeline(ranked.entity, since=since, until=until, snapshot=snapshot):
            places[event.ts.date().isoformat(), event.id] = f"{event.citation.segment} line {event.citation.line}"
    sources = [(str(c["id"]), str(c["day"]), places[str(c["day"]), str(c["id"])]) for c in ranked.citations]
    return Contact(ranked.entity, facts, ranked.score, ranked.play or "", ranked.reasons, tuple(sources))


async def _cost(settings: Settings, tenant: str, snapshot: str) -> Cost:
    """What the agent's run asks of the object store when every cache is empty, and what the store holds."""
    from context_plane import plane

    uncached = settings.model_copy(update={"cache_disk_bytes": 0})
    async with plane.open(uncached, probe_store=False) as cold:
        with cold.store.trace() as trace:
            _, items = await cold.bundle_batch(tenant, None, spec=SPEC, snapshot=snapshot)
            async for _ in items:
                pass
        sizes = [info.size async for info in cold.store.list(f"tenants/{tenant}/")]
    return Cost(trace.gets, trace.lists, trace.bytes_read, trace.round_trips, len(sizes), sum(sizes))
