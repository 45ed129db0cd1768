"""A folder as a store: keys are file paths below the root, byte for byte.

A write goes to a temporary file in `.tmp`, is fsynced, and appears under its key by `link` (create:
exclusive, the kernel decides) or `rename` (replace); then the folder is fsynced, and every folder
that may be new. So success means durable, a reader sees all of an object or none, and any number of
processes may share the root. Empty folders are removed after a delete, because their names may name
what was erased; a writer whose folder vanished makes it again. System calls run in the store's own threads.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from context_plane.errors import Conflict, Invalid, NotFound, Unavailable
from context_plane.store.base import ByteRange, ObjectInfo
from context_plane.store.key import TEMPORARY_FOLDER, check_key, check_prefix
from context_plane.store.ranges import cut, plan

T = TypeVar("T")

THREADS_MAX: Final = 8
"""Calls in flight: enough to overlap fsyncs, few enough that a slow disk does not fill the process with threads."""
LIST_PAGE: Final = 1000
"""Objects fetched per hop to a thread: a hop costs some 100 us, a `stat` 4 us."""
TEMPORARY_AGE_MAX_S: Final = 24 * 3600
"""A temporary file older than this belongs to a process that died; no write takes a day."""
FOLDER_RACES_MAX: Final = 16
"""Times a folder may be removed between making it and linking into it before the write gives up."""
SYNCED_FOLDERS_MAX: Final = 100_000
"""Folders remembered as durable; forgetting them costs an fsync each, not correctness."""


class LocalStore:
    """`Store` in a folder, made when absent. Removes leftovers of crashed writers at construction."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / TEMPORARY_FOLDER
        self._synced: dict[str, tuple[int, int]] = {}  # folder -> (device, inode) whose entry is durable
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="local-store")
        with _mapped("open", str(root)):
            absent = [folder for folder in (root, *root.parents) if not folder.exists()]
            self._temporary.mkdir(parents=True, exist_ok=True)
            for folder in absent:
                _fsync_folder(folder.parent)
            self._remove_leftovers(time.time() - TEMPORARY_AGE_MAX_S)

    async def get(self, key: str) -> bytes:
        return await self._run("get", key, self._path(key).read_bytes)

    async def get_range(self, key: str, byte_range: ByteRange) -> bytes:
        return (await self._run("get_range", key, lambda: _read(self._path(key), [byte_range])))[0]

    async def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> list[bytes]:
        spans = plan(ranges)
        wanted = [span.range for span in spans]
        bodies = await self._run("get_ranges", key, lambda: _read(self._path(key), wanted)) if spans else []
        return cut(ranges, spans, bodies)

    async def put_new(self, key: str, data: bytes) -> None:
        """Create, by `link`. The loser of a race syncs the folder, too: what it was told is there, stays."""
        await self._run("put_new", key, lambda: self._write(self._path(key), data, exclusive=True))

    async def put(self, key: str, data: bytes) -> None:
        await self._run("put", key, lambda: self._write(self._path(key), data, exclusive=False))

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[ObjectInfo]:
        check_prefix(prefix)
        check_prefix(start_after)
        found = itertools.islice(self._walk(prefix, start_after), limit)
        while page := await self._run("list", prefix, lambda: list(itertools.islice(found, LIST_PAGE))):
            for info in page:
                yield info

    async def delete(self, keys: Sequence[str]) -> None:
        paths = [self._path(key) for key in keys]
        for start in range(0, len(paths), LIST_PAGE):
            page = paths[start : start + LIST_PAGE]
            await self._run("delete", keys[start], partial(self._remove, page))

    async def aclose(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def _run(self, operation: str, key: str, call: Callable[[], T]) -> T:
        def mapped() -> T:
            with _mapped(operation, key):
                return call()

        return await asyncio.get_running_loop().run_in_executor(self._threads, mapped)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    # --- below: blocking, in a thread -------------------------------------------------------------

    def _write(self, path: Path, data: bytes, *, exclusive: bool) -> None:
        temporary = self._temporary / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            _write_durably(temporary, data)
            for _ in range(FOLDER_RACES_MAX):
                try:
                    if exclusive:
                        os.link(temporary, path)
                    else:
                        temporary.replace(path)
                    break
                except FileNotFoundError:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except FileExistsError:
                    if path.is_dir():
                        raise
                    self._sync(path.parent)
                    raise Conflict("already_exists", "the key is taken", key=self._key(path)) from None
            else:
                raise FileNotFoundError(path.parent)
            self._sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def _sync(self, folder: Path) -> None:
        """Makes the folder's entries durable, and its own entry and its parents' where that is not known."""
        made: dict[str, tuple[int, int]] = {}
        with suppress(FileNotFoundError):  # removed again: somebody deleted what was written
            identity = _fsync_folder(folder)
            while folder != self._root and self._synced.get(str(folder)) != identity:
                made[str(folder)] = identity
                folder = folder.parent
                identity = _fsync_folder(folder)
            if len(self._synced) + len(made) > SYNCED_FOLDERS_MAX:
                self._synced.clear()
            self._synced.update(made)

    def _walk(self, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        """Keys of the prefix after `start_after`, ascending: a folder sorts as its name with `/`."""
        yield from self._walk_folder(prefix[: prefix.rfind("/") + 1], prefix, start_after)

    def _walk_folder(self, folder: str, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        for path, entry in _entries(self._root / folder, folder):
            wanted = path.startswith(prefix) and path[: len(TEMPORARY_FOLDER) + 1] != f"{TEMPORARY_FOLDER}/"
            if not wanted:
                continue
            if path.endswith("/"):
                if path > start_after or start_after.startswith(path):
                    yield from self._walk_folder(path, prefix, start_after)
            elif path > start_after:
                with suppress(FileNotFoundError):  # deleted since the folder was read
                    status = entry.stat(follow_symlinks=False)
                    yield ObjectInfo(path, status.st_size, status.st_mtime_ns // 1000)

    def _remove(self, paths: Sequence[Path]) -> None:
        for path in paths:
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()
        for folder in {path.parent for path in paths}:
            self._sync(self._prune(folder))

    def _prune(self, folder: Path) -> Path:
        """Removes the folder and its parents while they are empty; the first one left."""
        while folder != self._root:
            try:
                folder.rmdir()
                self._synced.pop(str(folder), None)
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError:  # not empty
                break
            folder = folder.parent
        return folder

    def _remove_leftovers(self, before_s: float) -> None:
        for leftover in self._temporary.iterdir():
            with suppress(FileNotFoundError):
                if leftover.stat().st_mtime < before_s:
                    leftover.unlink()

    def _key(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _read(path: Path, ranges: Sequence[ByteRange]) -> list[bytes]:
    with path.open("rb", buffering=0) as file:
        return [_pread(file.fileno(), part) for part in ranges]


def _pread(descriptor: int, part: ByteRange) -> bytes:
    """The range, shorter only at the end of the file: one `pread` may return less than asked."""
    data = os.pread(descriptor, part.length, part.offset)
    if not data or len(data) == part.length:
        return data
    chunks = [data]
    offset = part.offset + len(data)
    while offset < part.stop and (data := os.pread(descriptor, part.stop - offset, offset)):
        chunks.append(data)
        offset += len(data)
    return b"".join(chunks)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("xb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


def _fsync_folder(folder: Path) -> tuple[int, int]:
    """Makes the folder's entries durable; its (device, inode)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
        status = os.fstat(descriptor)
        return (status.st_dev, status.st_ino)
    finally:
        os.close(descriptor)


def _entries(path: Path, folder: str) -> list[tuple[str, os.DirEntry[str]]]:
    """(key or folder with `/`, entry) of one folder in key order; files that cannot be keys are left out."""
    try:
        with os.scandir(path) as entries:
            named = [
                (f"{folder}{entry.name}/" if entry.is_dir(follow_symlinks=False) else folder + entry.name, entry)
                for entry in entries
                if entry.name.isascii()
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(named, key=lambda pair: pair[0])


@contextmanager
def _mapped(operation: str, key: str) -> Iterator[None]:
    """The operating system's errors as the store contract's."""
    try:
        yield
    except OSError as error:
        writes = operation in {"put", "put_new"}
        if writes and isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            raise Invalid("object_key_invalid", "the key is a folder of other keys, or below one", key=key) from error
        if not writes and isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            raise NotFound("object_not_found", "no such object", key=key) from error
        raise Unavailable(
            "store_unavailable",
            "the local store's file system refused; check space, permissions and that it knows hard links",
            operation=operation,
            key=key,
            cause=str(error),
        ) from error
