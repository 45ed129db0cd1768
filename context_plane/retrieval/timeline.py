"""Timelines: events of a scope in order of time, without ranking. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from context_plane.retrieval.order import Index, name, timestamps
from context_plane.retrieval.scope import Part, filter_mask, scope_mask
from context_plane.retrieval.where import Where

Position: TypeAlias = tuple[int, str, str]
"""(ts_us, entity, id): where a page ended. It names no part, so it outlives a publish."""


@dataclass(frozen=True, slots=True)
class EventRef:
    """`part` indexes the parts given, `event` that part's events."""

    part: int
    event: int


def select_events(
    parts: Sequence[Part],
    *,
    entities: frozenset[str] | None = None,
    since_us: int | None = None,
    until_us: int | None = None,
    where: Where | None = None,
    newest_first: bool = True,
    after: Position | None = None,
    limit: int,
) -> list[EventRef]:
    """The first `limit` events by (ts, entity, id), or by its exact reverse when `newest_first`.

    With `after`, those strictly past that position in the order asked for.
    """
    part, event = _chosen(parts, entities, since_us, until_us, where)
    sign = -1 if newest_first else 1
    time = sign * timestamps(parts, part, event)
    kept = np.ones(len(time), np.bool_)
    if after is not None:
        kept = time > sign * after[0]
        for n in np.flatnonzero(time == sign * after[0]).tolist():
            here = name(parts, int(part[n]), int(event[n]))
            kept[n] = here < after[1:] if newest_first else here > after[1:]
    if np.count_nonzero(kept) > limit:
        kept &= time <= np.partition(time[kept], limit)[limit]
    found = [
        ((int(sign * time[n]), *name(parts, int(part[n]), int(event[n]))), EventRef(int(part[n]), int(event[n])))
        for n in np.flatnonzero(kept).tolist()
    ]
    found.sort(key=lambda each: each[0], reverse=newest_first)
    return [ref for _, ref in found[:limit]]


def _chosen(
    parts: Sequence[Part],
    entities: frozenset[str] | None,
    since_us: int | None,
    until_us: int | None,
    where: Where | None,
) -> tuple[Index, Index]:
    """(part, event) of everything in scope that passes the filter."""
    owner, chosen = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for number, part in enumerate(parts):
        mask = filter_mask(part, scope_mask(part, entities, since_us, until_us), where)
        events = np.arange(part.rows.event_count) if mask is None else np.flatnonzero(mask)
        chosen.append(events)
        owner.append(np.full(len(events), number, np.int64))
    return np.concatenate(owner), np.concatenate(chosen)
