"""The embedding contract. Documents are embedded in builds, queries at read time.

An embedder is identified by `model` (a stable string, recorded in manifests) and `dim`. Vectors are
unit length float32; an empty text embeds to the zero vector. Same model, same text, same processor:
same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Embedder(Protocol):
    @property
    def model(self) -> str: ...

    @property
    def dim(self) -> int: ...

    async def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [len(texts), dim], rows unit length or zero. CPU work leaves the event loop."""
        ...

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        """float32 [dim]."""
        ...
