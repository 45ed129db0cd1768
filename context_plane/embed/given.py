"""The embedder of tenants whose callers bring every vector: it names the model and knows its dimension.

For vectors of models this process cannot run, and for those that are no text's at all. It embeds nothing:
an event without a vector of its own is indexed without one, and a query that needs one must bring it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from context_plane.errors import Invalid
from context_plane.model import Vector


class GivenEmbedder:
    """`Embedder` without a model. `name` is what made the callers' vectors; it is recorded with the dimension."""

    def __init__(self, name: str, dim: int) -> None:
        self._model = f"{name}/{dim}"
        self._dim = dim

    @property
    def model(self) -> str:
        return self._model

    @property
    def dim(self) -> int:
        return self._dim

    async def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [len(texts), dim], all zero: no text has a vector."""
        return np.zeros((len(texts), self._dim), dtype=np.float32)

    async def embed_query(self, text: str) -> Vector:
        """Raises `Invalid(vector_missing)`."""
        raise Invalid(
            "vector_missing",
            "no text is embedded here; send the query's vector too, or search with mode text",
            model=self._model,
            dimension=self._dim,
        ).located("vector")
