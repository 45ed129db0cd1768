"""The demo export: reproducible, readable through its mapping, and holding the evidence of its truth."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
import pytest

from context_plane.demo.agent import rank
from context_plane.demo.generate import Summary, generate
from context_plane.errors import Invalid
from context_plane.sources.mapping import load_mapping
from context_plane.sources.read import Row, read_events

UNTIL = dt.date(2026, 3, 31)
MAPPING = Path(__file__).parents[2] / "examples" / "mappings" / "demo.yaml"
CUSTOMERS = 400


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, generate(folder, until=UNTIL, customers=CUSTOMERS)


@pytest.fixture(scope="module")
def events(export: tuple[Path, Summary]) -> list[dict[str, Any]]:
    folder, summary = export
    files = [folder / name for name in summary.rows]
    outcomes = list(read_events(load_mapping(MAPPING), files, validate=lambda event: None))
    assert len(outcomes) == sum(summary.rows.values())
    rows = [outcome for outcome in outcomes if isinstance(outcome, Row)]
    assert len(rows) == len(outcomes)
    return [event for row in rows for event in row.events]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Seen to fail with an unseeded Random() in `_account`, and with one that leaves the seed out."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        generate(tmp_path / name, until=UNTIL, customers=25, seed=seed)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    first, other = bytes_of(tmp_path / "a"), bytes_of(tmp_path / "c")
    assert {name for name in first if first[name] == other[name]} == set()


def test_a_larger_export_contains_the_smaller(tmp_path: Path) -> None:
    generate(tmp_path / "small", until=UNTIL, customers=20)
    generate(tmp_path / "large", until=UNTIL, customers=30)
    small, large = bytes_of(tmp_path / "small"), bytes_of(tmp_path / "large")
    for name in ("accounts.csv", "tickets.csv", "invoices.csv", "crm_activities.jsonl", "ticket_messages.jsonl"):
        assert large[name].startswith(small[name]), name


def test_sizes_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="query_invalid"):
        generate(tmp_path, until=UNTIL, customers=0)


def test_every_event_falls_into_the_span_and_has_its_own_identity(events: list[dict[str, Any]]) -> None:
    first = (UNTIL - dt.timedelta(days=29)).isoformat()
    assert {event["ts"][:10] for event in events} <= {
        (dt.date.fromisoformat(first) + dt.timedelta(days=n)).isoformat() for n in range(30)
    }
    identities = {(event["entity"], event["ts"][:10], event["id"]) for event in events}
    assert len(identities) == len(events)


def test_tickets_close_after_they_open_and_are_answered_in_between(events: list[dict[str, Any]]) -> None:
    opened = {event["thread"]: event["ts"] for event in events if event["kind"] == "ticket_opened"}
    later = [event for event in events if event["kind"] in ("ticket_closed", "ticket_message")]
    assert later
    assert all(event["ts"] > opened[event["thread"]] for event in later)


def test_texts_vary_and_hold_no_loose_ends(events: list[dict[str, Any]]) -> None:
    texts = [event["text"] for event in events if event["kind"].startswith(("crm_", "ticket_opened"))]
    assert len(set(texts)) > 0.85 * len(texts)
    assert not [text for text in texts if "{" in text or "None" in text or "  " in text]


def test_the_truth_stays_out_of_the_events(export: tuple[Path, Summary]) -> None:
    """No stream takes truth.json, and no file that is ingested names a story."""
    folder, _ = export
    with pytest.raises(Invalid, match="no stream takes the file"):
        list(read_events(load_mapping(MAPPING), [folder / "truth.json"], validate=lambda event: None))
    ingested = b"".join(data for name, data in bytes_of(folder).items() if name != "truth.json")
    for story in (b"expansion_ready", b"at_risk", b"full_but_flat", b"payment_trouble"):
        assert story not in ingested


def test_the_evidence_finds_those_who_deserve_contact(
    export: tuple[Path, Summary], events: list[dict[str, Any]]
) -> None:
    """Signals computed from the events alone separate the 5 percent: the agent finds nearly all, with few others.

    Seen to fail with a flat level of use in `_usage`: the signs no longer come together.
    """
    folder, summary = export
    truth = orjson.loads((folder / "truth.json").read_bytes())
    wanted = {entity for entity, what in truth.items() if what["contact"]}
    assert len(wanted) == summary.contacts == CUSTOMERS // 20
    found = {ranked.entity for ranked in rank(bundles_of(events))}
    assert len(found & wanted) >= 0.85 * len(wanted)
    assert len(found & wanted) >= 0.85 * len(found)


def bundles_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bundles with the signals a spec would name, by the plainest rules over 14 days."""
    by_entity: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in sorted(events, key=lambda event: (event["ts"], event["id"])):
        by_entity[event["entity"]].append(event)
    bundles = []
    for entity, own in by_entity.items():
        items = [{"name": name, "text": name, "citations": []} for name in signals(own)]
        bundles.append({"entity": entity, "sections": [{"kind": "signals", "items": items}], "citations": []})
    return bundles


def signals(own: list[dict[str, Any]]) -> list[str]:
    usage = [event for event in own if event["kind"] == "usage"]
    middle = (UNTIL - dt.timedelta(days=13)).isoformat()
    start = (UNTIL - dt.timedelta(days=27)).isoformat()
    new = sum(event["attrs"]["events"] for event in usage if event["ts"] >= middle)
    old = sum(event["attrs"]["events"] for event in usage if start <= event["ts"] < middle)
    trend = new / old - 1 if old else 0.0
    tags = {tag for event in own for tag in event.get("attrs", {}).get("tags", [])}
    categories = {event["attrs"]["category"] for event in own if event["kind"] == "ticket_opened"}
    rules = {
        "usage_up": trend >= 0.25,
        "usage_down": trend <= -0.3,
        "seats_near_limit": bool(usage) and usage[-1]["attrs"]["seat_fill"] >= 0.9,
        "upgrade_intent": "upgrade" in tags,
        "champion_left": "champion-change" in tags,
        "pricing_objection": "pricing" in tags,
        "export_failing": "export" in categories,
        "payment_failed": any(event["kind"] == "payment_failed" for event in own),
    }
    return [name for name, holds in rules.items() if holds]
