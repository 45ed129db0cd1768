"""A service over a memory store, spoken to in process, with a client that knows the tenant `acme`."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from fastapi import FastAPI

from context_plane.access import create_key
from context_plane.embed.open import EmbedderSettings, open_embedder
from context_plane.engine import Engine
from context_plane.settings import Settings
from context_plane.store import Store
from serving.app import create_app
from serving.service import Service
from tests.serving.doors import CONTEXT, ODD, Ask, Doors

NDJSON = {"content-type": "application/x-ndjson"}
JSON = {"content-type": "application/json"}
DAY = "2026-03-04"


TEXT = "export fails after the upgrade"


def event(entity: str = "acct-0042", text: str | None = TEXT, **fields: Any) -> dict[str, Any]:
    return {
        "entity": entity,
        "ts": f"{DAY}T09:15:00Z",
        "source": "zendesk",
        "kind": "ticket",
        "text": text,
        **fields,
    }


def ndjson(events: Sequence[object]) -> bytes:
    return b"".join(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE) for item in events)


@dataclass(frozen=True, slots=True)
class Served:
    """A running app and a client without a key."""

    app: FastAPI
    client: httpx.AsyncClient
    tenant: str = "acme"

    @property
    def base(self) -> str:
        return f"/v1/tenants/{self.tenant}"

    def of(self, entity: str, what: str) -> str:
        """The path of something of an entity. Dots are escaped too: clients resolve `..` before they send it."""
        return f"{self.base}/entities/{quote(entity, safe='').replace('.', '%2E')}/{what}"

    @property
    def service(self) -> Service:
        service: Service = self.app.state.service
        return service

    async def create(self, **settings: Any) -> None:
        response = await self.client.put(self.base, json={"settings": settings})
        assert response.status_code in (200, 201), response.text

    async def write(self, *events: object) -> dict[str, Any]:
        response = await self.client.post(f"{self.base}/events", content=ndjson(events), headers=NDJSON)
        assert response.status_code == 201, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def post(self, path: str, body: object) -> httpx.Response:
        return await self.client.post(self.base + path, content=orjson.dumps(body), headers=JSON)

    async def ids(self, entity: str) -> list[str]:
        """Event ids of an entity, oldest first; empty when it has none."""
        response = await self.client.get(self.of(entity, "timeline"), params={"order": "asc"})
        return [item["id"] for item in response.json()["events"]] if response.status_code == 200 else []

    async def key(
        self,
        tenant: str | None,
        *scopes: str,
        expires_us: int | None = None,
        requests_per_s: float | None = None,
        bytes_per_s: float | None = None,
    ) -> dict[str, str]:
        """Headers of a new key."""
        made = await create_key(
            self.service.plane.engine,
            tenant=tenant,
            scopes=scopes or ("read", "write"),
            expires_us=expires_us,
            requests_per_s=requests_per_s,
            bytes_per_s=bytes_per_s,
        )
        return {"authorization": f"Bearer {made.token}"}


@asynccontextmanager
async def serve(settings: Settings, *, loopback: bool = True, **options: Any) -> AsyncIterator[Served]:
    app = create_app(settings, loopback=loopback, **options)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield Served(app, client)


@pytest.fixture
def settings(store_name: str, tmp_path: Path) -> Settings:
    return Settings(store=f"memory://{store_name}", cache_dir=tmp_path, cache_memory_bytes=64 << 20)


@pytest.fixture
async def served(settings: Settings) -> AsyncIterator[Served]:
    """Open mode, tenant `acme` created."""
    async with serve(settings) as running:
        await running.create()
        yield running


@pytest.fixture
async def doors(served: Served, monkeypatch: pytest.MonkeyPatch) -> Doors:
    entities = ("acct-1", ODD, "..", "acct-2")
    await served.write(*(event(name, f"{name} asks why the export fails", id="e1") for name in entities))
    await served.service.plane.build("acme", [DAY])
    await served.write(event("newcomer", "the export works", id="tail", ts="2026-03-05T08:00:00Z"))
    own = await served.key("acme")
    found = Doors(served, own["authorization"].encode(), monkeypatch)
    _, headers, _, _ = await found.ask(Ask(CONTEXT), "direct")
    found.etag = dict(headers)[b"etag"]
    return found


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem object, checked for form."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code), body
    assert body["type"] == f"urn:context-plane:problem:{code}"
    assert body["title"]
    assert body["detail"]
    return body


def in_days(count: float) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(days=count)).isoformat()


@pytest.fixture
def engine(store: Store) -> Engine:
    """Clocks and randomness of the world over a memory store; nothing is embedded."""
    return Engine(store, open_embedder(EmbedderSettings()))
