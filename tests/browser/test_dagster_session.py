"""A session in the Dagster UI, as a person has it, on the data of the demo: the graph, a day's metadata with its plot,
a backfill, and a day that the gate withholds.

The UI is the real one: webserver, daemon and code location of `dagster dev`; what is built here is built by its runs.
`CONTEXT_PLANE_SCREENSHOTS=docs/images` keeps what is seen (`make screenshots`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeVar

import pytest
from playwright.sync_api import Browser, Page, expect

from assets.gate import CHECK, RECOVERY
from commands.processes import await_answer, child, free_port, prepare_dagster, program
from context_plane.layout.keys import period_path
from context_plane.model import add_days, day_of
from tests.assets.world import World, events
from tests.browser.conftest import chromium

ROOT: Final = Path(__file__).parents[2]
SCREENSHOTS: Final = os.environ.get("CONTEXT_PLANE_SCREENSHOTS")
SIZE: Final = {"width": 1440, "height": 900}
RUN_MS: Final = 90_000
"""A run starts a process that imports Dagster and the engine: ten seconds on two idle cores, more beside others."""
BACKFILL_MS: Final = 150_000
"""The daemon looks at a backfill every half minute: to start its runs, and to see that they ended."""
SERVICE: Final = "https://context.example.com"
SPEC: Final = "customer_context_v0"
T = TypeVar("T")
pytestmark = [pytest.mark.xdist_group("dagster_ui"), pytest.mark.timeout(300)]


@dataclass(frozen=True, slots=True)
class Session:
    """A running UI over a store. `days`: those that the demo built, ascending."""

    url: str
    world: World
    days: list[str]


def apart(work: Callable[[], T]) -> T:
    """`work` in a thread of its own: the browser's loop runs in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """The demo's data, and `dagster dev` over it."""
    if chromium() is None:
        pytest.skip("Chromium is not installed")
    folder = tmp_path_factory.mktemp("session")
    world = World.local(folder)
    home = prepare_dagster(folder / "dagster")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONTEXT_PLANE_", "DAGSTER_"))}
    environment = {
        **kept,
        "CONTEXT_PLANE_STORE": world.settings.store,
        "CONTEXT_PLANE_CACHE_DIR": str(world.settings.cache_dir),
        "CONTEXT_PLANE_FIRST_DAY": add_days(day_of(time.time_ns() // 1_000), -30),
        "CONTEXT_PLANE_READ_URL": SERVICE,
        "DAGSTER_HOME": str(home),
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(ROOT),
    }
    made = [*program(), "demo", "--customers", "100", "--days", "8", "--dagster-home", str(home)]
    subprocess.run(made, cwd=folder, env=environment, check=True, capture_output=True)
    port, log = free_port(), folder / "dagster.log"
    dev = [sys.executable, "-m", "dagster", "dev", "-w", str(ROOT / "workspace.yaml"), "-p", str(port)]
    with child(dev, log=log, environment=environment) as process:
        url = f"http://127.0.0.1:{port}"
        await_answer(f"{url}/server_info", process, log)
        yield Session(url, world, apart(lambda: built(world)))


def built(world: World) -> list[str]:
    with world.open() as opened:
        info = opened.run(opened.plane.snapshot_info("demo"))
    return sorted({*info.days} - {*info.dirty_days})


def newest_in_a_row(days: list[str]) -> tuple[str, str]:
    """Two days. So few customers may leave a day of a weekend empty, and Dagster warns of what was never built."""
    return next((day, after) for day, after in reversed(list(pairwise(days))) if add_days(day, 1) == after)


@pytest.fixture
def screen(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]  # a TypedDict
    context.set_default_timeout(RUN_MS)
    yield context.new_page()
    context.close()


def keep(page: Page, name: str) -> None:
    """A screenshot, where they are wanted."""
    if SCREENSHOTS is not None:
        page.wait_for_timeout(1_000)  # animations end
        page.screenshot(path=ROOT / SCREENSHOTS / f"dagster-{name}.png")


ASSETS: Final = (
    "object_store",
    "landing",
    "segments",
    "vector_shards",
    "entity_shards",
    "fulltext_shards",
    "published",
    "customer_conte…_v0",  # as the graph shortens it
    "rollups",
    "read_api",
)


def test_the_graph_shows_the_plane_from_the_store_to_the_api(session: Session, screen: Page) -> None:
    screen.goto(f"{session.url}/locations/context-plane/asset-groups/plane/lineage")
    for name in ASSETS:
        expect(screen.get_by_text(name, exact=True).first).to_be_visible()
    screen.set_viewport_size({"width": 1440, "height": 560})
    screen.get_by_text("Hide navigation").click()
    screen.reload()
    expect(screen.get_by_text("read_api", exact=True).first).to_be_visible()
    keep(screen, "graph")


def test_a_day_shows_what_was_published_and_a_plot_over_days(session: Session, screen: Page) -> None:
    _, day = newest_in_a_row(session.days)
    screen.goto(f"{session.url}/assets/published?view=partitions&partition={day}")
    expect(screen.get_by_text("tenant_days")).to_be_visible()
    row = screen.get_by_role("row").filter(has_text="rows_by_partition")
    row.scroll_into_view_if_needed()
    plot = row.locator("img[src^='data:image/svg+xml']")
    expect(plot).to_be_visible()
    assert plot.evaluate("image => image.complete && image.naturalWidth > 0"), "it is drawn"
    keep(screen, "day")


def test_a_backfill_that_is_launched_here_finishes(session: Session, screen: Page) -> None:
    """Two days of bundles, through the dialog, by the daemon."""
    first, last = newest_in_a_row(session.days)
    launch(session, screen, f"bundles/{SPEC}", f"[{first}...{last}]", "launch")
    screen.get_by_text("View", exact=True).click()
    screen.wait_for_url(re.compile("/runs/b/"))
    expect(screen.get_by_text("100% completed", exact=True)).to_be_visible(timeout=BACKFILL_MS)
    expect(screen.get_by_text("Succeeded", exact=True)).to_have_count(2, timeout=BACKFILL_MS)  # the status, a column
    keep(screen, "backfill")
    screen.goto(f"{session.url}/assets/bundles/{SPEC}?view=partitions&partition={last}")
    link = screen.get_by_role("link", name="demo", exact=True)
    expect(link).to_have_attribute("href", f"{SERVICE}/#/demo?spec={SPEC}&as_of={last}")


def test_a_day_that_the_gate_withholds_says_what_to_do(session: Session, screen: Page) -> None:
    """A staged shard of one tenant is damaged on the disk: it is withheld, the other tenant's day is published."""
    day = session.days[2]
    apart(lambda: damage(session.world, day))
    launch(session, screen, "published", day)
    screen.goto(f"{session.url}/assets/published?view=checks&checkDetail={CHECK}")
    said = screen.get_by_text(RECOVERY).first  # all of it: what to do is at its end
    expect(said).to_be_visible(timeout=RUN_MS)
    shard = f"corrupt_object: the full-text shard tenants/acme/indexes/fulltext/{period_path(day)}/"
    expect(screen.get_by_text(shard).first).to_be_visible()
    expect(screen.get_by_text("not counted", exact=True).first).to_be_visible()
    keep(screen, "check")


def launch(session: Session, page: Page, asset: str, partitions: str, picture: str = "") -> None:
    """Materialize these partitions through the dialog of the asset's page."""
    page.goto(f"{session.url}/assets/{asset}?view=partitions")
    page.get_by_role("button", name="Materialize…").click()
    expect(page.get_by_text("Launch runs to materialize")).to_be_visible()
    box = page.locator("input[placeholder^='ex: ']").last
    box.fill(partitions)
    box.press("Enter")
    if picture:
        keep(page, picture)
    page.get_by_role("button", name=re.compile("^Launch")).click()
    expect(page.get_by_text(re.compile("^(Created backfill|Launched run)"))).to_be_visible()


def damage(world: World, day: str) -> None:
    """Late events of two tenants, staged but not published; then a disk that does not hold what was written."""
    for tenant in ("acme", "beta"):
        world.write(tenant, events(tenant, [day]))
    staged = ["segments", "vector_shards", "entity_shards", "fulltext_shards"]
    assert world.run(staged, day).success
    store = Path(world.settings.store.removeprefix("file://"))
    (shard,) = (store / f"tenants/acme/indexes/fulltext/{period_path(day)}").iterdir()
    shard.write_bytes(shard.read_bytes()[:-1])
