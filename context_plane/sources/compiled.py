"""A stream made ready for the rows of one file: names checked against its columns, templates compiled.

Every value becomes a function of the row's scope. A name that the file does not have is found here, before
the first row; JSONL has no header, so there a field that a row lacks is an empty cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from zoneinfo import ZoneInfo

from context_plane.errors import Invalid
from context_plane.sources.mapping import Attribute, Column, EventRule, Join, SourceMapping, Stream
from context_plane.sources.template import ROW, Missing, compile_condition, compile_template, is_template, missing
from context_plane.sources.values import ColumnType, TimeFormat, parse_shift

Scope: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class CompiledAttribute:
    """`column`: the column to blame, None for a template."""

    value: Callable[[Scope], object]
    column: str | None
    type: ColumnType | None
    split: str


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """`EventRule` as functions of the scope."""

    kind: Callable[[Scope], str]
    entity: Callable[[Scope], object]
    ts: Callable[[Scope], object]
    ts_column: str
    time: TimeFormat
    id: Callable[[Scope], object] | None
    when: Callable[[Scope], bool] | None
    thread: Callable[[Scope], object] | None
    text: Callable[[Scope], str] | None
    attrs: Mapping[str, CompiledAttribute]
    vector: Callable[[Scope], object] | None
    op: str


@dataclass(frozen=True, slots=True)
class CompiledStream:
    """`gaps`: a `Missing` per name in use, for fields a row may lack."""

    missing: frozenset[str]
    columns: Mapping[str, Column]
    joins: Mapping[str, Join]
    gaps: Mapping[str, object]
    skip_when: Callable[[Scope], bool] | None
    rules: tuple[CompiledRule, ...]


def compile_stream(mapping: SourceMapping, stream: Stream, header: list[str] | None, file: str) -> CompiledStream:
    """Raises `Invalid(mapping_invalid)` when the mapping names a column the file lacks."""
    used = _names(stream)
    known = {*stream.lookup, ROW}
    if header is not None:
        known_or_had = known | set(header)
        absent = sorted(n for n in used if n not in known_or_had and n.partition(".")[0] not in known_or_had)
        if absent:
            detail = "the mapping names columns the file lacks; mend the mapping or export them"
            raise Invalid("mapping_invalid", detail, stream=stream.name, file=file, columns=absent, has=header)
    skip_when = None if stream.skip_when is None else compile_condition(stream.skip_when).holds
    return CompiledStream(
        missing=frozenset(stream.missing),
        columns=stream.columns,
        joins=stream.lookup,
        gaps={name: missing(name) for name in used - known},
        skip_when=skip_when,
        rules=tuple(_compile_rule(mapping, rule) for rule in stream.events),
    )


def _compile_rule(mapping: SourceMapping, rule: EventRule) -> CompiledRule:
    shift_us = parse_shift(mapping.shift) + (0 if rule.ts.shift is None else parse_shift(rule.ts.shift))
    return CompiledRule(
        kind=compile_template(rule.kind).render,
        entity=_value(rule.entity),
        ts=_column(rule.ts.column),
        ts_column=rule.ts.column,
        time=TimeFormat(tuple(rule.ts.format), ZoneInfo(rule.ts.timezone or mapping.timezone), shift_us),
        id=None if rule.id is None else _value(rule.id),
        when=None if rule.when is None else compile_condition(rule.when).holds,
        thread=None if rule.thread is None else _value(rule.thread),
        text=None if rule.text is None else compile_template(rule.text).render,
        attrs={name: _attribute(attribute) for name, attribute in rule.attrs.items()},
        vector=None if rule.vector is None else _column(rule.vector),
        op=rule.op,
    )


def _attribute(attribute: Attribute) -> CompiledAttribute:
    column = None if is_template(attribute.value) else attribute.value
    return CompiledAttribute(_value(attribute.value), column, attribute.type, attribute.split)


def _value(source: str) -> Callable[[Scope], object]:
    return compile_template(source).render if is_template(source) else _column(source)


def _column(name: str) -> Callable[[Scope], object]:
    """The cell of a column; where no column has that very name, `a.b` reaches into a lookup or nested object."""
    head, dot, rest = name.partition(".")

    def cell(scope: Scope) -> object:
        found = scope.get(name, missing(name))
        if not dot or not isinstance(found, Missing):
            return found
        value: object = scope.get(head)
        for part in rest.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return found if value is None or isinstance(value, Missing) else value

    return cell


def _names(stream: Stream) -> set[str]:
    """Columns and lookups the stream uses."""
    names = set(stream.columns) | {join.column for join in stream.lookup.values()}
    if stream.skip_when is not None:
        names |= compile_condition(stream.skip_when).names
    for rule in stream.events:
        names |= compile_template(rule.kind).names
        names |= set() if rule.text is None else compile_template(rule.text).names
        names |= set() if rule.when is None else compile_condition(rule.when).names
        names.add(rule.ts.column)
        names |= set() if rule.vector is None else {rule.vector}
        values = [rule.entity, rule.id, rule.thread, *(attribute.value for attribute in rule.attrs.values())]
        for value in values:
            if value is not None:
                names |= compile_template(value).names if is_template(value) else {value}
    return names
