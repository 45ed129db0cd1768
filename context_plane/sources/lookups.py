"""Lookups: small tables of a source, held in memory and joined to rows by key.

The file is taken from the files given, else from beside them, so that one file can be ingested alone.
A key that occurs twice is refused: a join must not depend on the order of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from context_plane.errors import Invalid
from context_plane.sources.files import Broken, columns_of, format_of, rows_of
from context_plane.sources.mapping import Lookup, SourceMapping
from context_plane.sources.template import missing

LOOKUP_ROWS_MAX: Final = 2_000_000
"""About 1 GB with a few columns: a larger table wants a join in the warehouse."""


@dataclass(frozen=True, slots=True)
class LookupTable:
    """Rows by key; `gap` is the row of a key without one."""

    rows: Mapping[str, Mapping[str, object]]
    gap: Mapping[str, object]


def load_lookups(mapping: SourceMapping, files: Sequence[Path]) -> dict[str, LookupTable]:
    """The lookups that the streams of `files` use. Raises `Invalid(mapping_invalid)`."""
    used = {
        name for stream in mapping.streams if any(path.match(stream.files) for path in files) for name in stream.lookup
    }
    return {name: _load(name, mapping.lookups[name], files) for name in sorted(used)}


def _load(name: str, lookup: Lookup, files: Sequence[Path]) -> LookupTable:
    paths = _paths(name, lookup, files)
    rows: dict[str, Mapping[str, object]] = {}
    gap = {column: missing(f"{name}.{column}") for column in lookup.columns}
    for path in paths:
        kind = lookup.format or format_of(path)
        header = columns_of(path, kind, lookup.delimiter)
        absent = sorted({lookup.key, *lookup.columns} - set(header)) if header is not None else []
        if absent:
            raise Invalid(
                "mapping_invalid", f"lookup {name!r} names columns its file lacks", file=path.name, columns=absent
            )
        for row in rows_of(path, kind, lookup.delimiter):
            # A broken row of a lookup file is reported where the file is read as a stream, or as a join that fails.
            if isinstance(row, Broken) or not (key := row.values.get(lookup.key)):
                continue
            if str(key) in rows:
                detail = f"lookup {name!r} has a key twice; choose a column that identifies rows"
                raise Invalid("mapping_invalid", detail, file=path.name, line=row.line, key=str(key))
            if len(rows) >= LOOKUP_ROWS_MAX:
                raise Invalid("mapping_invalid", f"lookup {name!r} has over {LOOKUP_ROWS_MAX} rows; join it upstream")
            found = {column: row.values.get(column) for column in lookup.columns}
            rows[str(key)] = {column: gap[column] if cell in (None, "") else cell for column, cell in found.items()}
    return LookupTable(rows, gap)


def _paths(name: str, lookup: Lookup, files: Sequence[Path]) -> list[Path]:
    given = [path for path in files if path.match(lookup.file)]
    beside = [found for folder in sorted({path.parent for path in files}) for found in sorted(folder.glob(lookup.file))]
    if not given and not beside:
        detail = f"the file of lookup {name!r} is not among the files nor beside them; add it"
        raise Invalid("mapping_invalid", detail, file=lookup.file)
    return given or beside
