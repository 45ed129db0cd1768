"""Bundle specs: what a bundle holds, as strict versioned YAML. How to write one: docs/specs.md.

A spec is data: parsing one reads no clock, no environment and no other file. Every window is finite, every
list has a limit, every name a signal refers to exists, and an unknown field is an error, so that a typing
error cannot silently change what an agent reads. The name carries the version (`customer_context_v0`): a
change of meaning is a new name, and the fingerprint tells any two contents apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from context_plane.bundle.tokens import tokenizer_digest
from context_plane.errors import Fault, Invalid
from context_plane.model import canonical_json, sha256_hex

BUNDLE_FORMAT: Final = 1
"""Version of the bundle's bytes; part of every fingerprint."""
LOOKBACK_DAYS_MAX: Final = 400
"""Thirteen months: a year compared with the same month before, and still a bounded read."""
BUDGET_TOKENS_MIN: Final = 50
BUDGET_TOKENS_MAX: Final = 8_000
"""A bundle is read by the thousand; whoever needs more text searches."""
SECTIONS_MAX: Final = 16
ITEMS_MAX: Final = 64
"""Attributes, metrics or signals of one section."""
WINDOWS_MAX: Final = 4
PHRASES_MAX: Final = 64
HITS_MAX: Final = 50
CITED_MAX: Final = 5
"""Events one item cites; the rest follows from the spec and the day."""
RULE_DEPTH_MAX: Final = 4
SPEC_BYTES_MAX: Final = 64 * 1024
SHOWN_CHARS_MAX: Final = 2_000

QUERY_SECTION: Final = "query"

PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)(%?)\}")
"""In a signal's text: `{usage_7d}` is a value, `{usage_trend_7d%}` the same as a percentage."""
_VERSIONED = re.compile(r"[a-z][a-z0-9_]{0,59}_v(0|[1-9][0-9]{0,4})")

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Label: TypeAlias = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[^\[\]{}\n]*$")]
Key: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]
Days: TypeAlias = Annotated[int, Field(ge=1, le=LOOKBACK_DAYS_MAX)]
Keys: TypeAlias = Annotated[tuple[Key, ...], Field(max_length=32)]
Phrase: TypeAlias = Annotated[str, Field(min_length=2, max_length=60)]
Cited: TypeAlias = Annotated[int, Field(ge=1, le=CITED_MAX)]
Scalar: TypeAlias = str | bool | int | float


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Selector(_Model):
    """Which events count: those of all the given restrictions, `latest_by` before `where` and `mentions`."""

    kinds: Keys = ()
    sources: Keys = ()
    latest_by: Annotated[str, Field(pattern=r"^(thread|attrs\..{1,250})$")] | None = None
    """Of the events with one thread or attribute value only the latest: the state of each ticket, say."""
    where: dict[str, Any] | None = None
    """A filter as in search."""
    mentions: Annotated[tuple[Phrase, ...], Field(max_length=PHRASES_MAX)] = ()
    """The text holds one of these phrases, as whole words, in any case."""


class Attribute(Selector):
    """The latest value of an attribute."""

    name: Name
    attr: Key
    label: Label | None = None


class Metric(Selector):
    """A number over each window; windowless: over the section's look-back.

    count: events (those that have `attr`, where given). sum, mean, last: of the numbers in `attr`.
    delta: last value of the window minus the last one before it. trend: change of the sum (without `attr`:
    the count) against the window of the same length just before, as a fraction of that.
    """

    name: Name
    agg: Literal["count", "sum", "mean", "last", "delta", "trend"]
    attr: Key | None = None
    windows: Annotated[tuple[Days, ...], Field(max_length=WINDOWS_MAX)] = ()
    label: Label | None = None
    unit: Label | None = None
    format: Literal["number", "percent"] = "number"
    show: bool = True
    """False: only signals read it."""
    cite: Cited = 1

    @model_validator(mode="after")
    def _consistent(self) -> Metric:
        if self.attr is None and self.agg in ("sum", "mean", "last", "delta"):
            raise ValueError(f"agg {self.agg} needs an attr")
        if not self.windows and self.agg in ("delta", "trend"):
            raise ValueError(f"agg {self.agg} compares windows; give windows in days, such as [30]")
        if len(set(self.windows)) != len(self.windows):
            raise ValueError("windows repeat")
        return self

    def references(self) -> tuple[str, ...]:
        """What signals call the values: `{name}_{days}d`, or the name where there is no window."""
        return tuple(f"{self.name}_{days}d" for days in self.windows) or (self.name,)

    def days(self) -> int:
        return max(self.windows, default=0) * (2 if self.agg == "trend" else 1)


class Condition(_Model):
    """`of` compared with `value`; with `per`, the quotient of both. False where a value is undefined."""

    of: Name
    op: Literal["eq", "ne", "lt", "lte", "gt", "gte", "in"]
    value: Scalar | Annotated[tuple[Scalar, ...], Field(min_length=1, max_length=64)]
    per: Name | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Condition:
        if (self.op == "in") != isinstance(self.value, tuple):
            raise ValueError("op in takes a list of values, every other op takes one value")
        ordered = self.op in ("lt", "lte", "gt", "gte") or self.per is not None
        if ordered and (isinstance(self.value, bool) or not isinstance(self.value, int | float)):
            raise ValueError(f"op {self.op} compares with a number here")
        return self


class AllOf(_Model):
    all: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=16)]


class AnyOf(_Model):
    any: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=16)]


def _rule_form(value: Any) -> str:
    keys = value if isinstance(value, dict) else value.__class__.model_fields
    return "all" if "all" in keys else "any" if "any" in keys else "condition"


Rule: TypeAlias = Annotated[
    Annotated[Condition, Tag("condition")] | Annotated[AllOf, Tag("all")] | Annotated[AnyOf, Tag("any")],
    Discriminator(_rule_form),
]


class Signal(_Model):
    """A named rule over metrics and profile; where it holds, its text is an item and its weight counts."""

    name: Name
    when: Rule
    text: Annotated[str, Field(min_length=1, max_length=200)]
    weight: Annotated[float, Field(ge=-100, le=100)] = 1.0
    severity: Literal["info", "warning", "critical"] = "info"
    cite: Cited = 2


class _Section(_Model):
    name: Name
    title: Label
    priority: Annotated[int, Field(ge=1, le=100)]
    """1 is packed first."""
    share: Annotated[float, Field(ge=0, le=1)]
    """Part of the budget this section may use before what others left flows on."""


class ProfileSection(_Section):
    kind: Literal["profile"]
    lookback_days: Days
    attributes: Annotated[tuple[Attribute, ...], Field(min_length=1, max_length=ITEMS_MAX)]


class MetricsSection(_Section):
    kind: Literal["metrics"]
    lookback_days: Days
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1, max_length=ITEMS_MAX)]

    @model_validator(mode="after")
    def _within(self) -> MetricsSection:
        for metric in self.metrics:
            if metric.days() > self.lookback_days:
                raise ValueError(f"metric {metric.name} needs lookback_days of at least {metric.days()}")
        return self


class SignalsSection(_Section):
    kind: Literal["signals"]
    signals: Annotated[tuple[Signal, ...], Field(min_length=1, max_length=ITEMS_MAX)]


class Weights(_Model):
    text: Annotated[float, Field(ge=0, le=100)] = 0.8
    vector: Annotated[float, Field(ge=0, le=100)] = 0.2


class MinScores(_Model):
    """A hit stays if one leg's score reaches its minimum (BM25 for text, cosine for vector)."""

    text: float | None = None
    vector: float | None = None


class EvidenceSection(_Section):
    """The best chunks for a stated query."""

    kind: Literal["evidence"]
    lookback_days: Days
    query: Annotated[str, Field(min_length=1, max_length=1_000)]
    mode: Literal["hybrid", "text", "vector"] = "hybrid"
    kinds: Keys = ()
    sources: Keys = ()
    where: dict[str, Any] | None = None
    limit: Annotated[int, Field(ge=1, le=HITS_MAX)] = 3
    weights: Weights = Weights()
    min_scores: MinScores | None = None
    chars: Annotated[int, Field(ge=40, le=SHOWN_CHARS_MAX)] = 240
    """Longest text of one item."""


class RecentSection(Selector, _Section):
    """The last events, newest first."""

    kind: Literal["recent"]
    lookback_days: Days
    limit: Annotated[int, Field(ge=1, le=HITS_MAX)] = 3
    attrs: Keys = ()
    """Attributes shown beside the text."""
    chars: Annotated[int, Field(ge=40, le=SHOWN_CHARS_MAX)] = 120


Section: TypeAlias = Annotated[
    ProfileSection | MetricsSection | SignalsSection | EvidenceSection | RecentSection, Field(discriminator="kind")
]


class Spec(_Model):
    name: Annotated[str, Field(max_length=64)]
    version: Annotated[int, Field(ge=0, le=99_999)]
    description: Annotated[str, Field(max_length=2_000)] = ""
    budget_tokens: Annotated[int, Field(ge=BUDGET_TOKENS_MIN, le=BUDGET_TOKENS_MAX)]
    sections: Annotated[tuple[Section, ...], Field(min_length=1, max_length=SECTIONS_MAX)]

    @property
    def lookback_days(self) -> int:
        """Days a bundle reads: `as_of` and the `lookback_days - 1` days before it."""
        return max((s.lookback_days for s in self.sections if not isinstance(s, SignalsSection)), default=1)

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        match = _VERSIONED.fullmatch(self.name)
        if not match or int(match[1]) != self.version:
            raise ValueError(f"name and version disagree; a name reads like customer_context_v{self.version}")
        if sum(section.share for section in self.sections) > 1 + 1e-9:
            raise ValueError("the shares add up to more than 1")
        if len({section.name for section in self.sections}) != len(self.sections):
            raise ValueError("two sections have one name")
        if any(section.name == QUERY_SECTION for section in self.sections):
            raise ValueError(f"a section is not named {QUERY_SECTION}: that is the section of an on-demand query")
        known = list(_references(self))
        if len(set(known)) != len(known):
            raise ValueError("two values have one name: metric windows and profile attributes share one namespace")
        for signal in (s for section in self.sections if isinstance(section, SignalsSection) for s in section.signals):
            _check_signal(signal, frozenset(known))
        return self


def query_texts(spec: Spec) -> tuple[str, ...]:
    """Evidence queries that need a vector, each once, in order: embed them, and give them to `compile_spec`."""
    needed = (s.query for s in spec.sections if isinstance(s, EvidenceSection) and s.mode != "text")
    return tuple(dict.fromkeys(needed))


def fingerprint(spec: Spec, *, model: str, analyzer: str) -> str:
    """SHA-256, hex, of all that decides a bundle besides the events: spec, format, model, analyzer, vocabulary."""
    return sha256_hex(
        canonical_json(
            {
                "format": BUNDLE_FORMAT,
                "spec": spec.model_dump(mode="json"),
                "model": model,
                "analyzer": analyzer,
                "tokenizer": tokenizer_digest(),
            }
        )
    )


# --- reading ------------------------------------------------------------------------------------


def load_specs(folder: Path) -> dict[str, Spec]:
    """Every `*.yaml` of a folder by name. Raises `Invalid(spec_invalid)`; a file is named like its spec."""
    specs = {}
    for path in sorted(folder.glob("*.yaml")):
        spec = parse_spec(path.read_bytes(), origin=path.name)
        if spec.name != path.stem:
            raise Invalid("spec_invalid", "the file is named otherwise; rename one", file=path.name, name=spec.name)
        specs[spec.name] = spec
    return specs


def parse_spec(raw: bytes, *, origin: str) -> Spec:
    """YAML -> Spec. Raises `Invalid(spec_invalid)` with one fault per defect, each with its path in the YAML."""
    if len(raw) > SPEC_BYTES_MAX:
        raise Invalid("spec_invalid", f"a spec is at most {SPEC_BYTES_MAX} bytes", file=origin, bytes=len(raw))
    try:
        document = yaml.safe_load(raw)
        encoded = canonical_json(document)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, RecursionError) as error:
        detail = " ".join(str(error).split())[:200]
        raise Invalid("spec_invalid", f"the file is not YAML of plain values: {detail}", file=origin) from error
    try:
        return Spec.model_validate_json(encoded)
    except ValidationError as error:
        faults = [
            Fault(
                "spec_invalid",
                _advice(item["msg"], item["type"]),
                pointer=_pointer(document, item["loc"], item["type"] == "missing"),
            )
            for item in error.errors(include_url=False)
        ]
        first = faults[0]
        raise Invalid(
            "spec_invalid", f"{first.detail}; correct the file", file=origin, at=first.pointer, faults=faults
        ) from error


def _advice(message: str, kind: str) -> str:
    if kind == "extra_forbidden":
        return "unknown field; remove it or correct its spelling"
    text = message.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _pointer(document: Any, location: tuple[int | str, ...], absent: bool) -> str:
    """JSON pointer into the YAML of a pydantic location, whose union tags name no field of the document.

    `absent`: the last step is a field that should be there.
    """
    parts: list[str] = []
    at = document
    for n, step in enumerate(location):
        is_section_tag = n == 2 and location[0] == "sections"
        inside = isinstance(at, list) and isinstance(step, int) and step < len(at)
        named = isinstance(at, dict) and step in at and not is_section_tag
        if inside or named:
            at = at[step]
        elif not absent or n < len(location) - 1:
            continue
        parts.append(str(step))
    return "/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)


# --- references ---------------------------------------------------------------------------------


def _references(spec: Spec) -> Iterator[str]:
    for section in spec.sections:
        if isinstance(section, ProfileSection):
            yield from (attribute.name for attribute in section.attributes)
        elif isinstance(section, MetricsSection):
            yield from (name for metric in section.metrics for name in metric.references())


def _check_signal(signal: Signal, known: frozenset[str]) -> None:
    wanted = set(_rule_references(signal.when, 1)) | {match[1] for match in PLACEHOLDER.finditer(signal.text)}
    if missing := sorted(wanted - known):
        offered = ", ".join(sorted(known)) or "none"
        raise ValueError(f"signal {signal.name} refers to {', '.join(missing)}; there is: {offered}")
    if set("{}[]\n") & set(PLACEHOLDER.sub("", signal.text)):
        raise ValueError(f"text of signal {signal.name}: braces hold one value name, such as {{usage_7d}}")


def _rule_references(rule: Condition | AllOf | AnyOf, depth: int) -> Iterator[str]:
    if depth > RULE_DEPTH_MAX:
        raise ValueError(f"a rule nests at most {RULE_DEPTH_MAX} deep")
    match rule:
        case Condition():
            yield rule.of
            if rule.per is not None:
                yield rule.per
        case AllOf():
            for part in rule.all:
                yield from _rule_references(part, depth + 1)
        case AnyOf():
            for part in rule.any:
                yield from _rule_references(part, depth + 1)
