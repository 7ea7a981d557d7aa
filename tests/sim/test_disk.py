"""Disks of the simulated world: how they fail, and what they are afterwards."""

from __future__ import annotations

import errno

import pytest

from fs3.errors import CorruptData, FsError
from fs3.rng import Rng
from fs3.storage.disk import DiskFailed

from .disk import SECTOR_BYTES, SimDisk

OLD, NEW = b"o" * SECTOR_BYTES, b"n" * SECTOR_BYTES


def disk_with(seed: int, *synced: bytes) -> SimDisk:
    """A disk whose file /f holds what was synced."""
    disk = SimDisk(Rng(seed))
    file = disk.open("/f", create=True)
    file.preallocate(0, len(synced) * SECTOR_BYTES)
    file.pwrite(memoryview(b"".join(synced)), 0)
    file.sync()
    disk.sync_directory("/")
    return disk


def content(disk: SimDisk) -> bytes:
    """All of /f."""
    buffer = bytearray(disk.open("/f").size_bytes())
    disk.open("/f").pread(memoryview(buffer), 0)
    return bytes(buffer)


def test_a_failed_sync_fails_the_disk_for_good_and_its_pages_may_be_gone() -> None:
    found: dict[bytes, None] = {}
    for seed in range(20):
        disk = disk_with(seed, OLD, OLD)
        disk.open("/f").pwrite(memoryview(NEW), 0)
        disk.fault("sync")
        with pytest.raises(DiskFailed, match="injected"):
            disk.open("/f").sync()
        with pytest.raises(DiskFailed):
            content(disk)
        assert disk.after_kill().failure is not None
        disk = disk_with(seed, OLD, OLD)
        disk.open("/f").pwrite(memoryview(NEW), 0)
        disk.fault("sync")
        with pytest.raises(DiskFailed):
            disk.open("/f").sync()
        disk.mend()
        after = disk.after_kill()
        assert after.failure is None
        found[content(after)] = None
    assert sorted(found) == [NEW + OLD, OLD + OLD]


def test_what_cannot_be_read_can_be_read_once_it_is_written_anew() -> None:
    disk = disk_with(1, OLD, OLD, OLD)
    disk.make_unreadable("/f", 100, 2 * SECTOR_BYTES)
    with pytest.raises(CorruptData):
        content(disk)
    disk.open("/f").pwrite(memoryview(NEW), SECTOR_BYTES)
    buffer = bytearray(SECTOR_BYTES)
    disk.open("/f").pread(memoryview(buffer), SECTOR_BYTES)
    assert buffer == NEW
    with pytest.raises(CorruptData):
        content(disk)
    disk.open("/f").pwrite(memoryview(NEW * 3), 0)
    assert content(disk) == NEW * 3


def test_a_full_disk_has_room_again_when_somebody_makes_some() -> None:
    disk = disk_with(1, OLD)
    disk.fill()
    with pytest.raises(FsError) as caught:
        disk.open("/f").preallocate(SECTOR_BYTES, SECTOR_BYTES)
    assert caught.value.errno == errno.ENOSPC
    disk.make_room()
    disk.open("/f").preallocate(SECTOR_BYTES, SECTOR_BYTES)
