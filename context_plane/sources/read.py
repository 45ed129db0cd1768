"""Read exports through a mapping: every row of every file has exactly one outcome.

A row becomes a `Row` with its wire events (none when a filter dropped it) or a `Reject` that says where and
why; a row is taken whole or not at all. Whatever is wrong with a *row* is a reject; what is wrong with the
*mapping or the file as a whole* (no stream takes it, a named column is absent) raises before its first row.
Memory: one row, one Parquet batch, and the lookups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from context_plane.errors import Invalid, PlaneError
from context_plane.model import format_time
from context_plane.sources.compiled import CompiledRule, CompiledStream, compile_stream
from context_plane.sources.files import Broken, Record, columns_of, format_of, quote, rows_of
from context_plane.sources.lookups import LookupTable, load_lookups
from context_plane.sources.mapping import SourceMapping, Stream
from context_plane.sources.template import Missing, MissingValue, missing
from context_plane.sources.values import BadCell, time_us, typed

WireEvent: TypeAlias = dict[str, Any]
Validate: TypeAlias = Callable[[WireEvent], object]
"""Raises a `PlaneError` when the event cannot be ingested; its value is ignored."""
REJECTS_MAX_DEFAULT: Final = 100_000
"""Past this a file is not dirty, it is the wrong file."""


@dataclass(frozen=True, slots=True)
class Row:
    """One accepted row. `events` in the order of the stream's rules; empty when filtered out."""

    file: str
    line: int
    stream: str
    events: tuple[WireEvent, ...]


@dataclass(frozen=True, slots=True)
class Reject:
    """One refused row. `column` when a single column is to blame; `raw` is the row as read, cut to 16 Ki characters."""

    file: str
    line: int
    column: str | None
    code: str
    detail: str
    raw: str

    def record(self) -> dict[str, object]:
        """The line of a rejects file."""
        return {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "code": self.code,
            "detail": self.detail,
            "raw": self.raw,
        }


Outcome: TypeAlias = Row | Reject


class _Refused(Exception):
    def __init__(self, column: str | None, code: str, detail: str) -> None:
        self.column = column
        self.code = code
        self.detail = detail
        super().__init__(detail)


def read_events(
    mapping: SourceMapping | None,
    files: Sequence[Path],
    *,
    validate: Validate,
    rejects_max: int | None = REJECTS_MAX_DEFAULT,
) -> Iterator[Outcome]:
    """Outcomes of every row of `files`, in the order given. Files that only a lookup names yield nothing.
    Without a mapping the files hold events already, one JSON object of the HTTP contract a line.

    Raises `Invalid(mapping_invalid)` when mapping and files do not fit, and `Invalid(too_many_rejects)` after
    more than `rejects_max` rejects (None: no limit). Blocking I/O: call it outside the event loop.
    """
    rejects = 0
    for path, outcomes in _outcomes(mapping, files, validate):
        for outcome in outcomes:
            yield outcome
            rejects += isinstance(outcome, Reject)
            if rejects_max is not None and rejects > rejects_max:
                raise Invalid(
                    "too_many_rejects",
                    "more rows were rejected than allowed; read the rejects, then mend the mapping or raise the limit",
                    rejects_max=rejects_max,
                    file=path.name,
                )


def _outcomes(
    mapping: SourceMapping | None, files: Sequence[Path], validate: Validate
) -> Iterator[tuple[Path, Iterator[Outcome]]]:
    if mapping is None:
        yield from ((path, _read_lines(path, validate)) for path in files)
        return
    plan = [(path, stream) for path in files if (stream := _stream_of(mapping, path)) is not None]
    lookups = load_lookups(mapping, files)
    yield from ((path, _read_file(mapping, stream, path, lookups, validate)) for path, stream in plan)


def _read_lines(path: Path, validate: Validate) -> Iterator[Outcome]:
    for row in rows_of(path, "jsonl", ""):
        if isinstance(row, Broken):
            yield Reject(path.name, row.line, None, row.code, row.detail, row.raw)
            continue
        try:
            validate(row.values)
        except PlaneError as error:
            yield Reject(path.name, row.line, None, error.code, error.detail, quote(row.values))
        else:
            yield Row(path.name, row.line, "events", (row.values,))


def _stream_of(mapping: SourceMapping, path: Path) -> Stream | None:
    takers = [stream for stream in mapping.streams if path.match(stream.files)]
    if len(takers) > 1:
        names = [stream.name for stream in takers]
        raise Invalid("mapping_invalid", "several streams take the file; narrow `files`", file=path.name, streams=names)
    if takers:
        return takers[0]
    if any(path.match(lookup.file) for lookup in mapping.lookups.values()):
        return None
    patterns = [stream.files for stream in mapping.streams]
    raise Invalid(
        "mapping_invalid", "no stream takes the file; `files` patterns differ", file=path.name, files=patterns
    )


def _read_file(
    mapping: SourceMapping, stream: Stream, path: Path, lookups: Mapping[str, LookupTable], validate: Validate
) -> Iterator[Outcome]:
    kind = stream.format or format_of(path)
    compiled = compile_stream(mapping, stream, columns_of(path, kind, stream.delimiter), path.name)
    for row in rows_of(path, kind, stream.delimiter):
        if isinstance(row, Broken):
            yield Reject(path.name, row.line, None, row.code, row.detail, row.raw)
            continue
        try:
            events = _events(mapping.source, compiled, row, lookups)
            for event in events:
                validate(event)
        except _Refused as refused:
            yield Reject(path.name, row.line, refused.column, refused.code, refused.detail, quote(row.values))
        except PlaneError as error:
            yield Reject(path.name, row.line, None, error.code, error.detail, quote(row.values))
        else:
            yield Row(path.name, row.line, stream.name, events)


def _events(
    source: str, stream: CompiledStream, record: Record, lookups: Mapping[str, LookupTable]
) -> tuple[WireEvent, ...]:
    scope = _scope(stream, record.values, lookups)
    try:
        if stream.skip_when is not None and stream.skip_when(scope):
            return ()
        return tuple(_event(source, rule, scope) for rule in stream.rules if rule.when is None or rule.when(scope))
    except MissingValue as error:
        raise _Refused(error.column, "row_invalid", "the cell is empty; fill it or make the mapping cope") from error
    except _Refused:
        raise
    except Exception as error:  # a template is a program over foreign data: whatever it raises costs its row alone
        raise _Refused(None, "row_invalid", f"the mapping fails on this row: {error}") from error


def _scope(
    stream: CompiledStream, values: Mapping[str, object], lookups: Mapping[str, LookupTable]
) -> dict[str, object]:
    """What templates see: typed cells, `Missing` for gaps, joined lookups, and the row itself."""
    scope: dict[str, object] = dict(stream.gaps)
    for name, value in values.items():
        if value is None or (isinstance(value, str) and value in stream.missing):
            scope[name] = missing(name)
            continue
        column = stream.columns.get(name)
        try:
            scope[name] = value if column is None else typed(value, column.type, column.split)
        except BadCell as error:
            raise _Refused(name, error.code, str(error)) from error
    for name, join in stream.joins.items():
        scope[name] = _joined(lookups[name], name, scope.get(join.column), join.column, join.required)
    scope["row"] = {name: scope[name] for name in values}
    return scope


def _joined(table: LookupTable, name: str, key: object, column: str, required: bool) -> Mapping[str, object]:
    found = None if key is None or isinstance(key, Missing) else table.rows.get(str(key))
    if found is not None:
        return found
    if required:
        raise _Refused(column, "row_invalid", f"lookup {name!r} has no row for it; export both files together")
    return table.gap


def _event(source: str, rule: CompiledRule, scope: Mapping[str, object]) -> WireEvent:
    event: WireEvent = {
        "entity": _text(rule.entity(scope)),
        "ts": _time(rule, scope),
        "source": source,
        "kind": rule.kind(scope).strip(),
    }
    if rule.id is not None:
        event["id"] = _text(rule.id(scope))
    if rule.thread is not None and not isinstance(thread := rule.thread(scope), Missing):
        event["thread"] = _text(thread)
    if rule.text is not None and (text := rule.text(scope).strip()):
        event["text"] = text
    if attrs := _attrs(rule, scope):
        event["attrs"] = attrs
    if rule.vector is not None and not isinstance(vector := rule.vector(scope), Missing):
        event["vector"] = vector
    if rule.op != "put":
        event["op"] = rule.op
    return event


def _text(value: object) -> str:
    if isinstance(value, Missing):
        str(value)  # raises MissingValue with its column
    if isinstance(value, str):
        return value
    try:
        return str(typed(value, "string", ","))
    except BadCell as error:
        raise _Refused(None, error.code, str(error)) from error


def _time(rule: CompiledRule, scope: Mapping[str, object]) -> str:
    value = rule.ts(scope)
    if isinstance(value, Missing):
        str(value)  # raises MissingValue with its column
    try:
        return format_time(time_us(value, rule.time))
    except BadCell as error:
        raise _Refused(rule.ts_column, error.code, str(error)) from error
    except OverflowError as error:
        raise _Refused(rule.ts_column, "ts_out_of_range", "the shifted time leaves the calendar") from error


def _attrs(rule: CompiledRule, scope: Mapping[str, object]) -> dict[str, object]:
    """Attributes with a value; gaps and empty templates are left out."""
    attrs: dict[str, object] = {}
    for name, attribute in rule.attrs.items():
        value = attribute.value(scope)
        if isinstance(value, Missing) or value == "":
            continue
        try:
            kind = attribute.type
            attrs[name] = value if kind is None else typed(value, kind, attribute.split)
        except BadCell as error:
            raise _Refused(attribute.column, error.code, str(error)) from error
    return attrs
