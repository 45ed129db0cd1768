"""Where `context-plane up` lets Dagster's partitions begin."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from assets.partitions import START_VARIABLE
from commands.processes import LOOPBACK, START_S, await_answer, child, free_port, program
from commands.serve import FIRST_DAY, first_month
from tests.assets.world import World, events


def test_partitions_begin_with_the_month_of_the_oldest_event(tmp_path: Path) -> None:
    """Built, unbuilt or rolled up, of any tenant. Seen to fail with what is built alone, and with one tenant."""
    assert FIRST_DAY == START_VARIABLE
    world = World.local(tmp_path)
    with world.open() as opened:
        assert opened.run(first_month(opened.plane)) is None
    world.write("beta", events("beta", ["2026-03-09"]))
    world.write("acme", events("acme", ["2026-03-04"]))
    world.build(["2026-03-09"])
    world.write("acme", events("late", ["2026-02-27"]))
    with world.open() as opened:
        assert opened.run(first_month(opened.plane)) == "2026-02-01"
    world.build(["2026-02-27"])
    with world.open() as opened:
        assert opened.run(first_month(opened.plane)) == "2026-02-01"
        assert opened.run(opened.plane.roll_up("acme", "2026-02"))[0] == "due"
        assert opened.run(first_month(opened.plane)) == "2026-02-01"


@pytest.mark.xdist_group("one_machine")
@pytest.mark.timeout(150)
def test_the_ui_shows_the_days_that_there_are(tmp_path: Path) -> None:
    """Seen to fail (days from 2000 on, most of them empty) without the first one."""
    world = World.local(tmp_path)
    world.write("acme", events("acme", ["2026-03-04"]))
    ui, log = free_port(), tmp_path / "log"
    options = {"--port": str(free_port()), "--ui-port": str(ui), "--dagster-home": str(tmp_path / "dagster")}
    command = [*program(), "up", *(word for option in options.items() for word in option)]
    environment = {"CONTEXT_PLANE_STORE": world.settings.store, "CONTEXT_PLANE_CACHE_DIR": str(tmp_path / "cache")}
    query = '{ assetNodeOrError(assetKey: {path: ["published"]}) { ... on AssetNode { partitionKeys } } }'
    with child(command, log=log, environment=environment) as process:
        await_answer(f"http://{LOOPBACK}:{ui}/server_info", process, log)
        answer = httpx.post(f"http://{LOOPBACK}:{ui}/graphql", json={"query": query}, timeout=START_S).json()
    assert answer["data"]["assetNodeOrError"]["partitionKeys"][0] == "2026-03-01"
