"""The remote embedder against a real HTTP server on this machine: order, batches, retries, refusals."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from context_plane.embed import remote
from context_plane.embed.remote import ATTEMPTS_MAX, RemoteConfig, RemoteEmbedder
from context_plane.errors import Invalid, Unavailable

DIM = 8


def vector_of(text: str) -> list[float]:
    """A text's vector on the fake endpoint: not unit length, different for every text."""
    return [float(value) for value in np.random.default_rng(len(text)).normal(size=DIM) * 3]


def answer_of(texts: list[str]) -> dict[str, Any]:
    """An OpenAI answer; its items are out of order, as the contract allows."""
    items = [{"object": "embedding", "index": index, "embedding": vector_of(text)} for index, text in enumerate(texts)]
    return {"object": "list", "data": items[::-1]}


@dataclass
class Endpoint:
    """A running endpoint. `script`: answers given before the normal ones, first to last."""

    base_url: str
    script: list[Callable[[list[str]], Response]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    def embedder(self, **changes: Any) -> RemoteEmbedder:
        settings: dict[str, Any] = {"base_url": self.base_url, "model": "m", "dim": DIM, "batch_texts": 3, **changes}
        return RemoteEmbedder(RemoteConfig(**settings))


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    found = Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    app = FastAPI()

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        body = await request.json()
        found.requests.append(body)
        found.keys.append(request.headers.get("authorization"))
        if found.script:
            return found.script.pop(0)(body["input"])
        return JSONResponse(answer_of(body["input"]))

    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 -- uvicorn offers a flag, no event
        await asyncio.sleep(0.005)
    yield found
    server.should_exit = True
    await serving


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAIT_S_FIRST", 0.001)
    monkeypatch.setattr(remote, "WAIT_S_MAX", 0.01)


def status(code: int, **headers: str) -> Callable[[list[str]], Response]:
    return lambda texts: Response(status_code=code, headers=headers)


async def test_rows_follow_the_texts_over_batches(endpoint: Endpoint) -> None:
    texts = ["x" * size for size in range(1, 9)]
    embedder = endpoint.embedder(api_key="secret", send_dim=True)
    rows = await embedder.embed_documents(texts)
    await embedder.aclose()
    for text, row in zip(texts, rows, strict=True):
        expected = np.array(vector_of(text), dtype=np.float32)
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), rtol=1e-5)
    assert sorted(len(request["input"]) for request in endpoint.requests) == [2, 3, 3]
    assert {request["dimensions"] for request in endpoint.requests} == {DIM}
    assert set(endpoint.keys) == {"Bearer secret"}


async def test_empty_texts_are_zero_and_not_sent(endpoint: Endpoint) -> None:
    embedder = endpoint.embedder()
    rows = await embedder.embed_documents(["", "abc", " \n"])
    await embedder.aclose()
    assert not rows[[0, 2]].any()
    assert [request["input"] for request in endpoint.requests] == [["abc"]]


@pytest.mark.parametrize("code", [408, 429, 500, 503])
async def test_a_passing_failure_is_retried(endpoint: Endpoint, code: int) -> None:
    endpoint.script = [status(code), status(code, **{"Retry-After": "0"})]
    embedder = endpoint.embedder()
    assert (await embedder.embed_query("abc")).any()
    await embedder.aclose()
    assert len(endpoint.requests) == 3


async def test_attempts_are_bounded_and_the_wait_is_told(endpoint: Endpoint) -> None:
    endpoint.script = [status(429, **{"Retry-After": "7"})] * 20
    embedder = endpoint.embedder()
    with pytest.raises(Unavailable) as caught:
        await embedder.embed_query("abc")
    await embedder.aclose()
    assert caught.value.code == "embedder_unavailable"
    assert caught.value.retry_after_s == 7
    assert len(endpoint.requests) == ATTEMPTS_MAX


@pytest.mark.parametrize("code", [400, 401, 404])
async def test_a_refusal_is_not_retried_and_hides_the_key(endpoint: Endpoint, code: int) -> None:
    endpoint.script = [status(code)] * 20
    embedder = endpoint.embedder(api_key="hunter2")
    with pytest.raises(Unavailable) as caught:
        await embedder.embed_query("abc")
    await embedder.aclose()
    assert "hunter2" not in str(caught.value)
    assert len(endpoint.requests) == 1


async def test_a_wrong_dimension_is_a_mismatch(endpoint: Endpoint) -> None:
    embedder = endpoint.embedder(dim=DIM + 1)
    with pytest.raises(Invalid) as caught:
        await embedder.embed_documents(["a", "b"])
    await embedder.aclose()
    assert caught.value.code == "model_mismatch"


@pytest.mark.parametrize(
    "answer",
    [
        Response("not json"),
        JSONResponse({"data": []}),
        JSONResponse({"error": "no"}),
        JSONResponse({"data": [{"index": 0, "embedding": ["x"] * DIM}]}),
        Response('{"data": [{"index": 0, "embedding": [1e39, 0, 0, 0, 0, 0, 0, 0]}]}'),
    ],
)
async def test_nonsense_is_unavailable(endpoint: Endpoint, answer: Response) -> None:
    endpoint.script = [lambda texts: answer]
    embedder = endpoint.embedder()
    with pytest.raises(Unavailable) as caught:
        await embedder.embed_query("abc")
    await embedder.aclose()
    assert caught.value.code == "embedder_unavailable"


async def test_an_oversized_answer_is_refused(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RESPONSE_BYTES_MAX", 100)
    embedder = endpoint.embedder()
    with pytest.raises(Unavailable, match="size limit"):
        await embedder.embed_query("abc")
    await embedder.aclose()


async def test_nobody_there_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        embedder = RemoteEmbedder(RemoteConfig(f"http://127.0.0.1:{unused.getsockname()[1]}/v1", "m", DIM))
        with pytest.raises(Unavailable):
            await embedder.embed_query("abc")
        await embedder.aclose()


async def test_a_silent_endpoint_times_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    embedder = RemoteEmbedder(RemoteConfig(f"http://127.0.0.1:{port}/v1", "m", DIM, timeout_s=0.02))
    with pytest.raises(Unavailable, match="ReadTimeout"):
        await embedder.embed_query("abc")
    await embedder.aclose()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("Thu, 01 Jan 1970 00:01:00 GMT", 50.0), ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0), ("soon", None)],
)
def test_retry_after_is_read_in_both_forms(value: str, seconds: float | None) -> None:
    assert remote._retry_after_s(httpx.Headers({"Retry-After": value}), 10.0) == seconds


def test_a_config_does_not_show_its_key() -> None:
    assert "hunter2" not in repr(RemoteConfig("http://h/v1", "m", 3, api_key="hunter2"))
