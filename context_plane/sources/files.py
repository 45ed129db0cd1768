"""Rows of export files, one at a time, in bounded memory: CSV, JSONL and Parquet.

Every row of a file comes out exactly once, as a `Record` or as a `Broken`; a bad row never hides the
rows after it. CSV goes through the csv module, not a columnar reader, because it alone gives true line
numbers and lets a ragged row, a stray quote or a bad byte cost one row. Parquet streams record batches.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias, assert_never

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from context_plane.errors import Invalid

FileFormat: TypeAlias = Literal["csv", "jsonl", "parquet"]

FORMATS: Final[dict[str, FileFormat]] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
CELL_CHARS_MAX: Final = 1 << 20
"""Four times the longest event text: bounds what an unclosed quote can swallow."""
LINE_BYTES_MAX: Final = 4 << 20
"""A JSONL row with a text, attributes and a vector of the largest sizes stays below this."""
PARQUET_ROWS: Final = 4_096
"""Rows decoded at once."""
RAW_CHARS_MAX: Final = 16_384
"""What a reject quotes of its row: enough to repair it, bounded for the rejects file."""


@dataclass(frozen=True, slots=True)
class Record:
    """One readable row. `line` is 1-based: the line where a CSV or JSONL row ends, the row number of Parquet."""

    line: int
    values: dict[str, object]


@dataclass(frozen=True, slots=True)
class Broken:
    """One row that is not of the format."""

    line: int
    code: str
    detail: str
    raw: str


def format_of(path: Path) -> FileFormat:
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise Invalid(
            "mapping_invalid", "the file's suffix names no format; set `format` on its stream", file=path.name
        )
    return found


def columns_of(path: Path, kind: FileFormat, delimiter: str) -> list[str] | None:
    """Column names; None for JSONL, whose rows may each have their own."""
    match kind:
        case "jsonl":
            return None
        case "csv":
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
                header = next(csv.reader(stream, delimiter=delimiter), [])
        case "parquet":
            try:
                header = list(pq.read_schema(path).names)
            except pa.ArrowException as error:
                raise Invalid("encoding_invalid", "the file is not Parquet; export it again", file=path.name) from error
        case _:
            assert_never(kind)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise Invalid("mapping_invalid", "the file names a column twice; rename one", file=path.name, columns=twice)
    return header


def rows_of(path: Path, kind: FileFormat, delimiter: str) -> Iterator[Record | Broken]:
    """Every row of the file in order."""
    match kind:
        case "csv":
            return _csv_rows(path, delimiter)
        case "jsonl":
            return _jsonl_rows(path)
        case "parquet":
            return _parquet_rows(path)
        case _:
            assert_never(kind)


def quote(value: object) -> str:
    """A row or line as a reject shows it: text without lone surrogates, cut to `RAW_CHARS_MAX`."""
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return text[:RAW_CHARS_MAX].encode("utf-8", "backslashreplace").decode()


def _csv_rows(path: Path, delimiter: str) -> Iterator[Record | Broken]:
    # Process-wide, as the csv module has it; its default of 128 KiB is below the longest event text.
    csv.field_size_limit(CELL_CHARS_MAX)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        header = next(reader, [])
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Broken(reader.line_num, "row_invalid", f"not a CSV row: {error}; mend its quotes", "")
                continue
            if cells:  # an empty line is no row
                yield _csv_row(reader.line_num, header, cells)


def _csv_row(line: int, header: list[str], cells: list[str]) -> Record | Broken:
    if len(cells) != len(header):
        detail = f"the row has {len(cells)} cells where the header has {len(header)}; quote cells with delimiters"
        return Broken(line, "row_invalid", detail, quote(",".join(cells)))
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return Broken(line, "encoding_invalid", "the row is not UTF-8; export it as UTF-8", quote(",".join(cells)))
    return Record(line, dict(zip(header, cells, strict=True)))


def _jsonl_rows(path: Path) -> Iterator[Record | Broken]:
    line = 0
    with path.open("rb") as stream:
        while data := stream.readline(LINE_BYTES_MAX + 1):
            line += 1
            if len(data) > LINE_BYTES_MAX:
                _skip_line(stream, data)
                yield Broken(line, "row_invalid", f"the line is over {LINE_BYTES_MAX} bytes", quote(_text(data)))
            elif data.strip():  # an empty line is no row
                yield _jsonl_row(line, data)


def _jsonl_row(line: int, data: bytes) -> Record | Broken:
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return Broken(line, "malformed_json", f"the line is not JSON: {error}", quote(_text(data.rstrip())))
    if not isinstance(values, dict):
        return Broken(line, "malformed_json", "the line is JSON but not an object", quote(_text(data.rstrip())))
    return Record(line, values)


def _skip_line(stream: BinaryIO, data: bytes) -> None:
    while data and not data.endswith(b"\n"):
        data = stream.readline(LINE_BYTES_MAX)


def _text(data: bytes) -> str:
    return data[: RAW_CHARS_MAX * 4].decode("utf-8", "backslashreplace")


def _parquet_rows(path: Path) -> Iterator[Record | Broken]:
    line = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            for values in batch.to_pylist():
                line += 1
                yield Record(line, values)
