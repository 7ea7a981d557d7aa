"""The index of production: one LMDB environment a target, opened by one process.

LMDB with its default syncing is the only mode that survives power cuts; the price is two waits for the
disk a transaction, so commit marks are not transactions of their own: they wait in memory, visible to every
read, and ride in front of the next durable batch.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator

import lmdb

from fs3.errors import CorruptData, FsError, fs_error

from ..disk import Disk, DiskFailed
from .index import Batch, Overlay, merge_page

ADDRESS_BYTES = 256 * 1024 * 1024 * 1024
"""Address space reserved for the map; the file grows as it is used. The disk is the limit, not this."""


class LmdbIndex:
    """``Index`` on LMDB."""

    def __init__(self, disk: Disk, path: str, address_bytes: int = ADDRESS_BYTES) -> None:
        """Open or make the environment in directory ``path``. Raises CorruptData, DiskFailed."""
        disk.make_directory(path)
        self._disk = disk
        self._path = path
        try:
            self._env = lmdb.open(path, map_size=address_bytes, mode=0o600, max_dbs=0, max_spare_txns=8)
        except lmdb.Error as error:
            raise CorruptData(f"index {path} cannot be opened: {error}") from error
        _check_size(self._env, path)
        disk.sync_directory(path)
        self._swap = threading.Lock()
        self._writer = threading.Lock()
        self._waiting: Overlay = {}
        self._flushing: Overlay = {}

    def get(self, key: bytes) -> bytes | None:
        for overlay in (self._waiting, self._flushing):  # in this order: see _write
            if key in overlay:
                return overlay[key]
        with self._env.begin() as txn:
            found: bytes | None = txn.get(key)
            return found

    def page(
        self, start: bytes, end: bytes, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        with self._swap:  # before the snapshot: what leaves the overlay afterwards is in the snapshot
            merged = {**self._flushing, **self._waiting}
        overlay = {key: value for key, value in merged.items() if start <= key < end}
        with self._env.begin() as txn, txn.cursor() as cursor:
            records = _down(cursor, start, end) if reverse else _up(cursor, start, end)
            return merge_page(records, overlay, limit, reverse=reverse)

    def apply(self, batch: Batch, *, durable: bool) -> None:
        if durable:
            self._write(batch)
            return
        with self._swap:
            for key, value in batch.changes:
                self._waiting[key] = value

    def flush(self) -> None:
        if self._waiting:
            self._write(Batch())

    def _write(self, batch: Batch) -> None:
        with self._writer:
            if self._disk.failure is not None:
                raise DiskFailed(self._disk.failure)
            with self._swap:
                # A reader looks at _waiting first: whatever order it meets, it finds each change in one.
                self._flushing = self._waiting
                self._waiting = {}
            try:
                with self._env.begin(write=True) as txn:
                    _change(txn, self._flushing.items())
                    _change(txn, batch.changes)
            except lmdb.Error as error:
                with self._swap:
                    self._waiting = {**self._flushing, **self._waiting}
                    self._flushing = {}
                raise self._failed(error) from error
            self._flushing = {}

    def _failed(self, error: lmdb.Error) -> FsError | DiskFailed:
        full = isinstance(error, lmdb.MapFullError) or os.strerror(errno.ENOSPC) in str(error)
        if full:  # LMDB writes its new root last: this transaction never was
            return fs_error(errno.ENOSPC, "the disk is full", self._path)
        return self._disk.fail(f"index {self._path}: {error}")

    def abandon(self) -> None:
        """Close without writing what waits, as the end of the process does."""
        self._env.close()

    def close(self) -> None:
        try:
            if self._disk.failure is None:
                self.flush()
        finally:
            self._env.close()


def lmdb_opener(disk: Disk) -> Callable[[str], LmdbIndex]:
    """What opens the indexes of stores on this disk."""
    return lambda path: LmdbIndex(disk, path)


def _change(txn: lmdb.Transaction, changes: Iterable[tuple[bytes, bytes | None]]) -> None:
    for key, value in changes:
        if value is None:
            txn.delete(key)
        else:
            txn.put(key, value)


def _check_size(env: lmdb.Environment, path: str) -> None:
    """A map behind the end of its file would end the process (SIGBUS) at the first touch."""
    wanted_bytes = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    size_bytes = os.path.getsize(os.path.join(path, "data.mdb"))
    # A fresh store counts pages that it has not written yet: only its two roots exist.
    if env.info()["last_txnid"] and size_bytes < wanted_bytes:
        env.close()
        raise CorruptData(f"index {path} was cut: {size_bytes} bytes, {wanted_bytes} expected")


def _up(cursor: lmdb.Cursor, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not cursor.set_range(start):
        return
    for found, value in cursor.iternext(keys=True, values=True):
        key = bytes(found)  # no copy: the transaction gives bytes already
        if key >= end:
            return
        yield key, bytes(value)


def _down(cursor: lmdb.Cursor, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
    there = cursor.prev() if cursor.set_range(end) else cursor.last()
    if not there:
        return
    for found, value in cursor.iterprev(keys=True, values=True):
        key = bytes(found)
        if key < start:
            return
        yield key, bytes(value)
