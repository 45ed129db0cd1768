"""Source mappings: strict, and every fault names its YAML path."""

from __future__ import annotations

from pathlib import Path

import pytest

from context_plane.errors import Invalid
from context_plane.sources.mapping import load_mapping, parse_mapping

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "mappings").glob("*.yaml"))
GOOD = """
version: 1
source: crm
streams:
  - name: notes
    files: "notes.csv"
    events:
      - {kind: note, entity: account, ts: at, text: "{{ body }}"}
"""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_committed_mappings_hold(path: Path) -> None:
    assert load_mapping(path).streams


@pytest.mark.parametrize(
    ("old", "new", "pointer"),
    [
        ("version: 1", "version: 2", "version"),
        ("source: crm", "sauce: crm", "source"),
        ("kind: note", "knid: note", "streams[0].events[0].knid"),
        ("ts: at", "ts: {column: at, timezone: Mars/Base}", "streams[0].events[0].ts.timezone"),
        ("ts: at", "ts: {column: at, format: '%H:%M'}", "streams[0].events[0].ts.format[0]"),
        ("ts: at", "ts: {column: at, shift: 2 years}", "streams[0].events[0].ts.shift"),
        ("{{ body }}", "{{ body", "streams[0].events[0].text"),
        ("ts: at", "ts: at, when: '{{ x }}'", "streams[0].events[0].when"),
        ("ts: at", "ts: at, attrs: {a: {value: b, type: money}}", "streams[0].events[0].attrs.a.type"),
        ('files: "notes.csv"', 'files: "notes.csv"\n    lookup: {users: id}', "(top)"),
    ],
)
def test_a_fault_names_its_path(old: str, new: str, pointer: str) -> None:
    assert parse_mapping(GOOD).source == "crm"
    with pytest.raises(Invalid) as caught:
        parse_mapping(GOOD.replace(old, new))
    assert caught.value.code == "mapping_invalid"
    assert pointer in [fault.pointer for fault in caught.value.faults]


@pytest.mark.parametrize(
    "text", ["", "[1]", "a: [", "version: 1\nversion: 1", "? [a]\n: 1", "source: " + "x" * 300_000]
)
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_mapping(text)
    assert caught.value.code == "mapping_invalid"


def test_a_missing_mapping_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"absent\.yaml"):
        load_mapping(tmp_path / "absent.yaml")
