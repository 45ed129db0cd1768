"""The benchmark itself: its measures, its reading of HERB, and its command."""

from __future__ import annotations

import math
from pathlib import Path

import orjson
import pytest

from benchmarks import __main__ as command
from benchmarks import herb
from benchmarks.quality import hit, ndcg
from context_plane.model import parse_time

needs_herb = pytest.mark.skipif(herb.data_folder() is None, reason="the evaluation data is not on this machine")


def test_ndcg_of_known_rankings() -> None:
    relevant = frozenset("abc")
    assert ndcg(["a", "b", "c"], relevant) == pytest.approx(1)
    assert ndcg(["x", "y"], relevant) == 0
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(["x", "a"], relevant) == pytest.approx((1 / math.log2(3)) / ideal)
    assert ndcg(["x"] * 10 + ["a"], relevant) == 0
    assert ndcg(list("abcdefghij"), frozenset("abcdefghijklmnop")) == pytest.approx(1)


def test_hit_looks_at_ten() -> None:
    assert hit(["x"] * 9 + ["a"], frozenset("a")) == 1
    assert hit(["x"] * 10 + ["a"], frozenset("a")) == 0


def test_a_product_becomes_events(tmp_path: Path) -> None:
    """Ids, times two years earlier, threads, and a link dated by its first mention."""
    link = "https://example.com/a"
    said = {"userId": "eid_1", "timestamp": "2028-02-29T10:00:00", "text": f"see {link}"}
    product = {
        "team": ["secret"],
        "customers": ["secret"],
        "slack": [{"Channel": {"name": "dev"}, "Message": {"User": said}, "id": "m-1"}],
        "documents": [
            {"type": "Vision", "content": "We see", "feedback": "see more", "date": "2027-01-02T00:00:00"}
            | {"author": "eid_1", "document_link": link, "id": "d-1"}
        ],
        "meeting_transcripts": [
            {"transcript": "Ann: hi", "date": "2026-05-01T09:00:00", "participants": ["eid_1"], "id": "meet_1"}
        ],
        "meeting_chats": [{"text": "2026-05-01T09:00:00\nAnn: a link", "id": "meet_1_chat"}],
        "prs": [
            {"title": "Fix", "summary": "It works", "link": link, "number": "7", "state": "open", "merged": "False"}
            | {"user": {"login": "e"}, "created_at": "2026-06-01T00:00:00", "id": "pr-7"}
            | {"reviews": [{"state": "APPROVED", "comment": "ok"}]}
        ],
        "urls": [{"link": link, "description": text, "id": "u-1"} for text in ("A page", "One page")],
    }
    (tmp_path / "P.json").write_bytes(orjson.dumps(product))
    found = {event.id: event for event in herb.events(tmp_path, "P")}
    assert set(found) == {"m-1", "d-1", "meet_1", "meet_1_chat", "pr-7", "u-1"}
    assert {event.entity for event in found.values()} == {"P"}
    assert found["m-1"].ts_us == parse_time("2026-02-28T10:00:00Z") == found["u-1"].ts_us
    assert found["d-1"].text == "Vision\nWe see\nFeedback\nsee more"
    assert found["meet_1"].thread == found["meet_1_chat"].thread == "meet_1"
    assert found["meet_1_chat"].text == "Ann: a link"
    assert found["pr-7"].text == "Fix\nIt works\nAPPROVED: ok"
    assert found["u-1"].text == f"A page\nOne page\n{link}"
    assert "secret" not in str(found)


@needs_herb
def test_every_citation_is_an_event_of_its_product() -> None:
    folder = herb.data_folder()
    assert folder is not None
    asked = herb.questions(folder)
    ids = {product: {event.id for event in herb.events(folder, product)} for product in herb.products(folder)}
    assert len(ids) == 10
    assert all(question.citations <= ids[question.product] for question in asked)


def test_the_command_lists_its_scenarios(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    assert "quality" in capsys.readouterr().out


def test_missing_data_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONTEXT_PLANE_EVAL_DATA", str(tmp_path))
    assert command.main(["quality", "--quick"]) == 2
    assert "CONTEXT_PLANE_EVAL_DATA" in capsys.readouterr().err
