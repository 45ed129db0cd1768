"""Rows: the columnar form of events and their chunks, and its byte format. Format 1.

One shape serves every path. An *entity block* is the rows of one entity and day with texts and vectors;
a shard's *columns* are the rows of all its entities without them. An event has at least one row (chunk
0), also without text, so that counts agree everywhere. Rows are sorted by (entity, ts, id, chunk).

Vectors are int16 fixed point with one float32 scale a row: |error| < 1e-4 of cosine, and dot products are
integer arithmetic, hence the same bits on every machine and in every summation order.
Postings are term-major (CSC): for term t, rows `post_rows[post_indptr[t]:post_indptr[t+1]]`, ascending.

Bytes: u32 little-endian length of a JSON header, the header, padding to 8, then the arrays in the order
of `_ARRAYS`, each padded to 8. Equal rows encode to equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from context_plane.errors import Corrupt
from context_plane.model import AttrValue
from context_plane.store.base import Body

FORMAT: Final = 1
FIXED_POINT_MAX: Final = 32512
"""127 * 256: a value splits into two int8 planes without overflow."""
DIGEST_BYTES: Final = 16

I64: TypeAlias = NDArray[np.int64]
I32: TypeAlias = NDArray[np.int32]
U16: TypeAlias = NDArray[np.uint16]
F32: TypeAlias = NDArray[np.float32]
I16: TypeAlias = NDArray[np.int16]
U8: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rows:
    """E events, N rows (chunks), T terms, D dimensions. Immutable; arrays must not be written to."""

    day: str | None
    """The UTC day of every event, or None for a month's rollup."""
    entities: tuple[str, ...]
    """Ascending; one element in an entity block."""
    sources: tuple[str, ...]
    """Names of systems, each once."""
    kinds: tuple[str, ...]
    """Names of kinds, each once."""
    # events
    ids: tuple[str, ...]
    """[E] identity within entity and day."""
    threads: tuple[str | None, ...]
    """[E] conversation within the entity, or None."""
    attrs: tuple[Mapping[str, AttrValue] | None, ...]
    """[E] flat attributes, or None."""
    texts: tuple[str | None, ...] | None
    """None where texts are not loaded (a shard's columns)."""
    event_entity: I32
    """[E] index into `entities`."""
    event_ts_us: I64
    """[E] microseconds since 1970."""
    event_source: U16
    """[E] index into `sources`."""
    event_kind: U16
    """[E] index into `kinds`."""
    event_line: I32
    """[E] 1-based line of the event in its segment (or log batch)."""
    event_digest: U8
    """[E, 16] first bytes of the event digest."""
    # rows
    row_event: I32
    """[N] index of the row's event, ascending."""
    row_start: I32
    """[N] first character of the chunk in the event's text."""
    row_stop: I32
    """[N] end of the chunk, exclusive; equals start for an event without text."""
    row_terms: I32
    """[N] number of terms of the row as indexed for BM25 (its document length)."""
    # postings
    terms: tuple[str, ...]
    """[T] ascending by code point."""
    post_indptr: I32
    """[T + 1] where each term's postings begin in the two below."""
    post_rows: I32
    """[P] row of a posting, ascending within a term."""
    post_counts: U16
    """[P] how often the term stands in the row."""
    # vectors
    dim: int
    """0 where no vectors are loaded."""
    scales: F32
    """[N] or [0]; a zero scale marks a row without a vector."""
    vectors: I16
    """[N, D] or [0, 0]"""
    # citation
    segments: tuple[str, ...] = ()
    """Per entity, the stored key of its segment (or log object); in a month's block one per day, ascending.
    Attached by the reader, never encoded: a key carries a nonce, and the same events must give the same bytes."""

    @property
    def event_count(self) -> int:
        return len(self.ids)

    @property
    def row_count(self) -> int:
        return len(self.row_event)

    def without_payload(self) -> Rows:
        """The same rows without texts and vectors: what a shard's columns hold."""
        return replace(self, texts=None, dim=0, scales=np.zeros(0, np.float32), vectors=np.zeros((0, 0), np.int16))


def quantize(vectors: NDArray[np.float32]) -> tuple[I16, F32]:
    """float32 [N, D] -> int16 [N, D] and float32 scales [N]; a zero row has scale 0. Pure, elementwise."""
    scales = np.maximum.reduce(np.abs(vectors), axis=1, initial=0.0) / np.float32(FIXED_POINT_MAX)
    divisor = np.where(scales > 0, scales, np.float32(1)).astype(np.float64)
    fixed = vectors / divisor[:, None]
    np.rint(fixed, out=fixed)
    np.minimum(fixed, FIXED_POINT_MAX, out=fixed)
    np.maximum(fixed, -FIXED_POINT_MAX, out=fixed)
    return fixed.astype(np.int16), scales


def quantize_one(vector: NDArray[np.float32]) -> tuple[I16, float]:
    """`quantize` of one vector, float32 [D], in half the time: ([D], scale)."""
    scale = np.maximum.reduce(np.abs(vector), initial=0.0) / np.float32(FIXED_POINT_MAX)
    fixed = vector / np.float64(scale or 1.0)
    np.rint(fixed, out=fixed)
    np.minimum(fixed, FIXED_POINT_MAX, out=fixed)
    np.maximum(fixed, -FIXED_POINT_MAX, out=fixed)
    return fixed.astype(np.int16), float(scale)


# --- bytes --------------------------------------------------------------------------------------

_ARRAYS: Final[tuple[tuple[str, str], ...]] = (
    ("event_entity", "<i4"),
    ("event_ts_us", "<i8"),
    ("event_source", "<u2"),
    ("event_kind", "<u2"),
    ("event_line", "<i4"),
    ("event_digest", "|u1"),
    ("row_event", "<i4"),
    ("row_start", "<i4"),
    ("row_stop", "<i4"),
    ("row_terms", "<i4"),
    ("post_indptr", "<i4"),
    ("post_rows", "<i4"),
    ("post_counts", "<u2"),
    ("scales", "<f4"),
    ("vectors", "<i2"),
)
_LISTS: Final = ("entities", "sources", "kinds", "ids", "threads", "attrs", "terms")


def encode_rows(rows: Rows) -> bytes:
    arrays = [np.ascontiguousarray(getattr(rows, name), dtype=dtype) for name, dtype in _ARRAYS]
    header: dict[str, Any] = {"format": FORMAT, "day": rows.day, "dim": rows.dim, "texts": rows.texts}
    header |= {name: getattr(rows, name) for name in _LISTS}
    header["sizes"] = [array.nbytes for array in arrays]
    head = orjson.dumps(header, option=orjson.OPT_SORT_KEYS)
    parts = [len(head).to_bytes(4, "little"), head, b"\0" * (-(4 + len(head)) % 8)]
    for array in arrays:
        parts.append(array.tobytes())
        parts.append(b"\0" * (-array.nbytes % 8))
    return b"".join(parts)


def decode_rows(raw: Body) -> Rows:
    """Inverse of `encode_rows`; arrays are read-only views of `raw`. Raises `Corrupt`."""
    size = int.from_bytes(raw[:4], "little")
    header = orjson.loads(raw[4 : 4 + size])
    if header.get("format") != FORMAT:
        raise Corrupt("format_unknown", "rows of an unknown format", format=header.get("format"))
    offset = 4 + size + (-(4 + size) % 8)
    arrays: dict[str, NDArray[Any]] = {}
    for (name, dtype), nbytes in zip(_ARRAYS, header["sizes"], strict=True):
        kind = np.dtype(dtype)
        arrays[name] = np.frombuffer(raw, dtype=kind, count=nbytes // kind.itemsize, offset=offset)
        offset += nbytes + (-nbytes % 8)
    dim = header["dim"]
    arrays["event_digest"] = arrays["event_digest"].reshape(-1, DIGEST_BYTES)
    arrays["vectors"] = arrays["vectors"].reshape(-1, dim) if dim else np.zeros((0, 0), np.int16)
    texts = header["texts"]
    fields: dict[str, Any] = {name: tuple(header[name]) for name in _LISTS} | arrays
    return Rows(day=header["day"], dim=dim, texts=None if texts is None else tuple(texts), **fields)


# --- joining ------------------------------------------------------------------------------------


def concat(parts: Sequence[Rows], *, day: str | None, vectors: bool = False) -> Rows:
    """Rows of several entity blocks as one, in the order given (ascending by entity).

    Texts are dropped, and vectors unless asked for (every part must then have the same dimension).
    """
    entities = tuple(name for part in parts for name in part.entities)
    sources = tuple(sorted({name for part in parts for name in part.sources}))
    kinds = tuple(sorted({name for part in parts for name in part.kinds}))
    events = _offsets(part.event_count for part in parts)
    rows = _offsets(part.row_count for part in parts)
    firsts = _offsets(len(part.entities) for part in parts)
    terms, indptr, post_rows, post_counts = _merge_postings(parts, rows)
    return Rows(
        day=day,
        entities=entities,
        sources=sources,
        kinds=kinds,
        ids=tuple(i for part in parts for i in part.ids),
        threads=tuple(i for part in parts for i in part.threads),
        attrs=tuple(i for part in parts for i in part.attrs),
        texts=None,
        event_entity=_join([part.event_entity + first for part, first in zip(parts, firsts, strict=True)], np.int32),
        event_ts_us=_join([part.event_ts_us for part in parts], np.int64),
        event_source=_join([_recode(p.sources, sources)[p.event_source] for p in parts], np.uint16),
        event_kind=_join([_recode(p.kinds, kinds)[p.event_kind] for p in parts], np.uint16),
        event_line=_join([part.event_line for part in parts], np.int32),
        event_digest=np.concatenate([part.event_digest for part in parts])
        if parts
        else np.zeros((0, DIGEST_BYTES), np.uint8),
        row_event=_join([part.row_event + first for part, first in zip(parts, events, strict=True)], np.int32),
        row_start=_join([part.row_start for part in parts], np.int32),
        row_stop=_join([part.row_stop for part in parts], np.int32),
        row_terms=_join([part.row_terms for part in parts], np.int32),
        terms=terms,
        post_indptr=indptr,
        post_rows=post_rows,
        post_counts=post_counts,
        dim=parts[0].dim if vectors and parts else 0,
        scales=_join([part.scales for part in parts] if vectors else [], np.float32),
        vectors=np.concatenate([part.vectors for part in parts]) if vectors and parts else np.zeros((0, 0), np.int16),
        segments=tuple(s for part in parts for s in part.segments),
    )


def _merge_postings(parts: Sequence[Rows], rows: Sequence[int]) -> tuple[tuple[str, ...], I32, I32, U16]:
    terms = tuple(sorted({term for part in parts for term in part.terms}))
    code = {term: n for n, term in enumerate(terms)}
    owner, row, count = [], [], []
    for part, first in zip(parts, rows, strict=True):
        codes = np.fromiter(map(code.__getitem__, part.terms), np.int32, len(part.terms))
        owner.append(np.repeat(codes, np.diff(part.post_indptr)))
        row.append(part.post_rows + np.int32(first))
        count.append(part.post_counts)
    term_of, all_rows, all_counts = _join(owner, np.int32), _join(row, np.int32), _join(count, np.uint16)
    small = len(terms) <= np.iinfo(np.uint16).max  # numpy sorts 16 bits by radix, several times faster
    order = np.argsort(term_of.astype(np.uint16) if small else term_of, kind="stable")
    indptr = np.zeros(len(terms) + 1, np.int32)
    np.cumsum(np.bincount(term_of, minlength=len(terms)), out=indptr[1:])
    return terms, indptr, all_rows[order], all_counts[order]


def _offsets(counts: Iterable[int]) -> list[int]:
    result, total = [], 0
    for count in counts:
        result.append(total)
        total += count
    return result


def _join(arrays: list[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.zeros(0, dtype)


def _recode(local: Sequence[str], everywhere: Sequence[str]) -> NDArray[np.uint16]:
    code = {name: n for n, name in enumerate(everywhere)}
    return np.fromiter((code[name] for name in local), np.uint16, len(local))
