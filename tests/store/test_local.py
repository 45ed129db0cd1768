"""What only the local store promises: durable before it answers, shared by processes, nothing left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from context_plane.errors import Invalid, Unavailable
from context_plane.store import local as module
from context_plane.store.durable import fsync_folder
from context_plane.store.local import WRITERS_MAX, LocalStore

BOUND_S = 10.0
"""Of a write that must not hang: not a measurement."""
RACE = """
import asyncio, sys
from pathlib import Path
from context_plane.errors import Conflict
from context_plane.store.local import LocalStore

async def main():
    store, won = LocalStore(Path(sys.argv[1])), []
    for number in range(100):
        try:
            await store.put_new(f"race/{number:03d}/x", sys.argv[2].encode())
            won.append(number)
        except Conflict:
            pass
        await store.put(f"mine/{sys.argv[2]}/{number}", b"")
        await store.delete([f"mine/{sys.argv[2]}/{number}"])
    await store.aclose()
    print(*won)

asyncio.run(main())
"""


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalStore]:
    store = LocalStore(tmp_path)
    yield store
    await store.aclose()


async def test_keys_are_paths_byte_for_byte(local: LocalStore, tmp_path: Path) -> None:
    await local.put_new("tenants/t/entities/a%2Fb/~x", b"1")
    assert (tmp_path / "tenants/t/entities/a%2Fb/~x").read_bytes() == b"1"


async def test_bytes_and_folders_are_synced_before_the_key_appears_and_before_success(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail without the file's fsync, without the folder's, and without those of new parents."""
    calls: list[str] = []
    fsync, link = os.fsync, os.link

    def recorded_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append("file" if ".tmp" in path.parts else path.relative_to(tmp_path).as_posix())
        fsync(descriptor)

    def recorded_link(source: Path, target: Path) -> None:
        link(source, target)
        calls.append("link")

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "link", recorded_link)
    await local.put_new("a/b/c", b"x")
    assert calls == ["file", "link", "a/b", "a", "."]
    calls.clear()
    await local.put_new("a/b/d", b"x")
    assert calls == ["file", "link", "a/b"]


async def test_processes_share_a_root(tmp_path: Path) -> None:
    """Each key has one winner, though folders come and go under the writers."""
    racers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", RACE, str(tmp_path), name, stdout=subprocess.PIPE)
        for name in ("one", "two")
    ]
    outputs = [await racer.communicate() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    won = [number for output, _ in outputs for number in output.split()]
    assert sorted(map(int, won)) == list(range(100))
    assert list((tmp_path / ".tmp").iterdir()) == []


async def test_nothing_names_what_was_deleted(local: LocalStore, tmp_path: Path) -> None:
    await local.put_new("tenants/t/entities/secret/segments/1", b"x")
    await local.put_new("tenants/t/entities/other/segments/1", b"x")
    await local.delete(["tenants/t/entities/secret/segments/1"])
    assert [path.name for path in (tmp_path / "tenants/t/entities").iterdir()] == ["other"]


async def test_leftovers_of_a_crash_go_after_a_day(tmp_path: Path) -> None:
    folder = tmp_path / ".tmp"
    folder.mkdir()
    for name, age_s in [("old", 25 * 3600), ("young", 60)]:
        (folder / name).write_bytes(b"x")
        made_s = (folder / name).stat().st_mtime - age_s
        os.utime(folder / name, (made_s, made_s))
    store = LocalStore(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["young"]
    assert [info.key async for info in store.list("")] == []
    await store.aclose()


async def test_a_key_is_no_folder_of_another(local: LocalStore) -> None:
    await local.put_new("a/b", b"x")
    for key in ["a", "a/b/c"]:
        with pytest.raises(Invalid, match="object_key_invalid"):
            await local.put_new(key, b"x")
        with pytest.raises(Invalid, match="object_key_invalid"):
            await local.put(key, b"x")


async def test_writes_that_wait_share_the_syncs_of_folders_and_each_is_durable_when_it_returns(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with folders synced before the last link of a group, and with a group's first write alone
    waited for."""
    calls: list[str] = []
    fsync, link = os.fsync, os.link

    def recorded_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        fsync(descriptor)
        calls.append(f"sync {path.relative_to(tmp_path).as_posix()}")

    def recorded_link(source: Path, target: Path) -> None:
        assert f"sync {source.relative_to(tmp_path).as_posix()}" in calls, "named before its bytes were durable"
        link(source, target)
        calls.append(f"link {target.relative_to(tmp_path).as_posix()}")

    async def put(number: int) -> None:
        key = f"e/{number % 10}/{number}"
        await local.put_new(key, b"x")
        at = calls.index(f"link {key}")
        assert f"sync e/{number % 10}" in calls[at:], "answered before its name was durable"
        assert calls.count("sync e"), "answered before its new folder was durable"

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "link", recorded_link)
    await asyncio.gather(*(put(number) for number in range(200)))
    folders = [call for call in calls if call.startswith("sync e")]
    assert len(folders) < 150, "every write synced its own folder"
    assert list((tmp_path / ".tmp").iterdir()) == []


async def test_a_write_that_fails_takes_none_of_its_group_with_it(local: LocalStore, tmp_path: Path) -> None:
    """Seen to fail with the error given to the whole group."""
    await local.put_new("taken", b"1")
    keys = [f"k/{number}" for number in range(20)] + ["taken", "taken/below"]
    outcomes = await asyncio.gather(*(local.put_new(key, b"2") for key in keys), return_exceptions=True)
    assert outcomes[:20] == [None] * 20
    assert [getattr(outcome, "code", None) for outcome in outcomes[20:]] == [
        "already_exists",
        "object_key_invalid",
    ]
    assert (tmp_path / "taken").read_bytes() == b"1"
    assert list((tmp_path / ".tmp").iterdir()) == []


@pytest.mark.parametrize("whole", [True, False])
async def test_many_folders_are_synced_before_success_at_once_or_one_by_one(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Seen to fail with folders counted as synced that were not."""
    linked: set[str] = set()
    durable: set[str] = set()
    link, fsync = os.link, fsync_folder

    def recorded_link(source: Path, target: Path) -> None:
        link(source, target)
        linked.add(target.parent.relative_to(tmp_path).as_posix())

    def recorded_fsync(folder: Path) -> tuple[int, int]:
        durable.add(folder.relative_to(tmp_path).as_posix())
        return fsync(folder)

    def recorded_syncfs(folder: Path) -> bool:
        for path in list(linked):
            durable.update([path, *(parent.as_posix() for parent in Path(path).parents)])
        return True

    async def put(number: int) -> None:
        await local.put_new(f"e/{number}/2026/{number}", b"x")
        assert {f"e/{number}/2026", f"e/{number}", "e", "."} <= durable

    monkeypatch.setattr(os, "link", recorded_link)
    monkeypatch.setattr(module, "fsync_folder", recorded_fsync)
    monkeypatch.setattr(module, "file_system", lambda folder: "ext4" if whole else "fuse")
    monkeypatch.setattr(module, "syncfs", recorded_syncfs)
    await asyncio.gather(*(put(number) for number in range(200)))


async def test_a_folder_made_again_after_the_file_system_was_synced_is_not_taken_for_durable(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with folders identified after `syncfs`: the entry of the new one was never synced."""
    folder = tmp_path / "a/b"
    kept: list[int] = []
    synced: list[str] = []

    def synced_then_made_again(root: Path) -> bool:
        kept.append(os.open(folder, os.O_RDONLY))  # so that its inode's number is not given to the new one
        (folder / "x").unlink()
        folder.rmdir()
        folder.mkdir()
        return True

    def recorded_fsync(folder: Path) -> tuple[int, int]:
        synced.append(folder.relative_to(tmp_path).as_posix())
        return fsync_folder(folder)

    with monkeypatch.context() as patch:
        patch.setattr(module, "FOLDERS_ONE_BY_ONE_MAX", 0)
        patch.setattr(module, "file_system", lambda folder: "ext4")
        patch.setattr(module, "syncfs", synced_then_made_again)
        await local.put_new("a/b/x", b"x")
    monkeypatch.setattr(module, "fsync_folder", recorded_fsync)
    await local.put_new("a/b/y", b"y")
    assert synced == ["a/b", "a"]
    os.close(kept.pop())


@pytest.mark.parametrize("flush_fails", [False, True])
async def test_a_close_that_fails_is_told_and_costs_no_writer_and_no_file_of_others(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush_fails: bool
) -> None:
    """Seen to fail with a descriptor closed twice, and with an error of the second close that nobody caught."""
    close, fsync = os.close, os.fsync
    other = os.open(tmp_path, os.O_RDONLY)
    others: list[int] = []

    def is_of_a_write(descriptor: int) -> bool:
        return ".tmp" in Path(f"/proc/self/fd/{descriptor}").readlink().parts

    def refused_close(descriptor: int) -> None:
        if not is_of_a_write(descriptor):
            return close(descriptor)
        others.append(os.dup2(other, descriptor))  # closed, and its number given to another file
        raise OSError(errno.EDQUOT, "no space left")

    def refused_fsync(descriptor: int) -> None:
        if flush_fails and is_of_a_write(descriptor):
            raise OSError(errno.EIO, "input/output error")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", refused_close)
        patch.setattr(os, "fsync", refused_fsync)
        for number in range(WRITERS_MAX):
            async with asyncio.timeout(BOUND_S):
                with pytest.raises(Unavailable, match="store_unavailable"):
                    await local.put_new(f"a/{number}", b"x")
    async with asyncio.timeout(BOUND_S):
        await local.put_new("a/b", b"x")
    assert [info.key async for info in local.list("")] == ["a/b"]
    assert list((tmp_path / ".tmp").iterdir()) == []
    assert len(others) == WRITERS_MAX
    for descriptor in others:
        assert os.fstat(descriptor).st_ino == os.fstat(other).st_ino
        close(descriptor)
    close(other)


@pytest.mark.parametrize(
    ("error", "told"), [(OSError(errno.EIO, "input/output error"), Unavailable), (MemoryError(), MemoryError)]
)
async def test_an_error_of_a_whole_group_is_told_to_all_of_it_and_costs_no_writer(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: type[Exception]
) -> None:
    """Seen to fail with errors of the operating system alone caught: the writes never returned, nor did later ones."""

    def refused(root: Path) -> bool:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, "FOLDERS_ONE_BY_ONE_MAX", 0)
        patch.setattr(module, "file_system", lambda folder: "ext4")
        patch.setattr(module, "syncfs", refused)
        async with asyncio.timeout(BOUND_S):
            writes = [local.put_new(f"a/{number}", b"x") for number in range(10 * WRITERS_MAX)]
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {told}
    async with asyncio.timeout(BOUND_S):
        await local.put_new("a/b", b"x")
    assert list((tmp_path / ".tmp").iterdir()) == []


async def test_a_folder_that_goes_while_it_is_made_is_made_again(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removes an empty parent between the making of it and of what lies in it. Seen to fail without
    the second attempt (`FileNotFoundError`)."""
    mkdir = Path.mkdir
    gone: list[Path] = []

    def making(folder: Path, *arguments: Any, **named: Any) -> None:
        if folder == tmp_path / "a" / "b" and not gone:
            gone.append(folder)
            raise FileNotFoundError(folder)
        mkdir(folder, *arguments, **named)

    monkeypatch.setattr(Path, "mkdir", making)
    await local.put("a/b/c", b"1")
    assert gone
    assert (tmp_path / "a/b/c").read_bytes() == b"1"
