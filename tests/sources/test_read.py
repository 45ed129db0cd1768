"""Reading exports: one outcome per row, and a bad row costs nothing but itself."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from context_plane.errors import Invalid
from context_plane.sources import files as files_module
from context_plane.sources.mapping import SourceMapping, parse_mapping
from context_plane.sources.read import Outcome, Reject, Row, read_events
from context_plane.wire import parse_event

NOTES = parse_mapping(
    """
version: 1
source: crm
streams:
  - name: notes
    files: "notes.*"
    columns: {seats: int, tags: {type: list, split: ";"}}
    skip_when: account == "test"
    events:
      - kind: note
        entity: account
        id: "n-{{ id }}"
        ts: at
        text: "{{ body }}{% if seats %} ({{ seats }} seats){% endif %}"
        attrs: {seats: seats, tags: tags}
"""
)
HEADER = "id,account,at,body,seats,tags\n"


def read(mapping: SourceMapping, *paths: Path, **options: Any) -> list[Outcome]:
    return list(read_events(mapping, paths, validate=options.pop("validate", lambda event: None), **options))


def notes(folder: Path, text: str | bytes, suffix: str = ".csv") -> Path:
    path = folder / f"notes{suffix}"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_row_becomes_a_wire_event(tmp_path: Path) -> None:
    path = notes(tmp_path, HEADER + '7,a-1,2024-05-01,"Two\nlines, quoted",12,x; y\n')
    assert read(NOTES, path) == [
        Row(
            "notes.csv",
            3,
            "notes",
            (
                {
                    "entity": "a-1",
                    "ts": "2024-05-01T00:00:00Z",
                    "source": "crm",
                    "kind": "note",
                    "id": "n-7",
                    "text": "Two\nlines, quoted (12 seats)",
                    "attrs": {"seats": 12, "tags": ["x", "y"]},
                },
            ),
        )
    ]


def test_missing_cells_leave_conditional_parts_and_attributes_out(tmp_path: Path) -> None:
    (row,) = read(NOTES, notes(tmp_path, HEADER + "7,a-1,2024-05-01,Hello,,\n"))
    assert isinstance(row, Row)
    assert (row.events[0]["text"], "attrs" in row.events[0]) == ("Hello", False)


def test_a_filtered_row_is_accounted_for_without_events(tmp_path: Path) -> None:
    (row,) = read(NOTES, notes(tmp_path, HEADER + "7,test,2024-05-01,Hello,,\n"))
    assert isinstance(row, Row)
    assert row.events == ()


@pytest.mark.parametrize(
    ("line", "code", "column"),
    [
        (b"7,a-1,yesterday,Hello,1,", "ts_invalid", "at"),
        (b"7,a-1,,Hello,1,", "row_invalid", "at"),
        (b"7,a-1,2024-05-01,,1,", "row_invalid", "body"),
        (b"7,,2024-05-01,Hello,1,", "row_invalid", "account"),
        (b"7,a-1,2024-05-01,Hello,many,", "row_invalid", "seats"),
        (b"7,a-1,2024-05-01,Hello", "row_invalid", None),
        (b"7,a-1,2024-05-01,Hello, world,1,", "row_invalid", None),
        (b"7,a-1,2024-05-01,Hell\xff,1,", "encoding_invalid", None),
        (b'7,a-1,2024-05-01,"Hello" you,1,', "row_invalid", None),
    ],
)
def test_a_bad_csv_row_costs_one_row(tmp_path: Path, line: bytes, code: str, column: str | None) -> None:
    """Seen to fail when `_csv_rows` stopped at the first csv.Error, and when a `Missing` could be shown."""
    good = b"8,a-2,2024-05-02,Fine,1,\n"
    outcomes = read(NOTES, notes(tmp_path, HEADER.encode() + good + line + b"\n" + good))
    assert [type(outcome) for outcome in outcomes] == [Row, Reject, Row]
    reject = outcomes[1]
    assert isinstance(reject, Reject)
    assert (reject.file, reject.line, reject.code, reject.column) == ("notes.csv", 3, code, column)
    assert json.loads(json.dumps(reject.record()))["detail"]


def test_a_bad_jsonl_line_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "LINE_BYTES_MAX", 200)
    good = b'{"id": 1, "account": "a", "at": "2024-05-01", "body": "b"}'
    bad = [b"{", b"[1]", b'{"id": NaN}', b"\xff", b'{"body": "' + b"x" * 500 + b'"}', b'{"id": 2}']
    outcomes = read(NOTES, notes(tmp_path, b"\n".join([good, *bad, b"", good]), ".jsonl"))
    assert [outcome.line for outcome in outcomes] == [1, 2, 3, 4, 5, 6, 7, 9]
    assert [outcome.code for outcome in outcomes if isinstance(outcome, Reject)] == [
        *["malformed_json"] * 4,
        "row_invalid",
        "row_invalid",
    ]


def test_parquet_brings_its_types(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"id": [1, 2], "account": ["a", None], "body": ["x", "y"], "seats": [3.0, None], "tags": [["t"], []]}
    )
    frame.with_columns(at=pl.date(2024, 5, 1)).write_parquet(tmp_path / "notes.parquet")
    row, reject = read(NOTES, tmp_path / "notes.parquet")
    assert isinstance(row, Row)
    assert row.events[0]["attrs"] == {"seats": 3, "tags": ["t"]}
    assert isinstance(reject, Reject)
    assert (reject.line, reject.column) == (2, "account")


def test_what_the_validator_refuses_is_a_reject_with_its_code(tmp_path: Path) -> None:
    def refuse(event: dict[str, Any]) -> None:
        raise Invalid("text_too_long", "too long")

    (reject,) = read(NOTES, notes(tmp_path, HEADER + "7,a-1,2024-05-01,Hello,,\n"), validate=refuse)
    assert isinstance(reject, Reject)
    assert reject.code == "text_too_long"


def test_a_row_with_one_bad_event_yields_none(tmp_path: Path) -> None:
    """A row is atomic. Seen to fail when `_events` kept the good events of a row and dropped the bad one."""
    mapping = parse_mapping(
        """
version: 1
source: crm
streams:
  - name: terms
    files: "*.csv"
    events:
      - {kind: started, entity: account, ts: start}
      - {kind: ended, entity: account, ts: end, when: end}
"""
    )
    path = notes(tmp_path, "account,start,end\na,2024-01-01,\na,2024-01-01,2024-02-01\na,2024-01-01,never\n")
    first, second, third = read(mapping, path)
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert [event["kind"] for event in first.events + second.events] == ["started", "started", "ended"]
    assert isinstance(third, Reject)
    assert third.column == "end"


def test_too_many_rejects_stop_the_reading(tmp_path: Path) -> None:
    path = notes(tmp_path, HEADER + "7,a-1,bad,Hello,,\n" * 4)
    assert len(read(NOTES, path, rejects_max=4)) == 4
    with pytest.raises(Invalid, match="too_many_rejects"):
        read(NOTES, path, rejects_max=3)


def test_a_file_without_a_named_column_is_refused_before_its_first_row(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"mapping_invalid.*'body'"):
        read(NOTES, notes(tmp_path, "id,account,at,seats,tags\n"))


def test_a_file_no_stream_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no stream takes the file"):
        read(NOTES, tmp_path / "other.csv")


JOINED = parse_mapping(
    """
version: 1
source: crm
lookups:
  users: {file: "users.csv", key: id, columns: [account, name]}
streams:
  - name: visits
    files: "visits.csv"
    lookup: {users: user}
    events:
      - {kind: visit, entity: users.account, ts: at, text: "{{ users.name | default('Somebody') }} came by."}
"""
)


def test_a_lookup_joins_by_key_and_an_unknown_key_is_a_reject(tmp_path: Path) -> None:
    """The lookup's file is found beside the file given."""
    (tmp_path / "users.csv").write_text("id,account,name\n1,a-1,Uma\n2,a-2,\n")
    visits = tmp_path / "visits.csv"
    visits.write_text("user,at\n1,2024-05-01\n2,2024-05-01\n3,2024-05-01\n")
    known, nameless, unknown = read(JOINED, visits)
    assert isinstance(known, Row)
    assert isinstance(nameless, Row)
    assert (known.events[0]["entity"], known.events[0]["text"]) == ("a-1", "Uma came by.")
    assert nameless.events[0]["text"] == "Somebody came by."
    assert isinstance(unknown, Reject)
    assert unknown.column == "user"


def test_an_ambiguous_or_absent_lookup_is_refused(tmp_path: Path) -> None:
    visits = tmp_path / "visits.csv"
    visits.write_text("user,at\n")
    with pytest.raises(Invalid, match="add it"):
        read(JOINED, visits)
    (tmp_path / "users.csv").write_text("id,account,name\n1,a-1,Uma\n1,a-2,Bea\n")
    with pytest.raises(Invalid, match="a key twice"):
        read(JOINED, visits)


def with_text(template: str) -> SourceMapping:
    rule = NOTES.streams[0].events[0].model_copy(update={"text": template})
    return NOTES.model_copy(update={"streams": [NOTES.streams[0].model_copy(update={"events": [rule]})]})


@pytest.mark.parametrize("template", ["{{ body.__class__.__mro__ }}", "{{ row['absent'] }}", "{{ 1 / (seats - 1) }}"])
def test_a_template_that_fails_or_leaves_the_sandbox_costs_its_row(tmp_path: Path, template: str) -> None:
    (outcome,) = read(with_text(template), notes(tmp_path, HEADER + "7,a-1,2024-05-01,Hello,1,\n"))
    assert isinstance(outcome, Reject)
    assert outcome.code == "row_invalid"


def test_templates_have_no_globals(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="columns the file lacks"):
        read(with_text("{{ range(3) }}"), notes(tmp_path, HEADER + "7,a-1,2024-05-01,Hello,1,\n"))


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(st.lists(CELL, min_size=1, max_size=8).filter(lambda row: row != [""]), max_size=12))
def test_every_csv_row_has_exactly_one_outcome(tmp_path: Path, rows: list[list[str]]) -> None:
    """Whatever the cells hold, and however ragged the rows: rows in = outcomes out, in order.

    Seen to fail when `_csv_rows` passed over rows of another length than the header.
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    outcomes = read(NOTES, notes(tmp_path, HEADER + out.getvalue()))
    assert len(outcomes) == len(rows)
    assert [outcome.line for outcome in outcomes] == sorted(outcome.line for outcome in outcomes)


def test_files_of_events_need_no_mapping(tmp_path: Path) -> None:
    """Each line stands for itself: a broken one and a refused one cost themselves, with their line."""
    good = {"entity": "acct-1", "ts": "2026-03-04T09:15:00Z", "source": "crm", "kind": "call", "text": "hello"}
    lines = [orjson.dumps(good), b"{not json", orjson.dumps({**good, "entity": ""}), b"", orjson.dumps(good)]
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    found = list(read_events(None, [path], validate=lambda event: parse_event(event, now_us=1 << 60)))
    assert [(type(item).__name__, item.line) for item in found] == [
        ("Row", 1), ("Reject", 2), ("Reject", 3), ("Row", 5)
    ]  # fmt: skip
    assert [item.code for item in found if isinstance(item, Reject)] == ["malformed_json", "malformed_event"]
