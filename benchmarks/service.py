"""The product's service in a process of its own, over a store that a corpus was loaded into.

    asyncio.run(build_store(url, corpus))
    with service(url, cache_dir, embedder=embedder_of(corpus)) as served:
        open_loop(served.url, [served.search(question) for question in questions], 40)

One tenant, `bench`, and an API key of its own: a request is authenticated as it is for customers.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal
from unittest.mock import patch

import httpx
import orjson

from benchmarks.corpus import Corpus, Question
from benchmarks.load import Request
from commands.processes import LOOPBACK, await_answer, child, free_port
from context_plane import plane
from context_plane.access import create_key
from context_plane.embed.open import EmbedderSettings
from context_plane.model import Event, Put, format_time
from context_plane.plane import Plane
from context_plane.recall.values import Include, SearchRequest
from context_plane.retrieval.fuse import Mode
from context_plane.retrieval.snapshots import Consistency
from context_plane.settings import Settings
from context_plane.tenants import TenantSettings, put_tenant

TENANT: Final = "bench"
WRITE_EVENTS: Final = 5_000
"""Events of one write: the vectors of twice as many would be over the limit of a request."""
EVENT_BYTES: Final = 2_000
WHOLE: Final[tuple[Include, ...]] = ("text", "attrs")
"""What a hit holds when a request does not say."""


@dataclass(frozen=True, slots=True)
class Served:
    """A running service. `key`: a token of the tenant, scopes read and write."""

    url: str
    tenant: str
    key: str
    pid: int
    headers: tuple[tuple[str, str], ...] = field(repr=False, default=())

    def post(self, path: str, body: Any, prepare: Request | None = None) -> Request:
        """A JSON request below the tenant's path."""
        return Request("POST", f"/v1/tenants/{self.tenant}/{path}", orjson.dumps(body), self.headers, prepare)

    def get(self, path: str, prepare: Request | None = None) -> Request:
        return Request("GET", f"/v1/tenants/{self.tenant}/{path}", b"", self.headers, prepare)

    def search(
        self,
        question: Question,
        *,
        mode: Mode = "hybrid",
        consistency: Consistency = "eventual",
        vector: bool = True,
        include: Sequence[Include] = WHOLE,
        prepare: Request | None = None,
        **more: Any,
    ) -> Request:
        """`vector` False: the question's text alone, embedded by the service."""
        body = search_body(question, mode=mode, consistency=consistency, vector=vector, include=include)
        return self.post("search", {**body, **more}, prepare)

    def emptying(self, *, access: bool = False) -> Request:
        """Empties every cache, as the `prepare` of a cold request. `access`: keys and tenant records too."""
        return Request("POST", "/bench/empty-caches" + ("?access=1" if access else ""))

    def empty_caches(self, *, access: bool = False) -> None:
        self._bench(self.emptying(access=access).path)

    def peak_mb(self) -> float:
        """Peak of resident memory since the last call, MiB."""
        return float(self._bench("/bench/peak-memory")["peak_mb"])

    def _bench(self, path: str) -> dict[str, Any]:
        answer = httpx.post(self.url + path, timeout=60.0)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def service(
    store_url: str,
    cache_dir: Path,
    *,
    embedder: EmbedderSettings | None = None,
    environment: Mapping[str, str] | None = None,
    **settings: int | str,
) -> Iterator[Served]:
    """The product serving `store_url` on loopback until the block ends; ready, with an API key.

    `settings`: of `context_plane.settings.Settings`, such as `cache_memory_bytes`. `environment`: of the child
    beside this process's own, such as `AWS_*`.
    """
    embedder = embedder or EmbedderSettings()
    variables = {
        "CONTEXT_PLANE_STORE": store_url,
        "CONTEXT_PLANE_CACHE_DIR": str(cache_dir),
        "CONTEXT_PLANE_EMBEDDER": embedder.model_dump_json(exclude_defaults=True),
        **{f"CONTEXT_PLANE_{name.upper()}": str(value) for name, value in settings.items()},
    }
    with patch.dict(os.environ, environment or {}):  # the store is opened here too, for the key
        token = asyncio.run(_admitted(Settings(store=store_url, cache_dir=cache_dir, embedder=embedder)))
    with _entry(cache_dir / "service.log", {**variables, **(environment or {})}) as (url, pid):
        yield Served(url, TENANT, token, pid, (*JSON, ("authorization", f"Bearer {token}")))


@contextmanager
def bare(body: bytes) -> Iterator[str]:
    """A bare ASGI app under the product's server settings that answers everything with `body`; its URL."""
    with bare_process(body) as (url, _):
        yield url


@contextmanager
def bare_process(body: bytes) -> Iterator[tuple[str, int]]:
    """The same with its process id."""
    with tempfile.TemporaryDirectory(prefix="context-plane-") as name:
        folder = Path(name)
        (folder / "body").write_bytes(body)
        variables = {"CONTEXT_PLANE_STORE": (folder / "store").as_uri()}
        with _entry(folder / "bare.log", variables, str(folder / "body")) as found:
            yield found


JSON: Final = (("content-type", "application/json"),)


@contextmanager
def _entry(log: Path, environment: Mapping[str, str], *more: str) -> Iterator[tuple[str, int]]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.entry", LOOPBACK, str(port), *more]
    with child(command, log=log, environment={"PYTHONPATH": os.pathsep.join(sys.path), **environment}) as process:
        url = f"http://{LOOPBACK}:{port}"
        await_answer(f"{url}/readyz", process, log)
        yield url, process.pid


async def _admitted(settings: Settings) -> str:
    """A key of the tenant, which exists then."""
    async with plane.open(settings, probe_store=False) as opened:
        await put_tenant(opened.engine, TENANT, TenantSettings())
        return (await create_key(opened.engine, tenant=TENANT, scopes=["read", "write"], note="benchmark")).token


# --- stores -------------------------------------------------------------------------------------


def embedder_of(corpus: Corpus) -> EmbedderSettings:
    """The default model, or none for a corpus that brings its vectors."""
    return EmbedderSettings(kind="given", model="bench", dim=corpus.dim) if corpus.given else EmbedderSettings()


async def build_store(store_url: str, cache_dir: Path, corpus: Corpus, *, specs: Sequence[str] = ()) -> None:
    """Load and build a corpus into an empty store, day by day; months are merged where the shape says so.

    `specs`: bundles to make for the newest day.
    """
    settings = Settings(store=store_url, cache_dir=cache_dir, embedder=embedder_of(corpus))
    async with plane.open(settings, probe_store=False) as opened:
        await put_tenant(opened.engine, TENANT, TenantSettings())
        days = await _build_days(opened, corpus.events)
        if corpus.shape.rolled:
            for month in sorted({day[:7] for day in days}):
                await opened.roll_up(TENANT, month)
        for spec in specs:
            await opened.materialize(TENANT, spec, days[-1])


async def _build_days(opened: Plane, events: Sequence[Event]) -> list[str]:
    """`events` ascend by time."""
    days = []
    for day, group in groupby(events, key=lambda event: event.day):
        of_day = list(group)
        for start in range(0, len(of_day), WRITE_EVENTS):
            writes = [Put(event) for event in of_day[start : start + WRITE_EVENTS]]
            await opened.write(TENANT, writes, body_bytes=len(writes) * EVENT_BYTES, visible="after_build")
        await opened.build(TENANT, [day], specs=[])
        days.append(day)
    return days


# --- requests -----------------------------------------------------------------------------------


def search_body(
    question: Question,
    *,
    mode: Mode,
    consistency: Consistency,
    vector: bool = True,
    include: Sequence[Include] = WHOLE,
) -> dict[str, Any]:
    """A question as the API takes it; floats as float32 prints them."""
    body: dict[str, Any] = {"mode": mode, "consistency": consistency, "include": list(include), "limit": 10}
    if mode != "vector":
        body["text"] = question.text
    if mode != "text" and vector and question.vector is not None:
        body["vector"] = orjson.Fragment(orjson.dumps(question.vector, option=orjson.OPT_SERIALIZE_NUMPY))
    if question.entities is not None:
        body["entities"] = list(question.entities)
    for name, ts_us in (("since", question.since_us), ("until", question.until_us)):
        if ts_us is not None:
            body[name] = format_time(ts_us)
    return body


def search_request(
    question: Question,
    *,
    mode: Mode,
    consistency: Literal["eventual", "strong"] = "eventual",
    vector: bool = True,
    include: Sequence[Include] = (),
) -> SearchRequest:
    """The same for `Plane.search`."""
    return SearchRequest(
        text=question.text if mode != "vector" else None,
        vector=question.vector if mode != "text" and vector else None,
        mode=mode,
        entities=question.entities,
        since_us=question.since_us,
        until_us=question.until_us,
        consistency=consistency,
        include=frozenset(include),
    )
