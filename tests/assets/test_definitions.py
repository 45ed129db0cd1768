"""Everything the deployment offers, by name, and the properties automation relies on."""

from __future__ import annotations

import datetime as dt
from dataclasses import fields, replace
from pathlib import Path

import dagster as dg
import lancedb
import numpy as np
import orjson
import pytest

from assets.definitions import defs
from assets.dirt import BUNDLES_JOB, DAY_JOB, ROLLUPS_JOB
from assets.external import without_credentials
from assets.partitions import DAILY, MONTHLY
from context_plane.index import fulltext_shard
from context_plane.index.blocks import row_text_digests, row_vectors, rows_to_embed
from context_plane.index.rows import Rows, decode_rows, encode_rows
from context_plane.index.vector_shard import write_dataset
from context_plane.layout.compression import decompress
from context_plane.model import Event, event_record
from context_plane.wire import HORIZON_US
from tests.assets.ticks import launched_by_backfill
from tests.golden.content import MANIFEST, encoded
from tests.retrieval.world import DIM, block_of, embed, grouped, made_events

OUTSIDE = {"object_store": set(), "read_api": {"published", "rollups", "bundles/customer_context_v0"}}
ASSETS = {
    "landing",
    "segments",
    "vector_shards",
    "entity_shards",
    "fulltext_shards",
    "published",
    "bundles/customer_context_v0",
    "rollups",
}
DEPENDENCIES = {
    "landing": {"object_store"},
    "segments": {"landing"},
    "vector_shards": {"segments"},
    "entity_shards": {"segments", "vector_shards"},
    "fulltext_shards": {"entity_shards"},
    "published": {"segments", "vector_shards", "entity_shards", "fulltext_shards"},
    "bundles/customer_context_v0": {"published"},
    "rollups": {"published"},
}


OPERATIONS = {
    "erase_entities",
    "collect_garbage",
    "retire_old_days",
    "retire_old_specs",
    "reembed_tenants",
    "verify_sample",
    "warm_services",
    "approve_bundles",
}


def test_every_asset_check_job_schedule_and_sensor_is_named_here() -> None:
    graph = defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == ASSETS | {*OUTSIDE}
    assert {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys} == {
        ("published", "row_counts_agree"),
        ("published", "no_tenant_failed"),
        ("object_store", "fresh"),
        ("bundles/customer_context_v0", "token_budgets_kept"),
        ("bundles/customer_context_v0", "changes_approved"),
    }
    jobs = {job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__")}
    building = {DAY_JOB, BUNDLES_JOB, ROLLUPS_JOB}
    assert building == {"build_day", "build_bundles", "roll_up_month"}
    assert jobs == building | {"check_freshness"} | OPERATIONS
    repository = defs.get_repository_def()
    assert [schedule.name for schedule in repository.schedule_defs] == ["daily", "freshness"]
    assert [sensor.name for sensor in repository.sensor_defs] == ["dirt"]


def test_dependencies_are_those_of_the_data() -> None:
    graph = defs.resolve_asset_graph()
    for name, upstream in {**DEPENDENCIES, **OUTSIDE}.items():
        node = graph.get(dg.AssetKey(name.split("/")))
        assert {key.to_user_string() for key in node.parent_keys} == upstream, name


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_every_asset_is_a_day_or_month_under_one_policy_with_an_owner_and_a_description(name: str) -> None:
    """The policy is Dagster's own, of which the next test tells."""
    node = defs.resolve_asset_graph().get(dg.AssetKey(name.split("/")))
    assert node.partitions_def == (MONTHLY if name == "rollups" else DAILY)
    assert node.backfill_policy is None
    assert node.owners == ["team:context-plane"]
    assert node.description
    assert node.group_name != "default"
    assert node.kinds
    assert node.tags


def test_a_backfill_runs_day_by_day_all_assets_of_a_day_together() -> None:
    """What Dagster would launch for 90 days: a run for each, which names its day as runs of one day do. Seen to fail
    with `multi_run(max_partitions_per_run=1)`: its runs name ranges alone."""
    days = DAILY.get_partition_keys()[-90:]
    runs = launched_by_backfill(defs, days)
    assert [run.tags["dagster/partition"] for run in runs] == days
    assert [run.partition_key for run in runs] == days
    for run in runs:
        assert {key.to_user_string() for key in run.asset_selection or ()} == ASSETS - {"rollups"}


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_every_asset_shows_its_columns(name: str) -> None:
    assert len(columns_of(name)) >= 2


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_every_asset_leads_to_its_code(name: str) -> None:
    """Seen to fail without the references."""
    metadata = defs.resolve_asset_graph().get(dg.AssetKey(name.split("/"))).metadata
    (place,) = metadata["dagster/code_references"].code_references
    lines = Path(place.file_path).read_text().splitlines()
    assert lines[place.line_number - 1].strip().startswith("def ")


def columns_of(name: str) -> dict[str, tuple[str, str | None]]:
    schema = defs.resolve_asset_graph().get(dg.AssetKey(name.split("/"))).metadata["dagster/column_schema"]
    return {column.name: (column.type, column.description) for column in schema.columns}


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_every_column_says_what_it_means(name: str) -> None:
    """Seen to fail with a column of vectors, and with a field of bundles, left bare."""
    assert [column for column, (_, text) in columns_of(name).items() if not text] == []


@pytest.mark.parametrize("name", ["landing", "segments"])
def test_columns_of_events_are_those_of_a_stored_event(name: str) -> None:
    """Seen to fail with a column removed."""
    whole = Event("a", 0, "i", "s", "k", "t", "text", {"a": 1}, np.ones(2, np.float32))
    assert list(columns_of(name)) == list(event_record(whole))


def test_columns_of_fulltext_shards_are_the_fields_of_the_index(tmp_path: Path) -> None:
    """As tantivy writes them down. Seen to fail with a field of another name, and of another type."""
    fulltext_shard.build(block_of(next(iter(grouped(made_events(1, 60, days=1)).values()))), tmp_path)
    written = orjson.loads((tmp_path / "meta.json").read_bytes())["schema"]
    assert {name: kind for name, (kind, _) in columns_of("fulltext_shards").items()} == {
        field["name"]: field["type"] for field in written
    }


@pytest.mark.parametrize(("name", "held"), [("published", "days"), ("rollups", "months")])
def test_columns_of_commits_are_those_of_a_stored_manifest(name: str, held: str) -> None:
    """Each with its meaning. Seen to fail with a field left out, and with one whose meaning is not told."""
    manifest = orjson.loads(decompress(encoded()[MANIFEST], size_max=1 << 20))
    entry = next(iter(manifest[held].values()))
    shown = columns_of(name)
    assert list(shown) == list(entry)
    assert all(text for _, text in shown.values())
    assert shown["built_us"][0] == "int"
    assert not [kind for kind, _ in shown.values() if set(kind) & set("[]|")], "types as they are stored"


def test_columns_of_vector_shards_are_those_of_the_dataset(tmp_path: Path) -> None:
    """Seen to fail with two of them exchanged."""
    own = next(iter(grouped(made_events(1, 60, days=1)).values()))
    columns, vectors = block_of(own), row_vectors(own, embed(rows_to_embed(own)), DIM)
    write_dataset(tmp_path, "made", columns, vectors, row_text_digests(own))
    assert list(columns_of("vector_shards")) == lancedb.connect(tmp_path).open_table("made").schema.names


def test_columns_of_entity_shards_are_what_a_block_stores() -> None:
    """Seen to fail with `segments` among them, which the reader attaches."""
    own = next(iter(grouped(made_events(1, 60, days=1)).values()))
    rows = replace(block_of(own), segments=("tenants/…",))
    shown = columns_of("entity_shards")
    assert {field.name for field in fields(Rows)} - {*shown} == {"segments"}
    read_back = decode_rows(encode_rows(rows))
    assert read_back.segments == ()
    for name, (kind, _) in shown.items():
        value = getattr(read_back, name)
        if isinstance(value, np.ndarray):
            assert kind == f"{value.dtype.name}[]", name
    assert shown["row_stop"] == ("int32[]", "[N] end of the chunk, exclusive; equals start for an event without text.")


@pytest.mark.parametrize("name", sorted(OUTSIDE))
def test_what_is_not_built_here_says_where_it_is(name: str) -> None:
    node = defs.resolve_asset_graph().get(dg.AssetKey(name))
    assert not node.is_executable
    assert {"dagster/uri", "url"} & {*node.metadata}
    assert node.description


def test_urls_are_shown_without_credentials() -> None:
    """Seen to fail with the URL as it is configured."""
    assert without_credentials("s3://key:secret@bucket/prefix?token=x") == "s3://bucket/prefix"
    assert without_credentials("file:///var/plane") == "file:///var/plane"


@pytest.mark.parametrize("name", ["row_counts_agree", "no_tenant_failed"])
def test_checks_of_a_day_are_partitioned_and_hold_nothing_back(name: str) -> None:
    """What one tenant fails would be skipped for all."""
    spec = defs.resolve_asset_graph().get_check_spec(dg.AssetCheckKey(dg.AssetKey("published"), name))
    assert not spec.blocking
    assert spec.partitions_def == DAILY


def test_partitions_reach_as_far_ahead_as_events_may_lie() -> None:
    last = DAILY.get_last_partition_window()
    assert last is not None
    ahead = last.end.date() - dt.datetime.now(dt.UTC).date()
    assert ahead >= dt.timedelta(microseconds=HORIZON_US)


def test_a_month_has_a_partition_once_it_is_over() -> None:
    last = MONTHLY.get_last_partition_window()
    assert last is not None
    assert last.end <= dt.datetime.now(dt.UTC)
    assert str(MONTHLY.get_first_partition_key())[:7] == str(DAILY.get_first_partition_key())[:7]


def test_automation_runs_unless_switched_off() -> None:
    repository = defs.get_repository_def()
    assert repository.get_sensor_def("dirt").default_status == dg.DefaultSensorStatus.RUNNING
    assert repository.get_schedule_def("daily").default_status == dg.DefaultScheduleStatus.RUNNING
