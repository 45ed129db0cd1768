"""Joined parts: the rows of several parts as one, because a query pays for each part it looks at.

Ranking thirty parts of ten rows costs thirty times the fixed price of one. Parts that are asked together again are
joined once and kept; scores are the same bits, since no score depends on the part that holds a row. Rows lie in the
order of the parts, so a place of the joined rows leads back to its part.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from context_plane.index.rows import Rows, concat
from context_plane.retrieval.columns import Columns


@dataclass(frozen=True, slots=True)
class Joined:
    """`columns`: the rows of `parts` in turn, without texts. Nothing of it depends on a query or a snapshot."""

    columns: Columns
    parts: tuple[Columns, ...]
    names: tuple[str, ...]
    """Of each part, as the joiner calls it."""
    first_event: tuple[int, ...]
    """Of each part, then E."""
    first_row: tuple[int, ...]
    """Of each part, then N."""

    @property
    def nbytes(self) -> int:
        """About what the copy takes beside its parts."""
        rows = self.columns.rows
        return rows.vectors.nbytes * 3 // 2 + rows.post_rows.nbytes * 2 + rows.event_count * 100

    def place(self, event: int, row: int) -> tuple[int, int, int]:
        """(part, its event, its row) of an event and a row of the joined columns."""
        part = bisect_right(self.first_event, event) - 1
        return part, event - self.first_event[part], row - self.first_row[part]


def join(parts: Sequence[Columns], names: Sequence[str]) -> Joined:
    """Parts hold disjoint events. Vectors, where there are any, have one dimension."""
    dim = max(part.rows.dim for part in parts)
    rows = _one_table(concat([_padded(part.rows, dim) for part in parts], day=None, vectors=dim > 0))
    return Joined(
        columns=Columns(rows),
        parts=tuple(parts),
        names=tuple(names),
        first_event=_firsts([part.rows.event_count for part in parts]),
        first_row=_firsts([part.rows.row_count for part in parts]),
    )


def _one_table(rows: Rows) -> Rows:
    """Each entity named once: joined parts name one once each."""
    names = tuple(sorted(set(rows.entities)))
    if len(names) == len(rows.entities):
        return rows
    place = {name: n for n, name in enumerate(names)}
    code = np.fromiter((place[name] for name in rows.entities), np.int32, len(rows.entities))
    return replace(rows, entities=names, event_entity=code[rows.event_entity])


def _padded(rows: Rows, dim: int) -> Rows:
    """Rows without vectors get zero ones: scale 0 marks them."""
    if rows.dim == dim:
        return rows
    count = rows.row_count
    return replace(rows, dim=dim, vectors=np.zeros((count, dim), np.int16), scales=np.zeros(count, np.float32))


def _firsts(counts: Sequence[int]) -> tuple[int, ...]:
    return (0, *accumulate(counts))
