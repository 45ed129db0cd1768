"""The table of environment variables names what is read, and nothing else."""

from __future__ import annotations

import inspect
import re

from dagster._grpc.utils import default_schedule_grpc_timeout, default_sensor_grpc_timeout
from typer.main import get_command

from assets.cost import Prices
from assets.external import READ_VARIABLE
from assets.operations.warming import KEY_VARIABLE
from assets.partitions import START_VARIABLE
from commands.doctor import machine
from commands.main import app
from commands.serve import LOG_FORMAT
from context_plane.embed.open import EmbedderSettings
from context_plane.settings import Settings, store_options_from_environment
from resources.workers import WorkerSettings
from tests.deploy.files import DEPLOY, document, values_of

README = (DEPLOY / "README.md").read_text()


def read_variables() -> set[str]:
    settings = {f"CONTEXT_PLANE_{name.upper()}" for name in Settings.model_fields if name != "embedder"}
    embedder = {"CONTEXT_PLANE_EMBEDDER__KIND", "CONTEXT_PLANE_EMBEDDER__…"}
    store = set(re.findall(r'env\.get\("(\w+)"\)', inspect.getsource(store_options_from_environment)))
    assert len(store) > 5
    ticks = {f"DAGSTER_{kind}_GRPC_TIMEOUT_SECONDS" for kind in ("SENSOR", "SCHEDULE")}
    asked = inspect.getsource(default_sensor_grpc_timeout) + inspect.getsource(default_schedule_grpc_timeout)
    assert all(name in asked for name in ticks)
    dagster = {"DAGSTER_HOME", *ticks, *values_of(document("dagster/production.yaml"), "env")}
    workers = {f"CONTEXT_PLANE_{name.upper()}" for name in WorkerSettings.model_fields}
    served = {LOG_FORMAT, "OTEL_…"}
    others = {START_VARIABLE, READ_VARIABLE, KEY_VARIABLE, "CONTEXT_PLANE_PRICE_…"}
    return settings | embedder | store | dagster | workers | served | others | machine.OF_COMMANDS


def rows() -> list[list[str]]:
    """Cells of the table's rows: names, who reads them, what they mean."""
    table = README.partition("| variable |")[2]
    return [[cell.strip() for cell in line.split("|")[1:4]] for line in table.splitlines() if line.startswith("| `")]


def test_every_variable_is_documented_and_no_other() -> None:
    """Seen to fail with a row removed."""
    assert {name for cells in rows() for name in re.findall(r"`([^`]+)`", cells[0])} == read_variables()


def test_the_table_has_every_variable_that_the_doctor_knows() -> None:
    """Which sends who misspelt one to it. `…` of a row stands for the names that its last cell lists. Seen to fail
    without the rows of commands."""
    told = set()
    for names, _, means in rows():
        for name in re.findall(r"`([^`]+)`", names):
            ends = re.findall(r"`([A-Z_0-9]+)`", means) if name.endswith("…") else [""]
            told |= {name.removesuffix("…") + end for end in ends}
    parents = {"CONTEXT_PLANE_EMBEDDER"}
    assert machine.known_variables() - told <= parents


def test_who_reads_a_variable_of_a_command_is_a_command_that_takes_it() -> None:
    """And all of them, where a row names commands. Seen to fail with `serve` for the key."""
    taken: dict[str, set[str]] = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]  # of a group
        for given in command.params:
            for variable in [given.envvar] if isinstance(given.envvar, str) else given.envvar or ():
                taken.setdefault(variable, set()).add(name)
    for names, readers, _ in rows():
        for variable in machine.OF_COMMANDS & set(re.findall(r"`([^`]+)`", names)):
            if named := set(re.findall(r"`(\w+)`", readers)):
                assert named == taken[variable], variable


def test_every_setting_of_the_embedder_is_named() -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("| `CONTEXT_PLANE_EMBEDDER__…`")]
    named = set(re.findall(r"`([A-Z_]+)`", row.split("|")[3]))
    assert named == {name.upper() for name in EmbedderSettings.model_fields if name != "kind"}


def test_every_price_is_named() -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("| `CONTEXT_PLANE_PRICE_…`")]
    assert set(re.findall(r"`([A-Z_0-9]+)`", row.split("|")[3])) == {name.upper() for name in Prices.model_fields}


def test_every_file_is_in_the_table() -> None:
    files = {file.relative_to(DEPLOY).as_posix() for file in DEPLOY.rglob("*") if file.is_file()}
    for name in files - {"README.md", "Dockerfile.dockerignore"}:
        assert f"| `{name}` |" in README, name
