"""The default embedder: a static table, one vector per token, that ships inside the package.

A text's vector is the mean of its tokens' vectors, scaled to unit length (Tissier et al.; model2vec).
It needs no network, no key and no accelerator: thousands of texts a second on one core, 0.1 ms a query.
The files are a model2vec model (`minilm_static_256/README.md` tells its provenance); they are read with
`safetensors` and `tokenizers` directly, since importing and loading through model2vec takes 0.75 s,
three quarters of it for code that is not used here, and it averages in float16.

Each text is pooled by itself in a fixed order, so its bytes do not depend on the batch around it.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load
from tokenizers import Tokenizer

from context_plane.errors import Corrupt
from context_plane.model import Vector, unit

WEIGHTS_SHA256: Final = "752af54a759ea4069f757abc0b8e6725c171662600ef0b132c83e37920508f66"
MODEL: Final = f"minilm-static-256@{WEIGHTS_SHA256[:12]}"
DIM: Final = 256
TOKENS_MAX: Final = 512
"""The length the model was made for; a chunk has a quarter of it. Bounds memory of one text to 0.5 MiB."""
SLICE_TEXTS: Final = 1_024
"""Texts tokenized at once: bounds the memory of token lists, and is large enough to keep all cores busy."""
INLINE_CHARS_MAX: Final = 512
"""A query up to this length takes under 0.2 ms, less than a hop to a thread and back under load."""

_FOLDER: Final = Path(__file__).parent / "minilm_static_256"


@dataclass(frozen=True, slots=True)
class _Table:
    """The loaded model. `vectors`: float32 [tokens, DIM], C-contiguous."""

    tokenizer: Tokenizer
    unknown: int | None
    vectors: NDArray[np.float32]


class StaticEmbedder:
    """`Embedder` over the shipped table. Loads on first use, in about 0.1 s; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table: _Table | None = None

    @property
    def model(self) -> str:
        return MODEL

    @property
    def dim(self) -> int:
        return DIM

    async def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [len(texts), 256]; rows unit length, zero for a text without known tokens."""
        return await asyncio.to_thread(self._embed, texts)

    async def embed_query(self, text: str) -> Vector:
        """float32 [256]."""
        inline = self._table is not None and len(text) <= INLINE_CHARS_MAX
        rows = self._embed([text]) if inline else await asyncio.to_thread(self._embed, [text])
        vector: Vector = rows[0]
        return vector

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        table = self._loaded()
        rows = np.zeros((len(texts), DIM), dtype=np.float32)
        for start in range(0, len(texts), SLICE_TEXTS):
            encodings = table.tokenizer.encode_batch_fast(texts[start : start + SLICE_TEXTS], add_special_tokens=False)
            for row, encoding in enumerate(encodings, start):
                rows[row] = _pool(table, encoding.ids)
        return rows

    def _loaded(self) -> _Table:
        if self._table is None:
            with self._lock:
                if self._table is None:
                    self._table = _load(_FOLDER)
        return self._table


def _pool(table: _Table, token_ids: Sequence[int]) -> Vector:
    """Mean of the known tokens' vectors, unit length; summed in token order, whatever else is in the batch."""
    known = [token for token in token_ids if token != table.unknown]
    if not known:
        return np.zeros(DIM, dtype=np.float32)
    mean: Vector = np.add.reduce(table.vectors.take(known, axis=0), axis=0)
    mean /= len(known)
    return unit(mean)


def _load(folder: Path) -> _Table:
    """Raises `Corrupt(corrupt_object)` when the weights are not the ones the model's name stands for."""
    packed = (folder / "model.safetensors").read_bytes()
    if (found := hashlib.sha256(packed).hexdigest()) != WEIGHTS_SHA256:
        raise Corrupt("corrupt_object", "the shipped embedding table is damaged; reinstall the package", sha256=found)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS_MAX)
    vectors = np.ascontiguousarray(load(packed)["embeddings"], dtype=np.float32)
    return _Table(tokenizer=tokenizer, unknown=tokenizer.token_to_id("[UNK]"), vectors=vectors)
