"""Folders as root file systems: a Debian one of our own, and processes in them as a container runtime starts them.

A process has the root, mounts, numbers of processes and the user it would have in a container, and a clean environment.
It shares the network of the machine, and no limits are set. Everything is mounted in a namespace of the process, which
ends with it: a folder can be removed at any moment, and nothing of the machine with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RELEASE: Final = "bookworm"
"""The Debian release whose Python is that of the image."""
PACKAGES: Final = ("ca-certificates", "netbase", "tzdata", "python3", "python3-venv")
PATH: Final = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
RESOLVER: Final = "/etc/resolv.conf"
ENTER: Final = """set -e
root=$1; read_only=$2; shift 2
mount --bind "$root" "$root"
[ "$read_only" = 0 ] || mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev/shm"
while [ "$1" != -- ]; do
  mount --bind "$1" "$root$2"
  [ "$3" = 0 ] || mount -o remount,bind,ro "$root$2"
  shift 3
done
shift
exec chroot "$@"
"""
"""Arguments: root, 0 or 1, then (source, target, 0 or 1) of each mount, `--`, and the arguments of chroot."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the machine, seen at `target`."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process finds: `user` is `uid:gid`, `read_only` the root without its mounts."""

    environment: Mapping[str, str]
    workdir: str = "/"
    user: str = "0:0"
    mounts: tuple[Mount, ...] = ()
    read_only: bool = False


def absence() -> str | None:
    """Why no root can be made here."""
    if os.geteuid() != 0:
        return "a root file system is made by root only"
    missing = [name for name in ("debootstrap", "unshare", "chroot", "tar") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def command(root: Path, arguments: Sequence[str], given: Surroundings) -> list[str]:
    """What starts `arguments` as process 1 in `root`."""
    mounts = (Mount(Path(RESOLVER).resolve(), RESOLVER, read_only=True), *given.mounts)
    for mount in mounts:
        _mount_point(root, mount)
    return [
        *("unshare", "--mount", "--pid", "--ipc", "--fork"),
        *("sh", "-c", ENTER, "sh", str(root), str(int(given.read_only))),
        *(word for item in mounts for word in (str(item.source), item.target, str(int(item.read_only)))),
        *("--", f"--userspec={given.user}", "--groups=", str(root)),
        *("/usr/bin/env", "-i", "-C", given.workdir, *(f"{name}={value}" for name, value in given.environment.items())),
        *arguments,
    ]


def run(root: Path, arguments: Sequence[str], given: Surroundings) -> str:
    """Standard output and error of a process that must succeed."""
    done = subprocess.run(
        command(root, arguments, given), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}\n{done.stdout}"
    return done.stdout


def _mount_point(root: Path, mount: Mount) -> None:
    target = root / mount.target.lstrip("/")
    if mount.source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()


def debian(folder: Path) -> None:
    """Unpack a Debian with Python into `folder`, which is made. The packed one is kept beside the system's temporary
    files, and made where it is absent: minutes, from Debian's mirror."""
    kept = Path(tempfile.gettempdir()) / f"context-plane-root-{os.geteuid()}"
    kept.mkdir(mode=0o700, exist_ok=True)
    assert kept.stat().st_uid == os.geteuid(), f"{kept} is somebody else's"
    packed = kept / f"{RELEASE}.tar"
    if not packed.exists():
        _bootstrap(packed)
    folder.mkdir(mode=0o755)
    subprocess.run(["tar", "-xpf", packed, "--numeric-owner", "-C", folder], check=True)


def _bootstrap(packed: Path) -> None:
    with tempfile.TemporaryDirectory(dir=packed.parent) as scratch:
        root = Path(scratch) / "root"
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", RELEASE, root], check=True
        )
        shutil.rmtree(root / "var/cache/apt")
        (root / RESOLVER.lstrip("/")).write_text("")  # debootstrap leaves that of the machine
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        unfinished = Path(scratch) / "packed.tar"
        subprocess.run(["tar", "-cpf", unfinished, "--numeric-owner", "-C", root, "."], check=True)
        unfinished.rename(packed)
