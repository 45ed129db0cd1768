"""Fixtures for every test: stores, and the servers behind them (each started once, on first use)."""

from __future__ import annotations

import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from context_plane.store import Store, open_store
from tests.store import servers
from tests.store.servers import Server

pytest_plugins = ["tests.skips"]
settings.register_profile("unhurried", deadline=None)  # no test judges how fast a machine is
settings.load_profile("unhurried")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's, of what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[Server]:
    with servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def ceph_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if reason := servers.ceph_absence():
        pytest.skip(reason)
    with servers.ceph(tmp_path_factory.mktemp("ceph") / "c") as server:
        yield server


@pytest.fixture
def store_name() -> str:
    """A root prefix nobody else uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def store(store_name: str) -> AsyncIterator[Store]:
    """An empty memory store."""
    memory = open_store(f"memory://{store_name}")
    yield memory
    await memory.aclose()


@pytest.fixture(params=["local", "moto_s3", "seaweedfs"])
async def any_store(request: pytest.FixtureRequest, tmp_path: Path, store_name: str) -> AsyncIterator[Store]:
    """An empty store of each durable kind."""
    if request.param == "local":
        opened = open_store((tmp_path / "store").as_uri())
    else:
        server: Server = request.getfixturevalue(request.param)
        opened = open_store(server.url(store_name), options=server.options)
    yield opened
    await opened.aclose()
