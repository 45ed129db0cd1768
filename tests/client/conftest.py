"""One live service for a module; a tenant of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from context_plane.client import Client
from context_plane.settings import Settings
from tests.client.live import Face, FaceName, Live, face, serving


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    settings = Settings(store=f"memory://live-{uuid.uuid4().hex[:12]}", cache_dir=folder, cache_memory_bytes=64 << 20)
    with serving(settings) as running:
        yield running


@pytest.fixture
def live(service: Live) -> Live:
    """Nothing seen, nothing slept, no fault that waits."""
    service.door.faults.clear()
    service.door.seen.clear()
    service.slept.clear()
    return service


@pytest.fixture
def tenant(live: Live) -> str:
    """A new tenant."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    with Client(live.url, name) as client:
        client.put_tenant()
    live.door.seen.clear()
    return name


@pytest.fixture(params=["blocking", "asyncio"])
async def ask(request: pytest.FixtureRequest, live: Live, tenant: str) -> AsyncIterator[Face]:
    """Each face of the client, of that tenant."""
    name: FaceName = request.param
    async with face(live, name, tenant) as made:
        yield made
