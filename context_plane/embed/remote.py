"""Embedding over HTTP: any endpoint that speaks OpenAI's `POST {base_url}/embeddings`.

Texts go out in batches, a few at once; every attempt has a timeout, every call a bounded number of
attempts, and a `Retry-After` is honoured up to a cap. Answers are put in order by `index`, checked for
number, dimension and finite values, and scaled to unit length. Empty texts are not sent: they are zero.

Timeouts, 408, 409, 425, 429 and 5xx are retried; any other refusal is reported at once. The key is
sent, never shown. One instance belongs to one event loop, which closes it with `aclose`.
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from context_plane.errors import Invalid, Unavailable
from context_plane.model import Vector

ATTEMPTS_MAX: Final = 4
"""Past this an endpoint is down, not hiccuping; the build or the read says so and is retried as a whole."""
WAIT_S_FIRST: Final = 0.2
WAIT_S_MAX: Final = 20.0
"""Longest pause before another attempt, `Retry-After` included: a longer one is the caller's to wait."""
BATCHES_AT_ONCE: Final = 4
"""Requests in flight per call: enough to hide latency, few enough not to trip rate limits."""
RESPONSE_BYTES_MAX: Final = 64 * 1024 * 1024
"""256 vectors of 4,096 numbers in JSON are about 24 MiB; more is not an answer."""

_RETRIED: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """What an endpoint needs. `base_url` ends before `/embeddings`, such as `https://host/v1`.

    `dim`: dimension of the vectors; `send_dim`: ask for it (`dimensions`), for models that can shorten.
    `timeout_s`: one attempt. `batch_texts`: texts per request.
    """

    base_url: str
    model: str
    dim: int
    api_key: str | None = None
    send_dim: bool = False
    timeout_s: float = 20.0
    batch_texts: int = 128

    def __repr__(self) -> str:
        return f"RemoteConfig(base_url={self.base_url!r}, model={self.model!r}, dim={self.dim})"


class _Retry(Exception):
    """One attempt failed in a way that may pass. `after_s`: what the endpoint asked to wait."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class RemoteEmbedder:
    """`Embedder` over an OpenAI-compatible endpoint.

    Raises `Unavailable(embedder_unavailable)` when the endpoint fails, refuses or answers nonsense, and
    `Invalid(model_mismatch)` when its vectors are not of the configured dimension.
    """

    def __init__(self, config: RemoteConfig) -> None:
        self._config = config
        headers = {"Content-Type": "application/json"}
        if config.api_key:
            headers["Authorization"] = f"Bearer {config.api_key}"
        self._client = httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(config.timeout_s))
        self._url = f"{config.base_url.rstrip('/')}/embeddings"

    @property
    def model(self) -> str:
        return f"{self._config.model}/{self._config.dim}"

    @property
    def dim(self) -> int:
        return self._config.dim

    async def aclose(self) -> None:
        await self._client.aclose()

    async def embed_query(self, text: str) -> Vector:
        """float32 [dim]."""
        vector: Vector = (await self.embed_documents([text]))[0]
        return vector

    async def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [len(texts), dim]; rows unit length, zero for an empty text."""
        rows = np.zeros((len(texts), self.dim), dtype=np.float32)
        sent = [row for row, text in enumerate(texts) if text.strip()]
        size = self._config.batch_texts
        batches = [sent[start : start + size] for start in range(0, len(sent), size)]
        gate = asyncio.Semaphore(BATCHES_AT_ONCE)

        async def embed(batch: list[int]) -> None:
            async with gate:
                rows[batch] = await self._batch([texts[row] for row in batch])

        try:
            async with asyncio.TaskGroup() as group:
                for batch in batches:
                    group.create_task(embed(batch))
        except* (Unavailable, Invalid) as failed:
            raise failed.exceptions[0] from None
        return rows

    async def _batch(self, texts: list[str]) -> NDArray[np.float32]:
        request: dict[str, Any] = {"model": self._config.model, "input": texts, "encoding_format": "float"}
        if self._config.send_dim:
            request["dimensions"] = self._config.dim
        body = orjson.dumps(request)
        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS_MAX),
            wait=_pause_s,
            retry=retry_if_exception_type(_Retry),
            reraise=True,
        )
        try:
            answer: bytes = await retrying(self._post, body)
        except _Retry as error:
            raise Unavailable(
                "embedder_unavailable",
                f"the embedding endpoint failed {ATTEMPTS_MAX} times ({error}); retry later",
                retry_after_s=error.after_s,
                url=self._url,
            ) from error
        return await asyncio.to_thread(_vectors, answer, len(texts), self.dim, self._url)

    async def _post(self, body: bytes) -> bytes:
        """One attempt. Raises `_Retry` or `Unavailable`."""
        try:
            async with self._client.stream("POST", self._url, content=body) as response:
                if response.status_code in _RETRIED:
                    raise _Retry(f"status {response.status_code}", _retry_after_s(response.headers, time.time()))
                if response.status_code != 200:
                    raise Unavailable(
                        "embedder_unavailable",
                        "the embedding endpoint refused the request; check its address, key and model",
                        status=response.status_code,
                        url=self._url,
                    )
                parts, size = [], 0
                async for part in response.aiter_bytes():
                    parts.append(part)
                    size += len(part)
                    if size > RESPONSE_BYTES_MAX:
                        raise _nonsense(self._url, "its answer is over the size limit")
                return b"".join(parts)
        except httpx.TransportError as error:
            raise _Retry(type(error).__name__) from error


def _pause_s(state: RetryCallState) -> float:
    """Pause before the next attempt: what the endpoint asked for, else exponential with jitter; capped."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _Retry) and error.after_s is not None:
        return min(error.after_s, WAIT_S_MAX)
    return wait_exponential_jitter(multiplier=WAIT_S_FIRST, max=WAIT_S_MAX, jitter=WAIT_S_FIRST)(state)


def _retry_after_s(headers: httpx.Headers, now_s: float) -> float | None:
    """`Retry-After` in seconds or as an HTTP date (RFC 9110, section 10.2.3); None when absent or unreadable."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, TypeError, OverflowError):
        return None


def _vectors(answer: bytes, count: int, dim: int, url: str) -> NDArray[np.float32]:
    """The answer's vectors in request order: float32 [count, dim], unit length."""
    try:
        items = orjson.loads(answer)["data"]
        by_index = {int(item["index"]): item["embedding"] for item in items}
        with np.errstate(over="ignore"):  # overflow becomes infinite, refused below
            vectors = [np.asarray(by_index[index], dtype=np.float32) for index in range(count)]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise _nonsense(url, "its answer does not hold one list of numbers per text") from error
    if wrong := {vector.shape for vector in vectors} - {(dim,)}:
        raise Invalid(
            "model_mismatch",
            "the embedding endpoint answers another dimension; set the model's own and re-embed by backfill",
            expected=dim,
            found=min(wrong),
        )
    matrix = np.stack(vectors)
    if not np.isfinite(matrix).all():
        raise _nonsense(url, "its answer holds numbers that are not finite")
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    norms[norms == 0] = 1
    rows: NDArray[np.float32] = (matrix / norms).astype(np.float32, copy=False)
    return rows


def _nonsense(url: str, what: str) -> Unavailable:
    return Unavailable("embedder_unavailable", f"the embedding endpoint cannot be used: {what}", url=url)
