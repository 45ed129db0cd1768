"""What `serve` and `up` start and end, and where `up` lets Dagster's partitions begin."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest
import yaml

from assets.operations.warming import KEY_VARIABLE
from assets.partitions import START_VARIABLE
from commands import outcome
from commands.processes import LOOPBACK, START_S, STOP_S, await_answer, child, free_port, prepare_workspace, program
from commands.serve import FIRST_DAY, WARM_KEY, environment_of_dagster, first_month
from context_plane.access import create_key
from context_plane.errors import Invalid, Unavailable
from resources.plane import OpenPlane
from tests.assets.world import World, events
from tests.commands.cli import Cli
from tests.pages import ROOT

BROKEN = """
from commands.main import main
from serving import main as server

async def broken(scope, receive, send):
    raise RuntimeError("gone")

def create_app(*_, **__):
    return broken

server.create_app = create_app
if __name__ == "__main__":
    main()
"""
"""The program with an app that does not start."""


def test_partitions_begin_with_the_month_of_the_oldest_event(tmp_path: Path) -> None:
    """Built, unbuilt or rolled up, of any tenant. Seen to fail with what is built alone, and with one tenant."""
    assert FIRST_DAY == START_VARIABLE
    world = World.local(tmp_path)
    with world.open() as opened:
        assert opened.run(first_month(opened.plane)) is None
    world.write("beta", events("beta", ["2026-03-09"]))
    world.write("acme", events("acme", ["2026-03-04"]))
    world.build(["2026-03-09"])
    world.write("acme", events("late", ["2026-02-27"]))
    with world.open() as opened:
        assert opened.run(first_month(opened.plane)) == "2026-02-01"
    world.build(["2026-02-27"])
    with world.open() as opened:
        assert opened.run(first_month(opened.plane)) == "2026-02-01"
        assert opened.run(opened.plane.roll_up("acme", "2026-02"))[0] == "due"
        assert opened.run(first_month(opened.plane)) == "2026-02-01"


def test_the_ui_is_given_the_code_location_of_the_checkout(tmp_path: Path) -> None:
    """Under one name, for Dagster keeps the states of sensors and schedules by it. Seen to fail with another name."""
    [ours] = yaml.safe_load(prepare_workspace(tmp_path).read_text())["load_from"]
    [theirs] = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    given = {name: value for name, value in ours["python_module"].items() if name != "working_directory"}
    assert given == theirs["python_module"]


def test_dagster_gets_the_key_of_a_demo_of_this_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With which `warm_services` asks: the newest that reads, unless the environment names one. Seen to fail without,
    and with keys of other stores."""
    assert WARM_KEY == KEY_VARIABLE
    monkeypatch.delenv(WARM_KEY, raising=False)
    world, other = World.local(tmp_path / "here"), World.local(tmp_path / "there")
    with world.open() as opened, other.open() as elsewhere:

        def kept(tenant: str, of: OpenPlane, age_s: int, *scopes: str) -> str:
            token = of.run(create_key(of.plane.engine, tenant=tenant, scopes=scopes)).token
            path = tmp_path / "demo" / tenant / "key"
            path.parent.mkdir(parents=True)
            path.write_text(f"{token}\n")
            os.utime(path, (path.stat().st_mtime - age_s,) * 2)
            return token

        assert WARM_KEY not in opened.run(environment_of_dagster(opened.plane, tmp_path))
        kept("old", opened, 40, "read")
        newest = kept("new", opened, 30, "read", "write")
        kept("writes", opened, 20, "write")
        kept("moved", elsewhere, 10, "read")
        assert opened.run(environment_of_dagster(opened.plane, tmp_path))[WARM_KEY] == newest
        monkeypatch.setenv(WARM_KEY, "mine")
        assert opened.run(environment_of_dagster(opened.plane, tmp_path))[WARM_KEY] == "mine"


@pytest.fixture
def in_the_background() -> Iterator[None]:
    """As a shell starts what is followed by `&`."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.xdist_group("one_machine")
@pytest.mark.timeout(150)
@pytest.mark.usefixtures("in_the_background")
def test_the_ui_shows_the_days_that_there_are_and_ends_with_its_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another folder than the checkout's, which has assets of its own. Seen to fail (days from 2000 on, most of them
    empty) without the first one, (both still listen, nobody's children) with interrupts ignored as they were, and (they
    do not start) with the workspace of the folder, or its modules before ours."""
    monkeypatch.chdir(tmp_path)
    for name in ("assets", "commands"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('another project')\n")
    world = World.local(tmp_path)
    world.write("acme", events("acme", ["2026-03-04"]))
    port, ui, log = free_port(), free_port(), tmp_path / "log"
    options = {"--port": str(port), "--ui-port": str(ui), "--dagster-home": str(tmp_path / "dagster")}
    command = [*program(), "up", *(word for option in options.items() for word in option)]
    environment = {"CONTEXT_PLANE_STORE": world.settings.store, "CONTEXT_PLANE_CACHE_DIR": str(tmp_path / "cache")}
    query = '{ assetNodeOrError(assetKey: {path: ["published"]}) { ... on AssetNode { partitionKeys } } }'
    with child(command, log=log, environment=environment) as process:
        await_answer(f"http://{LOOPBACK}:{ui}/server_info", process, log)
        answer = httpx.post(f"http://{LOOPBACK}:{ui}/graphql", json={"query": query}, timeout=START_S).json()
    assert answer["data"]["assetNodeOrError"]["partitionKeys"][0] == "2026-03-01"
    assert process.returncode in (0, outcome.INTERRUPTED), log.read_text()  # the latter before it has said so
    for listener in (port, ui):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, listener)).close()


@pytest.mark.parametrize("workers", ["1", "2"])
class TestAServiceThatDoesNotStart:
    """Ends in one line and a code of ours, and has told nobody where it is.

    Each seen to fail with the start left to the server's library: a traceback and 3, or 0 with two workers."""

    def refused(self, folder: Path, *words: str, code: int, **environment: str) -> str:
        made = Cli(folder)
        assert made("serve", "--json", *words, code=code, environment=environment) == ""
        [line] = [line for line in made.error.splitlines() if line.startswith("context-plane: ")]
        return line

    def test_where_somebody_else_listens(self, tmp_path: Path, workers: str) -> None:
        with socket.create_server((LOOPBACK, 0)) as taken:
            port = str(taken.getsockname()[1])
            code = outcome.EXIT_CODES[Invalid]
            line = self.refused(tmp_path, "--port", port, "--workers", workers, code=code)
        assert "address already in use; choose another with --port" in line

    def test_on_an_address_of_another_machine(self, tmp_path: Path, workers: str) -> None:
        words = ("--host", "192.0.2.1", "--port", str(free_port()), "--workers", workers)
        assert "--host" in self.refused(tmp_path, *words, code=outcome.EXIT_CODES[Invalid])

    def test_over_a_plane_that_does_not_open(self, tmp_path: Path, workers: str) -> None:
        words = ("--port", str(free_port()), "--workers", workers)
        (tmp_path / "specs").mkdir()
        (tmp_path / "specs" / "broken.yaml").write_text("version: [")
        specs = str(tmp_path / "specs")
        line = self.refused(tmp_path, *words, code=outcome.EXIT_CODES[Invalid], CONTEXT_PLANE_SPECS_DIR=specs)
        assert "spec_invalid" in line

    def test_because_the_server_itself_does_not(self, tmp_path: Path, workers: str) -> None:
        """As when the store goes away between the trial and the start."""
        (tmp_path / "program.py").write_text(BROKEN)
        made = Cli(tmp_path)
        words = [sys.executable, "program.py", "serve", "--port", str(free_port()), "--workers", workers]
        done = subprocess.run(
            words, cwd=tmp_path, env=made.environment, capture_output=True, text=True, timeout=START_S, check=False
        )
        assert done.returncode == outcome.EXIT_CODES[Unavailable]
        assert "context-plane: not_ready: the service did not start" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_tells_where_it_is_once_it_listens(tmp_path: Path, workers: str) -> None:
    """Seen to fail with the address told before the socket is bound."""
    made, log, port = Cli(tmp_path), tmp_path / "log", free_port()
    command = [*program(), "serve", "--json", "--port", str(port), "--workers", workers]
    with child(command, log=log, environment=made.environment):
        give_up_s = time.monotonic() + START_S
        while "}" not in (said := log.read_text()):
            assert time.monotonic() < give_up_s, said
            time.sleep(0.005)
        socket.create_connection((LOOPBACK, port)).close()
    told = orjson.loads(said[said.index("{") : said.index("}") + 1])
    assert (told["url"], told["workers"]) == (f"http://{LOOPBACK}:{port}", int(workers))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupted_service_says_that_it_was(tmp_path: Path, workers: str) -> None:
    """Seen to fail (0, with two workers) with the supervisor as the server's library has it."""
    made, log, port = Cli(tmp_path), tmp_path / "log", free_port()
    command = [*program(), "serve", "--port", str(port), "--workers", workers]
    with child(command, log=log, environment=made.environment) as process:
        await_answer(f"http://{LOOPBACK}:{port}/readyz", process, log)
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_S) == outcome.INTERRUPTED
    assert "Traceback" not in log.read_text()


def test_workers_end_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    """Seen to fail (they answer for good, and hold the port) without the thread that waits for it."""
    made, log, port = Cli(tmp_path), tmp_path / "log", free_port()
    command = [*program(), "serve", "--port", str(port), "--workers", "2"]
    with child(command, log=log, environment=made.environment) as process:
        await_answer(f"http://{LOOPBACK}:{port}/readyz", process, log)
        process.kill()
        give_up_s = time.monotonic() + STOP_S
        while listens(port):
            assert time.monotonic() < give_up_s, log.read_text()
            time.sleep(0.05)


def test_a_request_that_outlasts_the_service_is_told_so(tmp_path: Path) -> None:
    """A second interrupt waits for nobody. Seen to fail (500 as plain text, and a traceback for the request and for the
    app) with what is cancelled left to the server's library."""
    made, log, port = Cli(tmp_path), tmp_path / "log", free_port()
    command = [*program(), "serve", "--port", str(port)]
    head = f"POST /v1/tenants/acme/search HTTP/1.1\r\nhost: {LOOPBACK}\r\ncontent-type: application/json\r\n"
    with child(command, log=log, environment=made.environment) as process:
        await_answer(f"http://{LOOPBACK}:{port}/readyz", process, log)
        assert httpx.put(f"http://{LOOPBACK}:{port}/v1/tenants/acme", json={}).status_code == 201
        with socket.create_connection((LOOPBACK, port), timeout=STOP_S) as asking:
            asking.sendall(f"{head}content-length: 9\r\nexpect: 100-continue\r\n\r\n".encode())  # and no body
            assert asking.recv(len(b"HTTP/1.1 100 Continue\r\n\r\n")).startswith(b"HTTP/1.1 100"), "it is waited for"
            process.send_signal(signal.SIGINT)
            give_up_s = time.monotonic() + STOP_S
            while "Waiting for connections to close" not in log.read_text():
                assert time.monotonic() < give_up_s, log.read_text()
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            with asking.makefile("rb") as answer:
                told, _, body = answer.read().partition(b"\r\n\r\n")
        assert process.wait(STOP_S) == outcome.INTERRUPTED
    assert told.startswith(b"HTTP/1.1 503 "), told
    assert orjson.loads(body)["code"] == "stopping"
    assert "Traceback" not in log.read_text()


def listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port)).close()
    except ConnectionRefusedError:
        return False
    return True
