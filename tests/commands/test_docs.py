"""The page of operations: its commands, and the configuration of a run, over a store whose bundles are held back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import dagster as dg
import pytest
import yaml

from assets.build import LOGGERS
from assets.definitions import build_definitions
from context_plane.model import Event, Put, day_start_us
from context_plane.settings import Settings
from resources.scope import BuildScope
from resources.workers import Processes
from tests.assets.world import World
from tests.pages import ROOT, commands, examples
from tests.shell import shell

PAGE: Final = "docs/operations.md"
DAYS: Final = ["2026-03-01", "2026-03-04"]
"""The first and the last that the page names."""
ERASED, KEPT = "acct-0042", "acct-0043"
pytestmark = pytest.mark.xdist_group("operations_page")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's commands run: two entities of `acme` in `.plane/store`, built, and a tenant beside it."""
    folder = tmp_path_factory.mktemp("operations")
    for tenant in ("acme", "other"):
        write(folder, tenant, ERASED, "the export fails")
        write(folder, tenant, KEPT, "the price is too high")
    held(folder).build(DAYS)
    return folder


def held(folder: Path) -> World:
    """A build may change no bundle unasked."""
    url = (folder / ".plane" / "store").as_uri()
    return World(Settings(store=url, cache_dir=folder / "cache", bundle_change_max=0.0))


def write(folder: Path, tenant: str, entity: str, text: str) -> None:
    """An event of each day."""
    events = [Event(entity, day_start_us(day), text, "zendesk", "ticket", text=text) for day in DAYS]
    held(folder).write(tenant, [Put(event) for event in events])


def run(folder: Path, words: list[str]) -> str:
    return shell(" ".join(words), folder)


def context(folder: Path) -> str:
    return run(folder, ["context-plane", "context", KEPT, "--tenant", "acme"])


def test_an_erasure_prints_what_the_page_says(folder: Path) -> None:
    """Seen to fail with a tenant on the page that the store does not have."""
    later, now = commands(examples(PAGE, "sh")[0].text)
    [request] = re.findall("request ([0-9a-z]+) is filed", run(folder, later))
    assert f"erasure {request}" in run(folder, now)
    left = run(folder, ["context-plane", "entities", "--tenant", "acme"])
    assert (ERASED in left, KEPT in left) == (False, True)


def test_a_collection_takes_the_configuration_of_the_page(folder: Path) -> None:
    """In the job that the page's table gives for its op. Seen to fail with a setting misspelt on the page."""
    [block] = examples(PAGE, "yaml")
    config = yaml.safe_load(block.text)
    [op] = config["ops"]
    [job] = re.findall(rf"^\| `(\w+)` \| `{op}` \|", (ROOT / PAGE).read_text(), re.MULTILINE)
    world = held(folder)
    with world.open() as opened, dg.DagsterInstance.ephemeral() as instance:
        defs = build_definitions(world.settings, {"plane": opened, "workers": Processes(1), "scope": BuildScope()})
        done = defs.resolve_job_def(job).execute_in_process(run_config=config | LOGGERS, instance=instance)
    [told] = [event.step_output_data.metadata for event in done.all_events if event.is_successful_output]
    assert (told["dry_run"].value, told["tenants"].value, told["failed"].value) == (False, 1, 0)


def test_what_waits_is_listed_dropped_and_let_through(folder: Path) -> None:
    """The page's commands, dropping before letting through. Seen to fail with an end that has passed on the page."""
    listing, approve, reject = commands(examples(PAGE, "sh")[1].text)
    held(folder).build(DAYS)
    write(folder, "acme", KEPT, "they evaluate a rival")
    for settle, told, rival in ((reject, "2 days dropped", False), (approve, "2 days committed", True)):
        held(folder).build(DAYS)
        assert run(folder, listing).count("customer_context_v0") == len(DAYS)
        assert told in run(folder, settle)
        assert "nothing waits" in run(folder, listing)
        assert ("rival" in context(folder)) == rival
