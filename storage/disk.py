"""Files of a disk, as a component: the operating system's, or a simulated one with faults.

A write or sync that fails is a failed disk, for good: the kernel may have dropped the pages that it could
not write, and a second sync would say that all is well (design 4.7). So the first failure marks the disk,
and every later call raises ``DiskFailed``. No space left is another matter: it only comes from
``preallocate``, since bytes are written into space that was taken before.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from fs3.errors import Unavailable

SECTOR_BYTES = 4096
"""Unit of direct writes. A power cut is taken to leave each sector of a disk (512 B or more) old or new."""


class DiskFailed(Unavailable):
    """A write, sync or directory change failed: the targets of this disk go OFFLINE, nothing is retried."""


class DiskSpace(NamedTuple):
    """Of the file system that a path lies on."""

    total_bytes: int
    free_bytes: int
    """What this process may still take."""


class DiskFile(Protocol):
    """An open file. Thread-safe; writes to overlapping ranges must not be concurrent."""

    path: str

    def fileno(self) -> int:
        """Descriptor for ``os.sendfile`` and the like. A simulated file has none: RuntimeError."""
        ...

    def size_bytes(self) -> int:
        """Present size."""
        ...

    def preallocate(self, offset_bytes: int, length_bytes: int) -> None:
        """Take space for a range and grow the file over it; new bytes read as zeros.

        Raises FsError ENOSPC (nothing changed, or part of the space is taken), DiskFailed.
        """
        ...

    def truncate(self, length_bytes: int) -> None:
        """Cut the file. Raises DiskFailed."""
        ...

    def pwrite(self, data: memoryview, offset_bytes: int) -> None:
        """Write all of ``data``, inside the preallocated size. Raises DiskFailed.

        Direct (without the page cache) where the file system takes it and memory, offset and length are
        multiples of ``SECTOR_BYTES``; callers on the hot path see to that.
        """
        ...

    def pread(self, buffer: memoryview, offset_bytes: int) -> None:
        """Fill ``buffer``. Raises CorruptData (unreadable, or the file ends before), DiskFailed."""
        ...

    def pread_nowait(self, buffer: memoryview, offset_bytes: int) -> bool:
        """Fill ``buffer`` from the page cache; False: it would wait for the disk. Errors as ``pread``."""
        ...

    def sync(self) -> None:
        """fdatasync: everything written and the size are on the disk. Raises DiskFailed."""
        ...

    def close(self) -> None:
        """Close; nothing is synced."""
        ...


class Disk(Protocol):
    """Directories and files."""

    @property
    def failure(self) -> str | None:
        """Why the disk failed; None while it works."""
        ...

    def fail(self, reason: str) -> DiskFailed:
        """Mark the disk as failed (the first reason stays) and return the error to raise."""
        ...

    def open(self, path: str, *, create: bool = False) -> DiskFile:
        """Open to read and write; ``create``: it must not exist. FileNotFoundError, FileExistsError."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file or directory is there."""
        ...

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents, durably; nothing if it is there."""
        ...

    def list_directory(self, path: str) -> list[str]:
        """Names in a directory, sorted."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file."""
        ...

    def sync_directory(self, path: str) -> None:
        """Names made or removed in this directory are on the disk."""
        ...

    def lock(self, path: str) -> bool:
        """Take the exclusive lock of this path until ``unlock`` or the process ends; False: it is held."""
        ...

    def unlock(self, path: str) -> None:
        """Give it back."""
        ...

    def space(self, path: str) -> DiskSpace:
        """Space of the file system under ``path``."""
        ...
