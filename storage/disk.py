"""Files of a disk, as a component: the operating system's, or a simulated one with faults.

A write or sync that fails is a failed disk, for good: the kernel may have dropped the pages that it could
not write, and a second sync would say that all is well (design 4.7). So the first failure marks the disk,
and every later call raises ``DiskFailed``. No space left is another matter: it only comes from
``preallocate``, since bytes are written into space that was taken before.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

from fs3.errors import CorruptData, Unavailable, fs_error

from .lane_writes import LaneWrites

_CLOSED = -1
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_BROKEN = (errno.EIO, errno.EROFS, errno.EUCLEAN, errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN)
"""Of ``open``: the file system or what is below it is over. Others say something about the file."""

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

    def pread_direct(self, buffer: memoryview, offset_bytes: int) -> None:
        """Fill ``buffer`` with what the disk itself has, around the page cache, where the file system can:
        then address, offset and length must be multiples of ``SECTOR_BYTES``. Errors as ``pread``."""
        ...

    def forget_cached(self, offset_bytes: int, length_bytes: int) -> None:
        """The page cache is not to be believed for this range: the next read asks the disk."""
        ...

    def sync(self) -> None:
        """fdatasync: everything written and the size are on the disk. Raises DiskFailed."""
        ...

    def close(self) -> None:
        """Close; nothing is synced."""
        ...


class Writes(Protocol):
    """Writes that may be on their way while more are added."""

    def add(self, file: DiskFile, data: memoryview, offset_bytes: int) -> None:
        """Write ``data``, now or later: its memory must stay as it is until ``wait`` returns."""
        ...

    def wait(self) -> None:
        """All that was added is done, or failed: the memory is free. Raises DiskFailed."""
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
        """Open to read and write; ``create``: it must not exist. FileNotFoundError, FileExistsError, FsError
        ENOSPC, DiskFailed (also: it is not on the file system that ``attach`` found)."""
        ...

    def attach(self, path: str) -> None:
        """The file system that has this directory now is the disk's own, for ``open`` and ``probe``."""
        ...

    def probe(self, path: str) -> None:
        """Look whether this file is still there, on the disk's own file system, and that can be written to.
        Waits for the disk. Raises DiskFailed."""
        ...

    def writes(self) -> Writes:
        """A new batch of writes."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file or directory is there. OSError: that cannot be seen."""
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

    def remove_directory(self, path: str) -> None:
        """Remove a directory and all that is in it; nothing if it is not there."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file or directory another name in the same directory."""
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
        """Space of the file system under ``path``. None of it where that cannot be seen: then the disk has
        failed, and the next call that may raise says so."""
        ...


class OsFile:
    """A file of the operating system: one descriptor through the page cache, one around it for writes.

    Reads and ``sendfile`` go through the cache, bulk writes do not: their pages would only push out what is
    read, and a grouped sync of cached writes measured slower than direct ones.
    """

    def __init__(self, disk: OsDisk, path: str, cached: int) -> None:
        self.path = path
        self._disk = disk
        self._cached = cached
        self._direct: int | None = _open_direct(path)
        self._nowait = True

    def fileno(self) -> int:
        return self._cached

    def size_bytes(self) -> int:
        return os.fstat(self._cached).st_size

    def preallocate(self, offset_bytes: int, length_bytes: int) -> None:
        self._disk.check()
        size_bytes = self.size_bytes()
        try:
            os.posix_fallocate(self._cached, offset_bytes, length_bytes)
        except OSError as error:
            if error.errno in _NO_SPACE:
                os.ftruncate(self._cached, size_bytes)  # give back what was taken on the way
                raise fs_error(errno.ENOSPC, "the disk is full", self.path) from error
            raise self._failed("preallocate", error) from error

    def truncate(self, length_bytes: int) -> None:
        self._disk.check()
        try:
            os.ftruncate(self._cached, length_bytes)
        except OSError as error:
            raise self._failed("truncate", error) from error

    def pwrite(self, data: memoryview, offset_bytes: int) -> None:
        self._disk.check()
        aligned = (offset_bytes | len(data)) % SECTOR_BYTES == 0
        try:
            if self._direct is None or not aligned:
                _write_all(self._cached, data, offset_bytes)
            else:
                self._write_direct(self._direct, data, offset_bytes)
        except OSError as error:
            raise self._failed("write", error) from error

    def _write_direct(self, descriptor: int, data: memoryview, offset_bytes: int) -> None:
        try:
            _write_all(descriptor, data, offset_bytes)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # The memory is not aligned as this device wants it: the only case in which nothing is wrong.
            with mmap.mmap(-1, len(data)) as pages, memoryview(pages) as copy:
                copy[:] = data
                _write_all(descriptor, copy, offset_bytes)

    def pread(self, buffer: memoryview, offset_bytes: int) -> None:
        self._disk.check()
        self._read_all(self._cached, buffer, offset_bytes)

    def pread_direct(self, buffer: memoryview, offset_bytes: int) -> None:
        self._disk.check()
        self._read_all(self._cached if self._direct is None else self._direct, buffer, offset_bytes)

    def _read_all(self, descriptor: int, buffer: memoryview, offset_bytes: int) -> None:
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(descriptor, [buffer[done:]], offset_bytes + done)
            except OSError as error:
                raise CorruptData(f"{self.path} at {offset_bytes}: {error.strerror}") from error
            if count == 0:
                raise CorruptData(f"{self.path} ends at {offset_bytes + done}, {len(buffer)} bytes wanted")
            done += count

    def forget_cached(self, offset_bytes: int, length_bytes: int) -> None:
        os.posix_fadvise(self._cached, offset_bytes, length_bytes, os.POSIX_FADV_DONTNEED)

    def pread_nowait(self, buffer: memoryview, offset_bytes: int) -> bool:
        if self._disk.failure is not None:
            self._disk.check()
        if not self._nowait:
            return False
        try:
            return os.preadv(self._cached, [buffer], offset_bytes, os.RWF_NOWAIT) == len(buffer)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise CorruptData(f"{self.path} at {offset_bytes}: {error.strerror}") from error
            self._nowait = False  # this file system cannot say: every read may wait
            return False

    def sync(self) -> None:
        self._disk.check()
        try:
            os.fdatasync(self._cached)
        except OSError as error:
            raise self._failed("sync", error) from error

    def close(self) -> None:
        cached, direct = self._cached, self._direct
        if cached == _CLOSED:
            return
        self._disk.file_closed()
        # Numbers of descriptors are given out again: a late call must fail, not reach another file.
        self._cached = self._direct = _CLOSED
        for descriptor in (cached, direct):
            if descriptor is not None:
                os.close(descriptor)

    def _failed(self, call: str, error: OSError) -> DiskFailed:
        return self._disk.fail(f"{call} {self.path}: {error.strerror}")


class OsDisk:
    """A disk of the operating system. One object a disk: a failure of any file is a failure of all.

    ``lanes``: writes of a batch that are on their way at once. One write of 1 MiB does not fill a disk: two
    reach 1.4 times the rate of one (measured; four no more than two).
    """

    def __init__(self, lanes: int = 2) -> None:
        self.lanes = lanes
        self._pool: ThreadPoolExecutor | None = None
        self._open_count = 0
        self._failure: str | None = None
        self._device: int | None = None
        self._locks: dict[str, int] = {}

    @property
    def failure(self) -> str | None:
        return self._failure

    def fail(self, reason: str) -> DiskFailed:
        if self._failure is None:
            self._failure = reason
        return DiskFailed(self._failure)

    def check(self) -> None:
        """Raises DiskFailed once the disk has failed."""
        if self._failure is not None:
            raise DiskFailed(self._failure)

    def open(self, path: str, *, create: bool = False) -> DiskFile:
        self.check()
        flags = os.O_RDWR | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        descriptor = self._open(path, flags)
        if self._device is not None and os.fstat(descriptor).st_dev != self._device:
            os.close(descriptor)
            if create:
                os.unlink(path)  # what is written there would be hidden when the disk is mounted again
            raise self.fail(f"{path} is on another file system: the disk's own was unmounted")
        file = OsFile(self, path, descriptor)
        self._open_count += 1
        return file

    def _open(self, path: str, flags: int) -> int:
        try:
            return os.open(path, flags, 0o600)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise fs_error(errno.ENOSPC, "the disk is full", path) from error
            if error.errno in _BROKEN:
                raise self.fail(f"open {path}: {error.strerror}") from error
            raise

    def attach(self, path: str) -> None:
        self._device = os.stat(path).st_dev

    def probe(self, path: str) -> None:
        self.check()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # what is over refuses that, memory or not
            try:
                device, flags = os.fstat(descriptor).st_dev, os.fstatvfs(descriptor).f_flag
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._not_seen(path, error) from error
        if self._device is not None and device != self._device:
            raise self.fail(f"{path} is on another file system: the disk's own was unmounted")
        if flags & os.ST_RDONLY:
            raise self.fail(f"{path} is on a file system that can only be read now")

    def file_closed(self) -> None:
        """Called by a file; with the last one the write lanes end."""
        self._open_count -= 1
        if self._open_count == 0:
            self.close()

    def _not_seen(self, path: str, error: OSError) -> DiskFailed:
        gone = "not there any more: was the disk unmounted?"
        return self.fail(f"{path}: {gone if error.errno == errno.ENOENT else error.strerror}")

    def writes(self) -> Writes:
        return LaneWrites(self.lanes, self.helper)

    def helper(self, work: Callable[[], None]) -> Future[None]:
        """Run ``work`` in a write lane."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.lanes - 1, thread_name_prefix="disk-write")
        return self._pool.submit(work)

    def close(self) -> None:
        """End the write lanes (they start again when needed). Files are their users' to close."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def exists(self, path: str) -> bool:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True  # any other error is one: what cannot be looked at must not be made anew

    def make_directory(self, path: str) -> None:
        if os.path.isdir(path):
            return
        parent = os.path.dirname(os.path.abspath(path))
        self.make_directory(parent)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            return
        self.sync_directory(parent)

    def list_directory(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def remove(self, path: str) -> None:
        self.check()
        try:
            os.unlink(path)
        except OSError as error:
            raise self.fail(f"remove {path}: {error.strerror}") from error

    def remove_directory(self, path: str) -> None:
        self.check()
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self.fail(f"remove {path}: {error.strerror}") from error

    def rename(self, old: str, new: str) -> None:
        self.check()
        try:
            os.rename(old, new)
        except OSError as error:
            raise self.fail(f"rename {old}: {error.strerror}") from error

    def sync_directory(self, path: str) -> None:
        self.check()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self.fail(f"sync directory {path}: {error.strerror}") from error

    def lock(self, path: str) -> bool:
        if path in self._locks:
            return False
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._locks[path] = descriptor
        return True

    def unlock(self, path: str) -> None:
        descriptor = self._locks.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def space(self, path: str) -> DiskSpace:
        try:
            figures = os.statvfs(path)
        except OSError as error:
            self._not_seen(path, error)
            return DiskSpace(0, 0)
        return DiskSpace(figures.f_blocks * figures.f_frsize, figures.f_bavail * figures.f_frsize)


def _open_direct(path: str) -> int | None:
    """A descriptor around the page cache; None where the file system has no such thing."""
    try:
        return os.open(path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def _write_all(descriptor: int, data: memoryview, offset_bytes: int) -> None:
    done = 0
    while done < len(data):
        count = os.pwrite(descriptor, data[done:], offset_bytes + done)
        if count == 0:
            raise OSError(errno.EIO, "wrote nothing")
        done += count
