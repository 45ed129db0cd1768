"""One empty tenant over a dict."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.laws.plane_world import Clock, World
from tests.store.dictionary import DictStore


@pytest.fixture
def timed(tmp_path: Path) -> World:
    """With clocks that move when told to."""
    return World(DictStore(), tmp_path, clock=Clock())
