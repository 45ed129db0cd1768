"""The one order of results: score descending, then ts descending, then entity, then id, ascending.

`reach` finds what can be among the best at all, `best_first` orders it. Events are addressed by (part, event) arrays;
strings are looked at only where score and ts both tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from context_plane.retrieval.scope import Part

Index: TypeAlias = NDArray[np.int64]
Scores: TypeAlias = NDArray[np.float32] | NDArray[np.float64]

FEW_MAX: Final = 64
"""So few are sorted sooner as numbers of Python: each call of numpy costs as much as sorting ten."""
RUNS_PER_HIT: Final = 4
RUN_MIN: Final = 2
"""Runs of scores whose maxima bound the wanted depth: shorter ones save nothing against sorting all out at once."""
CODED_MIN: Final = 64
"""Shorter runs are sorted by their strings: coding the ids of a part costs a pass over all of them, once."""


def best_first(
    parts: Sequence[Part], part: Index, event: Index, score: NDArray[np.float64], depth: int | None = None
) -> Index:
    """Positions of the best `depth` (None: all) of the events given, best first.

    Independent of the order of its input: no two events share (ts, entity, id).
    """
    ts = timestamps(parts, part, event)
    if len(event) <= FEW_MAX:
        return _few_best_first(parts, part, event, score, ts)[:depth]
    order = np.lexsort((-ts, -score))
    if depth is not None and len(order) > depth:
        if depth == 0:
            return order[:0]
        order = order[: _cut(score[order], ts[order], depth)]
    order = _break_ties(parts, part, event, score, ts, order)
    return order if depth is None else order[:depth]


def _few_best_first(
    parts: Sequence[Part], part: Index, event: Index, score: NDArray[np.float64], ts: NDArray[np.int64]
) -> Index:
    keys = list(zip((-score).tolist(), (-ts).tolist(), strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    if any(keys[n] == keys[after] for n, after in pairwise(order)):
        order.sort(key=lambda n: (keys[n], name(parts, int(part[n]), int(event[n]))))
    return np.array(order, np.int64)


def timestamps(parts: Sequence[Part], part: Index, event: Index) -> NDArray[np.int64]:
    """ts_us of each event."""
    if len(parts) == 1:
        return parts[0].rows.event_ts_us[event]
    result = np.zeros(len(part), np.int64)
    for number in np.unique(part):
        chosen = part == number
        result[chosen] = parts[number].rows.event_ts_us[event[chosen]]
    return result


def name(parts: Sequence[Part], part: int, event: int) -> tuple[str, str]:
    """(entity, id) of an event."""
    rows = parts[part].rows
    return rows.entities[rows.event_entity[event]], rows.ids[event]


def _cut(score: NDArray[Any], ts: NDArray[Any], depth: int) -> int:
    """`depth`, moved on to where the tie it would split ends."""
    same = (score[depth:] == score[depth - 1]) & (ts[depth:] == ts[depth - 1])
    return depth + (len(same) if same.all() else int(np.argmin(same)))


def _break_ties(
    parts: Sequence[Part], part: Index, event: Index, score: NDArray[Any], ts: NDArray[Any], order: Index
) -> Index:
    tied = (score[order][1:] == score[order][:-1]) & (ts[order][1:] == ts[order][:-1])
    if not tied.any():
        return order
    edges = np.flatnonzero(np.diff(np.concatenate(([False], tied, [False])).astype(np.int8)))
    result = order.copy()
    for start, stop in zip(edges[::2].tolist(), (edges[1::2] + 1).tolist(), strict=True):
        result[start:stop] = _by_name(parts, part, event, order[start:stop])
    return result


def _by_name(parts: Sequence[Part], part: Index, event: Index, run: Index) -> Index:
    """A run of equal score and time, ascending by (entity, id). A long one of one part is not looked at by name."""
    owner = int(part[run[0]])
    if len(run) >= CODED_MIN and (part[run] == owner).all():
        columns, own = parts[owner].columns, event[run]
        order: Index = np.lexsort((columns.ids.code[own], columns.entity_order[columns.rows.event_entity[own]]))
        return run[order]
    names = sorted(run.tolist(), key=lambda n: name(parts, int(part[n]), int(event[n])))
    return np.array(names, np.int64)


def reach(scores: Scores, depth: int, margin: float) -> Index:
    """Places of scores (not -inf) at most `margin` below the best `depth`, ascending.

    The `depth`-th best of the maxima of disjoint runs is a score that `depth` others reach: few are left to sort out.
    """
    if depth <= 0:
        return np.zeros(0, np.int64)
    width = len(scores) // (RUNS_PER_HIT * depth)
    if width >= RUN_MIN:
        runs = np.maximum.reduce(scores[: len(scores) // width * width].reshape(-1, width), axis=1)
        floor = nth_best(runs, depth) - margin
    else:
        floor = -np.inf
    near: Index = (scores >= floor if floor > -np.inf else scores > -np.inf).nonzero()[0]
    if depth < len(near):
        held = scores.take(near)
        near = near[held >= nth_best(held, depth) - margin]
    return near


def nth_best(scores: Scores, depth: int) -> float:
    """The score that `depth` of them reach, 1 <= depth <= len(scores)."""
    ordered = scores.copy()
    ordered.partition(len(scores) - depth)
    return float(ordered[len(scores) - depth])
