"""Blocks: the rows of one entity and one day, built from its events. Pure; the same events, the same bytes.

A row is a chunk of an event's text (an event without text has one, empty). Its terms are those of the
chunk; a short message of a thread is indexed together with the message before it (see `threads`), while
its vector and its citation stay its own. Vectors come in as float32, one per row; which texts need one is
asked with `rows_to_embed`, and `row_vectors` puts the answers and the callers' own vectors in place.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from context_plane.errors import Invalid
from context_plane.index.analyzer import term_counts
from context_plane.index.chunker import Chunk, chunk
from context_plane.index.rows import DIGEST_BYTES, F32, I32, U8, U16, Rows, concat, quantize
from context_plane.index.threads import bm25_texts
from context_plane.layout.segment import FIRST_EVENT_LINE
from context_plane.model import Event, event_digest, text_digest, unit

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
    analyzed: bool = True,
) -> Rows:
    """Rows of the entity's day. Events ascend strictly by (ts, id); `vectors` is float32 [N, D], zero where none.

    D may be 0. `segment` is the key that citations name; event n is its line `first_line + n`. Without
    `analyzed` there are no postings: enough to place vectors.
    """
    assert all(event.entity == entity and event.day == day for event in events)
    assert all(a.order < b.order for a, b in itertools.pairwise(events)), "events ascend by (ts, id)"
    chunks = [_chunks(event) for event in events]
    counts = np.array([len(each) for each in chunks], np.int64)
    flat = [each for own in chunks for each in own]
    assert len(vectors) == len(flat), "one vector a row"
    sources, event_source = _encoded([event.source for event in events])
    kinds, event_kind = _encoded([event.kind for event in events])
    texts = _row_texts(events, chunks) if analyzed else [""] * len(flat)
    term_rows = [term_counts(text) if text else {} for text in texts]
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
        event_digest=_digests([bytes.fromhex(event_digest(event))[:DIGEST_BYTES] for event in events]),
        row_event=np.repeat(np.arange(len(events), dtype=np.int32), counts),
        row_start=np.array([each.start for each in flat], np.int32),
        row_stop=np.array([each.stop for each in flat], np.int32),
        row_terms=np.array([sum(row.values()) for row in term_rows], np.int32),
        terms=terms,
        post_indptr=indptr,
        post_rows=post_rows,
        post_counts=post_counts,
        dim=vectors.shape[1],
        scales=scales,
        vectors=fixed,
        segments=(segment,),
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
    computed = np.array([_computed(event, text) for event, text in rows], np.bool_)
    assert len(embedded) == np.count_nonzero(computed), "one vector for each text asked for"
    if computed.any():
        result[computed] = embedded
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
    assert len(vectors) == columns.row_count, "one vector a row"
    fixed, scales = quantize(vectors)
    return replace(columns, dim=vectors.shape[1], vectors=fixed, scales=scales)


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


def _postings(rows: Sequence[Mapping[str, int]]) -> tuple[tuple[str, ...], I32, I32, U16]:
    """Term counts per row -> (terms, indptr, rows, counts), terms ascending and rows ascending within each."""
    found: dict[str, list[tuple[int, int]]] = {}
    for n, counts in enumerate(rows):
        for term, count in counts.items():
            found.setdefault(term, []).append((n, min(count, COUNT_MAX)))
    terms = tuple(sorted(found))
    sizes: NDArray[Any] = np.array([len(found[term]) for term in terms], np.int32)
    indptr = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    flat = np.array([pair for term in terms for pair in found[term]], np.int64).reshape(-1, 2)
    return terms, indptr, flat[:, 0].astype(np.int32), flat[:, 1].astype(np.uint16)
