"""The commands of the deployment's page. Those of one machine, and the key of a cluster's store, are run; what needs a
daemon or a cluster is read word by word: its files are there, and its names are those of the manifests and values."""

from __future__ import annotations

import itertools
import re
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import boto3
import dagster as dg
import httpx
import orjson
import pytest

from commands.processes import START_S, await_answer, child, free_port
from context_plane.bundle.spec import load_specs
from context_plane.errors import Invalid
from resources.workers import RayCluster
from serving.tracing import open_provider
from tests.deploy import test_image_root
from tests.deploy.dockerfile import instructions
from tests.deploy.files import DEPLOY, IMAGE, ROOT, document, documents, values_of
from tests.deploy.test_docs import read_variables
from tests.deploy.test_image import of, pins
from tests.deploy.test_kubernetes import FILES, SPECS_MAP
from tests.pages import NOT_HERE, commands, examples, program
from tests.shell import environment, shell
from tests.store import servers
from tests.store.servers import ACCESS_KEY, SECRET_KEY

PAGE: Final = "deploy/README.md"
ONE_MACHINE, IMAGES, EXTRAS, FOLDERS, CLUSTER, SPECS = examples(PAGE, "sh")
EXTRAS_FILE: Final = DEPLOY / "Dockerfile.extras"
DATA: Final = "/var/lib/context-plane"
HEALTH: Final = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } workspaceOrError { \
... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename } } } } }"


def of_program(name: str) -> list[list[str]]:
    """Commands of the page that run it, without its name."""
    return [words[1:] for block in (IMAGES, CLUSTER) for words in commands(block.text) if program(words) == name]


def piped(words: list[str]) -> list[list[str]]:
    """The commands of a pipe."""
    return [list(part) for bar, part in itertools.groupby(words, "|".__eq__) if not bar]


def option(words: list[str], *names: str) -> str:
    """What follows one of the names; it is there once."""
    [value] = [value for name, value in itertools.pairwise(words) if name in names]
    return value


def test_every_command_is_run_or_read_here() -> None:
    """Seen to fail with another program on the page."""
    lines = [words for block in (IMAGES, EXTRAS, CLUSTER, SPECS) for words in commands(block.text)]
    programs = {program(words) for line in lines for words in piped(line)}
    assert programs - NOT_HERE.keys() == {"context-plane", "mkdir", "printf"}
    assert programs & NOT_HERE.keys() == {"docker", "helm", "kubectl", "uv"}


# --- one machine --------------------------------------------------------------------------------


@pytest.mark.xdist_group("one_machine")
@pytest.mark.timeout(200)
def test_one_machine_runs_as_the_page_says(tmp_path: Path) -> None:
    """All three processes, in this checkout; the folder and the ports are others. The daemon and the webserver see each
    other, so both found the settings that were copied. Seen to fail with `DAGSTER_HOME` not exported."""
    api, ui = free_port(), free_port()
    script = ONE_MACHINE.text.replace(DATA, str(tmp_path / "data")).replace("-p 3000", f"-p {ui}")
    script = script.replace("context-plane serve", f"context-plane serve --port {api}")
    assert str(api) in script
    log = tmp_path / "log"
    command = ["bash", "-euc", f"cd {ROOT}\n{script}"]
    with child(command, log=log, environment=environment(tmp_path)) as process:
        await_answer(f"http://127.0.0.1:{api}/readyz", process, log)
        await_answer(f"http://127.0.0.1:{ui}/server_info", process, log)
        told = awaited(f"http://127.0.0.1:{ui}/graphql")
    [location] = told["workspaceOrError"]["locationEntries"]
    assert (location["name"], location["locationOrLoadError"]["__typename"]) == ("context-plane", "RepositoryLocation")
    assert list((tmp_path / "data" / "dagster").rglob("runs.db"))


def awaited(url: str) -> dict[str, Any]:
    """What the webserver says once the code is loaded and every daemon has been heard of."""
    give_up_s = time.monotonic() + START_S
    while True:
        told: dict[str, Any] = httpx.post(url, json={"query": HEALTH}, timeout=START_S).json()["data"]
        daemons = told["instance"]["daemonHealth"]["allDaemonStatuses"]
        assert any(each["required"] for each in daemons)
        if all(each["healthy"] for each in daemons if each["required"]):
            return told
        assert time.monotonic() < give_up_s, told
        time.sleep(0.2)


# --- the image ----------------------------------------------------------------------------------


def test_the_image_is_built_from_our_file_under_the_name_of_the_manifests() -> None:
    """Seen to fail with another file, and with another tag."""
    [build] = [words for words in of_program("docker") if words[0] == "build"]
    assert ROOT / option(build, "-f") == DEPLOY / "Dockerfile"
    assert option(build, "-t") == IMAGE
    assert build[-1] == ".", "what is copied is named from the checkout"


def test_the_image_is_run_on_the_port_it_listens_on_with_variables_that_are_read() -> None:
    """Seen to fail with a variable misspelt."""
    [run] = [words for words in of_program("docker") if words[0] == "run"]
    assert run[-1] == IMAGE
    assert option(run, "-p").split(":")[1] == of("EXPOSE")[0]
    given = [value.partition("=")[0] for name, value in itertools.pairwise(run) if name == "-e"]
    assert "CONTEXT_PLANE_STORE" in given
    assert set(given) <= {name for row in read_variables() for name in row.split("`, `")}


def test_extras_are_those_of_the_package_and_locked_as_the_image_is(tmp_path: Path) -> None:
    """The lines before the one that asks an index are run. Seen to fail with an extra's release changed, without
    hashes, and with another lock file."""
    *made, locked, build = commands(EXTRAS.text)
    shell("\n".join(EXTRAS.text.splitlines()[: len(made)]), tmp_path)
    [asked, written] = [Path(locked[3]), Path(option(locked, "--output-file"))]
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert sorted((tmp_path / asked).read_text().split()) == sorted(package["ray"] + package["otel"])
    constraint = option(locked, "--constraint")
    [image] = [words for words in lock_commands() if option(words, "--output-file") == constraint]
    assert constraint in of("COPY")[0].split()
    assert {"--generate-hashes", "--universal", "--python-version"} <= {*locked} & {*image}
    assert option(locked, "--python-version") == option(image, "--python-version")
    assert ROOT / option(build, "-f") == EXTRAS_FILE
    context = Path(build[-1])
    assert option(build, "-t").startswith(IMAGE)
    assert written == context / "requirements.txt"


def lock_commands() -> list[list[str]]:
    """What `make lock` runs, without its program."""
    lines = (ROOT / "Makefile").read_text().replace("\\\n", " ").splitlines()
    return [line.split()[1:] for line in lines if line.startswith("\t$(UV) ")]


def test_the_image_with_extras_is_ours_with_packages_that_have_hashes() -> None:
    """Its user is ours again. Seen to fail with root at its end, and without the hashes."""
    steps = instructions(EXTRAS_FILE)
    assert [name for name, _ in steps] == ["FROM", "USER", "COPY", "RUN", "USER"]
    given = [rest for _, rest in steps]
    assert (given[0], given[-1]) == (IMAGE, of("USER")[0])
    source, target = given[2].split()
    assert source == "requirements.txt"
    installed, *_ = given[3].split(" && ")
    assert installed.startswith("python -m pip install ")
    assert "--require-hashes" in installed
    assert option(installed.split(), "-r") == target


def test_who_lacks_an_extra_is_told_how_an_image_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Dagster's workers and by the service. Seen to fail with words for a checkout alone."""
    for name in ("ray", "opentelemetry.sdk.trace"):
        monkeypatch.setitem(sys.modules, name, None)
    for raised, work in ((dg.Failure, RayCluster), (Invalid, lambda: open_provider({"OTEL_TRACES_EXPORTER": "otlp"}))):
        with pytest.raises(raised) as error:
            work()
        [heading] = re.findall(r"see ([^;]*) in deploy/README.md", str(error.value))
        assert f"### {heading}\n" in (DEPLOY / "README.md").read_text()


def test_the_image_is_built_in_folders_by_the_module_that_asks_for_the_variable() -> None:
    """Which takes minutes where it is asked for. Seen to fail with the variable misspelt."""
    [[asked, _, *words]] = commands(FOLDERS.text)
    assert asked == f"{test_image_root.ASKED}=1"
    assert ROOT / words[-1] == Path(test_image_root.__file__)


# --- a cluster ----------------------------------------------------------------------------------


@pytest.fixture
def bucket() -> Iterator[dict[str, str]]:
    """The environment in which the page's store is there."""
    [words] = of_program("context-plane")
    with servers.moto() as server:
        made = boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )
        made.create_bucket(Bucket=option(words, "--store").split("/")[2])
        yield server.environment


def test_the_key_is_made_in_the_store_of_the_manifests(bucket: dict[str, str], tmp_path: Path) -> None:
    """Seen to fail with a scope that there is not, and with another prefix."""
    [words] = of_program("context-plane")
    made = orjson.loads(shell(f"context-plane {' '.join(words)} --json", tmp_path, bucket))
    assert (made["tenant"], made["scopes"]) == ("(every)", "admin read write")
    stores = set(values_of([found for name in FILES for found in documents(name)], "CONTEXT_PLANE_STORE"))
    assert stores == {option(words, "--store")}


def test_secrets_are_made_under_the_names_that_manifests_and_values_read() -> None:
    """Seen to fail with a secret and with a key of one misspelt."""
    made = {
        words[words.index("generic") + 1]: {
            value.removeprefix("--from-literal=").partition("=")[0] for value in words if value.startswith("--from-l")
        }
        for words in of_program("kubectl")
        if "generic" in words
    }
    values = document("helm/values.yaml")
    [ours] = {found["name"] for name in FILES for found in values_of(documents(name), "secretRef")}
    [warm] = values_of(values, "secretKeyRef")
    assert warm["optional"]
    assert made == {
        ours: {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
        warm["name"]: {warm["key"]},
        values["global"]["postgresqlSecretName"]: {"postgresql-password"},
    }


def test_everything_goes_into_the_namespace_that_is_made_first() -> None:
    first, *others = of_program("kubectl")
    verb, kind, name = first
    assert (verb, kind) == ("create", "namespace")
    charts = [words for words in of_program("helm") if words[0] == "upgrade"]
    assert {option(words, "-n") for words in (*others, *charts)} == {name}
    again = [words for line in commands(SPECS.text) for words in piped(line)]
    assert {option(words, "-n") for words in again} == {name}
    namespaces = {found for each in FILES for found in values_of(documents(each), "namespace")}
    assert namespaces <= {name}


def test_what_is_applied_is_there() -> None:
    """tests/deploy/test_kubernetes.py holds it to the schema."""
    [applied] = [words for words in of_program("kubectl") if "apply" in words]
    assert ROOT / option(applied, "-f") in {DEPLOY / name for name in FILES}


def test_specs_are_made_from_the_folder_under_the_name_that_is_mounted() -> None:
    """At first and after a change, and then whoever reads them at its start is started again. Seen to fail with the map
    and with the deployment misspelt."""
    [made] = [words for words in of_program("kubectl") if "configmap" in words]
    [[create, replace], [restart]] = [piped(line) for line in commands(SPECS.text)]
    wanted = ["create", "configmap", SPECS_MAP, "--from-file=specs"]
    assert made[2:] == wanted
    assert create[3:] == [*wanted, "--dry-run=client", "-o", "yaml"]
    assert replace[3:] == ["replace", "-f", "-"]
    [deployment] = [found for found in documents(FILES[0]) if found["kind"] == "Deployment"]
    assert restart[3:] == ["rollout", "restart", f"deployment/{deployment['metadata']['name']}"]
    assert load_specs(ROOT / "specs")


def test_the_chart_is_that_of_the_locked_dagster_with_our_values() -> None:
    """From the repository that is added first. Seen to fail with another version, and without the repository."""
    added, upgrade = of_program("helm")
    assert added[:2] == ["repo", "add"]
    release, chart = upgrade[upgrade.index("--install") + 1 :][:2]
    assert (release, chart) == ("dagster", f"{added[2]}/dagster")
    assert option(upgrade, "--version") == pins("requirements-deploy.txt")["dagster"]
    assert ROOT / option(upgrade, "-f") == DEPLOY / "helm" / "values.yaml"
    [again] = [line for line in (DEPLOY / "helm" / "values.yaml").read_text().splitlines() if "helm upgrade" in line]
    assert again.strip("# ").split() == ["helm", *upgrade]
