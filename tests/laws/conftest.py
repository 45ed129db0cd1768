"""One empty tenant per test, in a dict or in a real store."""

from __future__ import annotations

from pathlib import Path

import pytest

from context_plane.store import Store, open_store
from tests.laws.plane_world import Clock, World
from tests.store.dictionary import DictStore
from tests.store.servers import Server


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Over a dict, with real clocks."""
    return World(DictStore(), tmp_path)


@pytest.fixture
def timed(tmp_path: Path) -> World:
    """Over a dict, with clocks that move when told to."""
    return World(DictStore(), tmp_path, clock=Clock())


@pytest.fixture(params=["local", "seaweedfs"])
def real_world(request: pytest.FixtureRequest, tmp_path: Path, store_name: str) -> World:
    """Over a local folder, and over SeaweedFS."""
    if request.param == "local":
        opened: Store = open_store((tmp_path / "store").as_uri())
    else:
        server: Server = request.getfixturevalue("seaweedfs")
        opened = open_store(server.url(store_name), options=server.options)
    return World(opened, tmp_path)
