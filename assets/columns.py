"""Column schemas as the Dagster UI shows them: written down, or taken from the types that hold the data.

Names, types and descriptions of a dataclass, or of a model, are its fields, their annotations and the strings below
them, so a field that is added or renamed shows by itself. Reads source files, and nothing else.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
from collections.abc import Collection
from typing import Any, Final, get_args, get_type_hints

import dagster as dg
import numpy as np
from pydantic import BaseModel

NAME: Final = "dagster/column_schema"
EVENT: Final = (
    ("entity", "string", "whom the event is about"),
    ("ts", "timestamp", "RFC 3339, UTC: when the fact came to be"),
    ("id", "string", "identity within entity and day"),
    ("source", "string", "system it came from"),
    ("kind", "string", "what kind of fact"),
    ("thread", "string", "conversation within the entity; may be absent"),
    ("text", "string", "up to 256 KiB; may be absent"),
    ("attrs", "map", "flat attributes; may be absent"),
    ("vector", "base64 of float32", "only where the caller supplied one"),
)
"""Of an event as it is stored."""


def columns(*described: tuple[str, str, str]) -> dict[str, dg.TableSchema]:
    """Metadata of columns given as (name, type, description)."""
    made = [dg.TableColumn(name, kind, description=text or None) for name, kind, text in described]
    return {NAME: dg.TableSchema(columns=made)}


def fields_of(held: type[Any], *, without: Collection[str] = ()) -> dict[str, dg.TableSchema]:
    """Metadata of the fields of a dataclass or a model, but for those of `without`, which are not stored."""
    told, declared = field_texts(held), inspect.get_annotations(held)
    is_model = issubclass(held, BaseModel)
    hints = {} if is_model else get_type_hints(held)  # models hold no arrays
    names = list(held.model_fields) if is_model else [field.name for field in dataclasses.fields(held)]
    kept = [name for name in names if name not in without]
    return columns(*((name, _type_name(hints.get(name), declared[name]), told.get(name, "")) for name in kept))


def field_texts(held: type[Any]) -> dict[str, str]:
    """The string below each field of a class, in one line; fields without one are left out."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(held))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in itertools.pairwise(tree.body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            found[field.target.id] = " ".join(below.value.value.split())
    return found


def _type_name(hint: Any, declared: Any) -> str:
    """`int32[]` of an array of numpy, else as JSON stores it: `string`, `int`, `list of string`, `map`, `object`."""
    for argument in get_args(hint):
        for scalar in get_args(argument):
            if isinstance(scalar, type) and issubclass(scalar, np.generic):
                return f"{scalar.__name__}[]"
    return _stored(declared if isinstance(declared, str) else getattr(declared, "__name__", str(declared)))


def _stored(declared: str) -> str:
    """Of an annotation as it is written. What may be None is told by its description."""
    name, _, of = declared.removesuffix(" | None").partition("[")
    match name:
        case "str":
            return "string"
        case "tuple" | "Sequence" | "list":
            return f"list of {_stored(of.rstrip(']').partition(',')[0])}"
        case "Mapping" | "dict":
            return "map"
        case "int" | "float" | "bool" | "bytes":
            return name
        case _:
            return "object"
