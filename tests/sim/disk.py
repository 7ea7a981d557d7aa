"""A disk in memory that forgets as a disk does: what is not synced may be lost, torn or kept out of order.

Power. ``cut_at`` names the step (a change or a sync) at which the power goes: that call and all later ones
raise ``PowerCut``. ``after_power_cut`` is the disk as it comes back: of every unsynced write a random part
of its sectors, of every unsynced name and size the old or the new one.

Faults. ``fault(call, after)`` makes one later call fail as EIO does (the disk is failed from then on),
``fill`` takes its space away, ``flip`` changes a bit of the disk for good (what the page cache held of it is
gone from there), ``make_unreadable`` a range. ``cold_share``
of reads find nothing in the page cache. Latency is not its business.
"""

from __future__ import annotations

import errno
import os.path
from collections.abc import Callable

from fs3.errors import CorruptData, fs_error
from fs3.rng import Rng
from fs3.storage.disk import DiskFailed, DiskFile, DiskSpace, Writes

SECTOR_BYTES = 512
PAGE_BYTES = 4096


class PowerCut(Exception):
    """The power is gone; the process that sees this is over."""


class _Data:
    """Bytes of a file: as seen by readers, and how to undo what is not synced."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.unsynced: list[tuple[int, bytes, bytes | None]] = []
        """(offset, bytes before, bytes after) in order; after None: a change of size, before is what was cut
        off at ``offset`` (empty when the file grew from there)."""
        self.unreadable: list[tuple[int, int]] = []
        self.uncached: dict[int, None] = {}
        """Pages that the next read has to fetch from the disk."""

    def is_cached(self, start: int, end: int) -> bool:
        """Whether a read of the range finds all of it in the page cache."""
        return not any(page in self.uncached for page in _pages(start, end))

    def fetched(self, start: int, end: int) -> None:
        """The range was read or written by way of the page cache."""
        if self.uncached:
            for page in _pages(start, end):
                self.uncached.pop(page, None)

    def resize(self, length_bytes: int) -> None:
        size_bytes = len(self.seen)
        if length_bytes < size_bytes:
            self.unsynced.append((length_bytes, bytes(self.seen[length_bytes:]), None))
            del self.seen[length_bytes:]
        elif length_bytes > size_bytes:
            self.unsynced.append((size_bytes, b"", None))
            self.seen.extend(bytes(length_bytes - size_bytes))

    def make_readable(self, start: int, end: int) -> None:
        """The range was written: the disk has given it other sectors."""
        pieces = [(low, min(high, start)) for low, high in self.unreadable]
        pieces += [(max(low, end), high) for low, high in self.unreadable]
        self.unreadable = [(low, high) for low, high in pieces if low < high]

    def after_power_cut(self, rng: Rng) -> _Data:
        """Undo all, then do again what the disk had got to; a size goes with a chance of its own."""
        again, redo = _Data(), list[tuple[int, bytes | None, int]]()
        bytes_now = bytearray(self.seen)
        for offset, before, after in reversed(self.unsynced):
            if after is not None:
                redo.append((offset, after, 0))
                bytes_now[offset : offset + len(before)] = before
            else:
                redo.append((offset, None, len(bytes_now)))
                bytes_now[offset:] = before
        share = rng.choice((0.0, 0.5, 1.0))
        for offset, after, size_bytes in reversed(redo):
            if after is None:
                if rng.random() < share:
                    del bytes_now[size_bytes:]
                    bytes_now.extend(bytes(size_bytes - len(bytes_now)))
            else:
                _tear(bytes_now, offset, after, share, rng)
        again.seen, again.unreadable = bytes_now, list(self.unreadable)
        return again


def _pages(start: int, end: int) -> range:
    return range(start // PAGE_BYTES, -(-end // PAGE_BYTES))


def _tear(content: bytearray, offset: int, after: bytes, share: float, rng: Rng) -> None:
    for start in range(0, len(after), SECTOR_BYTES):
        piece = after[start : start + SECTOR_BYTES]
        end = offset + start + len(piece)
        if end <= len(content) and rng.random() < share:
            content[offset + start : end] = piece


class SimFile:
    """An open file of a ``SimDisk``."""

    def __init__(self, disk: SimDisk, path: str, data: _Data) -> None:
        self.path = path
        self._disk = disk
        self._data = data

    def fileno(self) -> int:
        raise RuntimeError(f"{self.path} is a simulated file: it has no descriptor")

    def size_bytes(self) -> int:
        return len(self._data.seen)

    def preallocate(self, offset_bytes: int, length_bytes: int) -> None:
        self._disk.step("preallocate")
        wanted_bytes = offset_bytes + length_bytes - len(self._data.seen)
        if wanted_bytes > self._disk.free_bytes:
            raise fs_error(errno.ENOSPC, "the disk is full", self.path)
        if wanted_bytes > 0:
            self._data.resize(offset_bytes + length_bytes)

    def truncate(self, length_bytes: int) -> None:
        self._disk.step("truncate")
        self._data.resize(length_bytes)

    def pwrite(self, data: memoryview, offset_bytes: int) -> None:
        self._disk.step("pwrite")
        end = offset_bytes + len(data)
        assert end <= len(self._data.seen), (self.path, end, len(self._data.seen))  # only preallocated space
        before = bytes(self._data.seen[offset_bytes:end])
        self._data.unsynced.append((offset_bytes, before, bytes(data)))
        self._data.seen[offset_bytes:end] = data
        self._data.make_readable(offset_bytes, end)
        self._data.fetched(offset_bytes, end)

    def pread(self, buffer: memoryview, offset_bytes: int) -> None:
        self.pread_direct(buffer, offset_bytes)
        self._data.fetched(offset_bytes, offset_bytes + len(buffer))

    def pread_direct(self, buffer: memoryview, offset_bytes: int) -> None:
        self._disk.check()
        end = offset_bytes + len(buffer)
        if end > len(self._data.seen):
            raise CorruptData(f"{self.path} ends at {len(self._data.seen)}, bytes up to {end} wanted")
        if any(low < end and high > offset_bytes for low, high in self._data.unreadable):
            raise CorruptData(f"{self.path} at {offset_bytes}: unreadable")
        buffer[:] = self._data.seen[offset_bytes:end]

    def pread_nowait(self, buffer: memoryview, offset_bytes: int) -> bool:
        if self._disk.is_cold() or not self._data.is_cached(offset_bytes, offset_bytes + len(buffer)):
            return False
        self.pread(buffer, offset_bytes)
        return True

    def forget_cached(self, offset_bytes: int, length_bytes: int) -> None:
        pass

    def sync(self) -> None:
        self._disk.step("sync")
        self._data.unsynced.clear()

    def close(self) -> None:
        pass


class _InlineWrites:
    def add(self, file: DiskFile, data: memoryview, offset_bytes: int) -> None:
        file.pwrite(data, offset_bytes)

    def wait(self) -> None:
        pass


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


class SimDisk:
    """``Disk`` in memory, one object a run of the node; ``after_power_cut``, ``after_kill`` give the next."""

    def __init__(self, rng: Rng, total_bytes: int = 1 << 30) -> None:
        self._rng = rng
        self._total_bytes = total_bytes
        self._failure: str | None = None
        self._is_mended = False
        self._names: dict[str, _Data] = {}
        self._synced_names: dict[str, _Data] = {}
        self._directories: dict[str, None] = {"/": None}
        self._locks: dict[str, None] = {}
        self._faults: dict[str, int] = {}
        self._filled_bytes = 0
        self.indexes: dict[str, dict[bytes, bytes]] = {}
        """What the simulated indexes on this disk have made durable, by path."""
        self.step_count = 0
        self.cut_at: int | None = None
        self.on_cut: Callable[[], None] = lambda: None
        """Told at the moment of the cut, before anybody else sees it."""
        self.cold_share = 0.0
        self.is_unmounted = False
        """Probes find another file system; open files stay open."""
        self._off = False

    # -- power and faults

    def step(self, call: str) -> None:
        """A change or sync begins: the power may go, the disk may fail."""
        self.check()
        self.step_count += 1
        if self.cut_at is not None and self.step_count >= self.cut_at:
            self._off = True
            self.on_cut()
            raise PowerCut(f"at step {self.step_count}, {call}")
        left = self._faults.get(call)
        if left is not None:
            self._faults[call] = left - 1
            if left == 0:
                del self._faults[call]
                raise self.fail(f"{call}: Input/output error (injected)")

    def check(self) -> None:
        """Raises PowerCut or DiskFailed if the disk is gone."""
        if self._off:
            raise PowerCut("no power")
        if self._failure is not None:
            raise DiskFailed(self._failure)

    def fault(self, call: str, after: int = 0) -> None:
        """Let the call of this name (pwrite, sync, preallocate, index …) fail, after so many good ones."""
        self._faults[call] = after

    def no_faults(self) -> None:
        """No call is to fail any more."""
        self._faults.clear()

    def mend(self) -> None:
        """What failed works again for the node's next run; what was never synced is not what it was."""
        self._is_mended = True

    def fill(self, free_bytes: int = 0) -> None:
        """Let something else take all space but this."""
        self._filled_bytes = 0
        self._filled_bytes = self.free_bytes - free_bytes

    def make_room(self) -> None:
        """What else took space gives it back."""
        self._filled_bytes = 0

    def flip(self, path: str, offset_bytes: int, mask: int = 1) -> None:
        """Change bits of a byte, unnoticed."""
        data = self._names[path]
        data.seen[offset_bytes] ^= mask
        data.uncached[offset_bytes // PAGE_BYTES] = None

    def make_unreadable(self, path: str, offset_bytes: int, length_bytes: int) -> None:
        """Let reads that touch the range fail."""
        self._names[path].unreadable.append((offset_bytes, offset_bytes + length_bytes))

    def is_cold(self) -> bool:
        """Whether the next read that does not want to wait finds nothing cached."""
        return self.cold_share > 0 and self._rng.random() < self.cold_share

    def after_power_cut(self) -> SimDisk:
        """The disk after the power came back."""
        names = {
            path: self._rng.choice((synced, now))
            for path in sorted({**self._synced_names, **self._names})
            for synced, now in [(self._synced_names.get(path), self._names.get(path))]
        }
        again = self._next()
        for path, data in names.items():
            if data is not None:
                again._names[path] = data.after_power_cut(self._rng)
        again._synced_names = dict(again._names)
        return again

    def after_kill(self) -> SimDisk:
        """The disk for the next process, the machine having stayed up: all that was written is there.

        But for a disk that had failed: the kernel has dropped the pages that it could not write.
        """
        again = self._next()
        again._names, again._synced_names = self._names, self._synced_names
        if self._failure is not None:
            again._names = {path: data.after_power_cut(self._rng) for path, data in self._names.items()}
            again._synced_names = dict(again._names)
        return again

    def _next(self) -> SimDisk:
        self._off = True
        again = SimDisk(self._rng, self._total_bytes)
        again._directories = dict(self._directories)
        again._failure = self._failure if not self._is_mended else None
        again._filled_bytes = self._filled_bytes
        again.indexes = {path: dict(content) for path, content in self.indexes.items()}
        return again

    # -- Disk

    @property
    def failure(self) -> str | None:
        return self._failure

    @property
    def free_bytes(self) -> int:
        """Space left."""
        used_bytes = sum(len(data.seen) for data in self._names.values())
        return self._total_bytes - self._filled_bytes - used_bytes

    def fail(self, reason: str) -> DiskFailed:
        if self._failure is None:
            self._failure = reason
        return DiskFailed(self._failure)

    def open(self, path: str, *, create: bool = False) -> DiskFile:
        self.check()
        if create:
            if path in self._names:
                raise FileExistsError(path)
            self.step("create")
            self._names[path] = _Data()
        if path not in self._names:
            raise FileNotFoundError(path)
        return SimFile(self, path, self._names[path])

    def attach(self, path: str) -> None:
        self.check()

    def probe(self, path: str) -> None:
        self.step("probe")
        if self.is_unmounted:
            raise self.fail(f"{path} is on another file system: the disk's own was unmounted (injected)")

    def writes(self) -> Writes:
        return _InlineWrites()

    def exists(self, path: str) -> bool:
        return path in self._names or path in self._directories

    def make_directory(self, path: str) -> None:
        self.check()
        while path and path not in self._directories:
            self._directories[path] = None
            path = os.path.dirname(path)

    def list_directory(self, path: str) -> list[str]:
        return sorted(os.path.basename(name) for name in self._names if os.path.dirname(name) == path)

    def remove(self, path: str) -> None:
        self.step("remove")
        del self._names[path]

    def remove_directory(self, path: str) -> None:
        self.step("remove")
        for name in [name for name in self._names if name.startswith(path + "/")]:
            del self._names[name]
        for index in [index for index in self.indexes if _is_below(index, path)]:
            del self.indexes[index]
        self._directories.pop(path, None)

    def rename(self, old: str, new: str) -> None:
        """At once and for good (who renames here has nothing to lose by it)."""
        self.step("rename")
        for names in (self._names, self._synced_names):
            for name in [name for name in names if _is_below(name, old)]:
                names[new + name.removeprefix(old)] = names.pop(name)
        for index in [index for index in self.indexes if _is_below(index, old)]:
            self.indexes[new + index.removeprefix(old)] = self.indexes.pop(index)
        if old in self._directories:
            del self._directories[old]
            self._directories[new] = None

    def sync_directory(self, path: str) -> None:
        self.step("sync_directory")
        for name in sorted({**self._synced_names, **self._names}):
            if os.path.dirname(name) != path:
                continue
            if name in self._names:
                self._synced_names[name] = self._names[name]
            else:
                self._synced_names.pop(name, None)

    def lock(self, path: str) -> bool:
        if path in self._locks:
            return False
        self._locks[path] = None
        return True

    def unlock(self, path: str) -> None:
        self._locks.pop(path, None)

    def space(self, path: str) -> DiskSpace:
        return DiskSpace(self._total_bytes, max(0, self.free_bytes))
