"""Vector shard: the float32 vectors of a day's rows as a Lance dataset that plain `lancedb` opens.

    row entity id ts source kind chunk_start chunk_stop text_digest attrs vector

One record per row, in row order; `vector` is null where the row has none, `attrs` is canonical JSON.
`text_digest` is the key under which a vector is reused by the next build of the day; it is zero where the
vector was not computed from the row's text. Lance's files hold random ids: the content digest is taken
over texts' digests and float bytes alone, so a dataset is named again only where its entity shard has the same
content too: that covers the columns.

This is the durable form of the vectors and the ANN index of large shards; small ones are scored exactly
in memory. The index proposes candidates that the caller scores exactly, so its quantization costs no recall.
lancedb is imported where it is used: it costs over a second.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from context_plane.errors import Corrupt
from context_plane.index.rows import DIGEST_BYTES, F32, U8, Rows
from context_plane.model import canonical_json

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT: Final = 1
ANN_ROWS_MIN: Final = 200_000
"""Below, exact is also faster: a scan of int8 planes in memory costs some 20 ms a million rows, a query of the graph
3 ms and more whatever the size."""
PARTITION_ROWS: Final = 125_000
"""Rows of one graph at most. All graphs are searched: more of them cost queries time, larger ones lose recall (of
200,000 texts one graph finds 0.9875 of the ten nearest, two find 0.9965) and cost the build memory. Probing some of
them only lost 3 % on clustered vectors."""
GRAPH_NEIGHBOURS: Final = 16
GRAPH_EF: Final = 100
"""m and ef_construction: half the build time of the defaults (20, 300), which a broader search makes up for."""
PARTITIONS_MAX: Final = 4_096
"""Probed at most, that is, all."""
ANN_EF_MIN: Final = 512
"""Breadth of the graph search: with 256 two graphs find 0.983 of those. A deeper request searches as
broadly as it asks."""
ANN_DEPTH_MAX: Final = 1_000
"""A deeper search costs more than scanning the rows a mask admits: 7 ms for 1,000 candidates, 43 ms for 4,000."""
FETCH_GROWTH: Final = 4
"""How much deeper each further search goes while a mask rejects candidates."""
_INDEX_CACHE_SPARE: Final = 64 * 1024 * 1024
"""Beyond the index's own bytes, for what Lance keeps around it."""
_FOLDER_SUFFIX: Final = ".lance"


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """What a shard holds of each of its N rows."""

    vectors: F32
    """[N, D]; a zero row had none."""
    text_digests: U8
    """[N, 16]"""


# --- writing ------------------------------------------------------------------------------------


def write_dataset(
    folder: Path,
    name: str,
    columns: Rows,
    vectors: F32,
    text_digests: U8,
    *,
    ann_rows_min: int = ANN_ROWS_MIN,
    partition_rows: int = PARTITION_ROWS,
) -> list[Path]:
    """Create `folder/name.lance`; returns its files, relative to `folder/name.lance`, ascending.

    `vectors` is float32 [N, D] with D > 0, `text_digests` uint8 [N, 16]. Blocking I/O and CPU work.
    """
    import lancedb

    table = lancedb.connect(folder).create_table(
        name, data=_table(columns, vectors, text_digests), on_bad_vectors="null"
    )
    if int(np.count_nonzero(_present(vectors))) >= ann_rows_min:
        table.create_index("vector", config=_index_config(len(vectors), partition_rows))
    root = folder / (name + _FOLDER_SUFFIX)
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())


def _index_config(rows: int, partition_rows: int) -> Any:
    from lancedb.index import HnswSq

    return HnswSq(
        distance_type="dot",
        num_partitions=-(-rows // partition_rows),
        m=GRAPH_NEIGHBOURS,
        ef_construction=GRAPH_EF,
    )


def content_digest(vectors: F32, text_digests: U8, *, model: str) -> str:
    """SHA-256, hex, of the shard's content, whatever files Lance makes of it."""
    head = {"format": FORMAT, "model": model, "rows": vectors.shape[0], "dim": vectors.shape[1]}
    digest = hashlib.sha256(canonical_json(head))
    digest.update(np.ascontiguousarray(text_digests, np.uint8).tobytes())
    digest.update(np.ascontiguousarray(vectors, "<f4").tobytes())
    return digest.hexdigest()


def _present(vectors: F32) -> NDArray[np.bool_]:
    return np.asarray(vectors.any(axis=1), np.bool_)


def _table(columns: Rows, vectors: F32, text_digests: U8) -> pa.Table:
    import pyarrow as pa

    count, dim = vectors.shape
    assert count == columns.row_count == len(text_digests), "one vector and one digest a row"
    told = _told(columns)
    attrs = told.pop("attrs")
    return pa.table(
        {
            "row": pa.array(np.arange(count, dtype=np.int64)),
            **told,
            "text_digest": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(DIGEST_BYTES), count, [None, pa.py_buffer(np.ascontiguousarray(text_digests).tobytes())]
            ),
            "attrs": attrs,
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(vectors, np.float32).ravel()), dim, mask=pa.array(~_present(vectors))
            ),
        }
    )


def _told(columns: Rows) -> dict[str, pa.Array[Any]]:
    """What a record says of its event: every column but `row`, `text_digest` and `vector`."""
    import pyarrow as pa

    event = columns.row_event
    attrs = [canonical_json(value or {}).decode() for value in columns.attrs]
    return {
        "entity": _taken(columns.entities, columns.event_entity[event]),
        "id": _taken(columns.ids, event),
        "ts": pa.array(columns.event_ts_us[event], pa.timestamp("us", tz="UTC")),
        "source": _taken(columns.sources, columns.event_source[event]),
        "kind": _taken(columns.kinds, columns.event_kind[event]),
        "chunk_start": pa.array(columns.row_start, pa.int32()),
        "chunk_stop": pa.array(columns.row_stop, pa.int32()),
        "attrs": _taken(attrs, event),
    }


def _taken(values: Any, place: NDArray[Any]) -> pa.Array[Any]:
    import pyarrow as pa

    return pa.array(list(values), pa.string()).take(place.astype(np.int64))


# --- reading ------------------------------------------------------------------------------------


def read_vectors(folder: Path, name: str) -> StoredVectors:
    """All vectors and digests of `folder/name.lance` in row order. Blocking I/O. Raises `Corrupt`."""
    import pyarrow as pa

    table = _open(folder, name)
    held = table.search().select(["row", "text_digest", "vector"]).limit(max(1, table.count_rows())).to_arrow()
    count, dim = held.num_rows, held.schema.field("vector").type.list_size
    place = held["row"].to_numpy()
    if not np.array_equal(np.sort(place), np.arange(count)):
        raise Corrupt("corrupt_object", "a vector shard lacks rows or has some twice", name=name, rows=count)
    vectors, digests = np.zeros((count, dim), np.float32), np.zeros((count, DIGEST_BYTES), np.uint8)
    packed = pa.concat_arrays(held["vector"].chunks) if count else pa.array([], held.schema.field("vector").type)
    valid = packed.is_valid().to_numpy(zero_copy_only=False)
    vectors[place[valid]] = packed.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    digests[place] = np.frombuffer(b"".join(held["text_digest"].to_pylist()), np.uint8).reshape(-1, DIGEST_BYTES)
    return StoredVectors(vectors, digests)


def misplaced(folder: Path, name: str, columns: Rows) -> int:
    """How many records of `folder/name.lance` say anything else of their event than the same row of the columns; all,
    where there are more or fewer. Blocking I/O. Raises `Corrupt`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _open(folder, name)
    count = table.count_rows()
    if count != columns.row_count:
        return int(count)
    told = _told(columns)
    held = table.search().select(["row", *told]).limit(max(1, count)).to_arrow().sort_by("row")
    same = np.ones(count, np.bool_)
    for name, values in told.items():
        same &= pc.equal(held[name], pa.chunked_array([values])).to_numpy()
    return int(count - np.count_nonzero(same))


def tells_of(folder: Path, name: str, entity: str) -> bool:
    """Whether a record of `folder/name.lance` is of the entity. Blocking I/O. Raises `Corrupt`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _open(folder, name)
    held = table.search().select(["entity"]).limit(max(1, table.count_rows())).to_arrow()
    return bool(pc.any(pc.equal(held["entity"], pa.scalar(entity))).as_py())


def reusable_vectors(stored: StoredVectors) -> dict[bytes, F32]:
    """Computed vectors by text digest: what an unchanged text need not be embedded for again."""
    keys = [row.tobytes() for row in stored.text_digests]
    none = bytes(DIGEST_BYTES)
    return {key: vector for key, vector in zip(keys, stored.vectors, strict=True) if key != none}


def has_ann_index(folder: Path, name: str) -> bool:
    return any("vector" in index.columns for index in _open(folder, name).list_indices())


@dataclass(frozen=True, slots=True)
class VectorSearcher:
    """An open shard with an index, for any number of queries and threads. It keeps the index in memory."""

    table: Any
    row_ids: NDArray[np.int64]
    """[N] Lance's id of each row, ascending as the rows do."""
    bytes: int
    """What it holds in memory once asked: what a cache counts."""


def open_ann(folder: Path, name: str) -> VectorSearcher:
    """Open `folder/name.lance` for `candidates`. Blocking I/O. Raises `Corrupt`.

    Its memory is its own: a session sized for this index, which goes when the searcher does.
    """
    from lancedb import Session

    index_bytes = sum(path.stat().st_size for path in (folder / (name + _FOLDER_SUFFIX)).glob("_indices/**/*.*"))
    table = _open(folder, name, Session(index_cache_size_bytes=2 * index_bytes + _INDEX_CACHE_SPARE))
    count = table.count_rows()
    held = table.search().with_row_id(True).select(["row"]).limit(max(1, count)).to_arrow()
    row_ids, rows = held["_rowid"].to_numpy().astype(np.int64), held["row"].to_numpy()
    row_ids = row_ids[np.argsort(rows)]
    if not np.array_equal(np.sort(rows), np.arange(count)) or np.any(np.diff(row_ids) <= 0):
        raise Corrupt("corrupt_object", "a vector shard lacks rows or has some twice", name=name, rows=len(rows))
    return VectorSearcher(table, row_ids, index_bytes + row_ids.nbytes)


def candidates(
    searcher: VectorSearcher, query: F32, limit: int, mask: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Rows among which the `limit` nearest to `query` (float32 [D], unit length) likely are, to be scored exactly.

    Without `mask` up to `limit` rows, best first. With `mask` (bool[N]) only rows it admits: the graph is asked
    deeper until `limit` of them are found; where that would cost more than scoring what the mask admits, it is all
    it admits, ascending. Rows without a vector never come from the graph. Blocking I/O. Raises `Corrupt` where files
    are damaged or gone since: open the shard again.
    """
    count = len(searcher.row_ids)
    depth = limit
    if mask is not None:
        admitted = int(np.count_nonzero(mask))
        if admitted <= limit or admitted * ANN_DEPTH_MAX <= limit * count:  # a mask spread evenly needs that depth
            return np.flatnonzero(mask).astype(np.int64)
        depth = min(ANN_DEPTH_MAX, -(-limit * count // admitted))
    while True:
        found = _nearest(searcher, query, min(depth, count))
        passing = found if mask is None else found[mask[found]]
        if mask is None or len(passing) >= limit:
            return passing[:limit]
        if depth >= ANN_DEPTH_MAX or len(found) < depth:  # what the mask admits lies elsewhere
            return np.flatnonzero(mask).astype(np.int64)
        depth = min(ANN_DEPTH_MAX, depth * FETCH_GROWTH)


def _nearest(searcher: VectorSearcher, query: F32, depth: int) -> NDArray[np.int64]:
    """Up to `depth` rows by the graph alone, best first. Ids come with the graph: no column of the table is read."""
    search = searcher.table.search(query, vector_column_name="vector").distance_type("dot").nprobes(PARTITIONS_MAX)
    search = search.ef(max(ANN_EF_MIN, depth)).fast_search().with_row_id(True).select(["_distance"])
    try:
        found = search.limit(max(1, depth)).to_arrow()["_rowid"].to_numpy().astype(np.int64)
    except (RuntimeError, OSError, ValueError) as error:  # lancedb passes Lance's errors on as any of these
        raise Corrupt("corrupt_object", f"a vector shard's index cannot be read: {error}") from error
    return np.asarray(np.searchsorted(searcher.row_ids, found), np.int64)


def _open(folder: Path, name: str, session: Any = None) -> Any:
    import lancedb

    try:
        return lancedb.connect(folder, session=session).open_table(name)
    except ValueError as error:
        raise Corrupt("corrupt_object", f"a vector shard does not open: {error}", name=name) from error
