"""A Dockerfile carried out in folders: every instruction of every stage, as a builder would, but without layers.

The base is a Debian with Python instead of the registry's image. What reaches the build is a copy of what the ignore
file lets through, with the modes of a checkout made under umask 077: an image must not depend on who checked it out.
Settings of pip's index (a mirror, a certificate) are lent to RUN as a builder lends its proxy, and stay in no file.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template
from typing import Final

from tests.deploy import rootfs
from tests.deploy.dockerfile import instructions, visible
from tests.deploy.rootfs import Mount, Surroundings

BASE: Final = "python:3.11-slim"
INDEX_SETTINGS: Final = ("cert", "index-url", "proxy", "timeout", "trusted-host")
"""What of pip's configuration says how packages are reached. Which of them, the lock file decides."""


@dataclass(frozen=True, slots=True)
class Image:
    """A root, and how its processes start. `log`: (seconds, instruction) of every stage."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": rootfs.PATH})
    workdir: str = "/"
    user: str = "0:0"
    command: tuple[str, ...] = ()
    log: tuple[tuple[float, str], ...] = ()

    def surroundings(
        self, *, environment: dict[str, str] | None = None, mounts: Sequence[Mount] = (), read_only: bool = False
    ) -> Surroundings:
        """Of a process of the image; HOME is the user's, as runtimes set it."""
        given = {"HOME": self._home(), **self.environment, **(environment or {})}
        return Surroundings(given, self.workdir, self.user, tuple(mounts), read_only)

    def _home(self) -> str:
        rows = [line.split(":") for line in (self.root / "etc/passwd").read_text().splitlines()]
        return next((row[5] for row in rows if row[2] == self.user.partition(":")[0]), "/")


def build(file: Path, context: Path, folder: Path) -> Image:
    """The last stage of the Dockerfile, built below `folder`."""
    sent = folder / "context"
    _send(file, context, sent)
    stages: dict[str, Image] = {}
    log: list[tuple[float, str]] = []
    image: Image | None = None
    for name, rest in instructions(file):
        began = time.monotonic()
        if name == "FROM":
            image = _begin(rest, folder / f"root-{len(stages)}")
            stages[rest.partition(" AS ")[2]] = image
        else:
            assert image is not None, "an instruction before FROM"
            image = _STEPS[name](image, rest, lambda source: stages[source].root if source else sent)
        log.append((time.monotonic() - began, f"{name} {rest}"))
    assert image is not None
    return replace(image, log=tuple(log))


def _send(file: Path, context: Path, sent: Path) -> None:
    sent.mkdir()
    for name in visible(file, context):
        source, target = context / name, sent / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            shutil.copyfile(source, target)
    for path in sent.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)


def _begin(rest: str, root: Path) -> Image:
    assert rest.partition(" AS ")[0] == BASE, rest
    rootfs.debian(root)
    return Image(root)


Source = Callable[[str], Path]
"""The folder that COPY reads: of a stage, or of the context for ''."""


def _env(image: Image, rest: str, _: Source) -> Image:
    pairs = [pair.partition("=")[::2] for pair in shlex.split(rest)]
    given = {name: Template(value).substitute(image.environment) for name, value in pairs}
    return replace(image, environment={**image.environment, **given})


def _workdir(image: Image, rest: str, _: Source) -> Image:
    (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
    return replace(image, workdir=rest)


def _run(image: Image, rest: str, _: Source) -> Image:
    environment, mounts = lent_index()
    rootfs.run(image.root, ["/bin/sh", "-c", rest], image.surroundings(environment=environment, mounts=mounts))
    return image


def _copy(image: Image, rest: str, source: Source) -> Image:
    words = rest.split()
    flags = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
    *names, last = [word for word in words if not word.startswith("--")]
    assert flags.keys() <= {"from", "chmod"}, rest
    target = image.root / os.path.normpath(Path(image.workdir, last)).lstrip("/")
    for name in names:
        found = source(flags.get("from", "")) / name.lstrip("/")
        into = target / found.name if last.endswith("/") and not found.is_dir() else target
        into.parent.mkdir(parents=True, exist_ok=True)
        # A folder's content goes into the target; what is copied belongs to root, and keeps its modes.
        what = [f"{found}/."] if found.is_dir() else [str(found)]
        if found.is_dir():
            into.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", "--no-preserve=ownership", *what, str(into)], check=True)
        if "chmod" in flags:
            subprocess.run(["chmod", "-R", flags["chmod"], str(into)], check=True)
    return image


def _user(image: Image, rest: str, _: Source) -> Image:
    return replace(image, user=rest)


def _expose(image: Image, _rest: str, _: Source) -> Image:
    return image


def _cmd(image: Image, rest: str, _: Source) -> Image:
    return replace(image, command=tuple(json.loads(rest)))


_STEPS: Final[dict[str, Callable[[Image, str, Source], Image]]] = {
    "ENV": _env,
    "WORKDIR": _workdir,
    "RUN": _run,
    "COPY": _copy,
    "USER": _user,
    "EXPOSE": _expose,
    "CMD": _cmd,
}


def lent_index() -> tuple[dict[str, str], list[Mount]]:
    """pip's index as this machine's pip has it: variables, and the mount of a certificate that they name."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = [line.partition("=")[::2] for line in listed]
    found = {name.rpartition(".")[2]: value.strip("'") for name, value in pairs}
    settings = {name: found[name] for name in INDEX_SETTINGS if name in found}
    mounts = [Mount(Path(settings["cert"]).resolve(), settings["cert"], read_only=True)] if "cert" in settings else []
    return {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items()}, mounts


@contextmanager
def started(
    image: Image, arguments: Sequence[str], given: Surroundings, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the image whose output goes to `log`; killed, with all in its namespace, when the block ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            rootfs.command(image.root, arguments, given), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        # Process 1 takes its namespace along. unshare's own --kill-child is lost where the user changes.
        for child in _children(process):
            os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait()


def pid_of(process: subprocess.Popen[bytes]) -> int:
    """The number, outside, of what is process 1 inside."""
    (child,) = _children(process)
    return child


def _children(process: subprocess.Popen[bytes]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(child) for child in listed.read_text().split()] if process.poll() is None else []
