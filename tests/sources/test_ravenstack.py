"""The published RavenStack exports through the committed mapping: every row accounted for."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from context_plane.sources.mapping import load_mapping
from context_plane.sources.read import Row, read_events

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CONTEXT_PLANE_EVAL_DATA", ROOT.parent / "shared" / "data")) / "ravenstack"
MAPPING = ROOT / "examples" / "mappings" / "ravenstack.yaml"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    if not DATA.is_dir():
        pytest.skip("the RavenStack data is not here; set CONTEXT_PLANE_EVAL_DATA to the folder that holds ravenstack/")
    files = sorted(DATA.glob("*.csv"))
    outcomes = list(read_events(load_mapping(MAPPING), files, validate=lambda event: None))
    accepted = [outcome for outcome in outcomes if isinstance(outcome, Row)]
    # No cell of these files holds a line break, so lines minus the header are rows.
    assert len(outcomes) == sum(len(path.read_text().splitlines()) - 1 for path in files)
    assert len(accepted) == len(outcomes)
    return accepted


def events_of(rows: list[Row]) -> list[dict[str, Any]]:
    return [event for row in rows for event in row.events]


def test_rows_and_kinds_are_counted(rows: list[Row]) -> None:
    assert Counter(row.stream for row in rows) == {
        "accounts": 500,
        "subscriptions": 5_000,
        "feature_usage": 25_000,
        "support_tickets": 2_000,
        "churn_events": 600,
    }
    assert Counter(event["kind"] for event in events_of(rows)) == {
        "account": 500,
        "subscription_started": 5_000,
        "subscription_ended": 486,
        "usage": 25_000,
        "ticket_opened": 2_000,
        "ticket_closed": 2_000,
        "churn": 600,
    }


def test_identities_are_unique_and_texts_read_well(rows: list[Row]) -> None:
    events = events_of(rows)
    assert len({(event["entity"], event["ts"][:10], event["id"]) for event in events}) == len(events)
    texts = {event["text"] for event in events if "text" in event}
    assert not [text for text in texts if any(slip in text for slip in ("  ", "None", " .", " ,", "( "))]
    assert (
        "Company_0, a company in EdTech (US), signed up for the Basic plan with 9 seats, coming through partner."
        in texts
    )
