"""Child processes: started on loopback, awaited until they answer, and ended with all they started.

Each child leads a process group of its own, so a signal to the group reaches its children too and Ctrl-C
reaches this process alone, which then stops them in order.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
import orjson

from commands import show
from context_plane.errors import Unavailable
from serving.address import check_address

START_S: Final = 60.0
"""A cold start takes 3 s for the service and 20 s for the Dagster UI on two busy cores."""
STOP_S: Final = 10.0
ALL_STOP_S: Final = 45.0
"""What ends children of its own, one after the other, is asked to end and left alone for longer."""
POLL_S: Final = 0.1
LOOPBACK: Final = "127.0.0.1"
DAGSTER_YAML: Final = "telemetry:\n  enabled: false\nnux:\n  enabled: false\n"
LOCATION: Final[Mapping[str, str]] = {
    "module_name": "assets.definitions",
    "attribute": "defs",
    "location_name": "context-plane",
}
"""The code location, as the workspace.yaml of a checkout names it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def child(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None, stop_s: float = STOP_S
) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to `log`; ended, with its children, when the block ends, in `stop_s` if it can."""
    log.parent.mkdir(parents=True, exist_ok=True)
    _end_in_order()
    with log.open("wb") as out, _heeding_interrupts():
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process, stop_s)


@contextmanager
def _heeding_interrupts() -> Iterator[None]:
    """What is started here can be interrupted, also where a shell that put this process into the background had it
    ignore interrupts: children inherit that, but no handler."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_in_order() -> None:
    """A terminal that closes and a supervisor that stops us must not leave children behind."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, end)


def stop(process: subprocess.Popen[bytes], stop_s: float = STOP_S) -> None:
    """Ask the group to end, wait so long, then end it."""
    for wanted, wait_s in ((signal.SIGINT, stop_s), (signal.SIGTERM, STOP_S / 2), (signal.SIGKILL, STOP_S)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, wanted)
        with suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
            break
    with suppress(ProcessLookupError):  # what outlived its parent
        os.killpg(process.pid, signal.SIGKILL)


def await_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once `url` answers 200. Raises `Unavailable(not_ready)` with the end of the log."""
    give_up_s = time.monotonic() + START_S
    while time.monotonic() < give_up_s:
        if process.poll() is not None:
            break
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2.0).status_code == httpx.codes.OK:
                return
        time.sleep(POLL_S)
    said = log.read_text(errors="replace").strip().splitlines()
    raise Unavailable(
        "not_ready", f"a child process did not start: {said[-1] if said else 'it said nothing'}", log=str(log)
    )


def program() -> list[str]:
    """This very program, for a child."""
    return [sys.executable, "-P", "-c", "from commands.start import main; main()"]


@contextmanager
def service(store_url: str, *, log: Path, port: int | None = None) -> Iterator[str]:
    """The real HTTP service in a process of its own; its base URL."""
    port = port or free_port()
    command = [*program(), "serve", "--host", LOOPBACK, "--port", str(port)]
    with child(command, log=log, environment={"CONTEXT_PLANE_STORE": store_url}) as process:
        url = f"http://{LOOPBACK}:{port}"
        await_answer(f"{url}/readyz", process, log)
        yield url


def prepare_dagster(home: Path) -> Path:
    """The folder as `DAGSTER_HOME`, made when absent, with telemetry and the UI's greeting off."""
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        config.write_text(DAGSTER_YAML)
    return home


def prepare_workspace(home: Path) -> Path:
    """A workspace file in `DAGSTER_HOME` that names our definitions wherever they are installed, so that it matters
    neither which folder a process is started in, nor what modules lie there."""
    location = {**LOCATION, "working_directory": str(Path(__file__).resolve().parents[1])}
    file = home / "workspace.yaml"
    file.write_bytes(orjson.dumps({"load_from": [{"python_module": location}]}))  # JSON is YAML
    return file


def serve_all(
    store_url: str,
    *,
    port: int,
    ui_port: int,
    dagster_home: Path,
    environment: Mapping[str, str],
    as_json: bool = False,
) -> None:
    """The service and the Dagster UI, until Ctrl-C or until one of them ends. `environment`: of Dagster."""
    out = show.console(stderr=as_json)
    check_address(LOOPBACK, port, "--port")
    check_address(LOOPBACK, ui_port, "--ui-port")
    home = prepare_dagster(dagster_home)
    logs = home.parent / "logs"
    with ExitStack() as stack:
        stack.callback(lambda: out.print("stopped"))
        out.print(f"starting over {store_url} …")
        url = stack.enter_context(service(store_url, log=logs / "service.log", port=port))
        out.print(f"  Explorer    {url}")
        out.print(f"  API         {url}/docs")
        workspace = str(prepare_workspace(home))
        dagster = [sys.executable, "-m", "dagster", "dev", "-w", workspace, "-h", LOOPBACK, "-p", str(ui_port)]
        told = {"DAGSTER_HOME": str(home), "CONTEXT_PLANE_STORE": store_url, "CONTEXT_PLANE_READ_URL": url}
        log = logs / "dagster.log"
        # The folder that we are started in may have assets of its own.
        told |= {"PYTHONSAFEPATH": "1", "DO_NOT_TRACK": "1"}
        process = stack.enter_context(child(dagster, log=log, environment={**environment, **told}))
        await_answer(f"http://{LOOPBACK}:{ui_port}/server_info", process, log)
        out.print(f"  Dagster UI  http://{LOOPBACK}:{ui_port}/assets")
        out.print(f"  logs        {logs}")
        out.print("Ctrl-C stops both")
        if as_json:
            ui = f"http://{LOOPBACK}:{ui_port}"
            show.json({"url": url, "dagster": ui, "store": store_url, "logs": str(logs)})
        with suppress(KeyboardInterrupt):
            while process.poll() is None:
                time.sleep(1.0)
        out.print("stopping …")
