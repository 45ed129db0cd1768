"""The manifests fit Kubernetes' own schema, and everything that they name of ours exists."""

from __future__ import annotations

import os
import re
from typing import Any, Final

import boto3
import kubernetes_validate  # type: ignore[import-untyped]  # it brings no types
import orjson
import pytest
from typer.testing import CliRunner

from assets.definitions import defs
from assets.external import READ_VARIABLE
from assets.operations.warming import KEY_VARIABLE
from assets.partitions import START_VARIABLE, daily_partitions
from commands.main import app
from context_plane.settings import Settings, store_options_from_environment
from resources.workers import WorkerSettings
from serving.app import create_app
from tests.deploy.files import DEPLOY, IMAGE, ROOT, document, documents, is_command, values_of

FILES = ("kubernetes/read-service.yaml", "kubernetes/scale-to-zero.yaml")
KNATIVE = "serving.knative.dev/v1"
PROCESSES_VARIABLE: Final = "CONTEXT_PLANE_WORKER_PROCESSES"
SPECS_VARIABLE: Final = "CONTEXT_PLANE_SPECS_DIR"
SPECS_MAP: Final = "context-plane-specs"
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
STORE_VARIABLES = {"AWS_REGION", "AWS_DEFAULT_REGION"}
"""Of `store_options_from_environment`, as far as the manifests set them."""


def bytes_of(quantity: str) -> int:
    found = re.fullmatch(r"(\d+)(Ki|Mi|Gi)", quantity)
    assert found, quantity
    return int(found[1]) * UNITS[found[2]]


def manifests() -> list[dict[str, Any]]:
    return [found for name in FILES for found in documents(name)]


def pods() -> list[dict[str, Any]]:
    return [found["spec"]["template"]["spec"] for found in manifests() if "template" in found.get("spec", {})]


def read_variables() -> set[str]:
    return {f"CONTEXT_PLANE_{name.upper()}" for name in Settings.model_fields} | STORE_VARIABLES


@pytest.mark.parametrize("manifest", manifests(), ids=lambda found: f"{found['kind']}-{found['apiVersion']}")
def test_it_fits_the_schema_of_kubernetes(manifest: dict[str, Any]) -> None:
    """Strictly: an unknown field is an error. Knative's pod is checked as the Pod it becomes. Seen to fail with
    `readinesProbe`."""
    if manifest["apiVersion"] == KNATIVE:
        spec = dict(manifest["spec"]["template"]["spec"])
        assert {"containerConcurrency", "timeoutSeconds"} <= spec.keys()
        for ours in ("containerConcurrency", "timeoutSeconds"):
            spec.pop(ours)
        for container in spec["containers"]:
            for probe in ("readinessProbe", "livenessProbe"):
                # Knative fills in the port of a probe; Kubernetes' schema wants it.
                container[probe] = {**container[probe], "httpGet": {**container[probe]["httpGet"], "port": 8080}}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "of-knative"}, "spec": spec}
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_schema_is_seen_to_refuse() -> None:
    broken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"prots": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


def test_probes_ask_routes_that_the_app_has() -> None:
    routes = set(create_app(Settings(store="memory://deploy")).openapi()["paths"])
    asked = {probe["path"] for probe in values_of(manifests(), "httpGet")}
    assert asked == {"/healthz", "/readyz"}
    assert asked <= routes
    scraped = set(values_of(manifests(), "prometheus.io/path"))
    assert scraped == {"/metrics"} <= routes


def test_only_readiness_asks_the_store() -> None:
    """A store that does not answer must not restart every pod."""
    for pod in pods():
        (container,) = pod["containers"]
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_commands_exist_and_take_their_arguments() -> None:
    for pod in pods():
        (container,) = pod["containers"]
        (program,) = container["command"]
        assert is_command(program)
        answer = CliRunner().invoke(app, [*container["args"], "--help"])
        assert answer.exit_code == 0, answer.output
        port = container["args"][container["args"].index("--port") + 1]
        assert [item["containerPort"] for item in container["ports"]] == [int(port)]


def test_every_variable_is_one_that_is_read() -> None:
    """Seen to fail with CONTEXT_PLANE_CACHE_BYTES."""
    set_by_name = {item["name"] for pod in pods() for container in pod["containers"] for item in container["env"]}
    set_by_map = {name for found in manifests() if found["kind"] == "ConfigMap" for name in found["data"]}
    assert set_by_name | set_by_map
    assert set_by_name | set_by_map <= read_variables()


def test_both_clients_of_buckets_read_the_same_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's and boto3, which keeps the logs; whatever has the map's variables. Seen to fail without
    AWS_DEFAULT_REGION, and with another region there."""
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    for name in STORE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    [found] = [found["data"] for found in manifests() if found["kind"] == "ConfigMap"]
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    assert boto3.Session().region_name == store_options_from_environment().region
    values = document("helm/values.yaml")
    [deployment] = values["dagster-user-deployments"]["deployments"]
    for reader in (values["dagsterWebserver"], values["dagsterDaemon"], deployment):
        assert reader["envConfigMaps"] == [{"name": "context-plane"}]


@pytest.mark.parametrize("pod", pods())
def test_caches_fit_their_volume_and_their_memory(pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume over its limit evicts the pod. Unpacked shards take up to a quarter on top of the disk budget."""
    (container,) = pod["containers"]
    for item in container["env"]:
        monkeypatch.setenv(item["name"], item["value"])
    settings = Settings()
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume}
    limit = bytes_of(volumes[mounts[str(settings.cache_folder)]]["sizeLimit"])
    assert settings.cache_disk_bytes * 5 // 4 < limit
    assert settings.cache_memory_bytes * 2 <= bytes_of(container["resources"]["limits"]["memory"])
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]


def test_no_pod_is_root_or_writes_to_its_image() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_selectors_choose_the_pods_and_the_autoscaler_the_deployment() -> None:
    by_kind = {found["kind"]: found for found in documents(FILES[0])}
    labels = by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    assert by_kind["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert by_kind["Service"]["spec"]["selector"].items() <= labels
    scaled = by_kind["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", by_kind["Deployment"]["metadata"]["name"])
    assert "replicas" not in by_kind["Deployment"]["spec"]


def test_the_grace_period_covers_the_drain() -> None:
    from serving.main import DRAIN_S

    (pod,) = [pod for pod in pods() if "terminationGracePeriodSeconds" in pod]
    (container,) = pod["containers"]
    slept_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > slept_s + DRAIN_S


def test_one_image_everywhere() -> None:
    images = {container["image"] for pod in pods() for container in pod["containers"]}
    images |= {f"{found['repository']}:{found['tag']}" for found in values_of(document("helm/values.yaml"), "image")}
    assert images == {IMAGE}
    assert f"-t {IMAGE} " in (DEPLOY / "Dockerfile").read_text()


def test_the_chart_says_what_production_says() -> None:
    """The chart writes dagster.yaml from its values: the two must not drift apart. Seen to fail with a setting that one
    of them lacks."""
    values, wanted = document("helm/values.yaml"), document("dagster/production.yaml")
    assert values["additionalInstanceConfig"]["concurrency"] == wanted["concurrency"]
    daemon = values["dagsterDaemon"]
    assert {snake(name): value for name, value in daemon["runMonitoring"].items()} == wanted["run_monitoring"]
    assert {snake(name): value for name, value in daemon["runRetries"].items()} == wanted["run_retries"]
    logs = values["computeLogManager"]["config"]["s3ComputeLogManager"]
    logs_wanted = {name: value for name, value in wanted["compute_logs"]["config"].items() if name != "bucket"}
    assert {snake(name): value for name, value in logs.items() if name != "bucket"} == logs_wanted
    assert values["retention"]["sensor"] == {"purgeAfterDays": wanted["retention"]["sensor"]["purge_after_days"]}
    assert values["telemetry"] == wanted["telemetry"]
    assert wanted.keys() - {"storage", "compute_logs", "code_servers"} == {
        "concurrency", "run_monitoring", "run_retries", "retention", "telemetry"
    }, "each is compared above; the chart starts code servers by itself"  # fmt: skip
    assert values["postgresql"]["postgresqlScheme"] == wanted["storage"]["postgres"]["postgres_db"]["scheme"]


def test_the_chart_tells_the_code_where_readers_are_and_when_days_begin() -> None:
    """And the key to warm them with. Runs get the environment of the code server. Seen to fail without any of these,
    and with a day that is none."""
    (deployment,) = document("helm/values.yaml")["dagster-user-deployments"]["deployments"]
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}
    given = {item["name"]: item.get("value", "") for item in deployment["env"]}
    assert given.keys() == {READ_VARIABLE, START_VARIABLE, KEY_VARIABLE, PROCESSES_VARIABLE}
    assert given[READ_VARIABLE].startswith("https://")
    assert daily_partitions(given[START_VARIABLE]).get_first_partition_key() == given[START_VARIABLE]


def peaks() -> tuple[float, float]:
    """Bytes of a run's own process and of a worker, measured over many small tenants."""
    rows = orjson.loads((ROOT / "benchmarks/results/tenants.json").read_bytes())["rows"]
    run, worker = (max(row.get(name, 0.0) for row in rows) * UNITS["Mi"] for name in ("peak_mb", "worker_peak_mb"))
    assert worker > run > 0
    return run, worker


def told(name: str) -> str:
    """A file below `deploy/` in one line, its comments as the rest."""
    return " ".join((DEPLOY / name).read_text().replace("#", "").split())


def test_a_run_and_its_workers_fit_the_memory_that_the_chart_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the peaks that were measured of small tenants, which the comments round. Seen to fail without the variable,
    and with twice as many processes."""
    run, worker = peaks()
    (deployment,) = document("helm/values.yaml")["dagster-user-deployments"]["deployments"]
    monkeypatch.setenv(*next(item.values() for item in deployment["env"] if item["name"] == PROCESSES_VARIABLE))
    workers = WorkerSettings().worker_processes
    assert workers > 0, "a worker for every processor of the node"
    asked, limit = (bytes_of(deployment["resources"][name]["memory"]) for name in ("requests", "limits"))
    assert run + workers * worker <= asked <= limit // 2
    for name in ("helm/values.yaml", "dagster/one-machine.yaml", "dagster/production.yaml", "README.md"):
        assert f"some {worker / 1e9:.1f} GB" in told(name), name


def test_what_runs_share_without_a_launcher_is_told_in_gigabytes() -> None:
    """Seen to fail with another number of runs."""
    runs = document("dagster/production.yaml")["concurrency"]["runs"]["max_concurrent_runs"]
    run, worker = peaks()
    assert runs == 8
    bytes_ = runs * (run + 2 * worker)
    assert f"eight runs of two workers take {bytes_ / 1e9:.0f} GB" in told("dagster/production.yaml")


def test_one_machine_tells_it_too() -> None:
    """Seen to fail without either."""
    page = (DEPLOY / "README.md").read_text().partition("## One machine")[2].partition("## ")[0]
    assert {f"{READ_VARIABLE}=", f"{START_VARIABLE}="} <= {word.partition("=")[0] + "=" for word in page.split()}


def test_the_chart_serves_our_definitions_under_the_names_of_the_read_service() -> None:
    values = document("helm/values.yaml")
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert "dagsterApiGrpcArgs" not in deployment, "the chart prefers it, and such a server does not load code again"
    arguments = deployment["codeServerArgs"]
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert given == {"--module-name": "assets.definitions", "--attribute": "defs"}
    assert defs.get_repository_def() is not None
    maps = {item["name"] for found in values_of(values, "envConfigMaps") for item in found}
    assert maps == {found["metadata"]["name"] for found in manifests() if found["kind"] == "ConfigMap"}
    secrets = {item["name"] for found in values_of(values, "envSecrets") for item in found}
    assert secrets == {found["name"] for found in values_of(manifests(), "secretRef")}


def test_builders_and_readers_read_the_same_specs() -> None:
    """Runs have the volumes of the code server. Seen to fail with one that does not mount them, with another map, and
    with another folder."""
    [folder] = set(values_of(manifests(), SPECS_VARIABLE))
    [deployment] = document("helm/values.yaml")["dagster-user-deployments"]["deployments"]
    holders = [(pod["volumes"], pod["containers"][0]["volumeMounts"]) for pod in pods()]
    found = []
    for volumes, mounts in (*holders, (deployment["volumes"], deployment["volumeMounts"])):
        [mount] = [mount for mount in mounts if mount["mountPath"] == folder]
        [volume] = [volume for volume in volumes if volume["name"] == mount["name"]]
        assert mount == {"name": mount["name"], "mountPath": folder, "readOnly": True}, "subPath would never change"
        found.append(volume["configMap"])
    assert len(found) == 3
    assert found == [{"name": SPECS_MAP}] * 3


def test_the_webserver_listens_where_its_user_may_and_its_probe_asks() -> None:
    """The chart binds the service's port in the container; below 1024 only root may, on many nodes. Seen to fail with
    the chart's default of 80."""
    webserver = document("helm/values.yaml")["dagsterWebserver"]
    assert webserver["service"]["port"] >= 1024
    assert webserver["readinessProbe"]["httpGet"]["port"] == webserver["service"]["port"]


def snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", name)
