"""Bytes of a range in the pieces that they were read in: to make one object of a gigabyte is to write it once more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from context_plane.store.base import Body


class Pieces:
    """What lies one behind the other. Nothing is copied before `joined`."""

    __slots__ = ("_held", "_length")

    def __init__(self, held: Sequence[Body]) -> None:
        self._held = [memoryview(piece) for piece in held]
        self._length = sum(map(len, self._held))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self._held)

    def cut(self, start: int, stop: int) -> Pieces:
        """Bytes `start` to `stop`, fewer where the pieces end first."""
        found: list[memoryview] = []
        offset = 0
        for piece in self._held:
            part = piece[max(0, start - offset) : max(0, stop - offset)]
            if len(part):
                found.append(part)
            offset += len(piece)
        return Pieces(found)

    def joined(self) -> Body:
        """As one object, copied unless they are one already."""
        return self._held[0] if len(self._held) == 1 else b"".join(self._held)
