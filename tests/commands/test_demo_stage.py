"""The demo's stage, where a test of the whole demo would not look."""

from __future__ import annotations

from pathlib import Path

from commands.demo.stage import Wanted, access
from context_plane import plane
from context_plane.audit import read_calls
from context_plane.settings import Settings


async def test_the_command_is_said_to_have_made_tenant_and_key(tmp_path: Path) -> None:
    """Seen to fail with the process said to have made them."""
    settings = Settings(store=(tmp_path / "store").as_uri(), cache_dir=tmp_path / "cache")
    wanted = Wanted("demo", 7, 7, tmp_path / "demo", tmp_path / "home")
    token = await access(settings, wanted)
    assert await access(settings, wanted) == token
    async with plane.open(settings, probe_store=False) as opened:
        calls = (await read_calls(opened.engine.store, "demo", limit=9)).calls
    assert [(call.action, call.actor) for call in calls] == [("tenant_put", "command"), ("key_create", "command")]
