"""Wording: how values and texts of events read inside a bundle. Pure, without a locale.

Numbers: integers as they are; others rounded half to even to two decimals with trailing zeros cut; a
fraction shown as a percentage is a whole number. Dates: `Mar 4`, with the year when it is not the
year of `as_of`. Texts of events become one line, and what looks like a citation marker in them is
defused (`[3]` -> `(3)`), so that no event can pass for the bundle's own structure.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from context_plane.bundle import tokens
from context_plane.model import INT_ABS_MAX, AttrValue

ELLIPSIS: Final = "…"
VALUE_CHARS_MAX: Final = 80
"""An attribute shown as a fact; longer ones are prose and belong to evidence."""
QUERY_PREFIX: Final = 5
"""Characters by which a word of the query is recognized inside a sentence (`exporting`, `exports`)."""
DECIMALS_STORED: Final = 6
DECIMALS_SHOWN: Final = 2

Number = int | float

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MARKER = re.compile(r"\[(\d+)\]")
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""Control, zero-width and direction characters: a fixed class, for Python's own grows with Unicode."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"\w+")


def one_line(text: str) -> str:
    """White space runs become one space, characters nobody sees go, markers are defused."""
    line = " ".join(_UNSEEN.sub(" ", text).split())
    return _MARKER.sub(r"(\1)", line) if "[" in line else line


def number(value: Number) -> Number | None:
    """The stored form of a computed number: six decimals, whole values as integers; None when not finite."""
    if isinstance(value, int) and abs(value) <= INT_ABS_MAX:
        return value
    try:
        rounded = round(float(value), DECIMALS_STORED)
    except OverflowError:
        return None
    if rounded - rounded != 0:  # infinite or not a number
        return None
    return int(rounded) if rounded.is_integer() and abs(rounded) <= INT_ABS_MAX else rounded


def show_number(value: Number) -> str:
    if isinstance(value, int):
        return str(value)
    if abs(value) >= INT_ABS_MAX:
        return f"{value:.3e}"
    shown = f"{value:.{DECIMALS_SHOWN}f}".rstrip("0").rstrip(".")
    return "0" if shown == "-0" else shown


def show_percent(value: Number, *, signed: bool = False) -> str:
    """A fraction as a whole percentage: 0.354 -> `35%`; a change carries its sign: `+35%`. One too large to be read
    digit by digit is rounded: `1.798e+308%`."""
    if abs(value) >= INT_ABS_MAX:  # a hundred times it may be no float
        return f"{Decimal(value) * 100:{'+' if signed else ''}.3e}%"
    whole = round(value * 100)
    return f"{whole:+d}%" if signed and whole else f"{whole}%"


def show_value(value: AttrValue) -> str:
    """An attribute value as it reads in a fact."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return show_number(value)
        case list():
            return shorten(one_line(", ".join(value)), VALUE_CHARS_MAX)
        case None:
            return "none"
    return shorten(one_line(value), VALUE_CHARS_MAX)


def show_day(day: str, as_of: str) -> str:
    month, date = _MONTHS[int(day[5:7]) - 1], str(int(day[8:]))
    return f"{month} {date}" if day[:4] == as_of[:4] else f"{month} {date} {day[:4]}"


def shorten(line: str, chars_max: int) -> str:
    """At most `chars_max` characters, cut after a sentence or a word, with an ellipsis where it was cut."""
    return line if len(line) <= chars_max else _boundary(line[: chars_max - 2], line[chars_max - 2])


def fit(line: str, tokens_max: int) -> str | None:
    """The longest beginning of whole words within `tokens_max`, ellipsis included; None when not one word fits."""
    left = tokens_max - tokens.count(ELLIPSIS)
    words = line.split(" ")
    for taken, word in enumerate(words):
        left -= tokens.word_tokens(word)
        if left < 0:
            return _boundary(" ".join(words[:taken]), " ") if taken else None
    return line


def focus(line: str, query: str | None) -> str:
    """The line from its sentence nearest to the query on: most distinct query words, the first one on ties."""
    stems = {word[:QUERY_PREFIX] for word in _WORD.findall((query or "").lower()) if len(word) > 3}
    sentences = _SENTENCE.split(line)
    if not stems or len(sentences) == 1:
        return line
    scores = [len(stems & {word[:QUERY_PREFIX] for word in _WORD.findall(s.lower())}) for s in sentences]
    best = scores.index(max(scores))
    return f"{ELLIPSIS} {' '.join(sentences[best:])}" if best else line


def _boundary(head: str, following: str) -> str:
    """Cut `head` back to the end of a sentence in its second half, else of a word."""
    for mark in (". ", "! ", "? "):
        at = head.rfind(mark)
        if at >= len(head) // 2:
            return f"{head[: at + 1]} {ELLIPSIS}"
    if following != " ":
        at = head.rfind(" ")
        head = head[:at] if at > 0 else head
    return f"{head.rstrip()} {ELLIPSIS}"
