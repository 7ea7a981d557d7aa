"""A disk for each storage node: a file system in a file, on a loop device, that can be made to fail.

    DIRECTORY/NAME.fs3chaos.img     the device's bytes (sparse)
    DIRECTORY/NAME                  where it is mounted

A disk is *filled* by one big file; it turns *read-only* as ext4 does when it meets damage; it *fails* by
being shut down under load (what a kernel does when the device is gone: every call is EIO from then on), or,
with device-mapper, block by block. It is mended as an operator would: the node is stopped, the file system
checked, mounted, the node started; or another, empty disk is put in its place.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from .machine import command, succeeds

SIZE_BYTES = 4 << 30
SUFFIX = ".fs3chaos.img"
NEW_DISK = "disk.new"
"""How an operator says that an empty disk is new in its place (``fs3.storage.disks``)."""
MAPPED = "fs3chaos-"
E2FSCK_REPAIRED = 1
SECTOR_BYTES = 512
SHUTDOWN = (2 << 30) | (4 << 16) | (ord("X") << 8) | 125
"""``_IOR('X', 125, __u32)``: shut a file system down; ext4 and xfs have the same."""
SHUTDOWN_AT_ONCE = 2
"""Without writing anything back."""
OPTIONS = {"ext4": "errors=remount-ro,discard", "xfs": "discard"}
MAKE = {"ext4": ("mkfs.ext4", "-q", "-F", "-m", "0"), "xfs": ("mkfs.xfs", "-q", "-f")}


def good_table(device: str, sectors: int) -> str:
    """Device-mapper's table of a device that works."""
    return f"0 {sectors} linear {device} 0\n"


def failing_table(sectors: int) -> str:
    """Device-mapper's table of a device none of whose blocks can be read or written."""
    return f"0 {sectors} error\n"


class Volume:
    """One disk."""

    def __init__(self, directory: Path, name: str, kind: str, *, is_mapped: bool) -> None:
        self.name = name
        self.kind = kind
        """ "ext4" or "xfs"."""
        self.mount_point = directory / name
        self._image = directory / f"{name}{SUFFIX}"
        self._mapped = f"{MAPPED}{name}" if is_mapped else ""
        self._loop = ""

    @property
    def data(self) -> Path:
        """The directory to be given to a node: without the disk it is not there."""
        return self.mount_point / "fs3"

    def up(self) -> None:
        """Make the disk, empty, and mount it."""
        self.mount_point.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        self._loop = command("losetup", "--find", "--show", str(self._image)).strip()
        if self._mapped:
            command("dmsetup", "create", self._mapped, text=good_table(self._loop, self._sectors))
        self.replace()

    @property
    def _sectors(self) -> int:
        return SIZE_BYTES // SECTOR_BYTES

    @property
    def _device(self) -> str:
        return f"/dev/mapper/{self._mapped}" if self._mapped else self._loop

    def replace(self) -> None:
        """An empty disk in this one's place. Nothing may have it open."""
        self._unmount()
        command(*MAKE[self.kind], self._device)
        self._mount()
        self.data.mkdir()
        (self.data / NEW_DISK).touch()

    def mend(self) -> None:
        """Check the file system and mount it again, as it was. Nothing may have it open."""
        self._unmount()
        if self._mapped:
            self._load(good_table(self._loop, self._sectors))
        if self.kind == "ext4":
            # a journal is played back by a mount; what the check repairs is what is left after that
            self._mount()
            self._unmount()
            command("e2fsck", "-f", "-y", self._device, worst=E2FSCK_REPAIRED)
        self._mount()

    def fill(self) -> None:
        """No byte of the disk is left."""
        with self._filler.open("wb") as file:
            for step_bytes in (1 << 24, 1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step_bytes)

    def empty(self) -> None:
        """Take away what filled it."""
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.mount_point / "filler"

    def turn_read_only(self) -> None:
        """As when the file system meets damage. ext4 only."""
        assert self.kind == "ext4", self.kind
        Path(f"/sys/fs/ext4/{Path(self._device).resolve().name}/trigger_fs_error").write_text("chaos\n")

    def fail(self) -> None:
        """Every call is EIO from now on."""
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", SHUTDOWN_AT_ONCE))
        finally:
            os.close(descriptor)

    def fail_blocks(self) -> None:
        """No block can be read or written from now on; what is in memory still can."""
        assert self._mapped, "no device-mapper"
        self._load(failing_table(self._sectors))

    def _load(self, table: str) -> None:
        command("dmsetup", "load", self._mapped, text=table)
        command("dmsetup", "suspend", "--noflush", "--nolockfs", self._mapped)
        command("dmsetup", "resume", self._mapped)

    def _mount(self) -> None:
        command("mount", "-t", self.kind, "-o", OPTIONS[self.kind], self._device, str(self.mount_point))

    def _unmount(self) -> None:
        # the kernel's list: a file system that is shut down cannot be asked
        if succeeds("findmnt", "--kernel", "--mountpoint", str(self.mount_point)):
            command("umount", str(self.mount_point))


class Volumes:
    """The disks of one run."""

    def __init__(self, directory: Path, names: Sequence[str], *, has_xfs: bool, is_mapped: bool) -> None:
        self.directory = directory
        kinds = ("ext4", "ext4", "xfs") if has_xfs else ("ext4",)
        self._volumes = {
            name: Volume(directory, name, kinds[number % len(kinds)], is_mapped=is_mapped)
            for number, name in enumerate(names)
        }

    def __getitem__(self, name: str) -> Volume:
        return self._volumes[name]

    def up(self) -> None:
        """Make all of them. MachineError."""
        for volume in self._volumes.values():
            volume.up()


def sweep() -> list[str]:
    """Unmount and detach all disks of this and earlier runs; returns their files."""
    devices = json.loads(command("losetup", "--list", "--json") or '{"loopdevices": []}')["loopdevices"]
    found = [(d["name"], d["back-file"]) for d in devices if SUFFIX in (d["back-file"] or "")]
    mounts = json.loads(command("findmnt", "--list", "--json", "--output", "SOURCE,TARGET"))["filesystems"]
    ours = {name for name, _ in found}
    for mount in reversed(mounts):
        if mount["source"] in ours or mount["source"].startswith(f"/dev/mapper/{MAPPED}"):
            command("umount", mount["target"])
    for mapped in Path("/dev/mapper").glob(f"{MAPPED}*"):
        command("dmsetup", "remove", mapped.name)
    for name, _ in found:
        command("losetup", "--detach", name)
    return [file for _, file in found]
