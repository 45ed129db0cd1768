"""Blocks: the rows of one entity and one day, built from its events. Pure; the same events, the same bytes.

A row is a chunk of an event's text (an event without text has one, empty). Its terms are those of the
chunk; a short message of a thread is indexed together with the message before it (see `threads`), while
its vector and its citation stay its own. Vectors come in as float32, one per row; which texts need one is
asked with `rows_to_embed`, and `row_vectors` puts the answers and the callers' own vectors in place.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from context_plane.errors import Corrupt, Invalid
from context_plane.index.analyzer import analyze
from context_plane.index.chunker import Chunk, chunk
from context_plane.index.rows import DIGEST_BYTES, F32, I16, I32, U8, U16, Rows, concat, quantize
from context_plane.index.threads import bm25_texts
from context_plane.layout.segment import FIRST_EVENT_LINE, event_line
from context_plane.model import Event, day_of, text_digest, unit

COUNT_MAX: Final = 65_535
"""Counts are stored in 16 bits; BM25 saturates long before."""


def build_block(
    entity: str,
    day: str,
    events: Sequence[Event],
    vectors: F32,
    *,
    segment: str = "",
    first_line: int = FIRST_EVENT_LINE,
    digests: Sequence[bytes] | None = None,
) -> Rows:
    """Rows of the entity's day. Events ascend strictly by (ts, id); `vectors` is float32 [N, D], zero where none.

    D may be 0. `segment` is the key that citations name; event n is its line `first_line + n`. `digests` are
    the events', where the caller has them (16 bytes each): they cost as much as all the rest of a short event.
    """
    assert all(event.entity == entity for event in events)
    assert not events or day_of(events[0].ts_us) == day == day_of(events[-1].ts_us)
    assert all(a.order < b.order for a, b in itertools.pairwise(events)), "events ascend by (ts, id)"
    if digests is None:
        digests = [line_digest(event_line(event)) for event in events]
    chunks = [_chunks(event) for event in events]
    counts = np.array([len(each) for each in chunks], np.int64)
    flat = [each for own in chunks for each in own]
    assert len(vectors) == len(flat) or not vectors.shape[1], "one vector a row"
    sources, event_source = _encoded([event.source for event in events])
    kinds, event_kind = _encoded([event.kind for event in events])
    term_rows = [analyze(text) if text else [] for text in _row_texts(events, chunks)]
    terms, indptr, post_rows, post_counts = _postings(term_rows)
    fixed, scales = quantize(vectors) if vectors.shape[1] else (np.zeros((0, 0), np.int16), np.zeros(0, np.float32))
    return Rows(
        day=day,
        entities=(entity,),
        sources=sources,
        kinds=kinds,
        ids=tuple(event.id for event in events),
        threads=tuple(event.thread for event in events),
        attrs=tuple(event.attrs or None for event in events),
        texts=tuple(event.text for event in events),
        event_entity=np.zeros(len(events), np.int32),
        event_ts_us=np.array([event.ts_us for event in events], np.int64),
        event_source=event_source,
        event_kind=event_kind,
        event_line=np.arange(first_line, first_line + len(events), dtype=np.int32),
        event_digest=_digests(digests),
        row_event=np.repeat(np.arange(len(events), dtype=np.int32), counts),
        row_start=np.array([each.start for each in flat], np.int32),
        row_stop=np.array([each.stop for each in flat], np.int32),
        row_terms=np.array([len(row) for row in term_rows], np.int32),
        terms=terms,
        post_indptr=indptr,
        post_rows=post_rows,
        post_counts=post_counts,
        dim=vectors.shape[1],
        scales=scales,
        vectors=fixed,
        segments=(segment,),
    )


def line_digest(line: bytes) -> bytes:
    """The event digest that rows hold, from the event's line in its segment."""
    return hashlib.sha256(line).digest()[:DIGEST_BYTES]


def place_columns(day: str, groups: Sequence[Sequence[Event]]) -> Rows:
    """The columns that a vector shard keeps beside its vectors: all entities' events, ascending by entity, without
    event digests and postings."""
    events = [event for group in groups for event in group]
    chunks = [_chunks(event) for event in events]
    flat = [each for own in chunks for each in own]
    sources, event_source = _encoded([event.source for event in events])
    kinds, event_kind = _encoded([event.kind for event in events])
    none = np.zeros(0, np.int32)
    return Rows(
        day=day,
        entities=tuple(group[0].entity for group in groups),
        sources=sources,
        kinds=kinds,
        ids=tuple(event.id for event in events),
        threads=tuple(event.thread for event in events),
        attrs=tuple(event.attrs or None for event in events),
        texts=None,
        event_entity=np.repeat(np.arange(len(groups), dtype=np.int32), [len(group) for group in groups]),
        event_ts_us=np.array([event.ts_us for event in events], np.int64),
        event_source=event_source,
        event_kind=event_kind,
        event_line=np.zeros(len(events), np.int32),
        event_digest=np.zeros((len(events), DIGEST_BYTES), np.uint8),
        row_event=np.repeat(np.arange(len(events), dtype=np.int32), [len(own) for own in chunks]),
        row_start=np.array([each.start for each in flat], np.int32),
        row_stop=np.array([each.stop for each in flat], np.int32),
        row_terms=np.zeros(len(flat), np.int32),
        terms=(),
        post_indptr=np.zeros(1, np.int32),
        post_rows=none,
        post_counts=none.astype(np.uint16),
        dim=0,
        scales=np.zeros(0, np.float32),
        vectors=np.zeros((0, 0), np.int16),
    )


# --- vectors ------------------------------------------------------------------------------------


def row_count(events: Sequence[Event]) -> int:
    """Rows these events will have."""
    return sum(len(_chunks(event)) for event in events)


def rows_to_embed(events: Sequence[Event]) -> list[str]:
    """Texts of the rows that need a computed vector, in row order: text, and no vector from the caller."""
    return [text for event, text in _rows(events) if _computed(event, text)]


def row_vectors(events: Sequence[Event], embedded: F32, dim: int) -> F32:
    """float32 [N, dim]: `embedded` ([len(rows_to_embed(events)), dim]) and the callers' unit vectors in place.

    An event's own vector stands for all its rows. Raises `Invalid(vector_invalid)` for another dimension.
    """
    rows = list(_rows(events))
    result = np.zeros((len(rows), dim), np.float32)
    computed = [_computed(event, text) for event, text in rows]
    wanted = np.flatnonzero(computed)
    assert len(embedded) == len(wanted), "one vector for each text asked for"
    if len(wanted):
        result[wanted] = embedded
    for n, (event, _) in enumerate(rows):
        if event.vector is None:
            continue
        if len(event.vector) != dim:
            raise Invalid(
                "vector_invalid",
                "an event's vector has another dimension than the model",
                dim=dim,
                got=len(event.vector),
            )
        result[n] = unit(event.vector)
    return result


def row_text_digests(events: Sequence[Event]) -> U8:
    """[N, 16] digest under which a row's computed vector is reused; zero for rows that compute none."""
    return _digests([text_digest(text) if _computed(event, text) else bytes(16) for event, text in _rows(events)])


def _rows(events: Sequence[Event]) -> Iterator[tuple[Event, str]]:
    """(event, text of the chunk) of every row."""
    for event in events:
        for each in _chunks(event):
            yield event, (event.text or "")[each.start : each.stop]


def _computed(event: Event, text: str) -> bool:
    return event.vector is None and bool(text.strip())


# --- joining ------------------------------------------------------------------------------------


def join_blocks(blocks: Sequence[Rows], *, day: str | None) -> Rows:
    """Several blocks as one, payload included (`concat` drops it): what the tail is searched as.

    Blocks come ascending by entity. Vectors, where there are any, have one dimension; a block without
    vectors has zero scales.
    """
    dim = max((block.dim for block in blocks), default=0)
    assert all(block.dim in (0, dim) for block in blocks), "one model at a time"
    joined = concat(blocks, day=day)
    texts = None if any(block.texts is None for block in blocks) else tuple(t for b in blocks for t in b.texts or ())
    if not dim:
        return replace(joined, texts=texts)
    vectors = [b.vectors if b.dim else np.zeros((b.row_count, dim), np.int16) for b in blocks]
    scales = [b.scales if b.dim else np.zeros(b.row_count, np.float32) for b in blocks]
    return replace(joined, texts=texts, dim=dim, vectors=np.concatenate(vectors), scales=np.concatenate(scales))


def join_days(entity: str, blocks: Sequence[Rows]) -> Rows:
    """One entity's blocks of several days, ascending by day, as its block of a month: rows by (ts, id, chunk)."""
    assert all(block.entities == (entity,) for block in blocks)
    joined = join_blocks(blocks, day=None)
    return replace(joined, entities=(entity,), event_entity=np.zeros(joined.event_count, np.int32))


def with_vectors(columns: Rows, vectors: F32) -> Rows:
    """A shard's columns with the float32 [N, D] vectors of its vector shard, in the same fixed point as blocks."""
    fixed, scales = quantize(vectors)
    return rows_with(columns, scales, fixed)


def rows_with(columns: Rows, scales: F32, vectors: I16) -> Rows:
    """A shard's columns with the vectors of the same rows in the same order. Raises `Corrupt`."""
    if len(vectors) != columns.row_count:
        detail = "a shard has another number of vectors than of rows; rebuild its days"
        raise Corrupt("corrupt_object", detail, rows=columns.row_count, vectors=len(vectors))
    return replace(columns, dim=vectors.shape[1], vectors=vectors, scales=scales)


def with_vectors_of(columns: Rows, parts: Sequence[Rows]) -> Rows:
    """A shard's columns with the vectors of its blocks, which hold the same rows in the same order."""
    dim = max((part.dim for part in parts), default=0)
    if not dim:
        return columns
    vectors = [part.vectors if part.dim else np.zeros((part.row_count, dim), np.int16) for part in parts]
    scales = [part.scales if part.dim else np.zeros(part.row_count, np.float32) for part in parts]
    return rows_with(columns, np.concatenate(scales), np.concatenate(vectors))


# --- leaves -------------------------------------------------------------------------------------


def _chunks(event: Event) -> list[Chunk]:
    return chunk(event.text) if event.text else [Chunk(0, 0)]


def _row_texts(events: Sequence[Event], chunks: Sequence[Sequence[Chunk]]) -> Iterator[str]:
    """What BM25 sees of each row: a message in its thread where the event is one row, else the chunk."""
    for event, own, whole in zip(events, chunks, bm25_texts(events), strict=True):
        if len(own) == 1:
            yield whole or ""
        else:
            yield from ((event.text or "")[each.start : each.stop] for each in own)


def _encoded(names: Sequence[str]) -> tuple[tuple[str, ...], U16]:
    distinct = tuple(sorted(set(names)))
    code = {name: n for n, name in enumerate(distinct)}
    return distinct, np.array([code[name] for name in names], np.uint16)


def _digests(values: Sequence[bytes]) -> U8:
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, DIGEST_BYTES)


def _postings(rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], I32, I32, U16]:
    """Terms of each row -> (terms, indptr, rows, counts), terms ascending and rows ascending within each."""
    flat = list(itertools.chain.from_iterable(rows))
    terms = tuple(sorted(set(flat)))
    code = {term: n for n, term in enumerate(terms)}
    of_term = np.fromiter(map(code.__getitem__, flat), np.int64, len(flat))
    of_row = np.repeat(np.arange(len(rows), dtype=np.int64), [len(row) for row in rows])
    pairs, counts = np.unique(of_term * max(1, len(rows)) + of_row, return_counts=True)
    owner, post_rows = np.divmod(pairs, max(1, len(rows)))
    indptr = np.zeros(len(terms) + 1, np.int32)
    np.cumsum(np.bincount(owner, minlength=len(terms)), out=indptr[1:])
    return terms, indptr, post_rows.astype(np.int32), np.minimum(counts, COUNT_MAX).astype(np.uint16)
