"""A folder as a store: keys are file paths below the root, byte for byte.

A write goes to a temporary file in `.tmp`, is fsynced, and appears under its key by `link` (create:
exclusive, the kernel decides) or `rename` (replace); then the folder is fsynced, and every folder
that may be new. So success means durable, a reader sees all of an object or none, and any number of
processes may share the root. Empty folders are removed after a delete, because their names may name
what was erased; a writer whose folder vanished makes it again. System calls run in the store's own threads.

Writes that wait while others are under way are made as one group: all files are written, then all synced, then
all named, then each folder synced once; where the group made many folders and the file system is known to keep
what `syncfs` promises, one call syncs them all. A build's thousands of small objects cost two flushes each instead
of seven, and each call still returns only when its own object is durable.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from context_plane.errors import Conflict, Invalid, NotFound, Unavailable
from context_plane.store.base import ByteRange, ObjectInfo
from context_plane.store.durable import file_system, fsync_folder, syncfs
from context_plane.store.key import TEMPORARY_FOLDER, check_key, check_prefix
from context_plane.store.ranges import cut, plan

T = TypeVar("T")

THREADS_MAX: Final = 8
"""Calls in flight: enough to overlap fsyncs, few enough that a slow disk does not fill the process with threads."""
WRITERS_MAX: Final = 4
"""Groups of writes under way: their flushes overlap, and as many threads are left for reads."""
GROUP_WRITES_MAX: Final = 64
GROUP_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of one group, past its first write: a small write does not wait long for the company it keeps."""
FOLDERS_ONE_BY_ONE_MAX: Final = 16
"""A group with more folders syncs the file system once. A flush per folder takes longer then, though `syncfs` also
writes what others left unwritten; a lone write never waits for that."""
WHOLE_FILE_SYSTEMS: Final = frozenset({"ext4", "xfs", "btrfs", "tmpfs", "overlay"})
"""Whose `syncfs` makes all folders durable. Network and user-space file systems may leave it to the client's cache."""
LIST_PAGE: Final = 1000
"""Objects fetched per hop to a thread: a hop costs some 100 us, a `stat` 4 us."""
TEMPORARY_AGE_MAX_S: Final = 24 * 3600
"""A temporary file older than this belongs to a process that died; no write takes a day."""
FOLDER_RACES_MAX: Final = 16
"""Times a folder may be removed between making it and linking into it before the write gives up."""
SYNCED_FOLDERS_MAX: Final = 10_000
"""Folders remembered as durable, some 3 MB; forgetting them costs an fsync each, not correctness."""


@dataclass(slots=True, eq=False)
class _Put:
    """One write on its way. `temporary` exists from its first byte until it has its name."""

    key: str
    path: Path
    data: bytes
    exclusive: bool
    temporary: Path
    done: Future[None] = field(default_factory=Future)
    descriptor: int = -1
    taken: bool = False
    """Somebody else has the name. Told when that is durable: the loser builds on the winner's object."""

    @property
    def operation(self) -> str:
        return "put_new" if self.exclusive else "put"


class LocalStore:
    """`Store` in a folder, made when absent. Removes leftovers of crashed writers at construction."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / TEMPORARY_FOLDER
        self._writer = f"{os.getpid()}-{secrets.token_hex(8)}"  # no other store of this root has it
        self._written = itertools.count()
        self._synced: dict[str, tuple[int, int]] = {}  # folder -> (device, inode) whose entry is durable
        self._waiting: deque[_Put] = deque()
        self._writers = 0
        self._lock = threading.Lock()  # of the two above
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="local-store")
        self._whole: bool | None = None  # whether `syncfs` may be used; found out when first asked
        with _mapped("open", str(root)):
            absent = [folder for folder in (root, *root.parents) if not folder.exists()]
            self._temporary.mkdir(parents=True, exist_ok=True)
            for folder in absent:
                fsync_folder(folder.parent)
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
        await self._put(key, data, exclusive=True)

    async def put(self, key: str, data: bytes) -> None:
        await self._put(key, data, exclusive=False)

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

    async def _put(self, key: str, data: bytes, *, exclusive: bool) -> None:
        temporary = self._temporary / f"{self._writer}-{next(self._written)}"
        put = _Put(key, self._path(key), data, exclusive, temporary)
        with self._lock:
            self._waiting.append(put)
            starts = self._writers < WRITERS_MAX
            self._writers += starts
        if starts:
            self._threads.submit(self._write_waiting)
        await asyncio.wrap_future(put.done)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    # --- below: blocking, in a thread -------------------------------------------------------------

    def _write_waiting(self) -> None:
        """One writer: group after group, until nobody waits. Whatever happens to a group, all of it is told."""
        while True:
            with self._lock:
                group = _take_group(self._waiting)
                if not group:
                    self._writers -= 1
                    return
            group = [put for put in group if put.done.set_running_or_notify_cancel()]
            try:
                self._write_group(group)
            except BaseException as error:
                _each(group, partial(_refuse, error))

    def _write_group(self, group: Sequence[_Put]) -> None:
        """Each step for all before the next, so that one flush of the file system covers many. A write that
        fails drops out; the others go on. Raises what concerns all that are left."""
        synced: dict[str, tuple[int, int]] = {}
        for step in (_write, _flush, self._name):
            _each(group, step)
        self._sync_whole([put for put in group if not put.done.done()], synced)
        _each(group, partial(self._settle, synced=synced))
        for put in group:
            if not put.done.done():
                put.done.set_result(None)

    def _name(self, put: _Put) -> None:
        """Gives the file its key. Sets `taken` where the key has an object."""
        for _ in range(FOLDER_RACES_MAX):
            try:
                if put.exclusive:
                    os.link(put.temporary, put.path)
                else:
                    put.temporary.replace(put.path)
                return
            except FileNotFoundError:
                with suppress(FileNotFoundError):  # a parent that was just made is gone again
                    put.path.parent.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                if put.path.is_dir():
                    raise
                put.taken = True
                return
        raise FileNotFoundError(put.path.parent)

    def _sync_whole(self, group: Sequence[_Put], synced: dict[str, tuple[int, int]]) -> None:
        """Where the group has many folders, makes all of them durable at once and says so in `synced`."""
        folders = {put.path.parent for put in group}
        if len(folders) <= FOLDERS_ONE_BY_ONE_MAX:
            return
        if self._whole is None:
            self._whole = file_system(self._root) in WHOLE_FILE_SYSTEMS
        if not self._whole:
            return
        covered = self._identities(folders)  # before the call: a folder that is made again during it is not covered
        if syncfs(self._root):
            synced.update(covered)

    def _identities(self, folders: set[Path]) -> dict[str, tuple[int, int]]:
        """Of the folders and all above them up to the root, without those that are gone."""
        found: dict[str, tuple[int, int]] = {}
        for folder in folders:
            with suppress(FileNotFoundError):
                while str(folder) not in found:
                    status = folder.stat()
                    found[str(folder)] = (status.st_dev, status.st_ino)
                    if folder == self._root:
                        break
                    folder = folder.parent
        return found

    def _settle(self, put: _Put, synced: dict[str, tuple[int, int]]) -> None:
        self._sync(put.path.parent, synced)
        put.temporary.unlink(missing_ok=True)
        if put.taken:
            raise Conflict("already_exists", "the key is taken", key=put.key)

    def _sync(self, folder: Path, synced: dict[str, tuple[int, int]]) -> None:
        """Makes the folder's entries durable, and its own entry and its parents' where that is not known.

        `synced`: folders that were synced since the entries in question were made; extended in place.
        """
        made: dict[str, tuple[int, int]] = {}
        with suppress(FileNotFoundError):  # removed again: somebody deleted what was written
            identity = _synced_once(folder, synced)
            while folder != self._root and self._synced.get(str(folder)) != identity:
                made[str(folder)] = identity
                folder = folder.parent
                identity = _synced_once(folder, synced)
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
            self._sync(self._prune(folder), {})

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


def _take_group(waiting: deque[_Put]) -> list[_Put]:
    """Removes and returns the writes of the next group: at least one where any waits."""
    group: list[_Put] = []
    size = 0
    while waiting and len(group) < GROUP_WRITES_MAX and (not group or size + len(waiting[0].data) <= GROUP_BYTES_MAX):
        put = waiting.popleft()
        group.append(put)
        size += len(put.data)
    return group


def _each(group: Sequence[_Put], step: Callable[[_Put], None]) -> None:
    """One step for every write that has not failed. Whoever waits for one that does is told."""
    for put in group:
        if not put.done.done():
            try:
                with _mapped(put.operation, put.key):
                    step(put)
            except BaseException as error:
                _drop(put)
                put.done.set_exception(error)


def _refuse(error: BaseException, put: _Put) -> None:
    raise error


def _write(put: _Put) -> None:
    put.descriptor = os.open(put.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    rest = memoryview(put.data)
    while rest:
        rest = rest[os.write(put.descriptor, rest) :]


def _flush(put: _Put) -> None:
    os.fsync(put.descriptor)
    _close(put)


def _close(put: _Put) -> None:
    """Once: a descriptor is gone also when `close` fails, and its number may be another file's by then."""
    descriptor, put.descriptor = put.descriptor, -1
    os.close(descriptor)


def _drop(put: _Put) -> None:
    """Removes what a write that failed leaves behind, as far as that is possible."""
    if put.descriptor >= 0:
        with suppress(OSError):
            _close(put)
    with suppress(OSError):
        put.temporary.unlink(missing_ok=True)


def _synced_once(folder: Path, synced: dict[str, tuple[int, int]]) -> tuple[int, int]:
    name = str(folder)
    if name not in synced:
        synced[name] = fsync_folder(folder)
    return synced[name]


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
