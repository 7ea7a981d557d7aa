"""The records of production: one LMDB environment a target, opened by one process.

LMDB with its default syncing is the only mode that survives power cuts; the price is two waits for the
disk a transaction. So it is written to by checkpoints only, from the log in front of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from itertools import islice

import lmdb

from fs3.errors import CorruptData, FsError, fs_error

from ..disk import Disk, DiskFailed

ADDRESS_BYTES = 256 * 1024 * 1024 * 1024
"""Address space reserved for the map; the file grows as it is used. The disk is the limit, not this."""

_READ_BYTES = 4 * 1024 * 1024
_LOST = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError)
"""Of a read: the records are not what they were, and nothing else of this disk is believed either."""


class LmdbRecords:
    """``Records`` on LMDB."""

    def __init__(self, disk: Disk, path: str, address_bytes: int = ADDRESS_BYTES) -> None:
        """Open or make the environment in directory ``path``. Raises CorruptData, DiskFailed."""
        disk.make_directory(path)
        self._disk = disk
        self._path = path
        _check_readable(path)
        try:
            self._env = lmdb.open(path, map_size=address_bytes, mode=0o600, max_dbs=0, max_spare_txns=8)
        except lmdb.Error as error:
            raise CorruptData(f"index {path} cannot be opened: {error}") from error
        _check_size(self._env, path)
        _check_count(self._env, path)
        disk.sync_directory(path)

    def get(self, key: bytes) -> bytes | None:
        try:
            with self._env.begin() as txn:
                found: bytes | None = txn.get(key)
                return found
        except _LOST as error:
            raise self._failed(error) from error

    def page(
        self, start: bytes, end: bytes, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        try:
            with self._env.begin() as txn, txn.cursor() as cursor:
                records = _down(cursor, start, end) if reverse else _up(cursor, start, end)
                return list(islice(records, limit))
        except _LOST as error:
            raise self._failed(error) from error

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        if self._disk.failure is not None:
            raise DiskFailed(self._disk.failure)
        puts = [(key, value) for key, value in changes.items() if value is not None]
        puts.sort()  # neighbours share pages
        try:
            with self._env.begin(write=True) as txn, txn.cursor() as cursor:
                for key, value in changes.items():
                    if value is None:
                        txn.delete(key)
                cursor.putmulti(puts)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: lmdb.Error) -> FsError | DiskFailed:
        full = isinstance(error, lmdb.MapFullError) or os.strerror(errno.ENOSPC) in str(error)
        if full:  # LMDB writes its new root last: this transaction never was
            return fs_error(errno.ENOSPC, "the disk is full", self._path)
        return self._disk.fail(f"index {self._path}: {error}")

    def close(self) -> None:
        self._env.close()


def _check_readable(path: str) -> None:
    """A page of the map that cannot be read would end the process (SIGBUS) at each start, other disks or not.
    Reading it as a file says so; what was read is then in memory for the checks that follow."""
    try:
        with open(os.path.join(path, "data.mdb"), "rb", buffering=0) as file:
            while file.read(_READ_BYTES):
                pass
    except FileNotFoundError:
        return  # it is made now
    except OSError as error:
        raise CorruptData(f"index {path} cannot be read: {error.strerror}") from error


def _check_count(env: lmdb.Environment, path: str) -> None:
    """A damaged page can hide records whose sums nobody then looks at. A store that lost some must not open:
    as the source of its chain it would have the others forget them."""
    try:
        with env.begin() as txn, txn.cursor() as cursor:
            found, wanted = sum(1 for _ in cursor.iternext(keys=True, values=False)), txn.stat()["entries"]
    except lmdb.Error as error:
        env.close()
        raise CorruptData(f"index {path} is damaged: {error}") from error
    if found != wanted:
        env.close()
        raise CorruptData(f"index {path} is damaged: {found} records can be reached, {wanted} expected")


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
