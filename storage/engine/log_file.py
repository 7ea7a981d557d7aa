"""The file of an index log: made once, then written and synced record by record. Format: ``index_log``."""

from __future__ import annotations

import mmap
from collections.abc import Iterable

from fs3.errors import CorruptData, FsError

from ..disk import Disk, DiskFile
from .index_log import SECTOR_BYTES, Mark, Replay, in_sectors, pack_header, pack_record, replay, unpack_header
from .overlay import Change

RECORD_BYTES_MAX = 1024 * 1024
"""What is longer does not go through the log."""


class LogFile:
    """An open log. Not thread-safe."""

    def __init__(self, file: DiskFile, log_id: int, area_bytes: int, sequence: int) -> None:
        """Use ``create`` or ``open``."""
        self._file = file
        self._log_id = log_id
        self._area_bytes = area_bytes
        self._end_bytes = 0
        self._sequence = sequence
        # Page-aligned, so that it is written without a copy; pages that no record reached take no memory.
        self._sectors = memoryview(mmap.mmap(-1, min(area_bytes, RECORD_BYTES_MAX)))

    @classmethod
    def create(cls, disk: Disk, path: str, log_id: int, area_bytes: int) -> LogFile:
        """Make an empty log, durably; what was there under this name goes.

        Every sector is written: the space is there for good, and no sync of a record has to note that a
        part of the file is in use now. Raises FsError ENOSPC (nothing stays), DiskFailed.
        """
        assert area_bytes % SECTOR_BYTES == 0, area_bytes
        if disk.exists(path):
            disk.remove(path)
        file = disk.open(path, create=True)
        log = cls(file, log_id, area_bytes, 0)
        try:
            file.preallocate(0, SECTOR_BYTES + area_bytes)
            for start in range(0, area_bytes, len(log._sectors)):
                zeros = log._sectors[: min(len(log._sectors), area_bytes - start)]
                file.pwrite(zeros, SECTOR_BYTES + start)
            log._sectors[:SECTOR_BYTES] = pack_header(log_id, area_bytes)
            file.pwrite(log._sectors[:SECTOR_BYTES], 0)
            file.sync()
            disk.sync_directory(path.rpartition("/")[0])
        except FsError:
            file.close()
            disk.remove(path)
            raise
        except BaseException:
            file.close()
            raise
        return log

    @classmethod
    def open(cls, disk: Disk, path: str, mark: Mark) -> tuple[LogFile, Replay]:
        """Open the log that a mark belongs to: (log, what it holds beyond the mark).

        Raises CorruptData, IncompatibleVersion, DiskFailed.
        """
        if not disk.exists(path):
            raise CorruptData(f"{path} is missing: acknowledged changes may be lost with it")
        file = disk.open(path)
        try:
            size_bytes = file.size_bytes()
            whole = memoryview(mmap.mmap(-1, max(size_bytes, SECTOR_BYTES)))
            file.pread(whole[:size_bytes], 0)
            area_bytes = unpack_header(bytes(whole[:SECTOR_BYTES]), mark, size_bytes)
            found = replay(whole[SECTOR_BYTES : SECTOR_BYTES + area_bytes], mark)
        except BaseException:
            file.close()
            raise
        log = cls(file, mark.log_id, area_bytes, found.sequence)
        log._end_bytes = found.end_bytes
        return log, found

    @property
    def mark(self) -> Mark:
        """The mark of records that have everything."""
        return Mark(self._log_id, self._sequence)

    def append(self, changes: Iterable[Change]) -> bool:
        """Write a record and sync it. False: it has no place, nothing happened. Raises DiskFailed."""
        record = pack_record(self._log_id, self._sequence + 1, changes)
        length_bytes, sector_bytes = len(record), in_sectors(len(record))
        if sector_bytes > min(len(self._sectors), self._area_bytes - self._end_bytes):
            return False
        self._sectors[:length_bytes] = record
        self._sectors[length_bytes:sector_bytes] = bytes(sector_bytes - length_bytes)
        self._file.pwrite(self._sectors[:sector_bytes], SECTOR_BYTES + self._end_bytes)
        self._file.sync()
        self._end_bytes += sector_bytes
        self._sequence += 1
        return True

    def sync(self) -> None:
        """What was read from the log is on the disk. Raises DiskFailed."""
        self._file.sync()

    def restart(self) -> None:
        """The mark is below, durably: the next record goes to the start."""
        self._end_bytes = 0

    def close(self) -> None:
        """Close; there is nothing to write."""
        self._file.close()
