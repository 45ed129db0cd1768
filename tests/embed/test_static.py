"""The shipped table: known bytes, unit rows, and vectors that do not depend on their neighbours."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context_plane.embed import static
from context_plane.embed.static import DIM, MODEL, WEIGHTS_SHA256, StaticEmbedder
from context_plane.errors import Corrupt

EMBEDDER = StaticEmbedder()
WORDS = ["export", "fails", "large", "report", "since", "upgrade", "customer", "price", "zd-8812", "東京", "naïve"]
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=5, max_size=60).map(" ".join)
TEXTS = st.lists(SENTENCES | st.text(max_size=200), min_size=1, max_size=12)


async def test_texts_of_like_meaning_are_near() -> None:
    query, near, far = await EMBEDDER.embed_documents(
        ["export of large reports fails", "the report download is broken", "our office dog likes the garden"]
    )
    assert query @ near > query @ far + 0.1


def test_model_names_the_shipped_weights() -> None:
    weights = files("context_plane.embed") / "minilm_static_256" / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == WEIGHTS_SHA256
    assert f"minilm-static-256@{WEIGHTS_SHA256[:12]}" == MODEL


def test_provenance_and_licence_ship_with_the_weights() -> None:
    folder = files("context_plane.embed") / "minilm_static_256"
    assert "all-MiniLM-L6-v2" in (folder / "README.md").read_text()
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert "Changes made" in (folder / "NOTICE").read_text()


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS)
async def test_a_vector_does_not_depend_on_its_batch(texts: list[str]) -> None:
    """Law 3: the same text has the same bytes alone, in a batch, and in the batch reversed.

    Seen to fail with a matrix product over the tokens of the batch, in their order of first use.
    """
    together = await EMBEDDER.embed_documents(texts)
    turned = await EMBEDDER.embed_documents(texts[::-1])
    for row, text in enumerate(texts):
        alone = await EMBEDDER.embed_query(text)
        assert together[row].tobytes() == alone.tobytes() == turned[len(texts) - 1 - row].tobytes()


async def test_slices_of_a_long_list_agree_with_single_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"ticket {number} about export {'again ' * (number % 7)}" for number in range(50)]
    whole = await EMBEDDER.embed_documents(texts)
    monkeypatch.setattr(static, "SLICE_TEXTS", 7)
    assert (await EMBEDDER.embed_documents(texts)).tobytes() == whole.tobytes()


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS)
async def test_rows_are_unit_length_or_zero(texts: list[str]) -> None:
    rows = await EMBEDDER.embed_documents(texts)
    assert rows.dtype == np.float32
    assert rows.shape == (len(texts), DIM)
    norms = np.linalg.norm(rows, axis=1)
    assert all(norm == 0 or abs(norm - 1) < 1e-5 for norm in norms)


@pytest.mark.parametrize("text", ["", "   \n\t", "\x00", "\U0001f9ff\U000e0001"])
async def test_a_text_without_known_tokens_is_zero(text: str) -> None:
    assert not (await EMBEDDER.embed_query(text)).any()


async def test_no_texts_no_rows() -> None:
    assert (await EMBEDDER.embed_documents([])).shape == (0, DIM)


async def test_agrees_with_model2vec() -> None:
    """The reference implementation, which averages in float16: equal to about three digits."""
    from model2vec import StaticModel

    texts = ["Export fails for large reports since the upgrade", "zd-8812", "déjà vu — naïve café", "東京の天気"]
    reference = StaticModel.from_pretrained(Path(static.__file__).parent / "minilm_static_256", force_download=False)
    expected = reference.encode(texts).astype(np.float32)
    np.testing.assert_allclose(await EMBEDDER.embed_documents(texts), expected, atol=2e-3)


async def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr(static, "_FOLDER", tmp_path)
    with pytest.raises(Corrupt) as caught:
        await StaticEmbedder().embed_query("export")
    assert caught.value.code == "corrupt_object"
