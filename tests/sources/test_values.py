"""Cells become typed values and times, or say why not."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_plane.model import format_time
from context_plane.sources.values import BadCell, ColumnType, TimeFormat, parse_shift, time_us, typed

UTC = TimeFormat((), ZoneInfo("UTC"), 0)


@pytest.mark.parametrize(
    ("cell", "rule", "expected"),
    [
        ("2024-05-01", UTC, "2024-05-01T00:00:00Z"),
        ("2023-07-28 3:00", UTC, "2023-07-28T03:00:00Z"),
        ("2023-07-28 13:00:07", UTC, "2023-07-28T13:00:07Z"),
        ("2024-05-01T09:30:00+02:00", UTC, "2024-05-01T07:30:00Z"),
        (dt.date(2024, 5, 1), UTC, "2024-05-01T00:00:00Z"),
        (dt.datetime(2024, 7, 1, 12), TimeFormat((), ZoneInfo("Europe/Berlin"), 0), "2024-07-01T10:00:00Z"),
        ("2024-07-01", TimeFormat((), ZoneInfo("Europe/Berlin"), 0), "2024-06-30T22:00:00Z"),
        ("01.02.2024", TimeFormat(("%d.%m.%Y",), ZoneInfo("UTC"), 0), "2024-02-01T00:00:00Z"),
        ("2/1/24", TimeFormat(("%d.%m.%Y", "%m/%d/%y"), ZoneInfo("UTC"), 0), "2024-02-01T00:00:00Z"),
        ("1714555800.5", TimeFormat(("epoch_s",), ZoneInfo("UTC"), 0), "2024-05-01T09:30:00.500000Z"),
        (1714555800123, TimeFormat(("epoch_ms",), ZoneInfo("UTC"), 0), "2024-05-01T09:30:00.123000Z"),
        ("2027-05-01", TimeFormat((), ZoneInfo("UTC"), parse_shift("-730d")), "2025-05-01T00:00:00Z"),
    ],
)
def test_times_read(cell: object, rule: TimeFormat, expected: str) -> None:
    assert format_time(time_us(cell, rule)) == expected


@pytest.mark.parametrize("cell", ["", "soon", "2024-13-01", "2024-02-30", "2024-W05", 5, True, "2024-05-01 25:00"])
def test_other_times_are_bad_cells(cell: object) -> None:
    with pytest.raises(BadCell) as caught:
        time_us(cell, UTC)
    assert caught.value.code == "ts_invalid"


@given(st.datetimes(timezones=st.just(dt.UTC)), st.integers(-(10**6), 10**6))
def test_a_shift_moves_by_exactly_its_seconds(moment: dt.datetime, seconds: int) -> None:
    shifted = TimeFormat((), ZoneInfo("UTC"), parse_shift(f"{seconds}s"))
    assert time_us(moment.isoformat(), shifted) - time_us(moment.isoformat(), UTC) == seconds * 1_000_000


@pytest.mark.parametrize(
    ("cell", "kind", "expected"),
    [
        ("007", "string", "007"),
        (12.0, "int", 12),
        (" 12 ", "int", 12),
        ("1e3", "int", 1000),
        ("0.1", "float", 0.1),
        ("TRUE", "bool", True),
        ("no", "bool", False),
        ("a, b,,c", "list", ["a", "b", "c"]),
        (["a"], "list", ["a"]),
        (dt.date(2024, 5, 1), "string", "2024-05-01"),
    ],
)
def test_cells_read_as_their_type(cell: object, kind: ColumnType, expected: object) -> None:
    assert typed(cell, kind, ",") == expected


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("1.5", "int"),
        ("NaN", "float"),
        ("inf", "float"),
        ("maybe", "bool"),
        ([1], "list"),
        (b"x", "string"),
        (True, "int"),
    ],
)
def test_other_cells_are_bad(cell: object, kind: ColumnType) -> None:
    with pytest.raises(BadCell) as caught:
        typed(cell, kind, ",")
    assert caught.value.code == "row_invalid"
