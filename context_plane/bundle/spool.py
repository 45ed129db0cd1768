"""Spool: a day's bundles in a scratch file while their packs are not written.

The number of packs follows from the number of bundles, and a pack's bundles lie all over the key order: so all are
made before the first is packed. In memory stay names and addresses, some 300 bytes a bundle.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from context_plane.bundle.materialize import Bundle
from context_plane.bundle.pack import bucket_of


@dataclass(frozen=True, slots=True)
class Place:
    """One bundle and where its bytes lie in the file."""

    entity: str
    digest: str
    tokens: int
    offset: int
    length: int


class Spool:
    """Bundles of the day `as_of`, kept in the file `path` while the context lasts. Blocking."""

    def __init__(self, path: Path, as_of: str) -> None:
        self._file = path.open("w+b")
        self._as_of = as_of
        self._places: list[Place] = []
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def tokens(self) -> int:
        return sum(place.tokens for place in self._places)

    @property
    def digests(self) -> list[str]:
        """In the order they were added."""
        return [place.digest for place in self._places]

    def by_entity(self) -> dict[str, Place]:
        return {place.entity: place for place in self._places}

    def add(self, bundle: Bundle) -> None:
        self._file.write(bundle.body)
        size = len(bundle.body)
        self._places.append(Place(bundle.entity, bundle.digest, bundle.tokens, self._bytes, size))
        self._bytes += size

    def places(self, buckets: int) -> list[list[Place]]:
        """The places of every bucket that holds a bundle, by bucket."""
        self._file.flush()
        found: dict[int, list[Place]] = {}
        for place in self._places:
            found.setdefault(bucket_of(place.entity, buckets), []).append(place)
        return [found[bucket] for bucket in sorted(found)]

    def read(self, places: Iterable[Place]) -> list[Bundle]:
        """The bundles of these places, in order."""
        descriptor = self._file.fileno()
        return [
            Bundle(each.entity, self._as_of, os.pread(descriptor, each.length, each.offset), each.digest, each.tokens)
            for each in places
        ]
