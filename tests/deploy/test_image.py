"""The image's steps: what they copy exists and is what the package holds, and what they run is real."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commands.main import app
from context_plane.settings import Settings
from tests.deploy.dockerfile import Instruction, instructions, visible
from tests.deploy.files import DEPLOY, ROOT, documents, is_command


def steps() -> list[Instruction]:
    return instructions(DEPLOY / "Dockerfile")


def of(instruction: str) -> list[str]:
    return [rest for name, rest in steps() if name == instruction]


def copied() -> list[str]:
    """Paths of the context that are copied."""
    words = [rest.split() for rest in of("COPY") if not rest.startswith("--from")]
    return [path for row in words for path in row[:-1] if not path.startswith("--")]


def project() -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return found


def test_every_instruction_is_known() -> None:
    assert {name for name, _ in steps()} == {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "EXPOSE", "CMD"}


def test_bases_are_plain_names() -> None:
    assert of("FROM") == ["python:3.11-slim AS build", "python:3.11-slim"]


def test_every_copied_path_exists_and_reaches_the_build() -> None:
    """And nothing else does. Seen to fail with a folder renamed, and with a line of Dockerfile.dockerignore removed."""
    seen = visible(DEPLOY / "Dockerfile", ROOT)
    assert {path.partition("/")[0] for path in seen} == set(copied())
    assert not [path for path in seen if "__pycache__" in path]
    assert "context_plane/plane.py" in seen


def test_the_wheel_finds_all_that_it_packs() -> None:
    """The wheel's packages are those of pyproject.toml: one that is not copied would be missing without an error.
    Seen to fail without specs.
    """
    tool = project()["tool"]
    assert isinstance(tool, dict)
    assert set(tool["hatch"]["build"]["targets"]["wheel"]["packages"]) <= set(copied())
    meta = project()["project"]
    assert isinstance(meta, dict)
    assert meta["readme"] in copied()


def test_what_is_copied_builds_a_wheel_with_all_of_it(tmp_path: Path) -> None:
    """In a folder that holds what the image's build has, and nothing else. Type checkers read the annotations of what
    users import. Seen to fail without README.md, and without py.typed."""
    for path in copied():
        source, target = ROOT / path, tmp_path / path
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        file.relative_to(tmp_path).as_posix()
        for path in copied()
        if (tmp_path / path).is_dir()
        for file in (tmp_path / path).rglob("*")
        if file.is_file()
    }
    assert wanted
    assert wanted <= packed
    assert "context_plane/py.typed" in packed


def test_dependencies_are_installed_with_hashes_from_a_lock_file_that_has_them() -> None:
    (locked,) = [rest for rest in of("RUN") if "requirements-deploy.txt" in rest]
    assert "--require-hashes" in shlex.split(locked)
    names = {
        line.split("==")[0] for line in (ROOT / "requirements-deploy.txt").read_text().splitlines() if "==" in line
    }
    assert {"dagster-aws", "dagster-k8s", "dagster-postgres", "hatchling", "psycopg2-binary"} <= names


def test_what_is_deployed_is_what_is_tested() -> None:
    """The image's lock file agrees with the product's, but for what the extra brings."""
    product = pins("requirements.txt")
    deployed = pins("requirements-deploy.txt")
    assert product.items() <= deployed.items()
    assert {"dagster-postgres", "dagster-k8s"} <= deployed.keys() - product.keys()


def pins(name: str) -> dict[str, str]:
    lines = [line.split()[0] for line in (ROOT / name).read_text().splitlines() if line[:1].isalnum() and "==" in line]
    return dict(line.split("==", 1) for line in lines)


def test_it_runs_as_a_numbered_user_who_is_that_of_the_manifests() -> None:
    (user,) = of("USER")
    uid, _, gid = user.partition(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert any(f"--uid {uid}" in rest and f"--gid {gid}" in rest for rest in of("RUN"))
    for name in ("kubernetes/read-service.yaml", "kubernetes/scale-to-zero.yaml"):
        for found in documents(name):
            if "template" in found.get("spec", {}):
                context = found["spec"]["template"]["spec"]["securityContext"]
                assert (context["runAsUser"], context["runAsGroup"]) == (int(uid), int(gid))


def test_the_command_is_a_program_of_the_package_and_takes_its_arguments() -> None:
    (command,) = of("CMD")
    program, *arguments = json.loads(command)
    assert is_command(program)
    answer = CliRunner().invoke(app, [*arguments, "--help"])
    assert answer.exit_code == 0, answer.output
    assert of("EXPOSE") == [arguments[arguments.index("--port") + 1]]


@pytest.mark.parametrize("program", ["dagster", "dagster-daemon", "dagster-webserver"])
def test_the_programs_of_dagster_are_in_the_package(program: str) -> None:
    assert is_command(program)


def test_variables_are_read_by_somebody() -> None:
    given = {pair.split("=", 1)[0] for rest in of("ENV") for pair in shlex.split(rest)}
    ours = {name for name in given if name.startswith("CONTEXT_PLANE_")}
    assert ours == {"CONTEXT_PLANE_CACHE_DIR"}
    assert ours <= {f"CONTEXT_PLANE_{name.upper()}" for name in Settings.model_fields}
