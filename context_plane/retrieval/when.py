"""When: dates that a question names, as a window. Pure; English; UTC days, weeks from Monday.

A rule is a pattern and what span of days it names, seen from today. Rules are tried in their order and no two take the
same characters. A month or weekday without a year is the latest one that has begun; a bare "may", "march", "monday" or
year is a date only where the words before it say so. "since", "before", "after" and "until" open a side; what is named
further is joined: "from May to July", "in May and in July" both cover June. What no rule knows ("recently", "around
Easter") is left alone.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from context_plane.model import day_of, day_start_us

LEAD_CHARS: Final = 24
"""Looked at before a month for the word that leads to it."""
PHRASES_MAX: Final = 8
"""Dates read of one text; a question names one or two."""
_FIRST: Final = dt.date(1970, 1, 1)
_LAST: Final = dt.date(9000, 1, 1)
"""Leaves room for a year behind every day."""
_DAY: Final = dt.timedelta(days=1)
_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NUMBERS: Final = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "a couple of": 2, "couple of": 2, "couple": 2,
}  # fmt: skip
_ORDINALS: Final = {"first": 1, "second": 2, "third": 3, "fourth": 4}

_MONTH: Final = "(?P<month>" + "|".join(f"{name[:3]}(?:{name[3:]})?" for name in _MONTHS) + "|sept)\\b\\.?"
_FROM: Final = _MONTH.replace("<month>", "<from>")
_YEAR: Final = r"(?P<year>19[7-9]\d|20\d\d)\b"
_NTH: Final = r"(?P<day>[12]\d|3[01]|0?[1-9])(?:st|nd|rd|th)?\b"
_COUNT: Final = r"(?P<count>\d{1,4}|" + "|".join(sorted(_NUMBERS, key=len, reverse=True)) + ")"
_UNIT: Final = r"(?P<unit>day|week|month|quarter|year)"
_LEADING: Final = (
    "in", "of", "by", "from", "since", "after", "until", "before", "during", "throughout", "between", "and", "to",
    "last", "this",
)  # fmt: skip
_SIDES: Final = ("since", "after", "before", "until", "till", "prior to", "later than", "earlier than")
"""What opens a side of a date."""


def _behind(words: Iterable[str]) -> str:
    return "(?:" + "|".join(rf"(?<=\b{word} )" for word in words) + ")"


_WITHIN: Final = _behind(_LEADING)
"""A bare month or year is a date behind one of these."""

_VERBS: Final = ("may", "march")
"""In lower case these are mostly no months."""
_DATED: Final = re.compile(r"\d(?:st|nd|rd|th)|\bof\b", re.IGNORECASE)


class Days(NamedTuple):
    """First day, and the day after the last."""

    first: dt.date
    stop: dt.date


@dataclass(frozen=True, slots=True)
class Window:
    """since <= ts < until, microseconds since 1970; None: open. `phrases`: what of the text said so."""

    since_us: int | None
    until_us: int | None
    phrases: tuple[str, ...]


_Named: TypeAlias = Callable[[re.Match[str], dt.date], Days | None]


class _Found(NamedTuple):
    start: int
    stop: int
    days: Days


def window_of(text: str, now_us: int) -> Window | None:
    """The window that the dates of a text name, seen from `now_us`; None where it names none."""
    today = dt.date.fromisoformat(day_of(min(max(0, now_us), _us(_LAST))))
    found = sorted(_dates(text, today))[:PHRASES_MAX]
    if not found:
        return None
    starts: list[dt.date] = []
    stops: list[dt.date] = []
    leads = [_led_by(text, one.start) for one in found]
    for lead, one in zip(leads, found, strict=True):
        if lead not in _CLOSE:
            starts.append(one.days.stop if lead == "after" else one.days.first)
        if lead not in _OPEN:
            stops.append(one.days.first if lead == "before" else one.days.stop)
    opened, closed = any(lead in _OPEN for lead in leads), any(lead in _CLOSE for lead in leads)
    since_us = None if closed and not opened else _us(min(starts))
    until_us = None if opened and not closed else _us(max(stops))
    if since_us is not None and until_us is not None and since_us >= until_us:
        return None
    return Window(since_us, until_us, tuple(text[one.start : one.stop] for one in found))


def _us(day: dt.date) -> int:
    return day_start_us(day.isoformat())


_LEADS: Final = re.compile(rf"\b({'|'.join(_SIDES)})(?: the)?\s*$", re.IGNORECASE)
_OPEN: Final = ("since", "after")
_CLOSE: Final = ("before", "until")
"""Leads that leave the end, or the beginning, to what else is named."""
_SAME: Final = {"till": "until", "prior to": "before", "later than": "after", "earlier than": "before"}


def _led_by(text: str, start: int) -> str:
    """The word before a date that opens a side of it; empty where none does."""
    found = _LEADS.search(text[max(0, start - 24) : start])
    return "" if found is None else _SAME.get(found[1].lower(), found[1].lower())


def _dates(text: str, today: dt.date) -> Iterator[_Found]:
    """Every date, in the order of the rules."""
    taken = bytearray(len(text))
    for pattern, named in _RULES:
        for match in pattern.finditer(text):
            if any(taken[match.start() : match.end()]):
                continue
            days = named(match, today)
            if days is not None and days.stop > _FIRST:
                taken[match.start() : match.end()] = b"\1" * (match.end() - match.start())
                yield _Found(match.start(), match.end(), Days(max(days.first, _FIRST), days.stop))


# --- spans --------------------------------------------------------------------------------------


def _day(day: dt.date) -> Days:
    return Days(day, day + _DAY)


def _week(day: dt.date) -> Days:
    first = day - dt.timedelta(days=day.weekday())
    return Days(first, first + 7 * _DAY)


def _month(year: int, month: int) -> Days:
    """Months count on past December and before January."""
    first = _first_of(year, month)
    return Days(first, _first_of(first.year, first.month + 1))


def _quarter(year: int, quarter: int) -> Days:
    first = _first_of(year, 3 * quarter - 2)
    return Days(first, _first_of(first.year, first.month + 3))


def _year(year: int) -> Days:
    return Days(dt.date(year, 1, 1), dt.date(year + 1, 1, 1))


def _first_of(year: int, month: int) -> dt.date:
    year, index = divmod(year * 12 + month - 1, 12)
    return _FIRST if year < _FIRST.year else dt.date(year, index + 1, 1)


def _unit_back(today: dt.date, unit: str, count: int) -> Days:
    """The calendar unit that many before the one of today."""
    match unit:
        case "day":
            return _day(max(_FIRST, today - count * _DAY))
        case "week":
            return _week(max(_FIRST + 7 * _DAY, today - 7 * count * _DAY))
        case "month":
            return _month(today.year, today.month - count)
        case "quarter":
            return _quarter(today.year, (today.month + 2) // 3 - count)
        case _:
            return _year(max(_FIRST.year, today.year - count))


def _past(today: dt.date, unit: str, count: int) -> Days:
    """That many units up to the end of today."""
    if unit in ("day", "week"):
        return Days(max(_FIRST, today - count * (7 if unit == "week" else 1) * _DAY), today + _DAY)
    months = count * {"month": 1, "quarter": 3, "year": 12}[unit]
    month = _month(today.year, today.month - months)
    if today.year * 12 + today.month - 1 - months < _FIRST.year * 12:
        return Days(_FIRST, today + _DAY)
    return Days(min(month.first + (today.day - 1) * _DAY, month.stop - _DAY), today + _DAY)


def _number(text: str) -> int:
    return _NUMBERS[text.lower()] if text.lower() in _NUMBERS else int(text)


def _month_number(text: str) -> int:
    return 1 + next(n for n, name in enumerate(_MONTHS) if name.startswith(text[:3].lower()))


# --- rules --------------------------------------------------------------------------------------


def _iso_day(match: re.Match[str], _: dt.date) -> Days | None:
    return _date(int(match["year"]), int(match["m"]), int(match["d"]))


def _date(year: int, month: int, day: int) -> Days | None:
    try:
        return _day(dt.date(year, month, day))
    except ValueError:
        return None


def _named_day(match: re.Match[str], today: dt.date) -> Days | None:
    if match["month"] in _VERBS and not match["year"] and not _DATED.search(match[0]):
        return None
    month, day = _month_number(match["month"]), int(match["day"])
    if match["year"]:
        return _date(int(match["year"]), month, day)
    years = (today.year - n for n in range(5))  # 29 February is at most that far back
    past = (found for year in years if (found := _date(year, month, day)) and found.first <= today)
    return next(past, None)


def _named_month(match: re.Match[str], today: dt.date) -> Days:
    month = _month_number(match["month"])
    if match.groupdict().get("year"):
        return _month(int(match["year"]), month)
    found = _month(today.year, month)
    return found if found.first <= today else _month(today.year - 1, month)


def _bare_month(match: re.Match[str], today: dt.date) -> Days | None:
    lead = match.string[max(0, match.start() - LEAD_CHARS) : match.start()].split()[-1].lower()
    if match["month"] in _VERBS and lead in ("and", "to", "this", "by"):
        return None
    return _named_month(match, today)


def _months(match: re.Match[str], _: dt.date) -> Days:
    """Two months and one year, which is that of the later one."""
    year, first, last = int(match["year"]), _month_number(match["from"]), _month_number(match["month"])
    return Days(_month(year if first <= last else year - 1, first).first, _month(year, last).stop)


def _named_quarter(match: re.Match[str], today: dt.date) -> Days:
    named = match.groupdict()
    quarter = int(named["q"]) if named.get("q") else _ORDINALS[named["nth"].lower()]
    if named.get("year"):
        return _quarter(int(named["year"]), quarter)
    found = _quarter(today.year, quarter)
    return found if found.first <= today else _quarter(today.year - 1, quarter)


def _weekday(match: re.Match[str], today: dt.date) -> Days:
    """The latest one; "last" is not today, nor is what something came after."""
    back = (today.weekday() - _DAYS.index(match["weekday"].lower())) % 7
    if back == 0 and (match["last"] or _led_by(match.string, match.start()) == "after"):
        back = 7
    return _day(today - back * _DAY)


def _weekend(match: re.Match[str], today: dt.date) -> Days:
    week = _week(today if match["which"].lower() == "this" else today - 7 * _DAY)
    return Days(week.stop - 2 * _DAY, week.stop)


_RULES: Final[tuple[tuple[re.Pattern[str], _Named], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), named)
    for pattern, named in (
        (r"\b(?P<year>19[7-9]\d|20\d\d)-(?P<m>0[1-9]|1[0-2])-(?P<d>0[1-9]|[12]\d|3[01])\b", _iso_day),
        (
            r"\b(?P<year>19[7-9]\d|20\d\d)-(?P<m>0[1-9]|1[0-2])\b(?!-\d)",
            lambda match, _: _month(int(match["year"]), int(match["m"])),
        ),
        (rf"\b{_MONTH} {_NTH}(?:,? {_YEAR})?", _named_day),
        (rf"\b{_NTH}(?: of)? {_MONTH}(?:,? {_YEAR})?", _named_day),
        (rf"\b{_FROM} ?(?:to|and|through|until|till|-|–) ?{_MONTH},?(?: of)? {_YEAR}", _months),
        (rf"\b{_MONTH},?(?: of)? {_YEAR}", _named_month),
        (rf"\bq(?P<q>[1-4])(?:,?(?: of)?[ /-]{_YEAR})?", _named_quarter),
        (rf"\b(?P<nth>first|second|third|fourth) quarter(?:,?(?: of)? {_YEAR})?", _named_quarter),
        (r"\b(?:the )?day before yesterday\b", lambda _, today: _day(today - 2 * _DAY)),
        (r"\byesterday\b", lambda _, today: _day(today - _DAY)),
        (r"\b(?:today|tonight|this morning|this afternoon|this evening)\b", lambda _, today: _day(today)),
        (
            rf"\b{_COUNT} {_UNIT}s? (?:ago|back|earlier)\b",
            lambda match, today: _unit_back(today, match["unit"].lower(), _number(match["count"])),
        ),
        (
            rf"\b(?:last|past|previous) {_COUNT} {_UNIT}s?\b",
            lambda match, today: _past(today, match["unit"].lower(), _number(match["count"])),
        ),
        (r"\b(?P<which>last|past|previous|this) weekend\b", _weekend),
        (rf"\bpast {_UNIT}\b", lambda match, today: _past(today, match["unit"].lower(), 1)),
        (rf"\b(?:last|previous) {_UNIT}\b", lambda match, today: _unit_back(today, match["unit"].lower(), 1)),
        (rf"\b(?:this|the current) {_UNIT}\b", lambda match, today: _unit_back(today, match["unit"].lower(), 0)),
        (
            rf"(?:\b(?P<last>last|previous) |\b(?:on|this) |{_behind(_SIDES)})(?P<weekday>{'|'.join(_DAYS)})\b",
            _weekday,
        ),
        (rf"{_WITHIN}{_MONTH}", _bare_month),
        (rf"{_WITHIN}{_YEAR}", lambda match, _: _year(int(match["year"]))),
    )
)
"""The longest forms first: what one takes, no later one reads again."""
