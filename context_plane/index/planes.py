"""Planes: the high bytes of fixed-point vectors, a SIMD first pass over rows whose exact scores cost twice the memory.

A vector is `scale * v` with int16 `v = 256 * high + low`, `high` int8 in -127..127 and `low` in -128..127. A first
pass multiplies high bytes (exact int32 sums, NumKong's kernels), of small matrices with both bytes of the query, of
large ones with its high bytes alone; how far that can be from the exact score
is bounded by Cauchy-Schwarz, so whoever rescores everything within `error` of a threshold loses nothing: the
answer is that of a full exact scan, to the bit.
"""

from __future__ import annotations

import itertools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numkong
import numpy as np
from numpy.typing import NDArray

from context_plane.index.rows import F32, I16

PACKED_BYTES_MAX: Final = 4 * 1024 * 1024
"""A packed matrix multiplies three times as fast while the processor's second cache holds it, and no faster beyond."""
SLICE_ROWS: Final = 16_384
"""Rows split at a time: the temporaries of a slice stay small beside the plane itself."""
ALIGNED: Final = 64
"""Bytes of a row are padded to full registers: kernels handle a remainder at the price of a whole one."""
WIDE_BYTES: Final = 256
"""Up to here the kernel for a packed query is faster, beyond it the one for plain rows."""
GATHER_ROWS: Final = 1_024
"""Rows copied together at a time: in 384 dimensions 384 KiB, which the second cache holds."""
SHARE_ROWS: Final = 4_096
"""Rows that are worth another thread: a tenth of a millisecond."""
THREADS_MAX: Final = 4
"""Of one pass: more only wait for memory."""
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
        count, dim = vectors.shape
        self._scales = scales
        self._matrix = np.zeros((count, -(-dim // ALIGNED) * ALIGNED), np.int8)
        self._high_norm = self._low_norm = 0.0
        for start in range(0, count, SLICE_ROWS):
            part = slice(start, start + SLICE_ROWS)
            high, low = _split(vectors[part])
            self._matrix[part, :dim] = high
            self._high_norm = max(self._high_norm, _norm_max(high, scales[part]) * _STEP)
            self._low_norm = max(self._low_norm, _norm_max(low, scales[part]))
        small = 0 < self._matrix.nbytes <= PACKED_BYTES_MAX
        self._packed = numkong.dots_pack(self._matrix) if small else None

    @property
    def nbytes(self) -> int:
        return self._matrix.nbytes * (1 if self._packed is None else 2)

    def scores(self, query: PlaneQuery, rows: NDArray[np.intp] | None = None) -> tuple[F32, float]:
        """(approximate products float32, greatest error) of all rows, or of the rows given."""
        asked = np.zeros((2, self._matrix.shape[1]), np.int8)
        asked[0, : len(query.fixed)], asked[1, : len(query.fixed)] = _split(query.fixed)
        wide = asked.astype(np.float32)
        own = np.vecdot(wide, wide).tolist()
        query_high, query_low = math.sqrt(own[0]) * query.scale * _STEP, math.sqrt(own[1]) * query.scale
        if rows is None and self._packed is not None:
            both = np.asarray(numkong.dots_packed(asked, self._packed))
            dots: F32 = np.multiply(both[0], np.float32(_STEP), dtype=np.float32, casting="same_kind")
            dots += both[1]
            dots *= self._scales
            dots *= np.float32(query.scale * _STEP)
            return dots, self._low_norm * (query_high + query_low) + ROUNDING
        error = self._high_norm * query_low + self._low_norm * query_high + self._low_norm * query_low
        return self._first_pass(asked[:1], np.float32(query.scale * _STEP * _STEP), rows), error + ROUNDING

    def _first_pass(self, high: NDArray[np.int8], scale: np.float32, rows: NDArray[np.intp] | None) -> F32:
        """Products of high bytes, the rows shared among threads."""
        count = len(self._matrix) if rows is None else len(rows)
        out = np.empty(count, np.float32)

        def share(start: int, stop: int) -> None:
            if rows is None:
                dots, scales = _dots(self._matrix[start:stop], high), self._scales[start:stop]
            else:
                dots, scales = self._gathered(rows[start:stop], high), self._scales.take(rows[start:stop])
            np.multiply(dots, scales * scale, out=out[start:stop], dtype=np.float32, casting="unsafe")

        shares = max(1, min(_threads(), count // SHARE_ROWS))
        edges = [count * n // shares for n in range(shares + 1)]
        others = [_pool().submit(share, *edge) for edge in itertools.pairwise(edges[1:])]
        share(0, edges[1])
        for other in others:
            other.result()
        return out

    def _gathered(self, rows: NDArray[np.intp], high: NDArray[np.int8]) -> NDArray[np.int32]:
        """Products of these rows, some at a time through one buffer that stays in the processor's cache."""
        dots = np.empty(len(rows), np.int32)
        buffer = np.empty((min(len(rows), GATHER_ROWS), self._matrix.shape[1]), np.int8)
        for start in range(0, len(rows), GATHER_ROWS):
            some = rows[start : start + GATHER_ROWS]
            matrix = self._matrix.take(some, axis=0, mode="clip", out=buffer[: len(some)])
            dots[start : start + len(some)] = _dots(matrix, high)
        return dots


def _dots(matrix: NDArray[np.int8], high: NDArray[np.int8]) -> NDArray[Any]:
    if not len(matrix):
        return np.zeros(0, np.int32)
    if matrix.shape[1] <= WIDE_BYTES:
        dots: NDArray[Any] = np.asarray(numkong.dots_packed(matrix, numkong.dots_pack(high)))[:, 0]
    else:
        dots = np.asarray(numkong.cdist(high, matrix, "dot"))[0]
    return dots


@cache
def _threads() -> int:
    return min(THREADS_MAX, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@cache
def _pool() -> ThreadPoolExecutor:
    """Of the process; its threads end with it."""
    return ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="first-pass")


def _split(vectors: I16) -> tuple[NDArray[np.int8], I16]:
    high = (vectors + np.int16(_STEP // 2)) >> 8
    return high.astype(np.int8), vectors - (high << 8)


def _norm_max(values: NDArray[Any], scales: F32) -> float:
    """The greatest Euclidean norm of `scale * row`."""
    wide = values.astype(np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide)) * scales
    return float(norms.max(initial=0.0))
