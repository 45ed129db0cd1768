"""Facts: profile values, metrics and signals of one timeline, as candidate items. Pure.

Windows end with the bundle: a window of w days is the last w * 24 h before the end. Sums are exactly
rounded (`math.fsum`), hence independent of order; a bool is not a number. A value that no event supports is
undefined: it is no item, and every comparison with it is false.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from context_plane.bundle import wording
from context_plane.bundle.compiled import CompiledSpec
from context_plane.bundle.history import Timeline
from context_plane.bundle.selection import Selection
from context_plane.bundle.spec import (
    CITED_MAX,
    PLACEHOLDER,
    AllOf,
    AnyOf,
    Attribute,
    Condition,
    Metric,
    MetricsSection,
    ProfileSection,
    Signal,
    SignalsSection,
)
from context_plane.bundle.wording import Number
from context_plane.model import AttrValue

DAY_US: Final = 86_400_000_000
LISTED_MAX: Final = 8
"""Elements kept of a list value."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item that may enter the bundle; `cites` are timeline positions, newest first.

    `prefix` and `body` are given where the text may be cut: it is `prefix + body`. `shows` is the event whose
    text it repeats, so that no other section shows it again.
    """

    text: str
    fields: Mapping[str, Any]
    cites: tuple[int, ...]
    prefix: str = ""
    body: str | None = None
    shows: int | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """What a signal may refer to; `cites` are the events behind it, newest first."""

    value: AttrValue
    cites: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Candidates by section, and the signals that fired with their weights."""

    candidates: dict[str, list[Candidate]] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    fired: dict[str, Number] = field(default_factory=dict)


def facts_of(compiled: CompiledSpec, line: Timeline, selection: Selection, end_us: int) -> Facts:
    """Profile and metrics first, for signals refer to them; candidates keep the spec's order."""
    facts = Facts()
    for section in compiled.spec.sections:
        if isinstance(section, ProfileSection):
            first = line.since(end_us - section.lookback_days * DAY_US)
            for attribute in section.attributes:
                chosen = selection.positions(compiled.choices[section.name, attribute.name], first)
                _add(facts, section.name, _profile(attribute, line, chosen, facts))
        elif isinstance(section, MetricsSection):
            first = line.since(end_us - section.lookback_days * DAY_US)
            for metric in section.metrics:
                chosen = selection.positions(compiled.choices[section.name, metric.name], first)
                _add(facts, section.name, _metric(metric, line, chosen, end_us, facts))
    for section in compiled.spec.sections:
        if isinstance(section, SignalsSection):
            held = [(signal, cites) for signal in section.signals if (cites := _holds(signal.when, facts)) is not None]
            held.sort(key=lambda pair: (-pair[0].weight, pair[0].name))
            for signal, cites in held:
                _add(facts, section.name, _signal(signal, cites, line, facts))
    return facts


def _add(facts: Facts, section: str, candidate: Candidate | None) -> None:
    if candidate is not None:
        facts.candidates.setdefault(section, []).append(candidate)


# --- profile ------------------------------------------------------------------------------------


def _profile(attribute: Attribute, line: Timeline, chosen: list[int], facts: Facts) -> Candidate | None:
    for n in reversed(chosen):
        value = line.entries[n].attrs.get(attribute.attr)
        if value is not None:
            facts.values[attribute.name] = Value(value, (n,))
            text = f"{_label(attribute)} {wording.show_value(value)}"
            return Candidate(text, {"name": attribute.name, "value": _stored(value)}, (n,))
    return None


def _stored(value: AttrValue) -> AttrValue:
    """The value itself, long ones shortened: the bundle is no place for prose in an attribute."""
    if isinstance(value, list):
        return [wording.shorten(item, wording.VALUE_CHARS_MAX) for item in value[:LISTED_MAX]]
    if isinstance(value, float):
        return wording.number(value)
    return wording.shorten(value, wording.VALUE_CHARS_MAX) if isinstance(value, str) else value


# --- metrics ------------------------------------------------------------------------------------


def _metric(metric: Metric, line: Timeline, chosen: list[int], end_us: int, facts: Facts) -> Candidate | None:
    chosen = _with_number(metric, line, chosen)
    shown: list[str] = []
    values: dict[str, Number] = {}
    cited: list[int] = []
    for reference, days in zip(metric.references(), metric.windows or (None,), strict=True):
        start_us = None if days is None else end_us - days * DAY_US
        result = _aggregate(metric, line, chosen, start_us, None if days is None else days * DAY_US)
        if result is None:
            continue
        value, behind = result
        facts.values[reference] = Value(value, tuple(reversed(behind[-CITED_MAX:])))
        if behind:
            values["all" if days is None else f"{days}d"] = value
            shown.append(_window_text(metric, value, days))
            cited += [n for n in facts.values[reference].cites if n not in cited]
    if not metric.show or not values:
        return None
    cites = tuple(sorted(cited, reverse=True)[: metric.cite])
    unit = f" {metric.unit}" if metric.unit else ""
    text = f"{_label(metric)} {', '.join(shown)}{unit}"
    return Candidate(text, {"name": metric.name, "agg": metric.agg, "values": values}, cites)


def _with_number(metric: Metric, line: Timeline, chosen: list[int]) -> list[int]:
    """Events that carry what the metric needs: its attribute, as a number unless it only counts."""
    if metric.attr is None:
        return chosen
    entries, attr = line.entries, metric.attr
    if metric.agg == "count":
        return [n for n in chosen if entries[n].attrs.get(attr) is not None]
    return [n for n in chosen if type(entries[n].attrs.get(attr)) in (int, float)]


def _aggregate(
    metric: Metric, line: Timeline, chosen: list[int], start_us: int | None, length_us: int | None
) -> tuple[Number, list[int]] | None:
    """Value over the window and the events behind it, ascending; None where undefined."""
    times = line.times
    inside = chosen if start_us is None else [n for n in chosen if times[n] >= start_us]
    value: Number | None
    match metric.agg:
        case "count":
            return len(inside), inside
        case "sum":
            value = _sum(metric, line, inside)
        case "mean":
            total = _sum(metric, line, inside)
            value = total / len(inside) if inside and total is not None else None
        case "last":
            value, inside = (_number(metric, line, inside[-1]), inside[-1:]) if inside else (None, [])
        case "delta":
            value, inside = _delta(metric, line, chosen, inside)
        case "trend":
            assert start_us is not None, "the spec gives a trend windows"
            assert length_us is not None, "the spec gives a trend windows"
            before = [n for n in chosen if start_us - length_us <= times[n] < start_us]
            value, inside = _trend(metric, line, before, inside), before + inside
    if value is None or (stored := wording.number(value)) is None:
        return None
    return stored, inside


def _delta(metric: Metric, line: Timeline, chosen: list[int], inside: list[int]) -> tuple[Number | None, list[int]]:
    if not inside:
        return None, []
    before = len(chosen) - len(inside)
    base = chosen[before - 1] if before else inside[0]
    if base == inside[-1]:
        return None, []
    return _number(metric, line, inside[-1]) - _number(metric, line, base), [base, inside[-1]]


def _trend(metric: Metric, line: Timeline, before: list[int], inside: list[int]) -> Number | None:
    if metric.attr is None:
        return (len(inside) - len(before)) / len(before) if before else None
    old, new = _sum(metric, line, before), _sum(metric, line, inside)
    return (new - old) / abs(old) if old and new is not None else None


def _sum(metric: Metric, line: Timeline, positions: list[int]) -> Number | None:
    numbers = [_number(metric, line, n) for n in positions]
    if all(type(item) is int for item in numbers):
        return sum(numbers)
    try:
        return math.fsum(numbers)
    except OverflowError:
        return None


def _number(metric: Metric, line: Timeline, position: int) -> Number:
    value = line.entries[position].attrs[metric.attr or ""]
    assert isinstance(value, int | float), "chosen events carry a number"
    return value


def _window_text(metric: Metric, value: Number, days: int | None) -> str:
    if metric.format == "percent" or metric.agg == "trend":
        shown = wording.show_percent(value, signed=metric.agg in ("delta", "trend"))
    else:
        shown = wording.show_number(value)
        if metric.agg == "delta" and value > 0:
            shown = f"+{shown}"
    return shown if days is None else f"{shown} in {days}d"


# --- signals ------------------------------------------------------------------------------------

_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


def _holds(rule: Condition | AllOf | AnyOf, facts: Facts) -> tuple[int, ...] | None:
    """The events behind the conditions that held, in the rule's order; None where the rule does not hold."""
    match rule:
        case Condition():
            return _condition(rule, facts)
        case AllOf():
            every = [_holds(part, facts) for part in rule.all]
            return None if None in every else _union(every)
        case AnyOf():
            some = [cites for part in rule.any if (cites := _holds(part, facts)) is not None]
            return _union(some) if some else None


def _union(parts: Sequence[tuple[int, ...] | None]) -> tuple[int, ...]:
    """Round robin, so that each condition's newest event comes before any second one."""
    longest = max((len(part or ()) for part in parts), default=0)
    return tuple(dict.fromkeys(part[n] for n in range(longest) for part in parts if part and n < len(part)))


def _condition(condition: Condition, facts: Facts) -> tuple[int, ...] | None:
    left = facts.values.get(condition.of)
    if left is None:
        return None
    value, cites = left.value, left.cites
    if condition.per is not None:
        right = facts.values.get(condition.per)
        if right is None or not _is_number(value) or not _is_number(right.value) or not right.value:
            return None
        value, cites = value / right.value, _union([cites, right.cites])  # type: ignore[operator]  # both are numbers
    return cites if _compare(condition, value) else None


def _compare(condition: Condition, value: AttrValue) -> bool:
    wanted = condition.value
    if isinstance(wanted, tuple):
        return any(_alike(value, item) and value == item for item in wanted)
    return _alike(value, wanted) and _COMPARE[condition.op](value, wanted)


def _alike(left: object, right: object) -> bool:
    """Comparable: two numbers, two strings, or two bools."""
    return (_is_number(left) and _is_number(right)) or (type(left) is type(right) and not isinstance(left, list))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _signal(signal: Signal, cites: tuple[int, ...], line: Timeline, facts: Facts) -> Candidate | None:
    def shown(found: Any) -> str:
        held = facts.values.get(found[1])
        if held is None:
            return "?"
        if found[2] and _is_number(held.value):
            return wording.show_percent(held.value)  # type: ignore[arg-type]  # checked to be a number
        return wording.show_value(held.value)

    weight = wording.number(signal.weight)
    assert weight is not None, "the spec bounds weights"
    facts.fired[signal.name] = weight
    # A signal about absence has no event of its own: it cites how far the history reaches.
    cites = cites[: signal.cite] or (len(line.entries) - 1,)
    text = PLACEHOLDER.sub(shown, signal.text)
    return Candidate(text, {"name": signal.name, "severity": signal.severity}, cites)


def _label(item: Attribute | Metric) -> str:
    return item.label or item.name.replace("_", " ")
