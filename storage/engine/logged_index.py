"""The index of production: a log in front of ordered records.

A durable batch is one write and one sync of the log. Its changes then lie in memory, seen by every read,
until a checkpoint moves all of them below in one transaction: when the log is full, when they take too much
memory, at ``flush`` and ``close``, and after an open that found some. The batch that finds no place in the
log goes below with that checkpoint, so no space left means: nothing of it happened. Commit marks and other
changes that are not durable wait for the next record, and are its first part.

Measured on 2 cores (``tests/bench/engine_write.py``): a record waits for one flush of the disk, LMDB for
two; a checkpoint comes once in 1,000 stages and takes some milliseconds of one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from fs3.errors import FsError
from fs3.rng import Rng

from ..disk import Disk, DiskFailed
from .index import Batch, Records
from .index_log import MARK_KEY, pack_mark, unpack_mark
from .lmdb_records import LmdbRecords
from .log_file import LogFile
from .overlay import Change, Overlay, hidden_count, merge_page

LOG_BYTES = 4 * 1024 * 1024
"""Bytes of records before a checkpoint: about 1,000 stages of one update."""
OVERLAY_BYTES_MAX = 12 * 1024 * 1024
"""Memory of changes (estimated) before a checkpoint; one record more may come on top."""

_ABSENT = b"no value: told by identity"


class LoggedIndex:
    """``Index``: a ``LogFile`` in front of ``Records``."""

    def __init__(self, below: Records, disk: Disk, path: str, rng: Rng, log_bytes: int = LOG_BYTES) -> None:
        """Open the log in directory ``path``, in front of ``below``; make one if ``below`` never had one.

        A disk that is too full for that is not an error: batches go below one by one until the next open.
        Raises CorruptData (see ``index_log``), IncompatibleVersion, DiskFailed.
        """
        self._below = below
        self._disk = disk
        self._path = path
        self._lock = threading.Lock()
        """Guards what is in memory; never held over a wait for the disk."""
        self._writer = threading.Lock()
        self._layers: tuple[Overlay, ...] = (Overlay(),)
        """What is not below, the newest first; a second one only while it is moved below. Replaced as a
        whole: whoever reads it once finds each change in it, or below afterwards."""
        self._waiting: dict[bytes, bytes | None] = {}
        """The part of the first layer that is in no record yet."""
        self._log = self._open_log(rng, log_bytes)

    def _open_log(self, rng: Rng, log_bytes: int) -> LogFile | None:
        path = f"{self._path}/log"
        value = self._below.get(MARK_KEY)
        if value is None:
            return self._make_log(path, rng, log_bytes)
        log, found = LogFile.open(self._disk, path, unpack_mark(value))
        if not found.changes:
            return log
        try:
            self._layers[0].update(found.changes)
            self._below.write({**self._layers[0].changes, MARK_KEY: pack_mark(log.mark)})
        except FsError:
            log.sync()  # no space: they stay in the log; from now on we promise what we read there
        except BaseException:
            log.close()
            raise
        else:
            self._layers = (Overlay(),)
            log.restart()
        return log

    def _make_log(self, path: str, rng: Rng, log_bytes: int) -> LogFile | None:
        try:
            log = LogFile.create(self._disk, path, rng.getrandbits(64), log_bytes)
        except FsError:
            return None
        try:
            self._below.write({MARK_KEY: pack_mark(log.mark)})  # from here on the log counts
        except FsError:
            log.close()
            self._disk.remove(path)
            return None
        except BaseException:
            log.close()
            raise
        return log

    # -- reading

    def get(self, key: bytes) -> bytes | None:
        for layer in self._layers:
            value = layer.changes.get(key, _ABSENT)
            if value is not _ABSENT:
                return value
        return self._below.get(key)

    def page(
        self, start: bytes, end: bytes, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        with self._lock:  # before the page below: what leaves the layers afterwards is in there
            above = self._span(start, end, limit, reverse=reverse)
        below = self._below.page(start, end, limit + hidden_count(above), reverse=reverse)
        return merge_page(below, above, limit, reverse=reverse) if above else below

    def _span(self, start: bytes, end: bytes, limit: int, *, reverse: bool) -> list[Change]:
        if len(self._layers) == 1:
            return self._layers[0].span(start, end, limit, reverse=reverse)
        merged: dict[bytes, bytes | None] = {}
        for layer in reversed(self._layers):
            merged.update(layer.span(start, end, None, reverse=reverse))
        return list(merged.items())

    # -- changing

    def apply(self, batch: Batch, *, durable: bool) -> None:
        if not durable:
            with self._lock:
                self._layers[0].update(batch.changes)
                self._waiting.update(batch.changes)
            return
        with self._writer:
            self._check()
            with self._lock:
                carried, self._waiting = self._waiting, {}
            try:
                if carried or batch.changes:
                    self._write(carried, batch.changes)
            except BaseException:
                with self._lock:
                    self._waiting = {**carried, **self._waiting}
                raise

    def _write(self, carried: Mapping[bytes, bytes | None], changes: list[Change]) -> None:
        overlay = self._layers[0]
        log = self._log if overlay.cost_bytes <= OVERLAY_BYTES_MAX else None
        if log is None or not log.append([*carried.items(), *changes]):
            self._checkpoint(changes)
            return
        with self._lock:
            late = self._waiting  # it came while the record was written, so it is newer
            overlay.update([change for change in changes if change[0] not in late] if late else changes)

    def flush(self) -> None:
        with self._writer:
            self._check()
            if self._layers[0].changes:
                self._checkpoint([])

    def _check(self) -> None:
        if self._disk.failure is not None:
            raise DiskFailed(self._disk.failure)

    def _checkpoint(self, changes: list[Change]) -> None:
        """Move everything below, with ``changes`` on top; the writer's lock is held. Errors as ``apply``."""
        with self._lock:
            (moving,) = self._layers
            self._layers = (Overlay(), moving)
            late, self._waiting = self._waiting, {}
        whole: dict[bytes, bytes | None] = {**moving.changes, **dict(changes), **late}
        if self._log is not None:
            whole[MARK_KEY] = pack_mark(self._log.mark)
        try:
            self._below.write(whole)
        except BaseException:
            with self._lock:
                moving.update(self._layers[0].changes.items())
                self._layers = (moving,)
                self._waiting = {**late, **self._waiting}
            raise
        with self._lock:
            self._layers = self._layers[:1]
        if self._log is not None:
            self._log.restart()

    def abandon(self) -> None:
        """Close without writing what waits, as the end of the process does."""
        if self._log is not None:
            self._log.close()
        self._below.close()

    def _close(self) -> None:
        try:
            self.flush()
        except FsError:
            self.apply(Batch(), durable=True)  # no space below: the log may have room for what waits

    def close(self) -> None:
        try:
            if self._disk.failure is None:
                self._close()
        finally:
            self.abandon()


def index_opener(disk: Disk, rng: Rng, log_bytes: int = LOG_BYTES) -> Callable[[str], LoggedIndex]:
    """What opens the indexes of stores on this disk, in production: a log in front of LMDB."""

    def open_index(path: str) -> LoggedIndex:
        below = LmdbRecords(disk, path)
        try:
            return LoggedIndex(below, disk, path, rng, log_bytes)
        except BaseException:
            below.close()
            raise

    return open_index
