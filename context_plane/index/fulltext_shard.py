"""Full-text shard: a tantivy index over the terms of a day's rows, proposing candidates for tenant-wide search.

One document per row, in row order: its terms (already analyzed; tantivy only splits at spaces) and its row
number. It stores no text. The object is tantivy's files in a tar archive in one zstd frame, fetched whole
and unpacked into a local folder to be opened. tantivy names its files at random, so the content digest is
taken over what was indexed (the postings), not over tantivy's bytes.

A shard ranks by its own statistics. To propose what the scope would rank high, every term is boosted by
`idf of the scope / idf of the shard`: without, many day shards rank wrongly.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import tantivy
from numpy.typing import NDArray

from context_plane.errors import Corrupt
from context_plane.index.rows import Rows
from context_plane.layout.compression import compress, decompress
from context_plane.model import canonical_json

FORMAT: Final = 1
SHARD_BYTES_MAX: Final = 4 << 30
"""Unpacked. Far above a day of ten million rows; it bounds decompression."""
WRITER_HEAP_BYTES: Final = 128_000_000
"""A day of a million rows fits, and is written as one segment without a merge."""
TERMS_COMPARED_MAX: Final = 1_024
"""Terms of which a shard is asked in how many rows they are: some milliseconds, and an index of other rows is wrong
about nearly all of them."""
FETCH_GROWTH: Final = 2
"""How much deeper each further fetch goes while a mask rejects candidates: at most log2(rows) fetches."""

_TERMS: Final = "terms"
_ROW: Final = "row"
_NOT_CONTENT: Final = frozenset({".tantivy-writer.lock", ".tantivy-meta.lock", ".managed.json"})


@dataclass(frozen=True, slots=True)
class FulltextSearcher:
    """An open shard. Its folder must stay while it is open; queries may run in several threads."""

    schema: tantivy.Schema
    searcher: tantivy.Searcher

    @property
    def rows(self) -> int:
        return self.searcher.num_docs


# --- writing ------------------------------------------------------------------------------------


def build(columns: Rows, scratch: Path) -> bytes:
    """The object for these rows. `scratch` is an empty folder on a local disk; its files are left behind."""
    index = tantivy.Index(_schema(), path=str(scratch))
    writer = index.writer(heap_size=WRITER_HEAP_BYTES, num_threads=1)
    for row, text in enumerate(_row_texts(columns)):
        document = tantivy.Document()
        document.add_unsigned(_ROW, row)
        document.add_text(_TERMS, text)
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    return _archive(scratch)


def content_digest(columns: Rows) -> str:
    """SHA-256, hex, of what the shard indexes: the number of rows and their postings."""
    digest = hashlib.sha256(canonical_json({"format": FORMAT, "rows": columns.row_count, "terms": columns.terms}))
    for array, kind in ((columns.post_indptr, "<i4"), (columns.post_rows, "<i4"), (columns.post_counts, "<u2")):
        digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
    return digest.hexdigest()


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field(_TERMS, stored=False, tokenizer_name="whitespace", index_option="freq")
    builder.add_unsigned_field(_ROW, stored=False, indexed=True, fast=True)
    return builder.build()


def _row_texts(columns: Rows) -> list[str]:
    """Each row's terms, repeated by their counts, joined by spaces: term-major postings turned around."""
    assert all(term.split() == [term] for term in columns.terms), "a term holds no white space"
    owner = np.repeat(np.arange(len(columns.terms)), np.diff(columns.post_indptr))
    order = np.argsort(columns.post_rows, kind="stable")  # by row, terms ascending within each
    counts = columns.post_counts[order]
    spelled = map(columns.terms.__getitem__, np.repeat(owner[order], counts).tolist())
    lengths = np.bincount(columns.post_rows[order], counts, columns.row_count).astype(np.int64).tolist()
    return [" ".join(itertools.islice(spelled, length)) for length in lengths]


def _archive(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.iterdir()):
            if path.name not in _NOT_CONTENT:
                entry = tarfile.TarInfo(path.name)
                entry.size = path.stat().st_size
                with path.open("rb") as source:
                    archive.addfile(entry, source)
    return compress(buffer.getvalue())


# --- reading ------------------------------------------------------------------------------------


def unpack(stored: bytes, folder: Path) -> None:
    """The object's files into an existing empty folder. Raises `Corrupt`, also for a name that leads elsewhere.

    By hand: the filters of `extractall` came with Python 3.11.4, and distributions ship earlier ones."""
    try:
        with tarfile.open(fileobj=io.BytesIO(decompress(stored, size_max=SHARD_BYTES_MAX))) as archive:
            for entry in archive:
                content = archive.extractfile(entry) if _is_plain(entry) else None
                if content is None:
                    raise Corrupt("corrupt_object", "a full-text shard holds what is no file of its folder")
                with (folder / entry.name).open("wb") as target:
                    shutil.copyfileobj(content, target)
    except (tarfile.TarError, ValueError) as error:  # the latter for a name with NUL
        raise Corrupt("corrupt_object", f"a full-text shard does not unpack: {error}") from error


def _is_plain(entry: tarfile.TarInfo) -> bool:
    return (
        entry.isreg()
        and not entry.issparse()
        and entry.name not in {"", ".", ".."}
        and Path(entry.name).parts == (entry.name,)
    )


def open_searcher(folder: Path) -> FulltextSearcher:
    """Opens unpacked files. Raises `Corrupt(format_unknown)` for what this tantivy cannot read."""
    try:
        index = tantivy.Index.open(str(folder))
    except ValueError as error:
        raise Corrupt("format_unknown", f"a full-text shard does not open: {error}") from error
    index.config_reader("manual")
    return FulltextSearcher(index.schema, index.searcher())


def miscounted(shard: FulltextSearcher, columns: Rows) -> int:
    """Of the columns' terms, evenly spaced and at most `TERMS_COMPARED_MAX`: how many the shard has in another number
    of rows."""
    rows = np.diff(columns.post_indptr)
    chosen = np.linspace(0, len(rows) - 1, min(TERMS_COMPARED_MAX, len(rows))).astype(np.int64)
    return sum(shard.searcher.doc_freq(_TERMS, columns.terms[n]) != int(rows[n]) for n in chosen)


def candidates(
    shard: FulltextSearcher,
    weighted_terms: Sequence[tuple[str, float]],
    limit: int,
    mask: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Up to `limit` rows likely to score highest, best first; with `mask` (bool[N]) only rows it admits.

    `weighted_terms`: (term, count in the query * idf in the scope). Rows without any term never come. The
    mask is applied until `limit` rows pass it or no match is left: nothing a filter admits is lost to rows
    it rejects.
    """
    query = _query(shard, weighted_terms)
    none = np.zeros(0, np.int64)
    if query is None or limit <= 0 or not shard.rows:
        return none
    if mask is not None:
        admitted = np.flatnonzero(mask)
        if len(admitted) <= limit:
            return admitted.astype(np.int64)
    depth = limit
    while True:
        depth = min(depth, shard.rows)
        hits = shard.searcher.search(query, limit=depth, count=False).hits
        found = np.array(shard.searcher.fast_field_values(_ROW, [address for _, address in hits]), np.int64)
        passing = found if mask is None else found[mask[found]]
        if len(passing) >= limit or len(hits) < depth or depth == shard.rows:
            return passing[:limit]
        depth *= FETCH_GROWTH


def _query(shard: FulltextSearcher, weighted_terms: Sequence[tuple[str, float]]) -> tantivy.Query | None:
    clauses: list[tuple[tantivy.Occur, tantivy.Query]] = []
    for term, weight in weighted_terms:
        df = shard.searcher.doc_freq(_TERMS, term)
        if df:
            query = tantivy.Query.term_query(shard.schema, _TERMS, term, index_option="freq")
            boost = weight / _shard_idf(shard.rows, df)
            clauses.append((tantivy.Occur.Should, tantivy.Query.boost_query(query, boost)))
    return tantivy.Query.boolean_query(clauses) if clauses else None


def _shard_idf(rows: int, df: int) -> float:
    """What tantivy multiplies a term's score by (its Bm25Weight): Lucene's idf over the shard's documents."""
    return math.log1p((rows - df + 0.5) / (df + 0.5))
