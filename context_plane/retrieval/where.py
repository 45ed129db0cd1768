"""The filter language: parse JSON into a tree, evaluate it over columns. One meaning on every path.

    {"and": [{"eq": ["source", "zendesk"]}, {"not": {"gte": ["attrs.seats", 10]}}]}

Fields: `source kind id entity` (strings, always there), `ts` (RFC 3339 operands), `attrs.NAME` (NAME is
the rest, dots included). A missing attribute equals nothing: `ne`, `nin` hold, every other operator
fails. A null attribute counts as missing. Types never convert: "10" is not 10, true is not 1.
Numbers compare as numbers, strings by code point; `lt lte gt gte` between different types fail.

    eq ne lt lte gt gte   [field, value]         in nin        [field, [value, ...]]
    contains              [field, string]        contains_any  [field, [string, ...]]
    prefix glob           [field, string]        exists        field or [field, true|false]

`contains`: a list has the string as an element, or a string has it as a part. `glob` is `fnmatchcase`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import reduce
from typing import Any, Final, TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

from context_plane.errors import Fault, Invalid
from context_plane.model import INT_ABS_MAX, parse_time
from context_plane.retrieval.columns import BOOLEAN, LIST, MISSING, NUMBER, STRING, Columns, Mask, StringColumn

DEPTH_MAX: Final = 16
"""Deeper filters come from loops, not from questions."""
NODES_MAX: Final = 256
"""Each node is one pass over the events in scope, and each value of `contains_any` too."""
OPERANDS_MAX: Final = 10_000
"""Values of all lists of a filter: two that name as many entities as a search may."""
STRING_CHARS_MAX: Final = 1_024
"""No id, source or sensible attribute is longer; bounds the work of `glob` and `contains` per value."""

Scalar: TypeAlias = str | int | float | bool

_COMPARE: Final = frozenset({"eq", "ne", "lt", "lte", "gt", "gte"})
_MEMBER: Final = frozenset({"in", "nin"})
_TEXT: Final = frozenset({"contains", "contains_any", "prefix", "glob"})
_MANY: Final = frozenset({"in", "nin", "contains_any"})
_NEGATED: Final = {"ne": "eq", "nin": "in"}
OPERATORS: Final = ("and", "or", "not", *sorted(_COMPARE | _MEMBER | _TEXT), "exists")
_STRING_FIELDS: Final = frozenset({"source", "kind", "id", "entity"})
_ATTRS: Final = "attrs."


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Where, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Where, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Where


@dataclass(frozen=True, slots=True)
class Test:
    """`operator` applied to `field` and its operands; times are microseconds since 1970."""

    __test__ = False  # not a test class, whatever a test runner makes of the name

    operator: str
    field: str
    operands: tuple[Scalar, ...]


Where: TypeAlias = And | Or | Not | Test


# --- parsing ------------------------------------------------------------------------------------


def parse(value: Any, *, pointer: str = "/where") -> Where:
    """A filter from decoded JSON. Raises `Invalid(where_invalid)`; its fault points at the defect."""
    return _Parser().node(value, pointer, 1)


def _refuse(detail: str, pointer: str) -> Invalid:
    return Invalid("where_invalid", detail, faults=[Fault("where_invalid", detail, pointer=pointer)])


class _Parser:
    """Counts conditions and values while it descends."""

    __slots__ = ("nodes", "operands")

    def __init__(self) -> None:
        self.nodes = 0
        self.operands = 0

    def node(self, value: Any, pointer: str, depth: int) -> Where:
        self.nodes += 1
        if depth > DEPTH_MAX:
            raise _refuse(f"filters nest at most {DEPTH_MAX} deep; flatten `and` and `or`", pointer)
        self._check_size(pointer)
        if not isinstance(value, dict) or len(value) != 1:
            raise _refuse('a condition is an object of one operator, such as {"eq": ["source", "zendesk"]}', pointer)
        ((operator, operand),) = value.items()
        below = f"{pointer}/{_escape(str(operator))}"
        if operator in ("and", "or"):
            return self._group(operator, operand, below, depth)
        if operator == "not":
            return Not(self.node(operand, below, depth + 1))
        if operator == "exists":
            return _exists(operand, below)
        if operator in _COMPARE or operator in _MEMBER or operator in _TEXT:
            self._count(operator, operand, below)
            return _test(operator, operand, below)
        raise _refuse(f"unknown operator {str(operator)[:40]!r}; use one of {' '.join(OPERATORS)}", below)

    def _count(self, operator: str, operand: Any, pointer: str) -> None:
        match operand:
            case [_, [*values]]:
                self.operands += len(values)
                self.nodes += max(0, len(values) - 1) if operator == "contains_any" else 0
                self._check_size(pointer)

    def _check_size(self, pointer: str) -> None:
        if self.nodes > NODES_MAX:
            detail = f"a filter has at most {NODES_MAX} conditions, and each value of contains_any is one"
            raise _refuse(f"{detail}; use `in` for lists of values", pointer)
        if self.operands > OPERANDS_MAX:
            raise _refuse(f"the lists of a filter have at most {OPERANDS_MAX:,} values; send several searches", pointer)

    def _group(self, operator: str, operand: Any, pointer: str, depth: int) -> Where:
        if not isinstance(operand, list) or not operand:
            raise _refuse(f"`{operator}` takes a non-empty list of conditions", pointer)
        parts = tuple(self.node(part, f"{pointer}/{n}", depth + 1) for n, part in enumerate(operand))
        return And(parts) if operator == "and" else Or(parts)


def _exists(operand: Any, pointer: str) -> Where:
    match operand:
        case str():
            field, wanted = operand, True
        case [str() as field]:
            wanted = True
        case [str() as field, bool() as wanted]:
            pass
        case _:
            raise _refuse('`exists` takes a field, such as "attrs.seats", or [field, true|false]', pointer)
    test = Test("exists", _field(field, pointer), ())
    return test if wanted else Not(test)


def _test(operator: str, operand: Any, pointer: str) -> Where:
    if not isinstance(operand, list) or len(operand) != 2:
        raise _refuse(f"`{operator}` takes [field, {'[value, ...]' if operator in _MANY else 'value'}]", pointer)
    field = _field(operand[0], f"{pointer}/0")
    below = f"{pointer}/1"
    if field == "ts" and operator in _TEXT:
        raise _refuse(f"`{operator}` does not apply to ts; use lt, lte, gt, gte", pointer)
    if operator not in _MANY:
        return Test(operator, field, (_scalar(operator, field, operand[1], below),))
    if not isinstance(operand[1], list):
        raise _refuse(f"`{operator}` takes a list of values", below)
    return Test(operator, field, tuple(_scalar(operator, field, v, f"{below}/{n}") for n, v in enumerate(operand[1])))


def _field(value: Any, pointer: str) -> str:
    if isinstance(value, str) and (value in _STRING_FIELDS or value == "ts"):
        return value
    if isinstance(value, str) and value.startswith(_ATTRS) and len(value) > len(_ATTRS):
        return value
    raise _refuse("a field is one of source, kind, id, entity, ts or attrs.NAME", pointer)


def _scalar(operator: str, field: str, value: Any, pointer: str) -> Scalar:
    if value is None:
        raise _refuse('null equals nothing; use {"exists": [field, false]} to find missing values', pointer)
    if not isinstance(value, str | int | float):
        raise _refuse("an operand is a string, a number or a boolean; use contains_any for lists", pointer)
    if isinstance(value, str) and len(value) > STRING_CHARS_MAX:
        raise _refuse(f"a string operand has at most {STRING_CHARS_MAX} characters", pointer)
    if field == "ts":
        return _time(value, pointer)
    if not isinstance(value, str) and (operator in _TEXT or field in _STRING_FIELDS):
        raise _refuse(f"`{operator}` on {field} takes strings", pointer)
    if isinstance(value, bool):
        if operator in _COMPARE - {"eq", "ne"}:
            raise _refuse("booleans have no order; use eq", pointer)
    elif not isinstance(value, str) and (
        abs(value) > INT_ABS_MAX if isinstance(value, int) else not math.isfinite(value)
    ):
        raise _refuse("numbers are finite, and integers below 2^53", pointer)
    return value


def _time(value: Scalar, pointer: str) -> int:
    try:
        if not isinstance(value, str):
            raise _refuse("times are strings", pointer)
        return parse_time(value)
    except Invalid as error:
        raise _refuse("ts takes an RFC 3339 time with an offset, such as 2026-03-04T09:15:00Z", pointer) from error


def _escape(token: str) -> str:
    """RFC 6901."""
    return token[:40].replace("~", "~0").replace("/", "~1")


# --- bounds -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bounds:
    """What every event that passes a filter has: `since <= ts < until`, and one of `entities` (None: any)."""

    since_us: int | None = None
    until_us: int | None = None
    entities: frozenset[str] | None = None

    def narrowed(self, since_us: int | None, until_us: int | None) -> tuple[int | None, int | None]:
        """The window within these bounds."""
        since = [each for each in (self.since_us, since_us) if each is not None]
        until = [each for each in (self.until_us, until_us) if each is not None]
        return max(since, default=None), min(until, default=None)

    def __and__(self, other: Bounds) -> Bounds:
        entities = self.entities if other.entities is None else other.entities
        if self.entities is not None and other.entities is not None:
            entities = self.entities & other.entities
        return Bounds(*self.narrowed(other.since_us, other.until_us), entities)


def bounds(where: Where) -> Bounds:
    """What can be told without looking at events: from the conjunction's own tests, no further."""
    match where:
        case And(parts):
            return reduce(Bounds.__and__, map(bounds, parts))
        case Test("eq" | "in", "entity", operands):
            return Bounds(entities=frozenset(map(str, operands)))
        case Test(operator, "ts", operands) if operands:
            return _time_bounds(operator, [int(each) for each in operands])
        case _:
            return Bounds()


def _time_bounds(operator: str, times: list[int]) -> Bounds:
    match operator:
        case "eq" | "in":
            return Bounds(min(times), max(times) + 1)
        case "gte":
            return Bounds(since_us=times[0])
        case "gt":
            return Bounds(since_us=times[0] + 1)
        case "lt":
            return Bounds(until_us=times[0])
        case "lte":
            return Bounds(until_us=times[0] + 1)
        case _:
            return Bounds()


# --- evaluation ---------------------------------------------------------------------------------


def evaluate(where: Where, columns: Columns) -> Mask:
    """bool[E]: which events pass. Pure; the result may be written to."""
    match where:
        case And(parts):
            return reduce(np.logical_and, (evaluate(part, columns) for part in parts))
        case Or(parts):
            return reduce(np.logical_or, (evaluate(part, columns) for part in parts))
        case Not(part):
            return ~evaluate(part, columns)
        case Test(operator, field, operands):
            if operator in _NEGATED:
                return ~_evaluate_test(_NEGATED[operator], field, operands, columns)
            return _evaluate_test(operator, field, operands, columns)
        case _:
            assert_never(where)


def _evaluate_test(operator: str, field: str, operands: tuple[Scalar, ...], columns: Columns) -> Mask:
    rows = columns.rows
    match field:
        case "source":
            return _on_strings(operator, operands, StringColumn(rows.sources, rows.event_source))
        case "kind":
            return _on_strings(operator, operands, StringColumn(rows.kinds, rows.event_kind))
        case "entity":
            return _on_strings(operator, operands, StringColumn(rows.entities, rows.event_entity))
        case "id":
            return _on_strings(operator, operands, columns.ids)
        case "ts":
            return _on_numbers(operator, operands, rows.event_ts_us)
        case _:
            return _on_attr(operator, operands, columns, field.removeprefix(_ATTRS))


def _on_strings(operator: str, operands: tuple[Scalar, ...], column: StringColumn) -> Mask:
    if operator == "exists":
        return np.ones(len(column.code), np.bool_)
    holds = _string_test(operator, operands)
    return _gather((holds(value) for value in column.values), len(column.values), column.code)


def _on_numbers(operator: str, operands: Iterable[Scalar], values: NDArray[Any]) -> Mask:
    """`operands` compare with the dtype of `values`: int64 times, or float64 numbers and booleans."""
    wanted = np.fromiter(operands, values.dtype)
    match operator:
        case "exists":
            return np.ones(len(values), np.bool_)
        case "eq" | "in":
            return np.isin(values, wanted)
        case "lt" | "lte" | "gt" | "gte" if len(wanted):
            compare = {"lt": np.less, "lte": np.less_equal, "gt": np.greater, "gte": np.greater_equal}[operator]
            return np.asarray(compare(values, wanted[0]), np.bool_)
        case _:
            return np.zeros(len(values), np.bool_)


def _on_attr(operator: str, operands: tuple[Scalar, ...], columns: Columns, name: str) -> Mask:
    column = columns.attr(name)
    if operator == "exists":
        return np.asarray(column.type != MISSING, np.bool_)
    strings = tuple(value for value in operands if isinstance(value, str))
    booleans = [value for value in operands if isinstance(value, bool)]
    numbers = [value for value in operands if isinstance(value, int | float) and not isinstance(value, bool)]
    result = np.zeros(len(column.type), np.bool_)
    if numbers:
        result |= (column.type == NUMBER) & _on_numbers(operator, numbers, column.number)
    if booleans:
        result |= (column.type == BOOLEAN) & _on_numbers(operator, booleans, column.number)
    if strings and column.strings:
        holds = _string_test(operator, strings)
        answers: Iterable[bool] = (holds(value) for value in column.strings)
        result |= _gather(answers, len(column.strings), column.code, column.type == STRING)
    if strings and column.lists and operator in ("contains", "contains_any"):
        wanted = frozenset(strings)
        answers = (not wanted.isdisjoint(value) for value in column.lists)
        result |= _gather(answers, len(column.lists), column.code, column.type == LIST)
    return result


def _gather(answers: Iterable[bool], count: int, code: NDArray[Any], chosen: Mask | None = None) -> Mask:
    """Answers per distinct value -> answers per event; false outside `chosen`, whose codes mean other values."""
    table = np.fromiter(answers, np.bool_, count)
    if chosen is None:
        return np.asarray(table[code], np.bool_)
    result = np.zeros(len(code), np.bool_)
    result[chosen] = table[code[chosen]]
    return result


def _string_test(operator: str, operands: tuple[Scalar, ...]) -> Callable[[str], bool]:
    """The predicate on one string value."""
    strings = tuple(value for value in operands if isinstance(value, str))
    wanted = frozenset(strings)
    first = strings[0] if strings else ""
    tests: dict[str, Callable[[str], bool]] = {
        "eq": wanted.__contains__,
        "in": wanted.__contains__,
        "lt": lambda value: value < first,
        "lte": lambda value: value <= first,
        "gt": lambda value: value > first,
        "gte": lambda value: value >= first,
        "contains": lambda value: first in value,
        "contains_any": lambda value: any(part in value for part in strings),
        "prefix": lambda value: value.startswith(first),
        "glob": lambda value: fnmatchcase(value, first),
    }
    return tests[operator]
