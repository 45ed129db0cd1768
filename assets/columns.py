"""Column schemas as the Dagster UI shows them: written down, or taken from the types that hold the data. Pure."""

from __future__ import annotations

import dataclasses

import dagster as dg

NAME = "dagster/column_schema"


def columns(*described: tuple[str, str, str]) -> dict[str, dg.TableSchema]:
    """Metadata of columns given as (name, type, description)."""
    made = [dg.TableColumn(name, kind, description=text or None) for name, kind, text in described]
    return {NAME: dg.TableSchema(columns=made)}


def fields_of(held: type) -> dict[str, dg.TableSchema]:
    """Metadata of a dataclass's fields, with their types as it declares them."""
    return columns(*((field.name, _type_name(field.type), "") for field in dataclasses.fields(held)))


def _type_name(declared: object) -> str:
    return declared if isinstance(declared, str) else getattr(declared, "__name__", str(declared))
