"""Planes: the high bytes of fixed-point vectors, a SIMD first pass over rows whose exact scores cost twice the memory.

A vector is `scale * v` with int16 `v = 256 * high + low`, `high` int8 in -127..127 and `low` in -128..127. A first
pass multiplies high bytes (exact int32 sums, NumKong's kernels), of small matrices with both bytes of the query, of
large ones with its high bytes alone; how far that can be from the exact score
is bounded by Cauchy-Schwarz, so whoever rescores everything within `error` of a threshold loses nothing: the
answer is that of a full exact scan, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numkong
import numpy as np
from numpy.typing import NDArray

from context_plane.index.rows import F32, I16

PACKED_BYTES_MAX: Final = 4 * 1024 * 1024
"""A packed matrix multiplies three times as fast while the processor's second cache holds it, and no faster beyond."""
SLICE_ROWS: Final = 16_384
"""Rows split at a time: the temporaries of a slice stay small beside the plane itself."""
ROUNDING: Final = 1e-5
"""Of the float32 arithmetic on a cosine, generously."""
_STEP: Final = 256


@dataclass(frozen=True, slots=True)
class PlaneQuery:
    """A query vector in fixed point: `scale * fixed`, int16 [D]."""

    fixed: I16
    scale: float


class Int8Plane:
    """The high bytes of N rows. A row of scale 0 scores 0."""

    __slots__ = ("_high_norm", "_low_norm", "_matrix", "_packed", "_scales")

    def __init__(self, vectors: I16, scales: F32) -> None:
        """`vectors` int16 [N, D] with D > 0, `scales` float32 [N]."""
        count = len(vectors)
        self._scales = scales
        self._matrix = np.empty(vectors.shape, np.int8)
        self._high_norm = self._low_norm = 0.0
        for start in range(0, count, SLICE_ROWS):
            part = slice(start, start + SLICE_ROWS)
            high, low = _split(vectors[part])
            self._matrix[part] = high
            self._high_norm = max(self._high_norm, _norm_max(high, scales[part]) * _STEP)
            self._low_norm = max(self._low_norm, _norm_max(low, scales[part]))
        small = 0 < self._matrix.nbytes <= PACKED_BYTES_MAX
        self._packed = numkong.dots_pack(self._matrix) if small else None

    @property
    def nbytes(self) -> int:
        return self._matrix.nbytes * (1 if self._packed is None else 2)

    def scores(self, query: PlaneQuery, rows: NDArray[np.intp] | None = None) -> tuple[F32, float]:
        """(approximate products float32, greatest error) of all rows, or of the rows given."""
        high, low = _split(query.fixed[None, :])
        own = np.array([query.scale], np.float32)
        query_high, query_low = _norm_max(high, own) * _STEP, _norm_max(low, own)
        if rows is None and self._packed is not None:
            both = np.asarray(numkong.dots_packed(np.concatenate([high, low.astype(np.int8)]), self._packed))
            dots = both[0] * np.float32(_STEP) + both[1]
            error, step = self._low_norm * (query_high + query_low), _STEP
        else:
            dots = _dots(self._matrix if rows is None else self._matrix.take(rows, axis=0, mode="clip"), high).astype(
                np.float32
            )
            error = self._high_norm * query_low + self._low_norm * query_high + self._low_norm * query_low
            step = _STEP * _STEP
        dots *= self._scales if rows is None else self._scales[rows]
        dots *= np.float32(query.scale * step)
        return dots, error + ROUNDING


def _dots(matrix: NDArray[np.int8], high: NDArray[np.int8]) -> NDArray[Any]:
    if not len(matrix):
        return np.zeros(0, np.int32)
    dots: NDArray[Any] = np.asarray(numkong.cdist(high, matrix, "dot"))[0]
    return dots


def _split(vectors: I16) -> tuple[NDArray[np.int8], I16]:
    high = (vectors + np.int16(_STEP // 2)) >> 8
    return high.astype(np.int8), vectors - (high << 8)


def _norm_max(values: NDArray[Any], scales: F32) -> float:
    """The greatest Euclidean norm of `scale * row`."""
    wide = values.astype(np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide)) * scales
    return float(norms.max(initial=0.0))
