"""The table of environment variables names what is read, and nothing else."""

from __future__ import annotations

import inspect
import re

from assets.cost import Prices
from assets.external import READ_VARIABLE
from assets.partitions import START_VARIABLE
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
    dagster = {"DAGSTER_HOME", *values_of(document("dagster/production.yaml"), "env")}
    workers = {f"CONTEXT_PLANE_{name.upper()}" for name in WorkerSettings.model_fields}
    served = {LOG_FORMAT, "OTEL_…"}
    others = {START_VARIABLE, READ_VARIABLE, "CONTEXT_PLANE_PRICE_…"}
    return settings | embedder | store | dagster | workers | served | others


def test_every_variable_is_documented_and_no_other() -> None:
    """Seen to fail with a row removed."""
    table = README.partition("| variable |")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == read_variables()


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
