"""Dagster opens both `dagster.yaml` examples, and finds in them what their comments say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.config import PoolGranularity, dagster_instance_config
from dagster._core.instance.ref import InstanceRef
from dagster._core.run_coordinator.queued_run_coordinator import RunQueueConfig
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from assets.automation import RETRY_ALL_STEPS
from assets.days import EMBEDDING_POOL
from assets.definitions import defs
from assets.dirt import BUNDLES_JOB, DAY_JOB, ROLLUPS_JOB
from benchmarks.peers.base import Absent
from benchmarks.peers.postgres import _Server
from tests.deploy.files import DEPLOY, document

POSTGRES = {
    "DAGSTER_PG_HOST": "",  # PGHOST then names the folder of the socket, which no URL can
    "DAGSTER_PG_USERNAME": "peer",
    "DAGSTER_PG_PASSWORD": "unused",
    "DAGSTER_PG_DB": "postgres",
}
BUCKET = "dagster-logs-of-tests"


def home_with(name: str, folder: Path) -> str:
    """A DAGSTER_HOME that holds the example as its dagster.yaml."""
    shutil.copy(DEPLOY / "dagster" / name, folder / "dagster.yaml")
    return str(folder)


def queue_of(instance: dg.DagsterInstance) -> RunQueueConfig:
    found = instance.get_concurrency_config().run_queue_config
    assert found is not None
    return found


def test_one_machine_is_opened_and_keeps_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a pool's limit. Seen to fail with a misspelt setting, with the storage's folder elsewhere, and (steps would
    wait, not runs) without the granularity."""
    home = home_with("one-machine.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", home)
    with dg.DagsterInstance.from_config(home) as instance:
        storage = instance._ref.storage if instance._ref else None
        assert isinstance(storage, DagsterSqliteStorage)
        run = instance.create_run_for_job(job_def=a_job)
        assert instance.get_run_by_id(run.run_id) is not None
        assert instance.run_monitoring_enabled
        assert instance.run_retries_max_retries == 2
        assert not instance.telemetry_enabled
        assert queue_of(instance).max_concurrent_runs == 2
        pools = instance.get_concurrency_config().pool_config
        assert (pools.pool_granularity, pools.default_pool_limit) == (PoolGranularity.RUN, None)
        instance.event_log_storage.set_concurrency_slots(EMBEDDING_POOL, 1)  # as the UI does
        assert [pool.name for pool in instance.event_log_storage.get_pool_limits()] == [EMBEDDING_POOL]
    assert list(tmp_path.rglob("runs.db"))


def test_production_fits_the_schema_and_every_class_it_names_takes_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema of an instance does not look into `compute_logs`; the class does. Seen to fail with a misspelt
    `upload_intervals`."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "unused")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("DAGSTER_LOGS_BUCKET", BUCKET)
    home = home_with("production.yaml", tmp_path)
    value, own_class = dagster_instance_config(home)
    assert own_class is None
    assert set(value["storage"]) == {"postgres"}
    ref = InstanceRef.from_dir(home)
    assert ref.storage_data is not None
    assert ref.storage_data.class_name == "DagsterPostgresStorage"
    assert type(ref.compute_log_manager).__name__ == "S3ComputeLogManager"
    assert ref.run_coordinator is not None
    assert ref.run_launcher is not None


@pytest.mark.parametrize("name", ["one-machine.yaml", "production.yaml"])
def test_a_backfill_leaves_room_for_other_runs(name: str) -> None:
    runs = document(f"dagster/{name}")["concurrency"]["runs"]
    limits = {limit["key"]: limit["limit"] for limit in runs["tag_concurrency_limits"]}
    assert 0 < limits["dagster/backfill"] < runs["max_concurrent_runs"]


def test_every_job_that_builds_is_retried_from_its_first_step() -> None:
    """The others have one step."""
    for name in (DAY_JOB, BUNDLES_JOB, ROLLUPS_JOB):
        job = defs.resolve_job_def(name)
        assert RETRY_ALL_STEPS.items() <= dict(job.run_tags).items(), job.name


def test_the_pool_of_the_example_is_that_of_the_asset_that_embeds() -> None:
    pools = {
        key.to_user_string(): defs.resolve_asset_graph().get(key).pools
        for key in defs.resolve_asset_graph().get_all_asset_keys()
    }
    assert {name for name, of in pools.items() if of} == {"vector_shards"}
    assert pools["vector_shards"] == {EMBEDDING_POOL}
    for name in ("one-machine.yaml", "production.yaml"):
        assert f'"{EMBEDDING_POOL}"' in (DEPLOY / "dagster" / name).read_text()


@pytest.fixture
def postgres() -> Iterator[Path]:
    """The folder of the socket of a server of its own."""
    if find_spec("dagster_postgres") is None:
        pytest.skip("needs .[bench]: no module dagster_postgres")
    try:
        server = _Server()
    except Absent as reason:
        pytest.skip(str(reason))
    try:
        server.start()
        assert server.folder is not None
        yield server.folder
    finally:
        server.stop()


def test_production_is_opened_over_postgres_and_s3(
    postgres: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables are made, a run is kept and found, and pools have the limit that the file gives them. The driver is the
    one that dagster-postgres depends on, whatever else is installed here: seen to fail without the scheme."""
    environment = {**POSTGRES, "PGHOST": str(postgres), "DAGSTER_LOGS_BUCKET": BUCKET}
    environment |= {"AWS_ACCESS_KEY_ID": "unused", "AWS_SECRET_ACCESS_KEY": "unused", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    home = home_with("production.yaml", tmp_path)
    with dg.DagsterInstance.from_config(home) as instance:
        assert instance.run_storage._engine.driver == "psycopg2"  # type: ignore[attr-defined]  # of the Postgres one
        run = instance.create_run_for_job(job_def=a_job)
        assert instance.get_run_by_id(run.run_id) is not None
        assert instance.event_log_storage.supports_global_concurrency_limits
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 4
        assert queue_of(instance).max_concurrent_runs == 8
        assert instance.run_monitoring_max_runtime_seconds == 14_400


@dg.job
def a_job() -> None:
    """Does nothing."""
