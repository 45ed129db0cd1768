"""Operations as jobs over a real local store: what they do, what the UI is told, and what never reaches it."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import pytest
import uvicorn
from dagster._core.events import RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run

from assets.cost import Prices, requests_usd
from assets.definitions import build_definitions
from assets.external import READ_VARIABLE
from assets.operations import OPERATIONS
from assets.operations.operate import ROWS_MAX, Told, _Outcome, _table
from context_plane.access import create_key
from context_plane.catalog.head import load_head
from context_plane.embed.open import EmbedderSettings
from context_plane.erase import load_receipt
from context_plane.erase_tenant import begin
from context_plane.erasure_requests import open_requests, request_erasure
from context_plane.layout.keys import LandingKey, SegmentKey, parse
from context_plane.model import add_days, day_of
from context_plane.plane import Plane, shipped_specs
from context_plane.store.counting import Trace
from context_plane.tenants import TenantSettings, load_tenant_erasure, put_tenant
from resources.scope import BuildScope
from resources.workers import Processes
from serving.app import create_app
from tests.assets.world import DAYS, SPEC, World, delete_below, events

GONE = "acct-1"
ALWAYS = {
    "summary",
    "tenants",
    "failed",
    "remarks",
    "seconds",
    "gets",
    "puts",
    "lists",
    "deletes",
    "requests_usd",
}
METADATA: dict[str, set[str]] = {
    "erase": {
        "erasures",
        "days_rebuilt",
        "months_opened",
        "bundle_days_dropped",
        "objects",
        "bytes",
        "batches_redacted",
        "manifests_redacted",
        "tenants_erased",
        "late_objects",
    },
    "collect": {
        "dry_run",
        "objects",
        "bytes",
        "spared",
        "segment_objects",
        "shard_objects",
        "bundle_objects",
        "list_objects",
        "log_objects",
        "manifest_objects",
        "staging_objects",
        "claim_objects",
    },
    "retain": {"dry_run", "days", "events", "bytes", "bundle_days", "months_opened", "kept_for_ever"},
    "retire": {"dry_run", "defined", "specs", "bundle_days"},
    "reembed": {
        "dry_run",
        "model",
        "days",
        "rows",
        "embedded",
        "reused_days",
        "months_opened",
        "bytes",
        "of_this_model",
    },
    "verify": {
        "seed",
        "mismatches",
        "days",
        "months",
        "bundle_days",
        "stale_bundle_days",
        "events",
        "rows",
        "embedded",
        "bytes",
    },
    "warm": {"url", "hints", "days", "bytes"},
    "approve": {"waiting", "committed", "rebuilt", "rejected"},
}
JOBS = {
    "erase": "erase_entities",
    "collect": "collect_garbage",
    "retain": "retire_old_days",
    "retire": "retire_old_specs",
    "reembed": "reembed_tenants",
    "verify": "verify_sample",
    "warm": "warm_services",
    "approve": "approve_bundles",
}


class Ran:
    """One run: whether it succeeded, its metadata, and everything that Dagster keeps of it, as text."""

    def __init__(self, result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> None:
        self.success = result.success
        told = [event.step_output_data.metadata for event in result.all_events if event.is_successful_output]
        self.told: Mapping[str, Any] = {name: value.value for name, value in (told[0] if told else {}).items()}
        summary = told[0]["summary"] if told else None
        records = summary.records if isinstance(summary, dg.TableMetadataValue) else []
        self.rows: Mapping[str, Mapping[str, Any]] = {str(each.data["tenant"]): each.data for each in records}
        failures = [event for event in result.all_events if event.is_step_failure]
        error = failures[0].step_failure_data if failures else None
        self.error = ""
        if error is not None:
            assert error.user_failure_data is not None
            self.error = error.user_failure_data.description or ""
        logged = instance.all_logs(result.run_id)
        self.kept = "\n".join(str(record) for record in logged) + str(instance.get_run_by_id(result.run_id))


def run(world: World, op: str, **config: Any) -> Ran:
    with world.open() as opened, dg.DagsterInstance.ephemeral() as instance:
        defs = build_definitions(world.settings, {"plane": opened, "workers": Processes(1), "scope": BuildScope()})
        settings: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        if config:
            settings["ops"] = {op: {"config": config}}
        result = defs.resolve_job_def(JOBS[op]).execute_in_process(
            run_config=settings, instance=instance, raise_on_error=False
        )
        return Ran(result, instance)


def built(folder: Path, *tenants: str) -> World:
    world = World.local(folder)
    for tenant in tenants:
        world.write(tenant, events(tenant))
    world.build()
    return world


def head(world: World, tenant: str) -> Any:
    with world.open() as opened:
        return opened.run(load_head(opened.plane.engine.store, tenant))


def entities(world: World, tenant: str) -> set[str]:
    with world.open() as opened:
        return {info.entity for info in opened.run(opened.plane.entities(tenant)).entities}


def ask(world: World, tenant: str, entity: str) -> str:
    with world.open() as opened:
        return opened.run(request_erasure(opened.plane.engine, tenant, entity))


# --- all of them --------------------------------------------------------------------------------


@pytest.mark.parametrize("op", sorted(JOBS))
def test_the_default_of_the_launchpad_is_safe_and_tells_its_stable_names(
    tmp_path: Path, op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run as launched without a change: it succeeds, and no manifest changes. Seen to fail with requests counted
    outside of the event loop's context: none were; and with a service that is looked for at one address, whatever
    `CONTEXT_PLANE_READ_URL` says."""
    world = built(tmp_path, "acme")
    before = head(world, "acme").version
    with served(world) if op == "warm" else nullcontext("") as url:
        monkeypatch.setenv(READ_VARIABLE, url)
        ran = run(world, op)
    assert ran.success, ran.error
    assert set(ran.told) == METADATA[op] | ALWAYS
    assert ran.told["failed"] == 0
    assert ran.told["gets"] + ran.told["lists"] > 0
    asked = Trace(gets=ran.told["gets"], puts=ran.told["puts"], lists=ran.told["lists"])
    assert ran.told["requests_usd"] == round(requests_usd(asked, Prices()), 9) > 0
    assert list(ran.rows) == ["acme"]
    assert head(world, "acme").version == before


def test_every_operation_is_a_described_job_with_a_default() -> None:
    assert {job.name for job in OPERATIONS} == set(JOBS.values())
    for job in OPERATIONS:
        assert job.description
        assert job.run_config


def test_an_operation_that_failed_is_left_to_whoever_reads_it_and_one_that_was_killed_is_run_again() -> None:
    """By Dagster's own arithmetic, where runs are retried twice (deploy/dagster). Seen to fail without the tag."""
    retries = {"run_retries": {"enabled": True, "max_retries": 2}}
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder, overrides=retries) as instance:
        for job in OPERATIONS:
            failed = instance.add_run(dg.DagsterRun(job.name, status=dg.DagsterRunStatus.FAILURE, tags=job.run_tags))
            assert not auto_reexecution_should_retry_run(instance, failed, RunFailureReason.STEP_FAILURE), job.name
            assert auto_reexecution_should_retry_run(instance, failed, RunFailureReason.UNKNOWN), job.name


@pytest.mark.parametrize("op", sorted(set(JOBS) - {"warm"}))
def test_one_tenant_that_fails_is_named_and_stops_no_other(tmp_path: Path, op: str) -> None:
    world = built(tmp_path, "acme")
    ran = run(world, op, tenants=["acme", "nobody"])
    assert not ran.success
    assert (ran.told["tenants"], ran.told["failed"]) == (1, 1)
    assert "nobody (tenant_not_found)" in ran.error
    assert "run the job again" in ran.error or "with the same seed" in ran.error


def test_the_table_is_bounded() -> None:
    outcome = _Outcome({f"t{n}": Told({"days": n}) for n in range(ROWS_MAX + 3)}, (), (), Trace())
    *shown, last = [record.data for record in _table(outcome, ["days"]).records]
    assert len(shown) == ROWS_MAX
    assert last["tenant"] == "3 more tenants"
    assert shown[0] == {"tenant": f"t{ROWS_MAX + 2}", "state": "ok", "days": ROWS_MAX + 2}


def test_a_run_tells_first_whether_it_was_dry_and_of_whom(tmp_path: Path) -> None:
    """As the run's page lists it. Seen to fail with both behind the costs, and with a tenant whose state is `ok`."""
    world = built(tmp_path, "acme", "beta")
    dry = run(world, "collect")
    assert list(dry.told)[:3] == ["dry_run", "summary", "objects"]
    assert {row["state"] for row in dry.rows.values()} == {"dry run"}
    done = run(world, "collect", dry_run=False)
    assert {row["state"] for row in done.rows.values()} == {"ok"}
    noted = run(world, "retain")
    assert noted.rows["acme"]["state"] == "dry run; keeps all"


# --- erasure ------------------------------------------------------------------------------------


def test_open_requests_are_worked_off_and_the_entity_never_reaches_dagster(tmp_path: Path) -> None:
    world = built(tmp_path, "acme", "beta")
    requests = {tenant: ask(world, tenant, GONE) for tenant in ("acme", "beta")}
    assert GONE in entities(world, "acme")
    ran = run(world, "erase")
    assert ran.success, ran.error
    assert (ran.told["erasures"], ran.told["days_rebuilt"]) == (2, 4)
    assert ran.told["objects"] > 0
    assert GONE not in ran.kept
    for tenant, request in requests.items():
        assert GONE not in entities(world, tenant)
        with world.open() as opened:
            store = opened.plane.engine.store
            assert opened.run(load_receipt(store, tenant, request)) is not None
            assert opened.run(open_requests(store, tenant)) == []
    assert run(world, "erase").told["erasures"] == 0


def test_a_tenant_whose_erasure_stops_fails_the_run_and_stops_no_other(tmp_path: Path) -> None:
    """And what it deletes of a tenant is counted, under its name. Seen to fail with the error raised at once, with a
    run that succeeds, and with whole tenants outside of the counting."""
    world = built(tmp_path, "acme", "beta")
    ask(world, "acme", GONE)
    with world.open() as opened:
        opened.run(begin(opened.plane.engine, "beta"))
        opened.run(opened.plane.engine.store.put("control/erased-tenants/alpha.json", b"{}"))
    ran = run(world, "erase")
    assert not ran.success
    assert "alpha" in ran.error
    assert "format_unknown" in ran.error
    assert (ran.told["tenants_erased"], ran.told["erasures"], ran.told["failed"]) == (1, 1, 1)
    assert {tenant: row["state"] for tenant, row in ran.rows.items()} == {
        "alpha": "format_unknown",
        "beta": "erased",
        "acme": "ok",
    }
    with world.open() as opened:
        receipt = opened.run(load_tenant_erasure(opened.plane.engine.store, "beta"))
        assert receipt is not None
        assert ran.rows["beta"]["objects"] == receipt.objects_deleted > 0
        assert ran.rows["beta"]["bytes"] == receipt.bytes_deleted > 0
        assert ran.told["objects"] == sum(row["objects"] or 0 for row in ran.rows.values())
        opened.run(opened.plane.engine.store.put("tenants/beta/control/late", b"late"))
        opened.run(opened.plane.engine.store.delete(["control/erased-tenants/alpha.json"]))
    again = run(world, "erase")
    assert again.success, again.error
    assert (again.told["tenants_erased"], again.told["late_objects"], again.told["bytes"]) == (0, 1, 4)
    assert again.rows["beta"]["state"] == "came after its receipt"
    assert again.told["deletes"] > 0
    assert GONE not in ran.kept


def test_a_named_request_alone_is_taken(tmp_path: Path) -> None:
    world = built(tmp_path, "acme")
    first, _ = ask(world, "acme", GONE), ask(world, "acme", "acct-2")
    ran = run(world, "erase", tenants=["acme"], requests=[first])
    assert ran.success, ran.error
    assert GONE not in entities(world, "acme")
    assert "acct-2" in entities(world, "acme")
    refused = run(world, "erase", requests=[first])
    assert not refused.success
    assert "`tenants`" in refused.error
    unknown = run(world, "erase", tenants=["acme"], requests=["0" * 32])
    assert f"acme: request {'0' * 32}: erasure_not_found, no such erasure" in unknown.error


def test_a_request_that_fails_stops_no_other_of_its_tenant(tmp_path: Path) -> None:
    """One of an object that does not decode, whichever comes first: the others are done, counted, and closed, and it is
    named with its error. Seen to fail (none is told, later ones are not tried) with requests one after another."""
    world = built(tmp_path, "acme")
    asked = [ask(world, "acme", entity) for entity in (GONE, "acct-2")]
    bad = ["0" * 32, "f" * 32]
    with world.open() as opened:
        for request in bad:
            path = f"tenants/acme/control/erasure-requests/{request}.json"
            opened.run(opened.plane.engine.store.put(path, b"{}"))
    ran = run(world, "erase")
    assert not ran.success
    assert (ran.told["erasures"], ran.told["remarks"], ran.told["failed"]) == (2, 2, 0)
    for request in bad:
        assert f"acme: request {request}: format_unknown" in ran.error
        assert f"request {request} of acme: format_unknown (Corrupt)" in ran.kept
    assert not entities(world, "acme") & {GONE, "acct-2"}
    assert GONE not in ran.kept
    with world.open() as opened:
        left = opened.run(open_requests(opened.plane.engine.store, "acme"))
    assert (left, set(asked) & set(left)) == (bad, set())


def test_a_landed_file_fails_the_run_without_being_named(tmp_path: Path) -> None:
    """Its key names the entity, so the run tells only what kind of object it is."""
    world = built(tmp_path, "acme")
    landed = str(LandingKey("acme", "desk", DAYS[0], f"{GONE}.csv"))
    with world.open() as opened:
        opened.run(opened.plane.engine.store.put(landed, orjson.dumps(GONE)))
    request = ask(world, "acme", GONE)
    ran = run(world, "erase")
    assert not ran.success
    assert "a landing file holds it; delete the file (1)" in ran.error
    assert request in ran.error
    assert GONE not in ran.kept
    with world.open() as opened:
        opened.run(opened.plane.engine.store.delete([landed]))
    assert run(world, "erase").success


def test_errors_are_told_by_code_and_frames_and_quote_nothing(tmp_path: Path) -> None:
    """A segment that is gone: the error of the store quotes its key, which holds the entity. Seen to fail with the
    error's message in the log."""
    world = built(tmp_path, "acme")
    with world.open() as opened:
        opened.run(delete_below(opened.plane, f"tenants/acme/entities/{GONE}/"))
    request = ask(world, "acme", "acct-2")
    ran = run(world, "erase")
    assert not ran.success
    assert f"acme: request {request}: object_not_found" in ran.error
    assert "assets/operations/erasure.py" in ran.kept
    assert GONE not in ran.kept
    assert "acct-2" not in ran.kept


# --- collection, retention, re-embedding --------------------------------------------------------


async def _forgotten(plane: Plane, tenant: str) -> str:
    """An object that nothing names."""
    key = str(SegmentKey(tenant, "acct-0", DAYS[0], "0" * 24 + "-unnamed"))
    await plane.engine.store.put(key, b"garbage")
    return key


def test_a_collection_counts_and_deletes_only_when_told_to(tmp_path: Path) -> None:
    world = built(tmp_path, "acme")
    with world.open() as opened:
        key = opened.run(_forgotten(opened.plane, "acme"))
    path = tmp_path / "store" / key
    long_ago = time.time() - 3 * 86_400
    os.utime(path, (long_ago, long_ago))
    dry = run(world, "collect")
    assert (dry.told["objects"], dry.told["segment_objects"], dry.told["bytes"]) == (1, 1, len(b"garbage"))
    assert dry.told["dry_run"] is True
    assert path.exists()
    ran = run(world, "collect", dry_run=False)
    assert ran.success, ran.error
    assert (ran.told["objects"], ran.told["deletes"]) == (1, 1)
    assert not path.exists()
    assert GONE in entities(world, "acme")


def test_tenants_lose_what_they_do_not_keep_and_only_they(tmp_path: Path) -> None:
    today = day_of(time.time_ns() // 1000)
    world = built(tmp_path, "acme", "beta")
    age = next(n for n in range(1, 36_000) if add_days(today, -n) == DAYS[1])
    with world.open() as opened:
        opened.run(put_tenant(opened.plane.engine, "acme", TenantSettings(retain_days=age)))
    dry = run(world, "retain")
    assert (dry.told["days"], dry.told["events"], dry.told["kept_for_ever"]) == (1, 40, 1)
    assert set(head(world, "acme").days) == set(DAYS)
    ran = run(world, "retain", dry_run=False)
    assert ran.success, ran.error
    assert ran.told["days"] == 1
    assert ran.told["bytes"] > 0
    assert set(head(world, "acme").days) == {DAYS[1]}
    assert set(head(world, "acme").bundles[SPEC]) == {DAYS[1]}
    assert set(head(world, "beta").days) == set(DAYS)


def test_specs_without_a_file_are_named_and_leave_when_told_to(tmp_path: Path) -> None:
    world = built(tmp_path, "acme", "beta")
    folder = tmp_path / "specs"
    folder.mkdir()
    kept = (shipped_specs() / f"{SPEC}.yaml").read_text()
    (folder / "later_v0.yaml").write_text(kept.replace(SPEC, "later_v0"))
    moved = World(world.settings.model_copy(update={"specs_dir": folder}))
    dry = run(moved, "retire")
    assert (dry.told["specs"], dry.told["bundle_days"], dry.told["defined"]) == (2, 4, "later_v0")
    assert dry.rows["acme"] == {"tenant": "acme", "state": f"dry run; {SPEC}", "specs": 1, "bundle_days": 2}
    assert set(head(world, "acme").bundles) == {SPEC}
    ran = run(moved, "retire", tenants=["acme"], dry_run=False)
    assert ran.success, ran.error
    assert set(head(world, "acme").bundles) == set()
    assert set(head(world, "acme").days) == set(DAYS)
    assert set(head(world, "beta").bundles) == {SPEC}
    assert run(moved, "retire", tenants=["acme"], dry_run=False).told["specs"] == 0


def test_another_model_is_taken_over_day_by_day_and_seen_at_once(tmp_path: Path) -> None:
    world = built(tmp_path, "acme")
    other = EmbedderSettings(kind="given", model="theirs", dim=8)
    moved = World(world.settings.model_copy(update={"embedder": other}))
    dry = run(moved, "reembed")
    assert (dry.told["days"], dry.told["rows"], dry.told["model"]) == (2, 80, "theirs/8")
    assert head(world, "acme").model.name != "theirs/8"
    before = head(world, "acme").version
    ran = run(moved, "reembed", dry_run=False)
    assert ran.success, ran.error
    assert (ran.told["days"], ran.told["of_this_model"]) == (2, 0)
    assert head(world, "acme").model.name == "theirs/8"
    assert head(world, "acme").version == before + 1
    assert run(moved, "reembed", dry_run=False).told["of_this_model"] == 1


# --- verification -------------------------------------------------------------------------------


def test_a_damaged_segment_fails_the_run_and_is_named_by_day(tmp_path: Path) -> None:
    world = built(tmp_path, "acme", "beta")
    whole = run(world, "verify")
    assert whole.success, whole.error
    assert (whole.told["days"], whole.told["mismatches"], whole.told["events"]) == (4, 0, 160)
    assert whole.told["bundle_days"] == 2
    assert whole.told["embedded"] == 160
    with world.open() as opened:
        store = opened.plane.engine.store
        [key, *_] = opened.run(_segments(opened.plane, "beta", DAYS[0]))
        opened.run(store.put(key, b"not what was written"))
    ran = run(world, "verify")
    assert not ran.success
    assert ran.told["mismatches"] == 1
    assert f"beta: {DAYS[0]} segments: 1 of" in ran.error
    assert "restore them from a backup" in ran.error
    assert "acct-" not in ran.kept


async def _segments(plane: Plane, tenant: str, day: str) -> list[str]:
    found = []
    async for info in plane.engine.store.list(f"tenants/{tenant}/entities/"):
        key = parse(info.key)
        if isinstance(key, SegmentKey) and key.day == day:
            found.append(info.key)
    return found


# --- warming ------------------------------------------------------------------------------------


@contextmanager
def served(world: World) -> Iterator[str]:
    """The read service over the world's store, on a port of its own."""
    app = create_app(world.settings, loopback=True)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def test_a_service_is_asked_for_the_newest_days_with_the_key_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = built(tmp_path, "acme")
    with world.open() as opened:
        token = opened.run(
            create_key(opened.plane.engine, tenant="acme", scopes=["read"], expires_us=None, note="")
        ).token
    with served(world) as url:
        refused = run(world, "warm", url=url)
        assert not refused.success
        assert "acme (key_missing)" in refused.error
        assert "`key_variable`" in refused.error
        monkeypatch.setenv("THE_KEY", token)
        ran = run(world, "warm", url=url, key_variable="THE_KEY", days=1)
    assert ran.success, ran.error
    assert set(ran.told) == METADATA["warm"] | ALWAYS
    assert (ran.told["hints"], ran.told["days"]) == (1, 1)
    assert ran.told["bytes"] == head(world, "acme").days[DAYS[1]].shards.bytes
    assert token not in ran.kept


def test_a_service_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    """Seen to fail with the code of a service that is starting."""
    world = built(tmp_path, "acme")
    ran = run(world, "warm", url="http://someone:secret@127.0.0.1:9")
    assert not ran.success
    assert "acme: nothing answers at http://127.0.0.1:9 (ConnectError)" in ran.error
    assert ran.told["url"] == "http://127.0.0.1:9"
    assert "Is the service running" in ran.error
