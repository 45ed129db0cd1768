"""The first pass is as near to the exact products as it says, whatever the vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from context_plane.index import planes
from context_plane.index.planes import Int8Plane, PlaneQuery
from context_plane.index.rows import F32, I16, quantize, quantize_one
from context_plane.model import unit


def exact(fixed: I16, scales: F32, query: PlaneQuery) -> NDArray[Any]:
    dots: NDArray[Any] = fixed.astype(np.int64) @ query.fixed.astype(np.int64)
    return dots * scales.astype(np.float64) * query.scale


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 70),
    share=st.sampled_from([3, 4096]),
    dim=st.sampled_from([1, 3, 8, 64, 100, 384]),
    residue=st.sampled_from([None, 127, -128]),
    packed=st.booleans(),
)
def test_scores_are_within_the_error(
    seed: int, rows: int, dim: int, residue: int | None, packed: bool, share: int
) -> None:
    """With a residue every low byte pulls the same way, as far as it can: a bound without the low bytes of the query
    or of the rows fails, and so does one that takes a mean norm for the greatest."""
    rng = np.random.default_rng(seed)
    fixed, scales = quantize(rng.normal(size=(rows, dim)).astype(np.float32))
    query, scale = quantize(rng.normal(size=(1, dim)).astype(np.float32))
    if residue is not None:
        fixed = (np.clip(fixed >> 8, -126, 126) * 256 + residue).astype(np.int16)
        query = (np.clip(query >> 8, -126, 126) * 256 + residue).astype(np.int16)
    scales[rng.random(rows) < 0.1] = 0.0
    asked = PlaneQuery(query[0], float(scale[0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planes, "PACKED_BYTES_MAX", 1 << 20 if packed else 0)
        patch.setattr(planes, "SHARE_ROWS", share)
        patch.setattr(planes, "GATHER_ROWS", share)
        plane = Int8Plane(fixed, scales)
        wanted = exact(fixed, scales, asked)
        scores, error = plane.scores(asked)
        assert np.abs(scores - wanted).max() <= error
        chosen = np.flatnonzero(rng.random(rows) < 0.5)
        some, error = plane.scores(asked, chosen)
        assert len(some) == len(chosen)
        assert np.abs(some - wanted[chosen]).max(initial=0.0) <= error


def test_ordinary_vectors_have_a_small_error() -> None:
    """A bound that is always 1 would rescore everything."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(500, 256)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    fixed, scales = quantize(vectors)
    asked = PlaneQuery(fixed[0], float(scales[0]))
    assert Int8Plane(fixed, scales).scores(asked)[1] < 0.03


def test_a_query_is_quantized_as_rows_are() -> None:
    """To the bit. Seen to fail with the division in float32, and without a bound where the scale is subnormal."""
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(200, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0], vectors[1], vectors[2] = 0.0, np.eye(64)[3], np.linspace(-1, 1, 64) * 1e-40
    fixed, scales = quantize(vectors)
    for vector, row, scale in zip(vectors, fixed, scales, strict=True):
        made, own = quantize_one(vector)
        assert (made.tolist(), own) == (row.tolist(), float(scale))


@pytest.mark.parametrize("size", [1e-30, 1e-23, 1e-20, 1e-3, 1.0, 1e30])
def test_a_vector_of_any_size_keeps_its_direction(size: float) -> None:
    """Squares of small and large components are no float32. Seen to fail with the norm taken in float32: the vector
    stayed as it was, or became zero."""
    wide = np.random.default_rng(3).normal(size=64)
    assert np.abs(unit(wide * size) - wide / np.linalg.norm(wide)).max() < 1e-6
    assert not unit(np.zeros(4)).any()
