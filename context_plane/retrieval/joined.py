"""Joined parts: the rows of several parts as one, because a query pays for each part it looks at.

Ranking thirty parts of ten rows costs thirty times the fixed price of one. Parts that are asked together again are
joined once and kept; scores are the same bits, since no score depends on the part that holds a row. Rows lie in the
order of the parts, so a place of the joined rows leads back to its part; the parts themselves are not held.
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
    """`columns`: the rows of the parts in turn, without texts. Nothing of it depends on a query or a snapshot."""

    columns: Columns
    names: tuple[str, ...]
    """Of each part, as the joiner calls it."""
    first_event: tuple[int, ...]
    """Of each part, then E."""

    @property
    def nbytes(self) -> int:
        return self.columns.nbytes

    def part_of(self, event: int) -> int:
        return bisect_right(self.first_event, event) - 1

    def events_of(self, part: int) -> Columns:
        """The events of one part, as `live_mask` reads them: no rows, no texts."""
        rows, chosen = self.columns.rows, slice(self.first_event[part], self.first_event[part + 1])
        return Columns(
            replace(
                rows,
                ids=rows.ids[chosen],
                event_entity=rows.event_entity[chosen],
                event_ts_us=rows.event_ts_us[chosen],
            )
        )


def join(parts: Sequence[Columns], names: Sequence[str]) -> Joined:
    """Parts hold disjoint events. Vectors, where there are any, have one dimension."""
    dim = max(part.rows.dim for part in parts)
    rows = _one_table(concat([_padded(part.rows, dim) for part in parts], day=None, vectors=dim > 0))
    columns = Columns(replace(rows, segments=()))
    if dim:
        columns.made_plane()  # here, in a thread: what is joined is asked for again
    return Joined(
        columns=columns,
        names=tuple(names),
        first_event=(0, *accumulate(part.rows.event_count for part in parts)),
    )


def _one_table(rows: Rows) -> Rows:
    """Each entity named once, ascending: parts name one each, and follow each other by day."""
    names = tuple(sorted(set(rows.entities)))
    if names == rows.entities:
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
