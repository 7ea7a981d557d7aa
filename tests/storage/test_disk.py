"""Files of a disk: the real one and the simulated one alike, then what only one of them has."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fs3.errors import CorruptData, FsError
from fs3.rng import Rng
from fs3.storage.disk import Disk, DiskFailed, OsDisk, OsFile

from ..sim.disk import PowerCut, SimDisk

MIB = 1 << 20


@pytest.fixture(params=["os", "sim"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Disk, str]]:
    """A disk and a directory on it."""
    if request.param == "os":
        disk = OsDisk()
        yield disk, str(tmp_path)
        disk.close()
    else:
        yield SimDisk(Rng(1)), "/d"


def bytes_of(disk: Disk, path: str, offset_bytes: int, length_bytes: int) -> bytes:
    file = disk.open(path)
    try:
        buffer = memoryview(bytearray(length_bytes))
        file.pread(buffer, offset_bytes)
        return bytes(buffer)
    finally:
        file.close()


def test_what_is_written_is_read(place: tuple[Disk, str]) -> None:
    disk, folder = place
    disk.make_directory(f"{folder}/a/b")
    disk.make_directory(f"{folder}/a/b")
    path = f"{folder}/a/b/file"
    with pytest.raises(FileNotFoundError):
        disk.open(path)
    file = disk.open(path, create=True)
    with pytest.raises(FileExistsError):
        disk.open(path, create=True)
    disk.sync_directory(f"{folder}/a/b")
    file.preallocate(0, 2 * MIB)
    assert file.size_bytes() == 2 * MIB
    file.preallocate(0, MIB)  # taken already
    assert file.size_bytes() == 2 * MIB
    for offset_bytes, data in [(0, b"x" * 8192), (4096, b"y" * 4096), (5000, b"z" * 3), (MIB - 1, b"ab")]:
        file.pwrite(memoryview(data), offset_bytes)
    file.sync()
    file.close()
    assert bytes_of(disk, path, 4000, 1003) == b"x" * 96 + b"y" * 904 + b"zzz"
    assert bytes_of(disk, path, MIB - 2, 4) == b"\0ab\0"
    with pytest.raises(CorruptData, match="ends at"):
        bytes_of(disk, path, 2 * MIB - 1, 2)
    assert disk.list_directory(f"{folder}/a/b") == ["file"]
    assert disk.exists(path) and disk.exists(f"{folder}/a") and not disk.exists(f"{folder}/c")
    disk.remove(path)
    assert not disk.exists(path)
    assert disk.space(folder).free_bytes > 0


def test_many_writes_at_once(place: tuple[Disk, str]) -> None:
    disk, folder = place
    disk.make_directory(folder)
    file = disk.open(f"{folder}/file", create=True)
    file.preallocate(0, 8 * MIB)
    parts = [Rng(number).randbytes(MIB) for number in range(8)]
    writes = disk.writes()
    for number, part in enumerate(parts):
        writes.add(file, memoryview(part), number * MIB)
    writes.wait()
    disk.writes().wait()
    file.sync()
    assert bytes_of(disk, f"{folder}/file", 0, 8 * MIB) == b"".join(parts)
    file.close()


def test_cut_and_taken_again_reads_as_zeros(place: tuple[Disk, str]) -> None:
    disk, folder = place
    disk.make_directory(folder)
    file = disk.open(f"{folder}/file", create=True)
    file.preallocate(0, MIB)
    file.pwrite(memoryview(b"x" * MIB), 0)
    file.truncate(4096)
    file.preallocate(0, MIB)
    assert bytes_of(disk, f"{folder}/file", 4090, 20) == b"x" * 6 + bytes(14)
    file.close()


def test_a_lock_is_held_once(place: tuple[Disk, str]) -> None:
    disk, folder = place
    disk.make_directory(folder)
    assert disk.lock(f"{folder}/lock") and not disk.lock(f"{folder}/lock")
    disk.unlock(f"{folder}/lock")
    assert disk.lock(f"{folder}/lock")
    disk.unlock(f"{folder}/lock")
    disk.unlock(f"{folder}/lock")


def test_a_failed_disk_stays_failed(place: tuple[Disk, str]) -> None:
    disk, folder = place
    disk.make_directory(folder)
    file = disk.open(f"{folder}/file", create=True)
    file.preallocate(0, 4096)
    assert str(disk.fail("first")) == "first" and str(disk.fail("second")) == "first"
    assert disk.failure == "first"
    buffer = memoryview(bytearray(10))
    for call in (
        lambda: file.pwrite(buffer, 0),
        lambda: file.pread(buffer, 0),
        lambda: file.pread_nowait(buffer, 0),
        file.sync,
        lambda: file.preallocate(0, 10_000),
        lambda: file.truncate(0),
        lambda: disk.open(f"{folder}/file"),
        lambda: disk.remove(f"{folder}/file"),
        lambda: disk.sync_directory(folder),
        lambda: disk.rename(f"{folder}/file", f"{folder}/other"),
    ):
        with pytest.raises(DiskFailed, match="first"):
            call()
    file.close()


def test_names_and_directories(place: tuple[Disk, str]) -> None:
    disk, folder = place
    disk.make_directory(f"{folder}/old")
    disk.open(f"{folder}/old/file", create=True).close()
    disk.rename(f"{folder}/old", f"{folder}/new")
    assert disk.exists(f"{folder}/new/file") and not disk.exists(f"{folder}/old")
    disk.remove_directory(f"{folder}/new")
    disk.remove_directory(f"{folder}/new")
    assert not disk.exists(f"{folder}/new/file")


# -- the real one


def test_memory_that_is_not_aligned_is_written_all_the_same(tmp_path: Path) -> None:
    disk = OsDisk()
    file = disk.open(str(tmp_path / "file"), create=True)
    file.preallocate(0, MIB)
    memory = memoryview(mmap.mmap(-1, 3 * 4096))
    memory[:] = Rng(1).randbytes(len(memory))
    for shift in (0, 1, 512, 4095):
        file.pwrite(memory[shift : shift + 8192], 16384)
        assert bytes_of(disk, file.path, 16384, 8192) == bytes(memory[shift : shift + 8192])
    file.close()


def test_a_file_system_in_memory_will_do() -> None:
    folder = Path("/dev/shm") / f"fs3-test-{os.getpid()}"
    folder.mkdir()
    try:
        disk = OsDisk()
        file = disk.open(str(folder / "file"), create=True)
        file.preallocate(0, MIB)
        file.pwrite(memoryview(b"x" * 4096), 4096)
        file.sync()
        assert bytes_of(disk, file.path, 4095, 3) == b"\0xx"
        file.close()
    finally:
        (folder / "file").unlink(missing_ok=True)
        folder.rmdir()


def test_hot_reads_do_not_wait_and_cold_ones_say_so(tmp_path: Path) -> None:
    disk = OsDisk()
    file = disk.open(str(tmp_path / "file"), create=True)
    file.preallocate(0, MIB)
    file.pwrite(memoryview(b"x" * MIB), 0)
    file.sync()
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    buffer = memoryview(bytearray(4096))
    cold = file.pread_nowait(buffer, 512 * 1024)
    file.pread(buffer, 512 * 1024)
    hot = file.pread_nowait(buffer, 512 * 1024)
    assert hot or not cold  # a file system that cannot say is always cold
    assert bytes(buffer) == b"x" * 4096
    file.close()


@pytest.mark.parametrize("call", ["fdatasync", "pwrite", "posix_fallocate", "ftruncate"])
def test_an_error_of_a_change_fails_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    disk = OsDisk()
    file = disk.open(str(tmp_path / "file"), create=True)
    file.preallocate(0, MIB)

    errors = [OSError(errno.EIO, os.strerror(errno.EIO))]

    def broken(*_: object) -> int:
        if errors:
            raise errors.pop()
        return 1  # the system says yes when it is asked again, and lies

    monkeypatch.setattr(os, call, broken)
    calls: dict[str, Callable[[], object]] = {
        "fdatasync": file.sync,
        "pwrite": lambda: file.pwrite(memoryview(b"x"), 0),
        "posix_fallocate": lambda: file.preallocate(0, 2 * MIB),
        "ftruncate": lambda: file.truncate(0),
    }
    with pytest.raises(DiskFailed, match="Input/output error"):
        calls[call]()
    monkeypatch.undo()
    with pytest.raises(DiskFailed):
        file.sync()
    file.close()


def test_no_space_is_not_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = OsDisk()
    file = disk.open(str(tmp_path / "file"), create=True)
    file.preallocate(0, MIB)

    def full(descriptor: int, offset_bytes: int, length_bytes: int) -> None:
        os.ftruncate(descriptor, offset_bytes + length_bytes // 2)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(FsError) as caught:
        file.preallocate(MIB, MIB)
    assert caught.value.errno == errno.ENOSPC
    assert file.size_bytes() == MIB and disk.failure is None
    file.close()


def test_a_lane_that_fails_is_heard(tmp_path: Path) -> None:
    disk = OsDisk()
    good = disk.open(str(tmp_path / "good"), create=True)
    bad = disk.open(str(tmp_path / "bad"), create=True)
    assert isinstance(bad, OsFile)
    good.preallocate(0, 4 * MIB)
    bad.close()  # its descriptors are gone: EBADF
    data = memoryview(bytes(MIB))
    writes = disk.writes()
    for number, file in enumerate((good, bad, good)):
        writes.add(file, data, number * MIB)
    with pytest.raises(DiskFailed):
        writes.wait()
    good.close()
    disk.close()


def test_another_process_cannot_take_the_lock(tmp_path: Path) -> None:
    disk = OsDisk()
    path = str(tmp_path / "lock")
    program = f"from fs3.storage.disk import OsDisk; print(OsDisk().lock({path!r}))"
    assert disk.lock(path)
    for expected in ("False", "True"):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
        disk.unlock(path)


# -- the simulated one


def test_the_simulated_disk_loses_tears_and_keeps(tmp_path: Path) -> None:
    seen: dict[bytes, None] = {}
    for seed in range(60):
        disk = SimDisk(Rng(seed))
        file = disk.open("/f", create=True)
        disk.sync_directory("/")
        file.preallocate(0, 4096)
        file.pwrite(memoryview(b"a" * 1024), 0)
        file.sync()
        file.pwrite(memoryview(b"b" * 1024), 0)
        after = disk.after_power_cut()
        with pytest.raises(PowerCut):
            file.sync()
        seen[bytes_of(after, "/f", 0, 1024)] = None
    halves = (b"a" * 512, b"b" * 512)
    assert sorted(seen) == sorted(one + two for one in halves for two in halves)


def test_names_that_were_not_synced_may_be_lost() -> None:
    def is_there(seed: int, synced: bool) -> bool:
        disk = SimDisk(Rng(seed))
        disk.open("/f", create=True)
        if synced:
            disk.sync_directory("/")
        return disk.after_power_cut().exists("/f")

    assert {is_there(seed, synced=False) for seed in range(20)} == {True, False}
    assert {is_there(seed, synced=True) for seed in range(20)} == {True}


def test_a_kill_loses_nothing_that_was_written() -> None:
    disk = SimDisk(Rng(1))
    file = disk.open("/f", create=True)
    file.preallocate(0, 10)
    file.pwrite(memoryview(b"0123456789"), 0)
    assert bytes_of(disk.after_kill(), "/f", 0, 10) == b"0123456789"


def test_simulated_faults() -> None:
    disk = SimDisk(Rng(1), total_bytes=10_000)
    file = disk.open("/f", create=True)
    file.preallocate(0, 8000)
    with pytest.raises(FsError):
        file.preallocate(0, 20_000)
    disk.fill(free_bytes=100)
    assert disk.space("/").free_bytes == 100
    disk.make_unreadable("/f", 100, 10)
    with pytest.raises(CorruptData, match="unreadable"):
        file.pread(memoryview(bytearray(200)), 0)
    file.pread(memoryview(bytearray(100)), 0)
    disk.flip("/f", 5, 0x40)
    assert bytes_of(disk, "/f", 5, 1) == b"\x40"
    with pytest.raises(RuntimeError, match="no descriptor"):
        file.fileno()
    disk.fault("sync", after=1)
    file.sync()
    with pytest.raises(DiskFailed, match="injected"):
        file.sync()
