"""Strategies of events and writes, and ways to damage bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from context_plane.model import AttrValue, Delete, Event, Put, Write, day_start_us

DAY = "2026-03-04"
START = day_start_us(DAY)
DAY_US = 86_400_000_000

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
attr_values: st.SearchStrategy[AttrValue] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.lists(texts, max_size=3),
)
vectors = st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3).map(lambda v: np.asarray(v, np.float32))


def events(entity: str = "acct-1", day_start_us: int = START) -> st.SearchStrategy[Event]:
    return st.builds(
        Event,
        entity=st.just(entity),
        ts_us=st.integers(day_start_us, day_start_us + DAY_US - 1),
        id=texts,
        source=texts,
        kind=texts,
        thread=st.one_of(st.none(), texts),
        text=st.one_of(st.none(), texts),
        attrs=st.one_of(st.none(), st.dictionaries(texts, attr_values, min_size=1, max_size=4)),
        vector=st.one_of(st.none(), vectors),
    )


def event_lists(entity: str = "acct-1") -> st.SearchStrategy[list[Event]]:
    """Events of one entity and day, each id once, in no order."""
    return st.lists(events(entity), min_size=1, max_size=6, unique_by=lambda event: event.id)


writes: st.SearchStrategy[Write] = st.one_of(
    st.sampled_from(["acct-1", "a/b", "é"]).flatmap(
        lambda entity: st.integers(0, 2).flatmap(lambda n: events(entity, START + n * DAY_US).map(Put))
    ),
    st.builds(Delete, st.sampled_from(["acct-1", "a/b"]), st.integers(0, START), texts),
)


@st.composite
def damaged(draw: st.DrawFn, stored: bytes) -> bytes:
    """The bytes cut short or with one bit flipped."""
    if draw(st.booleans()):
        return stored[: draw(st.integers(0, len(stored) - 1))]
    at, bit = draw(st.integers(0, len(stored) - 1)), draw(st.integers(0, 7))
    return stored[:at] + bytes([stored[at] ^ (1 << bit)]) + stored[at + 1 :]
