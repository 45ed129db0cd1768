"""The image, built and started: its Dockerfile carried out in folders, and its programs run there as the manifests and
Dagster's chart run them. It takes minutes, downloads, and wants root, so it runs where CONTEXT_PLANE_IMAGE_ROOT=1 asks
for it. What no folder can tell (the registry's base image, a container runtime, a cluster) is in docs/gaps.md.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import pytest

from assets.dirt import DAY_JOB
from commands.processes import START_S, await_answer, free_port
from serving.main import DRAIN_S
from tests.deploy import rootfs
from tests.deploy.files import DEPLOY, ROOT, document, documents
from tests.deploy.image import Image, build, pid_of, started
from tests.deploy.rootfs import Mount
from tests.deploy.test_kubernetes import SPECS_VARIABLE

ASKED: Final = "CONTEXT_PLANE_IMAGE_ROOT"
USER: Final = 10_001
CACHE: Final = "/var/cache/context-plane"
HOME: Final = "/opt/dagster/dagster_home"
TENANT: Final = "demo"
DAY: Final = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
EVENT: Final = {
    "entity": "acct-0042",
    "ts": f"{DAY}T09:15:00Z",
    "source": "agent",
    "kind": "note",
    "text": "asked for a demo of SSO",
}
pytestmark = [
    pytest.mark.skipif(
        os.environ.get(ASKED) != "1", reason=f"the image is built in a folder where {ASKED}=1 asks for it"
    ),
    pytest.mark.timeout(3_600),
    pytest.mark.xdist_group("image"),
]

Run = Callable[..., str]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Outside pytest's own, which keeps what it made: the roots take gigabytes."""
    if reason := rootfs.absence():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="context-plane-image-") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def image(folder: Path) -> Image:
    built = build(DEPLOY / "Dockerfile", ROOT, folder)
    for seconds, instruction in built.log:
        print(f"{seconds:7.1f} s  {instruction[:100]}")
    return built


@pytest.fixture(scope="module")
def store(folder: Path) -> Mount:
    return volume(folder / "store", "/srv/store")


@pytest.fixture
def run(image: Image, store: Mount) -> Run:
    """A command in a container of its own that must succeed; what it said."""

    def work(*arguments: str, mounts: tuple[Mount, ...] = ()) -> str:
        given = image.surroundings(environment=of(store), mounts=(store, *mounts))
        return rootfs.run(image.root, arguments, given)

    return work


def volume(folder: Path, target: str) -> Mount:
    """An empty volume as Kubernetes gives it to the pod's group."""
    folder.mkdir(exist_ok=True)
    os.chown(folder, 0, USER)
    folder.chmod(0o2777)
    return Mount(folder, target)


def of(store: Mount) -> dict[str, str]:
    return {"CONTEXT_PLANE_STORE": f"file://{store.target}"}


def lines(text: str) -> set[str]:
    return set(text.splitlines())


def test_only_what_is_meant_can_be_written(run: Run) -> None:
    """Seen to fail with a cache's folder that root owns."""
    writable = lines(run("sh", "-c", "find / -xdev -writable ! -type l 2>/dev/null || true"))
    devices = {path for path in writable if path.startswith("/dev/")}
    of_user = {path for path in writable if path.startswith("/home/plane")}
    assert writable - devices - of_user == {CACHE, HOME, "/tmp", "/var/tmp", "/run/lock", "/srv/store"}


def test_all_of_it_can_be_read(run: Run) -> None:
    """Seen to fail without `--chmod` of workspace.yaml: the context is that of a checkout under umask 077."""
    assert not lines(run("sh", "-c", "find /opt ! -readable -o -type d ! -executable"))


def test_it_holds_what_was_named_and_nothing_of_the_build(image: Image) -> None:
    """Seen to fail with `COPY requirements-deploy.txt /opt/dagster/`."""
    assert sorted(path.name for path in (image.root / "opt/dagster").iterdir()) == ["dagster_home", "workspace.yaml"]
    assert sorted(path.name for path in (image.root / "opt").iterdir()) == ["dagster", "plane"]
    assert not (image.root / "src").exists()
    assert {path.name for path in (image.root / "root").iterdir()} <= {".bashrc", ".profile"}
    assert not list((image.root / "tmp").iterdir())


def test_packages_agree_and_are_those_of_the_lock_file(run: Run) -> None:
    assert "No broken requirements" in run("python", "-m", "pip", "check")
    listed = orjson.loads(run("python", "-m", "pip", "list", "--format=json", "--disable-pip-version-check"))
    have = {item["name"].lower().replace("_", "-").replace(".", "-"): item["version"] for item in listed}
    pins = [
        line.split()[0].split("==")
        for line in (ROOT / "requirements-deploy.txt").read_text().splitlines()
        if line[:1].isalnum() and "==" in line and ";" not in line
    ]
    assert len(pins) > 100
    for name, version in pins:
        assert have[name.partition("[")[0].replace(".", "-")] == version, name


def test_modules_are_compiled(image: Image) -> None:
    """A container that starts from zero may not write to its image. Seen to fail with `pip install --no-compile`."""
    (packages,) = (image.root / "opt/plane/lib").glob("python3*/site-packages")
    for name in ("context_plane", "serving", "commands", "assets", "resources", "dagster", "fastapi"):
        sources = [path for path in (packages / name).rglob("*.py") if "templates" not in path.parts]
        assert sources
        for source in sources:
            assert list((source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")), source


def test_it_serves_as_the_manifest_starts_it_and_ends_when_told(
    image: Image, store: Mount, folder: Path, run: Run
) -> None:
    """A read-only root, the manifest's variables and volumes, and process 1, to which the kernel delivers only signals
    that it handles. The store has its key first, as deploy/README.md says."""
    made = orjson.loads(
        run("context-plane", "keys", "create", "--operator", *scopes("read", "write", "admin"), "--json")
    )
    container = read_container()
    port = free_port()
    arguments = [str(port) if word == "8080" else word for word in (*container["command"], *container["args"])]
    assert [str(port) if word == "8080" else word for word in image.command] == arguments
    volumes = [volume(folder / f"volume-{item['name']}", item["mountPath"]) for item in container["volumeMounts"]]
    environment = of(store) | {item["name"]: item["value"] for item in container["env"]} | specs(volumes)
    given = image.surroundings(environment=environment, mounts=(store, *volumes), read_only=True)
    log = folder / "serve.log"
    with started(image, arguments, given, log) as process:
        url = f"http://127.0.0.1:{port}"
        await_answer(f"{url}/readyz", process, log)
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}/metrics").status_code == 200
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {made['token']}"}) as client:
            assert client.put(f"/v1/tenants/{TENANT}", json={}).is_success
            assert client.post(f"/v1/tenants/{TENANT}/events", json={"events": [EVENT]}).status_code == 201
            found = client.post(f"/v1/tenants/{TENANT}/search", json={"text": "single sign-on demo", "limit": 1}).json()
            assert found["hits"][0]["entity"] == EVENT["entity"]
        os.kill(pid_of(process), signal.SIGTERM)
        assert process.wait(DRAIN_S) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def specs(volumes: list[Mount]) -> dict[str, str]:
    """The variable that names their folder, whose volume holds the checkout's, as the map of specs would."""
    [found] = [found["data"] for found in documents("kubernetes/read-service.yaml") if found["kind"] == "ConfigMap"]
    [mount] = [mount for mount in volumes if mount.target == found[SPECS_VARIABLE]]
    shutil.copytree(ROOT / "specs", mount.source, dirs_exist_ok=True, copy_function=shutil.copyfile)
    return {SPECS_VARIABLE: mount.target}


def scopes(*names: str) -> list[str]:
    return [word for name in names for word in ("--scope", name)]


def read_container() -> dict[str, Any]:
    (found,) = [found for found in documents("kubernetes/read-service.yaml") if found["kind"] == "Deployment"]
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def test_other_commands_of_the_readme_run_in_its_place(run: Run) -> None:
    answer = orjson.loads(run("context-plane", "doctor", "--json"))
    assert answer["ok"], answer
    run("dagster-daemon", "--version")


def test_a_day_is_built_and_its_bundle_read(run: Run, folder: Path) -> None:
    """With Dagster's settings of one machine, in a home that is a volume."""
    home = volume(folder / "dagster-home", HOME)
    shutil.copy(DEPLOY / "dagster/one-machine.yaml", home.source / "dagster.yaml")
    assert "SqliteRunStorage" in run("dagster", "instance", "info", mounts=(home,))
    run("dagster", "definitions", "validate", "-w", "workspace.yaml", mounts=(home,))
    tags = orjson.dumps({"dagster/partition": DAY}).decode()
    run(
        "dagster",
        "job",
        "execute",
        "-m",
        "assets.definitions",
        "-a",
        "defs",
        "-j",
        DAY_JOB,
        "--tags",
        tags,
        mounts=(home,),
    )
    assert EVENT["text"] in run("context-plane", "context", EVENT["entity"], "--tenant", TENANT)


def test_dagster_runs_as_its_chart_starts_it(image: Image, store: Mount, folder: Path, run: Run) -> None:
    """Code server, webserver and daemon in containers of their own, until their probes succeed. Its instance is that of
    one machine, without Postgres and S3."""
    (deployment,) = document("helm/values.yaml")["dagster-user-deployments"]["deployments"]
    home = volume(folder / "dagster-chart", HOME)
    shutil.copy(DEPLOY / "dagster/one-machine.yaml", home.source / "dagster.yaml")
    grpc, ui = str(free_port()), str(free_port())
    workspace = folder / "workspace"
    workspace.mkdir()
    location = {"host": "127.0.0.1", "port": int(grpc), "location_name": deployment["name"]}
    (workspace / "workspace.yaml").write_bytes(orjson.dumps({"load_from": [{"grpc_server": location}]}))
    mounts = (store, home, Mount(workspace, "/dagster-workspace", read_only=True))
    given = image.surroundings(environment=of(store), mounts=mounts)
    server = ["dagster", "code-server", "start", "-h", "0.0.0.0", "-p", grpc, *deployment["codeServerArgs"]]
    web = ["/bin/bash", "-c", f"dagster-webserver -h 0.0.0.0 -p {ui} -w /dagster-workspace/workspace.yaml"]
    daemon = ["/bin/bash", "-c", "dagster-daemon run -w /dagster-workspace/workspace.yaml"]
    logs = [folder / f"{name}.log" for name in ("grpc", "web", "daemon")]
    with started(image, server, given, logs[0]) as code:
        wait_for(code, image, ["dagster", "api", "grpc-health-check", "-p", grpc], given, logs[0])
        with started(image, web, given, logs[1]) as webserver, started(image, daemon, given, logs[2]) as running:
            url = f"http://127.0.0.1:{ui}"
            await_answer(f"{url}/server_info", webserver, logs[1])
            query = "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }"
            answer = httpx.post(f"{url}/graphql", json={"query": query}, timeout=60).json()
            entries = answer["data"]["workspaceOrError"]["locationEntries"]
            assert entries == [{"name": deployment["name"], "loadStatus": "LOADED"}]
            wait_for(running, image, ["dagster-daemon", "liveness-check"], given, logs[2])


def wait_for(
    process: subprocess.Popen[bytes], image: Image, arguments: list[str], given: rootfs.Surroundings, log: Path
) -> None:
    """Until the command, a probe of the chart's, succeeds."""
    give_up_s = time.monotonic() + START_S
    command = rootfs.command(image.root, arguments, given)
    while subprocess.run(command, capture_output=True, check=False).returncode:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up_s, log.read_text()
