"""From settings to an embedder, and the memo of queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import SecretStr, ValidationError

from context_plane.embed import open as opening
from context_plane.embed.base import Embedder
from context_plane.embed.open import EmbedderSettings, MemoizedEmbedder, open_embedder
from context_plane.embed.static import MODEL


class Counting:
    """An embedder that counts the queries it is asked."""

    model = "counting"
    dim = 2

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.ones((len(texts), 2), dtype=np.float32)

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        self.asked.append(text)
        return np.array([len(text), 1], dtype=np.float32)


async def test_the_default_is_the_shipped_table() -> None:
    embedder: Embedder = open_embedder(EmbedderSettings())
    assert (embedder.model, embedder.dim) == (MODEL, 256)
    assert (await embedder.embed_query("export")).any()


async def test_remote_takes_its_settings() -> None:
    settings = EmbedderSettings(kind="remote", base_url="http://h/v1", model="m", dim=7, api_key=SecretStr("hunter2"))
    embedder = open_embedder(settings)
    assert (embedder.model, embedder.dim) == ("m/7", 7)
    assert "hunter2" not in repr(settings)
    await embedder.aclose()


@pytest.mark.parametrize("missing", ["base_url", "model", "dim"])
def test_remote_settings_are_complete(missing: str) -> None:
    given = {"base_url": "http://h/v1", "model": "m", "dim": 7}
    with pytest.raises(ValidationError, match="needs base_url, model and dim"):
        EmbedderSettings.model_validate({"kind": "remote", **{k: v for k, v in given.items() if k != missing}})


async def test_a_query_is_embedded_once_and_shared_read_only() -> None:
    inner = Counting()
    memo = MemoizedEmbedder(inner)
    first = await memo.embed_query("a")
    assert await memo.embed_query("a") is first
    assert inner.asked == ["a"]
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0


async def test_the_memo_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "QUERY_MEMO_TEXTS_MAX", 2)
    monkeypatch.setattr(opening, "QUERY_MEMO_CHARS_MAX", 3)
    inner = Counting()
    memo = MemoizedEmbedder(inner)
    for text in ("a", "b", "a", "c", "a", "b", "long", "long"):
        await memo.embed_query(text)
    assert inner.asked == ["a", "b", "c", "b", "long", "long"]
