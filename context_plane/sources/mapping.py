"""A source mapping: how the rows of a source's exports become events. Format version 1.

One YAML file describes one source. A stream takes files by name; each of its rows yields the events of
its rules. Wherever a value is wanted, a plain word names a column and text with braces is a template over
the row; `kind` and `text` are always templates, so a plain word there is itself. Nothing here touches
data: the models say what is allowed, `read.py` does it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from context_plane.errors import Fault, Invalid
from context_plane.sources.files import FileFormat
from context_plane.sources.template import compile_condition, compile_template, is_template
from context_plane.sources.values import EPOCH_FACTORS, ColumnType, parse_shift

MAPPING_BYTES_MAX: Final = 256 * 1024
"""A mapping is written by hand."""
STREAMS_MAX: Final = 64
EVENTS_MAX: Final = 16
"""Events one row may yield: bounds how much larger the output is than the input."""
FAULTS_SHOWN: Final = 20


def _check_template(source: str) -> str:
    compile_template(source)
    return source


def _check_condition(source: str) -> str:
    compile_condition(source)
    return source


def _check_value(source: str) -> str:
    if is_template(source):
        compile_template(source)
    return source


def _check_shift(source: str) -> str:
    parse_shift(source)
    return source


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("no such time zone; name one like Europe/Berlin or UTC") from error
    return name


def _check_time_format(form: str) -> str:
    if form in EPOCH_FACTORS:
        return form
    try:
        parsed = dt.datetime.strptime(dt.datetime(2001, 2, 3, 4, 5, 6).strftime(form), form)
    except ValueError as error:
        raise ValueError(f"not a strptime format nor one of {', '.join(EPOCH_FACTORS)}: {error}") from error
    if (parsed.year, parsed.month, parsed.day) != (2001, 2, 3):
        raise ValueError("the format must hold year, month and day")
    return form


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


TemplateText = Annotated[str, AfterValidator(_check_template)]
ConditionText = Annotated[str, AfterValidator(_check_condition)]
ValueText = Annotated[str, Field(min_length=1), AfterValidator(_check_value)]
"""A column name, or a template."""
ShiftText = Annotated[str, AfterValidator(_check_shift)]
ZoneName = Annotated[str, AfterValidator(_check_zone)]
TimeForm = Annotated[str, AfterValidator(_check_time_format)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Column(_Model):
    """The type of a column or attribute. Short form: the type alone."""

    type: ColumnType
    split: str = Field(default=",", min_length=1)


class Attribute(_Model):
    """One attribute of an event. Short form: the value alone, keeping the type of its column."""

    value: ValueText
    type: ColumnType | None = None
    split: str = Field(default=",", min_length=1)


class Time(_Model):
    """How a column reads as the event's time. Short form: the column alone. `shift` adds to the mapping's own."""

    column: str
    format: Annotated[list[TimeForm], BeforeValidator(_one_or_many)] = Field(default_factory=list)
    timezone: ZoneName | None = None
    shift: ShiftText | None = None


class Lookup(_Model):
    """A small table joined by key: `columns` of `file` (a name pattern) are seen as `name.column`."""

    file: str
    key: str
    columns: list[str] = Field(min_length=1)
    format: FileFormat | None = None
    delimiter: str = Field(default=",", min_length=1, max_length=1)


class Join(_Model):
    """The column of a stream that holds a lookup's key. Short form: the column alone (then `required`)."""

    column: str
    required: bool = True


class EventRule(_Model):
    """One event of a row; `when` absent: always."""

    kind: TemplateText
    entity: ValueText
    ts: Annotated[Time, BeforeValidator(lambda v: {"column": v} if isinstance(v, str) else v)]
    id: ValueText | None = None
    when: ConditionText | None = None
    thread: ValueText | None = None
    text: TemplateText | None = None
    attrs: dict[str, Annotated[Attribute, BeforeValidator(lambda v: {"value": v} if isinstance(v, str) else v)]] = (
        Field(default_factory=dict)
    )
    vector: str | None = None
    op: Literal["put", "delete"] = "put"


class Stream(_Model):
    """Files of one shape. `missing` lists the cells that count as empty; `skip_when` drops a row."""

    name: str = Field(min_length=1)
    files: str = Field(min_length=1)
    format: FileFormat | None = None
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    missing: list[str] = Field(default_factory=lambda: [""])
    columns: dict[str, Annotated[Column, BeforeValidator(lambda v: {"type": v} if isinstance(v, str) else v)]] = Field(
        default_factory=dict
    )
    lookup: dict[str, Annotated[Join, BeforeValidator(lambda v: {"column": v} if isinstance(v, str) else v)]] = Field(
        default_factory=dict
    )
    skip_when: ConditionText | None = None
    events: list[EventRule] = Field(min_length=1, max_length=EVENTS_MAX)


class SourceMapping(_Model):
    """One source. `timezone` and `shift` hold for every stream that does not say otherwise."""

    version: Literal[1]
    source: str = Field(min_length=1)
    timezone: ZoneName = "UTC"
    shift: ShiftText = "0d"
    lookups: dict[str, Lookup] = Field(default_factory=dict)
    streams: list[Stream] = Field(min_length=1, max_length=STREAMS_MAX)

    @model_validator(mode="after")
    def _lookups_exist(self) -> Self:
        names = [stream.name for stream in self.streams]
        if len(set(names)) < len(names):
            raise ValueError("two streams have the same name; rename one")
        for stream in self.streams:
            unknown = sorted(set(stream.lookup) - set(self.lookups))
            if unknown:
                raise ValueError(f"stream {stream.name!r} uses lookup {unknown[0]!r}; describe it under `lookups`")
        return self


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, of which YAML readers keep only one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is written twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_mapping(text: str) -> SourceMapping:
    """The mapping a YAML text describes. Raises `Invalid(mapping_invalid)`; each fault names its YAML path."""
    if len(text.encode()) > MAPPING_BYTES_MAX:
        raise Invalid("mapping_invalid", f"a mapping is at most {MAPPING_BYTES_MAX} bytes; split it by source")
    try:
        document = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, TypeError) as error:
        raise Invalid("mapping_invalid", f"the mapping is not YAML: {error}") from error
    try:
        return SourceMapping.model_validate(document)
    except ValidationError as error:
        faults = [_fault(item["loc"], item["msg"]) for item in error.errors(include_url=False)[:FAULTS_SHOWN]]
        shown = "; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults)
        raise Invalid("mapping_invalid", f"the mapping does not hold: {shown}", faults=faults) from error


def load_mapping(path: Path) -> SourceMapping:
    """`parse_mapping` of a file."""
    try:
        return parse_mapping(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("mapping_invalid", "the mapping file cannot be read; check its path", file=path.name) from error


def _fault(location: tuple[int | str, ...], message: str) -> Fault:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    advice = {
        "Extra inputs are not permitted": "no such field; remove it or mend its spelling",
        "Field required": "the field is missing; add it",
    }.get(message, message.removeprefix("Value error, "))
    return Fault(code="mapping_invalid", detail=advice, pointer=path or "(top)")
