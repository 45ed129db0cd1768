"""Templates and conditions over one row of an export: Jinja in its sandbox, with strict gaps.

Two kinds of absence are told apart. A name the row does not have at all is a mistake of the mapping and
raises. A cell without a value is a `Missing`: false in a condition, replaced by the `default` filter, an
error (`MissingValue`, naming the column) as soon as it would be shown. So no text ever reads "None", and
`{% if x %}` is all a mapping needs for optional parts. Jinja's globals are removed: only the row is in scope.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NoReturn

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATE_CHARS_MAX: Final = 16_384
"""A template is a few sentences; beyond this it is data in the wrong place."""
ROW: Final = "row"
"""The whole row, for columns whose names are not identifiers: `{{ row["Account ID"] }}`."""


class MissingValue(jinja2.UndefinedError):
    """A cell without a value was shown or calculated with; `column` is its name, None inside a nested value."""

    def __init__(self, column: str | None = None) -> None:
        self.column = column
        super().__init__(f"column {column!r} has no value" if column else "a nested value is null")


class Missing(jinja2.Undefined):
    """An empty cell. False, `is undefined`, takes `default`; showing it or calculating with it raises."""

    __slots__ = ()

    def _refuse(self, *_: object) -> NoReturn:
        raise MissingValue(self._undefined_name)

    __str__ = __iter__ = __len__ = _refuse


def missing(column: str) -> Missing:
    """The value of an empty cell of `column`."""
    return Missing(hint=column, name=column, exc=MissingValue)


def _show(value: object) -> object:
    """A null inside a nested value must not be shown as the word None."""
    if value is None:
        raise MissingValue
    return value


@dataclass(frozen=True, slots=True)
class Template:
    """`render(scope)` gives text; `names` are the columns and lookups it uses."""

    render: Callable[[Mapping[str, object]], str]
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Condition:
    """`holds(scope)` gives the truth of an expression; `names` as in `Template`."""

    holds: Callable[[Mapping[str, object]], bool]
    names: frozenset[str]


def is_template(text: str) -> bool:
    """Whether a mapping's value is a template rather than a column name."""
    return "{{" in text or "{%" in text


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, finalize=_show, autoescape=False, keep_trailing_newline=False
    )
    environment.globals.clear()
    return environment


def compile_template(source: str) -> Template:
    """Raises ValueError with Jinja's own message when the source is not a template."""
    if len(source) > TEMPLATE_CHARS_MAX:
        raise ValueError(f"a template is at most {TEMPLATE_CHARS_MAX} characters")
    try:
        names = frozenset(jinja2.meta.find_undeclared_variables(_environment().parse(source)))
        compiled = _environment().from_string(source)
    except jinja2.TemplateError as error:
        raise ValueError(f"not a template: {error}") from error
    return Template(render=compiled.render, names=names)


def compile_condition(source: str) -> Condition:
    """`source` is a bare expression, such as `end_date and plan != "Free"`. Raises ValueError."""
    if is_template(source):
        raise ValueError("a condition is a bare expression, without braces")
    if len(source) > TEMPLATE_CHARS_MAX:
        raise ValueError(f"a condition is at most {TEMPLATE_CHARS_MAX} characters")
    try:
        names = frozenset(jinja2.meta.find_undeclared_variables(_environment().parse(f"{{{{ ({source}) }}}}")))
        compiled = _environment().compile_expression(source, undefined_to_none=False)
    except jinja2.TemplateError as error:
        raise ValueError(f"not an expression: {error}") from error

    def holds(scope: Mapping[str, object]) -> bool:
        return bool(compiled(dict(scope)))

    return Condition(holds=holds, names=names)
