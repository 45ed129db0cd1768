"""An interrupt ends a build, whenever it comes."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.assets.world import DAYS, World, events

WHEN = {
    "in a step": "ASSET_MATERIALIZATION",
    "between steps": "STEP_SUCCESS",
    "after the last step": "PIPELINE_SUCCESS",
}
"""What the run says just then, first."""


@pytest.mark.parametrize("when", WHEN)
def test_an_interrupted_build_ends_and_begins_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Each seen to fail (a day with a problem, or none, and the next one built) with interrupts left to Dagster."""
    world = World.local(tmp_path)
    world.write("acme", events("acme"))
    handle = dg.DagsterInstance.handle_new_event
    said: list[str] = []

    def interrupted(self: dg.DagsterInstance, event: dg.EventLogEntry, **options: Any) -> None:
        if event.dagster_event is not None:
            said.append(event.dagster_event.event_type_value)
            if said.count(WHEN[when]) == 1 and said[-1] == WHEN[when]:
                signal.raise_signal(signal.SIGINT)
        handle(self, event, **options)

    monkeypatch.setattr(dg.DagsterInstance, "handle_new_event", interrupted)
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(KeyboardInterrupt):
            world.build(DAYS, instance=instance)
        assert instance.get_runs_count() == 1
    assert signal.set_wakeup_fd(-1) == -1, "as it was before"
