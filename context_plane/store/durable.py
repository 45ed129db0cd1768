"""What makes names durable: the sync of a folder, and of a whole file system where Linux has it. Blocking."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def fsync_folder(folder: Path) -> tuple[int, int]:
    """Makes the folder's entries durable; its (device, inode)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
        status = os.fstat(descriptor)
        return (status.st_dev, status.st_ino)
    finally:
        os.close(descriptor)


def syncfs(folder: Path) -> bool:
    """Makes everything of the folder's file system durable. False where the system has no such call."""
    call = _syncfs()
    if call is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if call(descriptor):
            raise OSError(ctypes.get_errno(), "syncfs failed", str(folder))
    finally:
        os.close(descriptor)
    return True


def file_system(folder: Path) -> str:
    """Type of the file system a folder lies on, as Linux names it; empty where that is not known."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if line.split()[2] == number:
                return line.partition(" - ")[2].split()[0]
    return ""


@functools.cache
def _syncfs() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
