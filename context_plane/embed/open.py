"""From settings to an embedder: the one place that knows every implementation.

Queries are memoized by text: agents ask the same thing for many entities, and a remote endpoint costs
a round trip each time. Vectors handed out are read-only, since they are shared.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, Self, assert_never

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from context_plane.embed.base import Embedder
from context_plane.model import VECTOR_DIM_MAX, Vector

QUERY_MEMO_TEXTS_MAX: Final = 4_096
"""Vectors kept per process: at most 16 MiB at 1,024 dimensions, and hours of an agent's distinct questions."""
QUERY_MEMO_CHARS_MAX: Final = 8_192
"""Longer texts (no search takes them) are embedded each time: they would not fit the memo's budget."""


class EmbedderSettings(BaseModel):
    """Which embedder. `remote` and `given` need settings of their own, which `static` and `onnx` ignore."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["static", "onnx", "remote", "given"] = "static"
    base_url: str | None = Field(default=None, description="OpenAI-compatible, up to /v1; `/embeddings` is appended")
    api_key: SecretStr | None = None
    model: str | None = Field(default=None, description="model name as the endpoint knows it, or of the given vectors")
    dim: int | None = Field(default=None, ge=1, le=VECTOR_DIM_MAX, description="dimension of those vectors")
    send_dim: bool = Field(default=False, description="ask the endpoint for `dim`; only some models can")
    timeout_s: float = Field(default=20.0, gt=0, le=300, description="one attempt")
    batch_texts: int = Field(default=128, ge=1, le=256, description="texts per request")

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.kind == "remote" and not (self.base_url and self.model and self.dim):
            raise ValueError("a remote embedder needs base_url, model and dim")
        if self.kind == "given" and not (self.model and self.dim):
            raise ValueError("given vectors need model and dim: the name of what made them and their dimension")
        return self


class MemoizedEmbedder:
    """An `Embedder` that remembers the vectors of recent queries (least recently used go first)."""

    def __init__(self, inner: Embedder, close: Callable[[], Awaitable[None]] | None = None) -> None:
        self._inner = inner
        self._close = close
        self._memo: LRUCache[str, Vector] = LRUCache(QUERY_MEMO_TEXTS_MAX)

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def dim(self) -> int:
        return self._inner.dim

    async def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return await self._inner.embed_documents(texts)

    async def embed_query(self, text: str) -> Vector:
        """float32 [dim], read-only. Concurrent first asks may embed twice; they agree."""
        if (known := self._memo.get(text)) is not None:
            return known
        vector = await self._inner.embed_query(text)
        vector.flags.writeable = False
        if len(text) <= QUERY_MEMO_CHARS_MAX:
            self._memo[text] = vector
        return vector

    def clear(self) -> None:
        """Forget the vectors of recent queries."""
        self._memo.clear()

    async def aclose(self) -> None:
        """Release the connections of a remote embedder."""
        if self._close is not None:
            await self._close()


def open_embedder(settings: EmbedderSettings) -> MemoizedEmbedder:
    """The embedder the settings name, queries memoized. Reads no file and opens no connection yet.

    Raises `Invalid(settings_invalid)` when `onnx` is asked for and its extra is not installed.
    """
    match settings.kind:
        case "static":
            from context_plane.embed.static import StaticEmbedder

            return MemoizedEmbedder(StaticEmbedder())
        case "onnx":
            from context_plane.embed.onnx import OnnxEmbedder

            return MemoizedEmbedder(OnnxEmbedder())
        case "remote":
            from context_plane.embed.remote import RemoteConfig, RemoteEmbedder

            assert settings.base_url, "checked by the settings"
            assert settings.model, "checked by the settings"
            assert settings.dim, "checked by the settings"
            remote = RemoteEmbedder(
                RemoteConfig(
                    base_url=settings.base_url,
                    model=settings.model,
                    dim=settings.dim,
                    api_key=settings.api_key.get_secret_value() if settings.api_key else None,
                    send_dim=settings.send_dim,
                    timeout_s=settings.timeout_s,
                    batch_texts=settings.batch_texts,
                )
            )
            return MemoizedEmbedder(remote, remote.aclose)
        case "given":
            from context_plane.embed.given import GivenEmbedder

            assert settings.model, "checked by the settings"
            assert settings.dim, "checked by the settings"
            return MemoizedEmbedder(GivenEmbedder(settings.model, settings.dim))
    assert_never(settings.kind)
