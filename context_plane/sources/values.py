"""Cells to typed values, and cells to times.

A CSV cell is text until the mapping types it; Parquet and JSONL bring types of their own. Nothing is
guessed: a cell that does not read as the stated type is a `BadCell`, which costs its row and no more.
Times without an offset are of the stated zone; a date alone is the start of that day in the zone.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, Literal, TypeAlias, assert_never
from zoneinfo import ZoneInfo

ColumnType: TypeAlias = Literal["string", "int", "float", "bool", "list"]

EPOCH_FACTORS: Final = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}
"""Formats of numeric times -> microseconds per unit."""
TRUE_WORDS: Final = frozenset({"true", "t", "yes", "y", "1"})
FALSE_WORDS: Final = frozenset({"false", "f", "no", "n", "0"})

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ISO: Final = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ].*)?", re.DOTALL)
_SHORT_HOUR: Final = re.compile(r"(\d{4}-\d{2}-\d{2})[T ](\d):")
_SHIFT: Final = re.compile(r"([+-]?)(\d{1,9})([wdhms])")
_UNIT_US: Final = {"w": 604_800_000_000, "d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}


class BadCell(Exception):
    """A cell does not read as its type. `code` is one of `errors.CODES`."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """How a column reads as a time. `formats` empty: ISO 8601, hour of one digit allowed; else strptime or epoch_*."""

    formats: Sequence[str]
    zone: ZoneInfo
    shift_us: int


def parse_shift(text: str) -> int:
    """`-730d`, `12h`, `+2w` -> microseconds. Raises ValueError."""
    match = _SHIFT.fullmatch(text)
    if match is None:
        raise ValueError("a shift reads like -730d; units are w, d, h, m, s")
    sign, count, unit = match.groups()
    return (-1 if sign == "-" else 1) * int(count) * _UNIT_US[unit]


def typed(value: object, kind: ColumnType, split: str) -> object:
    """The value of a non-empty cell as `kind`. Raises `BadCell(row_invalid)`."""
    try:
        match kind:
            case "string":
                return value if isinstance(value, str) else _plain_text(value)
            case "int":
                return _integer(value)
            case "float":
                return float(_number(value))
            case "bool":
                return _boolean(value)
            case "list":
                return _strings(value, split)
            case _:
                assert_never(kind)
    except (ValueError, InvalidOperation, OverflowError, TypeError) as error:
        raise BadCell("row_invalid", f"{_shown(value)} does not read as {kind}") from error


def time_us(value: object, rule: TimeFormat) -> int:
    """A non-empty cell as microseconds since 1970 UTC, shifted. Raises `BadCell(ts_invalid)`."""
    try:
        return _unshifted_us(value, rule) + rule.shift_us
    except (ValueError, InvalidOperation, OverflowError) as error:
        wanted = " or ".join(rule.formats) or "ISO 8601, such as 2024-05-01 or 2024-05-01T09:30:00Z"
        raise BadCell("ts_invalid", f"{_shown(value)} is not a time of the form {wanted}") from error


def _unshifted_us(value: object, rule: TimeFormat) -> int:
    if isinstance(value, dt.datetime):
        return _instant_us(value, rule.zone)
    if isinstance(value, dt.date):
        return _instant_us(dt.datetime(value.year, value.month, value.day), rule.zone)
    for form in rule.formats:
        factor = EPOCH_FACTORS.get(form)
        if factor is not None:
            return int(_number(value) * factor)
        if isinstance(value, str):
            try:
                return _instant_us(dt.datetime.strptime(value.strip(), form), rule.zone)
            except ValueError:
                continue
    if rule.formats or not isinstance(value, str):
        raise ValueError(value)
    return _instant_us(_iso(value.strip()), rule.zone)


def _iso(text: str) -> dt.datetime:
    if not _ISO.fullmatch(text):
        raise ValueError(text)
    return dt.datetime.fromisoformat(_SHORT_HOUR.sub(r"\1T0\2:", text, count=1))


def _instant_us(moment: dt.datetime, zone: ZoneInfo) -> int:
    delta = (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)) - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _plain_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal | dt.date):
        return value.isoformat() if isinstance(value, dt.date) else str(value)
    raise ValueError(value)


def _number(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(value)
    number = Decimal(value.strip()) if isinstance(value, str) else Decimal(str(value))
    if not number.is_finite():
        raise ValueError(value)
    return number


def _integer(value: object) -> int:
    number = _number(value)
    # Exports write whole numbers as 12.0 when a column once held a gap.
    if abs(number) >= 10**18 or number != number.to_integral_value():
        raise ValueError(value)
    return int(number)


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError(value)


def _strings(value: object, split: str) -> list[str]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(split) if part.strip()]
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return list(value)
    raise ValueError(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
