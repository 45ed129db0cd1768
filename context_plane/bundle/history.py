"""History: what a bundle is made of, and what it asks of the search engine.

A history is one entity's blocks (`Rows` with texts) over the look-back: day blocks, blocks of a rollup, or
tail rows, in any split. The timeline is the same events as one ordered list, which is why the split does
not matter. Ranking and the filter language live above this package and are handed in as a `Retrieval`.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from context_plane.bundle.spec import Weights
from context_plane.index.rows import DIGEST_BYTES, Rows
from context_plane.model import AttrValue, Vector, day_of


@dataclass(frozen=True, slots=True)
class Part:
    """One block of the entity. `live` [E] drops masked events (tombstones, identities the tail rewrites)."""

    rows: Rows
    live: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class History:
    """Blocks of one entity; no event is live in two of them."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class EvidenceQuery:
    """One ranking to make: `where` is what `Retrieval.parse_where` gave. The window is since <= ts < until."""

    text: str | None
    vector: Vector | None
    mode: Literal["hybrid", "text", "vector"]
    where: Any | None
    since_us: int
    until_us: int
    limit: int
    weights: Weights


@dataclass(frozen=True, slots=True)
class EvidenceHit:
    """A ranked event: its part and event number there, its best chunk's characters, and each leg's score."""

    part: int
    event: int
    start: int
    stop: int
    scores: Mapping[str, float]


class Retrieval(Protocol):
    """Ranking and filters as bundles use them. Pure: same arguments, same answer."""

    def parse_where(self, where: object) -> Any:
        """API JSON -> a parsed filter. Raises `Invalid(where_invalid)`."""
        ...

    def matches(self, where: Any, rows: Rows) -> NDArray[np.bool_]:
        """bool [E]: which events of `rows` pass. Looks at event columns only, never at rows or postings."""
        ...

    def rank(self, history: History, query: EvidenceQuery) -> Sequence[EvidenceHit]:
        """Best first, at most `limit`; ties by (ts, id) descending then ascending, as in search."""
        ...


class Entry(NamedTuple):
    """One event of the timeline."""

    ts_us: int
    id: str
    part: int
    event: int
    source: str
    kind: str
    thread: str | None
    attrs: Mapping[str, AttrValue]
    text: str | None

    @property
    def day(self) -> str:
        return day_of(self.ts_us)


_NO_ATTRS: Mapping[str, AttrValue] = {}


@dataclass(frozen=True, slots=True)
class Timeline:
    """The live events of a window, ascending by (ts, id)."""

    history: History
    entries: tuple[Entry, ...]
    times: tuple[int, ...]

    def since(self, ts_us: int) -> int:
        """Position of the first event at or after a time."""
        return bisect.bisect_left(self.times, ts_us)

    def digest(self, position: int) -> str:
        """First 16 bytes, hex, of the event's digest."""
        entry = self.entries[position]
        digest: bytes = self.history.parts[entry.part].rows.event_digest[entry.event].tobytes()
        return digest.hex()


def timeline(history: History, since_us: int, until_us: int) -> Timeline:
    """Events of since <= ts < until as one list, whatever blocks they came in."""
    found: list[Entry] = []
    for number, part in enumerate(history.parts):
        rows = part.rows
        assert rows.texts is not None, "a history holds entity blocks, with texts"
        live = None if part.live is None else part.live.tolist()
        sources, kinds = rows.event_source.tolist(), rows.event_kind.tolist()
        for index, ts_us in enumerate(rows.event_ts_us.tolist()):
            if since_us <= ts_us < until_us and (live is None or live[index]):
                found.append(
                    Entry(
                        ts_us,
                        rows.ids[index],
                        number,
                        index,
                        rows.sources[sources[index]],
                        rows.kinds[kinds[index]],
                        rows.threads[index],
                        rows.attrs[index] or _NO_ATTRS,
                        rows.texts[index],
                    )
                )
    found.sort(key=lambda entry: (entry.ts_us, entry.id))
    return Timeline(history, tuple(found), tuple(entry.ts_us for entry in found))


def event_columns(line: Timeline, entity: str) -> Rows:
    """The timeline's events as `Rows` without rows, terms or vectors: what a filter is evaluated on."""
    entries = line.entries
    sources, kinds = sorted({e.source for e in entries}), sorted({e.kind for e in entries})
    source_of, kind_of = {s: n for n, s in enumerate(sources)}, {k: n for n, k in enumerate(kinds)}
    parts = line.history.parts
    digests = [parts[e.part].rows.event_digest[e.event] for e in entries]
    lines = [int(parts[e.part].rows.event_line[e.event]) for e in entries]
    none32, none16 = np.zeros(0, np.int32), np.zeros(0, np.uint16)
    return Rows(
        day=None,
        entities=(entity,),
        sources=tuple(sources),
        kinds=tuple(kinds),
        ids=tuple(e.id for e in entries),
        threads=tuple(e.thread for e in entries),
        attrs=tuple(e.attrs or None for e in entries),
        texts=tuple(e.text for e in entries),
        event_entity=np.zeros(len(entries), np.int32),
        event_ts_us=np.array(line.times, np.int64),
        event_source=np.array([source_of[e.source] for e in entries], np.uint16),
        event_kind=np.array([kind_of[e.kind] for e in entries], np.uint16),
        event_line=np.array(lines, np.int32),
        event_digest=np.array(digests, np.uint8).reshape(-1, DIGEST_BYTES),
        row_event=none32,
        row_start=none32,
        row_stop=none32,
        row_terms=none32,
        terms=(),
        post_indptr=np.zeros(1, np.int32),
        post_rows=none32,
        post_counts=none16,
        dim=0,
        scales=np.zeros(0, np.float32),
        vectors=np.zeros((0, 0), np.int16),
    )
