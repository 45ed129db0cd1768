"""Real object servers for tests, each started once per session and process, on loopback and free ports."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from context_plane.store import StoreOptions

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

ACCESS_KEY = "testkey"
SECRET_KEY = "testsecret"
BUCKET = "plane-test"
START_S = 60.0
"""A cold start takes 3 s on two busy cores."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running S3 server with an empty bucket: open `url(prefix)` with `options`."""

    endpoint: str

    @property
    def options(self) -> StoreOptions:
        return StoreOptions(
            endpoint=self.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region="us-east-1", allow_http=True
        )

    @property
    def environment(self) -> dict[str, str]:
        """The same as the usual AWS variables, for processes started by tests."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def url(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}"


@contextmanager
def moto() -> Iterator[Server]:
    """moto looks and then writes for `If-None-Match: *`, so two creates at once may both succeed: one at a time."""
    app, turn = DomainDispatcherApplication(create_backend_app), Lock()

    def creating_in_turn(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        creates = environ["REQUEST_METHOD"] == "PUT" and "HTTP_IF_NONE_MATCH" in environ
        if creates:  # a body that never comes must hold up nobody
            environ["wsgi.input"] = BytesIO(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        with turn if creates else nullcontext():
            answer: Iterable[bytes] = app(environ, start_response)
            return answer

    server = make_server("127.0.0.1", 0, creating_in_turn, threaded=True, request_handler=MotoRequestHandler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield _with_bucket(f"http://127.0.0.1:{server.port}")
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def seaweedfs(folder: Path) -> Iterator[Server]:
    """`weed server` with its S3 gateway; everything below `folder`, telemetry off. A folder can be served again."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = {"identities": [{"name": "test", "credentials": credentials, "actions": actions}]}
    (folder / "s3.json").write_text(json.dumps(identities))
    names = ["master", "volume", "filer", "s3"]
    ports = _free_ports(2 * len(names) + 2)
    s3_port = ports[2 * names.index("s3")]
    listening = [f"-{name}.port={ports[2 * n]}" for n, name in enumerate(names)]
    listening += [f"-{name}.port.grpc={ports[2 * n + 1]}" for n, name in enumerate(names)]
    command = [
        str(Path(sys.executable).parent / "weed"),
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=512",
        "-filer",
        "-s3",
        f"-s3.config={folder / 's3.json'}",
        f"-s3.port.iceberg={ports[-1]}",
        f"-s3.port.lance={ports[-2]}",
        f"-filer.localSocket={folder / 'filer.sock'}",
        f"-s3.localSocket={folder / 's3.sock'}",
        *listening,
    ]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        endpoint = f"http://127.0.0.1:{s3_port}"
        _await_answer(endpoint, process, folder / "weed.log")
        yield _with_bucket(endpoint)
    finally:
        process.kill()  # an orderly end takes 10 s, and what it has written is with the system
        process.wait(10)


CEPH_PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph-authtool", "monmaptool")


def ceph_absence() -> str | None:
    """Why Ceph cannot be started here, or None."""
    if not (_ceph_tools() / "start-ceph-s3.sh").exists():
        return "the Ceph start script is absent; set CONTEXT_PLANE_TOOLS to its folder"
    missing = [program for program in CEPH_PROGRAMS if shutil.which(program) is None]
    return f"Ceph is not installed (missing: {', '.join(missing)})" if missing else None


@contextmanager
def ceph(folder: Path) -> Iterator[Server]:
    tools, port = _ceph_tools(), _free_ports(1)[0]
    environment = os.environ | {"S3_ACCESS_KEY": ACCESS_KEY, "S3_SECRET_KEY": SECRET_KEY}
    with (folder.parent / "ceph.log").open("wb") as log:
        start = [str(tools / "start-ceph-s3.sh"), str(folder), str(port)]
        subprocess.run(start, env=environment, stdout=log, stderr=log, check=True, timeout=180)
    try:
        yield _with_bucket(f"http://127.0.0.1:{port}")
    finally:
        subprocess.run([str(tools / "stop-s3.sh"), str(folder), "--purge"], check=False, timeout=60)


def _ceph_tools() -> Path:
    default = Path(__file__).resolve().parents[2].parent / "shared" / "tools"
    return Path(os.environ.get("CONTEXT_PLANE_TOOLS", default))


def _free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, all different, each free on loopback."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _await_answer(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(endpoint, timeout=1):
                return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")


def _with_bucket(endpoint: str) -> Server:
    """Makes the bucket if need be and writes until a write succeeds: a fresh server allocates its space first."""
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )
    try:
        with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=BUCKET)
        for number in range(16):
            client.put_object(Bucket=BUCKET, Key=f"warm-up/{number}", Body=b"x")
    finally:
        client.close()
    return Server(endpoint)
