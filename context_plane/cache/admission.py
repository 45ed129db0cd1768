"""What memory keeps, by bytes, so that reads of many things once push out nothing that is read again.

Three places and a memory of what left (2Q, Johnson and Shasha 1994; the rule of promotion is S3-FIFO's, Yang et
al. 2023). New entries queue in *probation*, in order of arrival. Whoever reaches its end with PROOF_HITS hits,
or comes back while its name is still remembered among the *ghosts*, moves to *protected*, which is kept by
recency; the others are dropped. So a scan passes through a tenth of the budget, and only while nothing else wants
it through more. *Pinned* entries are outside of all this, within their share. Pure, and not for several threads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

PROBATION_SHARE: Final = 0.1
"""Of the budget: S3-FIFO's tenth. Smaller forgets a newcomer before its second read, larger feeds scans."""
PROOF_HITS: Final = 2
"""One hit more than what a scan makes that looks at each thing twice."""
ENTRY_SHARE_MAX: Final = 0.5
"""Of the budget: one entry must not take the place of all others, yet what is not kept is decoded for every read:
100,000 rows of 384 dimensions, counted with their plane, fit the default budget."""
PIN_SHARE: Final = 0.25
"""Of the budget: pins of all tenants together. Three quarters always follow what is read."""
GHOST_BUDGETS: Final = 2
"""Names are remembered after their entries left, up to so many budgets' worth. One is the papers' figure; two finds
again what is read once while a scan reads a budget, and costs a hundredth or two where nothing scans."""
GHOSTS_MAX: Final = 65_536
"""Names remembered at most, as hashes: some 8 MB."""

Place: TypeAlias = Literal["probation", "protected", "pinned"]


@dataclass(slots=True)
class Entry:
    """`sources`: names of the disk entries the value was made of."""

    value: Any
    bytes: int
    sources: tuple[str, ...]
    place: Place = "probation"
    hits: int = 0


class Memory:
    """Values by name, together at most `budget_bytes` as their sizes are given."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.evictions = 0
        self.refused = 0
        """Values not kept: too large, or larger than what newcomers may take from the others."""
        self._entries: dict[str, Entry] = {}
        self._queues: dict[Place, OrderedDict[str, None]] = {}
        self._bytes: dict[Place, int] = {}
        self.clear()

    @property
    def used_bytes(self) -> int:
        return sum(self._bytes.values())

    @property
    def pinned_bytes(self) -> int:
        return self._bytes["pinned"]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def get(self, name: str) -> Entry | None:
        """The entry, which counts a hit."""
        entry = self._entries.get(name)
        if entry is not None:
            entry.hits += 1
            if entry.place == "protected":
                self._protected.move_to_end(name)
        return entry

    def put(self, name: str, value: object, size: int, sources: tuple[str, ...] = ()) -> bool:
        """Keep a value; whether it is kept. Names are of immutable things: what is here already stays."""
        if name in self._entries:
            return True
        if size > self.budget_bytes * ENTRY_SHARE_MAX:
            self.refused += 1
            return False
        kept_bytes = self._bytes["protected"] + self.pinned_bytes
        if hash(name) not in self._ghosts and kept_bytes + size > self.budget_bytes:
            self._remember(name, size)  # it could only stay in the place of what is proven
            self.refused += 1
            return False
        returns = self._ghosts.pop(hash(name), None)
        if returns is not None:
            self._ghost_bytes -= returns
        self._entries[name] = Entry(value, size, sources)
        self._place(name, "probation" if returns is None else "protected")
        while self.used_bytes > self.budget_bytes:
            self._make_room(newest=name)
        return name in self._entries

    def pin(self, name: str) -> bool:
        """Keep an entry until `unpin`; False when it is not here or the share of pins is used up."""
        entry = self._entries.get(name)
        if entry is None:
            return False
        if entry.place != "pinned":
            if self.pinned_bytes + entry.bytes > self.budget_bytes * PIN_SHARE:
                return False
            self._move(name, "pinned")
        return True

    def unpin(self, name: str) -> None:
        """From now on it is kept by recency."""
        entry = self._entries.get(name)
        if entry is not None and entry.place == "pinned":
            self._move(name, "protected")

    def proven(self) -> Iterator[str]:
        """Sources of what is pinned or protected, most recently read first."""
        for place in ("pinned", "protected"):
            for name in reversed(self._queues[place]):
                yield from self._entries[name].sources

    def clear(self) -> None:
        """Forget everything: entries, pins, and what was here before."""
        self._entries.clear()
        self._queues = {"probation": OrderedDict(), "protected": OrderedDict(), "pinned": OrderedDict()}
        self._protected = self._queues["protected"]
        self._bytes = dict.fromkeys(self._queues, 0)
        self._ghosts: OrderedDict[int, int] = OrderedDict()
        self._ghost_bytes = 0

    # --- moving ---------------------------------------------------------------------------------

    def _make_room(self, newest: str) -> None:
        """Drop or promote one entry; something is unpinned, for pins leave room for the largest entry."""
        probation = self._queues["probation"]
        over = self._bytes["probation"] > self.budget_bytes * PROBATION_SHARE
        if probation and (over or not self._protected):
            name = next(iter(probation))
            entry = self._entries[name]
            if entry.hits >= PROOF_HITS:
                self._move(name, "protected")
                return
            self._remember(name, entry.bytes)
        else:
            name = next(iter(self._protected))
        self._remove(name)
        if name == newest:
            self.refused += 1
        else:
            self.evictions += 1

    def _remember(self, name: str, size: int) -> None:
        self._ghost_bytes += size - self._ghosts.pop(hash(name), 0)
        self._ghosts[hash(name)] = size
        while self._ghost_bytes > GHOST_BUDGETS * self.budget_bytes or len(self._ghosts) > GHOSTS_MAX:
            self._ghost_bytes -= self._ghosts.popitem(last=False)[1]

    def _move(self, name: str, to: Place) -> None:
        entry = self._entries[name]
        del self._queues[entry.place][name]
        self._bytes[entry.place] -= entry.bytes
        self._place(name, to)

    def _place(self, name: str, to: Place) -> None:
        entry = self._entries[name]
        entry.place = to
        self._queues[to][name] = None
        self._bytes[to] += entry.bytes

    def _remove(self, name: str) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            del self._queues[entry.place][name]
            self._bytes[entry.place] -= entry.bytes
