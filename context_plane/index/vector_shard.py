"""Vector shard: the float32 vectors of a day's rows as a Lance dataset that plain `lancedb` opens.

    row entity id ts source kind chunk_start chunk_stop text_digest attrs vector

One record per row, in row order; `vector` is null where the row has none, `attrs` is canonical JSON.
`text_digest` is the key under which a vector is reused by the next build of the day; it is zero where the
vector was not computed from the row's text. Lance's files hold random ids: the content digest is taken
over texts' digests and float bytes.

This is the durable form of the vectors and the ANN index of large shards; small ones are scored exactly
in memory. lancedb is imported where it is used: it costs over a second.
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
"""Below, exact is also faster: at 256 dimensions a scan in memory costs about 0.13 ms a thousand rows, a query
of the graph some 40 ms whatever the size, and building it 0.7 s a thousand rows."""
ANN_EF_MIN: Final = 256
"""Breadth of the graph search; a deeper request searches as broadly as it asks."""
FETCH_GROWTH: Final = 4
"""How much deeper each further search goes while a mask rejects candidates."""
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
) -> list[Path]:
    """Create `folder/name.lance`; returns its files, relative to `folder/name.lance`, ascending.

    `vectors` is float32 [N, D] with D > 0, `text_digests` uint8 [N, 16]. Blocking I/O and CPU work.
    """
    import lancedb

    table = lancedb.connect(folder).create_table(
        name, data=_table(columns, vectors, text_digests), on_bad_vectors="null"
    )
    if int(np.count_nonzero(_present(vectors))) >= ann_rows_min:
        table.create_index("vector", config=lancedb.index.HnswSq(distance_type="dot", num_partitions=1))
    root = folder / (name + _FOLDER_SUFFIX)
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())


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
    event = columns.row_event
    attrs = [canonical_json(value or {}).decode() for value in columns.attrs]
    return pa.table(
        {
            "row": pa.array(np.arange(count, dtype=np.int64)),
            "entity": _taken(columns.entities, columns.event_entity[event]),
            "id": _taken(columns.ids, event),
            "ts": pa.array(columns.event_ts_us[event], pa.timestamp("us", tz="UTC")),
            "source": _taken(columns.sources, columns.event_source[event]),
            "kind": _taken(columns.kinds, columns.event_kind[event]),
            "chunk_start": pa.array(columns.row_start, pa.int32()),
            "chunk_stop": pa.array(columns.row_stop, pa.int32()),
            "text_digest": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(DIGEST_BYTES), count, [None, pa.py_buffer(np.ascontiguousarray(text_digests).tobytes())]
            ),
            "attrs": _taken(attrs, event),
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(vectors, np.float32).ravel()), dim, mask=pa.array(~_present(vectors))
            ),
        }
    )


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


def reusable_vectors(stored: StoredVectors) -> dict[bytes, F32]:
    """Computed vectors by text digest: what an unchanged text need not be embedded for again."""
    keys = [row.tobytes() for row in stored.text_digests]
    none = bytes(DIGEST_BYTES)
    return {key: vector for key, vector in zip(keys, stored.vectors, strict=True) if key != none}


def has_ann_index(folder: Path, name: str) -> bool:
    return any("vector" in index.columns for index in _open(folder, name).list_indices())


def ann_candidates(
    folder: Path, name: str, query: F32, limit: int, mask: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Up to `limit` rows likely nearest to `query` (float32 [D], unit length), best first; approximate.

    With `mask` (bool[N]) only rows it admits: the graph is asked deeper until `limit` of them are found or
    all rows were. Rows without a vector never come. Blocking I/O.
    """
    if mask is not None and np.count_nonzero(mask) <= limit:
        return np.flatnonzero(mask).astype(np.int64)
    table = _open(folder, name)
    rows, depth = table.count_rows(), limit
    while True:
        depth = min(depth, rows)
        search = table.search(query, vector_column_name="vector").distance_type("dot").ef(max(ANN_EF_MIN, depth))
        found = search.select(["row", "_distance"]).limit(max(1, depth)).to_arrow()["row"].to_numpy()
        passing = found if mask is None else found[mask[found]]
        if len(passing) >= limit or depth == rows or len(found) < depth:
            return np.asarray(passing[:limit], np.int64)
        depth *= FETCH_GROWTH


def _open(folder: Path, name: str) -> Any:
    import lancedb

    try:
        return lancedb.connect(folder).open_table(name)
    except ValueError as error:
        raise Corrupt("corrupt_object", f"a vector shard does not open: {error}", name=name) from error
