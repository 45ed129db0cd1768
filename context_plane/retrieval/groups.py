"""Groups: the best hits of each of the best entities, for questions across entities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from context_plane.retrieval.fuse import Hit
from context_plane.retrieval.legs import Pool, TextLeg, VectorLeg
from context_plane.retrieval.order import name
from context_plane.retrieval.scope import Part

GROUP_DEPTH: Final = 1_000
"""Groups by entity are filled from so many of the best events, or from ten times those asked for; where one entity's
many events keep others out, from `GROUP_DEEPER` times as many, and again, up to `GROUP_DEPTH_MAX`, in a tenth of a
second."""
GROUP_DEEPER: Final = 8
GROUP_DEPTH_MAX: Final = 64_000


def grouped(
    pool: Pool,
    text: TextLeg | None,
    vector: VectorLeg | None,
    ordered: Callable[[int], list[Hit]],
    *,
    depth: int,
    groups: int,
    per_group: int,
) -> list[Hit]:
    """Hits of the best entities, as many as asked for, or of all that match. `ordered(depth)`: the best events, so many
    of them or all there are; asked with `depth` first, and deeper where one entity's keep others out."""
    wanted = groups
    while True:
        hits = ordered(depth)
        found = group_by_entity(pool.parts, hits, groups=groups, per_group=per_group)
        held = len({name(pool.parts, hit.part, hit.event)[0] for hit in found})
        if held >= wanted or len(hits) < depth or depth >= GROUP_DEPTH_MAX:
            return found
        wanted = min(wanted, _entities(pool, text, vector))
        if held >= wanted:
            return found
        depth = min(GROUP_DEEPER * depth, GROUP_DEPTH_MAX)


def _entities(pool: Pool, text: TextLeg | None, vector: VectorLeg | None) -> int:
    """How many entities have an event that a leg scores."""
    legs = [] if text is None else [text.event]
    legs += [] if vector is None else [np.flatnonzero(vector.approximate > -np.inf)]
    found: set[str] = set()
    for events in legs:
        part, event = pool.places(events)
        for n in np.unique(part).tolist():
            rows = pool.parts[n].rows
            found.update(rows.entities[code] for code in np.unique(rows.event_entity[event[part == n]]).tolist())
    return len(found)


def group_by_entity(parts: Sequence[Part], hits: Sequence[Hit], *, groups: int, per_group: int) -> list[Hit]:
    """Hits of the first `groups` entities in order of their best hit, the best `per_group` of each, together."""
    chosen: dict[str, list[Hit]] = {}
    for hit in hits:
        entity, _ = name(parts, hit.part, hit.event)
        group = chosen.get(entity)
        if group is None:
            if len(chosen) == groups:
                continue
            group = chosen[entity] = []
        if len(group) < per_group:
            group.append(hit)
    return [hit for group in chosen.values() for hit in group]
