"""A small file system of its own: in a file, on a loop device. Root only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.machine import command, succeeds
from tests.chaos.volumes import SHUTDOWN, SHUTDOWN_AT_ONCE


class LoopDisk:
    """A disk: ``image`` has its bytes, ``point`` is where it is mounted."""

    def __init__(self, image: Path, point: Path) -> None:
        self.image = image
        self.point = point
        self.device = command("losetup", "--find", "--show", str(image)).strip()

    def make(self) -> None:
        """An empty file system. Nothing may have it open."""
        command("mkfs.ext4", "-q", "-F", "-m", "0", self.device)

    def mount(self) -> None:
        self.point.mkdir(parents=True, exist_ok=True)
        command("mount", "-t", "ext4", "-o", "errors=remount-ro", self.device, str(self.point))

    def unmount(self, *, lazily: bool = False) -> None:
        """``lazily``: although files are open."""
        command("umount", *(["--lazy"] if lazily else []), str(self.point))

    def turn_read_only(self) -> None:
        """As when the file system meets damage."""
        Path(f"/sys/fs/ext4/{Path(self.device).name}/trigger_fs_error").write_text("test\n")

    def shut_down(self) -> None:
        """Nothing can be written or read from the device any more."""
        descriptor = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", SHUTDOWN_AT_ONCE))
        finally:
            os.close(descriptor)

    def fill(self) -> Path:
        """A file takes all space that is left."""
        filler = self.point / "filler"
        with filler.open("wb") as file:
            for step_bytes in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step_bytes)
        return filler

    def rot(self, content: bytes) -> None:
        """A bit of these bytes changes on the device, below everything that is cached above it."""
        with self.image.open("r+b") as file:
            at = file.read().find(content)
            assert at >= 0, "these bytes are not on the disk"
            file.seek(at + len(content) // 2)
            file.write(bytes([content[len(content) // 2] ^ 1]))


@contextmanager
def loop_disk(image: Path, point: Path, size_bytes: int) -> Iterator[LoopDisk]:
    """A disk that is mounted, empty; gone afterwards, whatever happened to it."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    disk = LoopDisk(image, point)
    try:
        disk.make()
        disk.mount()
        yield disk
    finally:
        while succeeds("findmnt", "--kernel", "--mountpoint", str(point)):
            command("umount", "--lazy", str(point))
        command("losetup", "--detach", disk.device)
        image.unlink()
