"""The embedded store's files: an LMDB environment, and what lies in it.

==================  ==========================================================================
``DIR/data.mdb``    LMDB, one unnamed database
``DIR/creating/``   a store in the making; the finished file is moved up
``DIR/lock.mdb``    LMDB's reader table
``DIR/owner.lock``  flock of the owner; holds its process id
``DIR/kv.sock``     the owner's Unix socket
==================  ==========================================================================

==================  ==========================================================================
key                 value
==================  ==========================================================================
below ``ff``        what the transactions wrote
``ff "format"``     MessagePack array: format version (u8), store id (16 bytes)
``ff "version"``    u64 big endian: version of the last commit, written with every batch
==================  ==========================================================================

Default sync, always: without it (``sync=False``, ``writemap``, ``nometasync``) power cuts corrupt the store.
The address space is reserved once, far above what a disk holds; the disk is the limit.

Source: design 1 (Embedded LMDB).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import lmdb
import msgspec

from ..errors import InvalidRequest, TransactionTooOld, Unavailable
from .resolver import Resolution
from .transaction import KvLimits

FORMAT_VERSION = 1
FORMAT_KEY = b"\xffformat"
VERSION_KEY = b"\xffversion"
VERSION_BYTES = 8

MAP_BYTES = 1 << 40
"""Reserved address space; nothing is allocated by it."""
READERS_MAX = 4096
"""Slots for open snapshots of all processes; 64 bytes each."""
SPARE_SNAPSHOTS = 64
"""Read transactions that a process keeps for reuse."""

PAGES_PER_KEY = 8
"""Pages that changing one key can take at the most: a path of the tree, split, and the free list's."""
SPARE_BYTES = 2 * 1024 * 1024
"""For what a batch needs besides its keys: the free list, cleared ranges."""
GROW_BYTES = 16 * 1024 * 1024
"""The file grows in steps, so that few commits wait for the file system's own records."""

DATA_NAME = "data.mdb"
CREATING_NAME = "creating"
SOCKET_NAME = "kv.sock"
LOCK_NAME = "owner.lock"

LMDB_LIMITS = KvLimits(key_bytes=511, inline_limit_bytes=16 * 1024)
"""511: as long as keys can be in LMDB as it is built by default."""


Pairs = Iterator[tuple[bytes, bytes]]
"""What LMDB gives without ``buffers=True``; its stubs leave the type open."""


class Format(msgspec.Struct, frozen=True, array_like=True):
    """Value of ``FORMAT_KEY``."""

    format_version: int
    store_id: bytes


# LMDB forbids a process to open one environment twice (closing one drops the other's file locks), whoever
# asks. So this one table is the process's, not an object's: directory → (environment, users).
_OPEN: dict[tuple[int, int], tuple[lmdb.Environment, int]] = {}


def open_environment(directory: Path, *, writable: bool) -> lmdb.Environment:
    """The process's environment for ``directory``; each call is undone by ``close_environment``.

    Unavailable: there is no store, or it cannot be read.
    """
    try:
        state = directory.stat()
        found = _OPEN.get((state.st_dev, state.st_ino))
        if found is None:
            env = lmdb.open(
                os.fspath(directory),
                map_size=MAP_BYTES,
                readonly=not writable,
                create=False,
                mode=0o600,
                max_readers=READERS_MAX,
                max_spare_txns=SPARE_SNAPSHOTS,
                max_dbs=0,
            )
            found = env, 0
    except (lmdb.Error, OSError) as error:
        raise Unavailable(f"no key-value store in {directory} (does `fs3 kv` run there?): {error}") from error
    _OPEN[state.st_dev, state.st_ino] = found[0], found[1] + 1
    return found[0]


def close_environment(env: lmdb.Environment) -> None:
    """Give back what ``open_environment`` returned; the last user closes it."""
    for place, (opened, users) in list(_OPEN.items()):
        if opened is env:
            if users > 1:
                _OPEN[place] = opened, users - 1
            else:
                del _OPEN[place]
                env.close()
            return
    raise AssertionError("environment closed twice")


def socket_address(directory_fd: int) -> str:
    """Path of the owner's socket that is short enough for the kernel, however long the directory's is."""
    return f"/proc/self/fd/{directory_fd}/{SOCKET_NAME}"


def read_format(txn: lmdb.Transaction) -> Format | None:
    """The store's format record; None if the store is empty; InvalidRequest if it is of another version."""
    data = txn.get(FORMAT_KEY)
    if data is None:
        return None
    try:
        found = msgspec.msgpack.decode(bytes(data), type=Format)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the store's format record is broken: {error}") from error
    if found.format_version != FORMAT_VERSION:
        raise InvalidRequest(f"store has format {found.format_version}; this fs3 reads {FORMAT_VERSION}")
    return found


def read_version(txn: lmdb.Transaction) -> int:
    """Version of the last commit in this snapshot."""
    data = txn.get(VERSION_KEY)
    if data is None:
        raise Unavailable("the store has not been initialised yet")
    return int.from_bytes(data, "big")


def scan(txn: lmdb.Transaction, begin: bytes, end: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
    """Pairs with ``begin <= key < end``, descending if ``reverse``."""
    with txn.cursor() as cursor:
        if reverse:
            # Stand on the last key below end: the one before the first at or above it, or the very last.
            if not (cursor.prev() if cursor.set_range(end) else cursor.last()):
                return
            for key, value in cast(Pairs, cursor.iterprev()):
                if key < begin:
                    return
                if key < end:
                    yield key, value
            return
        if not (cursor.set_range(begin) if begin else cursor.first()):
            return
        for key, value in cast(Pairs, cursor.iternext()):
            if key >= end:
                return
            yield key, value


def create_store(directory: Path, store_id: bytes) -> None:
    """Make an empty store, unless there is one. It appears whole or not at all."""
    if (directory / DATA_NAME).exists():
        return
    place = directory / CREATING_NAME
    shutil.rmtree(place, ignore_errors=True)  # of a creation that was cut short
    place.mkdir(mode=0o700)
    env = lmdb.open(os.fspath(place), map_size=MAP_BYTES, mode=0o600, max_dbs=0)
    try:
        with env.begin(write=True) as txn:
            txn.put(FORMAT_KEY, msgspec.msgpack.encode(Format(FORMAT_VERSION, store_id)))
            txn.put(VERSION_KEY, (1).to_bytes(VERSION_BYTES, "big"))
    finally:
        env.close()
    (place / DATA_NAME).rename(directory / DATA_NAME)
    shutil.rmtree(place)
    for folder in (directory, directory.parent):  # the names have to last as well
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class StoreWriter:
    """The owner's side: creates the store, applies batches. Only one process at a time (see owner.lock)."""

    def __init__(self, directory: Path, make_id: Callable[[], bytes]) -> None:
        """Opens or creates; Unavailable or InvalidRequest when that cannot be."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            create_store(directory, make_id())
        except (lmdb.Error, OSError) as error:
            raise Unavailable(f"no store can be made in {directory}: {error}") from error
        self._env = open_environment(directory, writable=True)
        self._data_fd = -1
        self._file_bytes = 0
        self._page_bytes = self._env.stat()["psize"]
        try:
            self._data_fd = os.open(directory / DATA_NAME, os.O_RDWR | os.O_CLOEXEC)
            self._file_bytes = os.fstat(self._data_fd).st_size
            with self._env.begin() as txn:
                found = read_format(txn)
            if found is None:
                raise InvalidRequest(f"{directory / DATA_NAME} is an LMDB file, but not of fs3")
            self.store_id = found.store_id
            """16 bytes that tell this store from every other."""
        except (lmdb.Error, OSError, InvalidRequest) as error:
            self.close()
            if isinstance(error, InvalidRequest):
                raise
            raise Unavailable(f"store in {directory} cannot be written: {error}") from error

    def version(self) -> int:
        """Version of the last commit.

        Read in a write transaction: an owner that was killed between its meta page and LMDB's shared
        counter leaves readers one commit behind, until the next writer takes the dead one's lock. An owner
        that started from there would not know the last batch, and let conflicts with it pass.
        """
        with self._env.begin(write=True) as txn:
            return read_version(txn)

    def get(self, key: bytes) -> bytes | None:
        """The newest value."""
        with self._env.begin() as txn:
            return txn.get(key)

    @staticmethod
    def reader(txn: lmdb.Transaction) -> Callable[[bytes], bytes | None]:
        """Reads inside a transaction."""
        return cast("Callable[[bytes], bytes | None]", txn.get)

    def begin(self) -> lmdb.Transaction:
        """The write transaction of a batch; ``write`` goes into it, ``commit()`` makes it durable."""
        return self._env.begin(write=True)

    def reserve(self, resolution: Resolution) -> None:
        """Have the disk's space for a batch before it is written; OSError when there is none.

        LMDB cannot tell a full disk from a broken one (a write that comes out short is EIO to it), so it
        is never let run into the end of the disk.
        """
        need_bytes = SPARE_BYTES + PAGES_PER_KEY * self._page_bytes * len(resolution.values)
        for key, value in resolution.values.items():
            need_bytes += 2 * (len(key) + len(value or b""))
        end_bytes = (self._env.info()["last_pgno"] + 1) * self._page_bytes + need_bytes
        if end_bytes <= self._file_bytes:
            return
        try:
            os.posix_fallocate(self._data_fd, 0, end_bytes + GROW_BYTES)
        except OSError:  # less will do, if it is there
            os.posix_fallocate(self._data_fd, 0, end_bytes)
        self._file_bytes = os.fstat(self._data_fd).st_size

    @staticmethod
    def write(txn: lmdb.Transaction, resolution: Resolution) -> None:
        """Put a batch into its transaction."""
        for begin, end in resolution.cleared:
            with txn.cursor() as cursor:
                more = cursor.set_range(begin) if begin else cursor.first()
                while more and cast(bytes, cursor.key()) < end:
                    more = cursor.delete()
        for key, value in resolution.values.items():
            if value is None:
                txn.delete(key)
            else:
                txn.put(key, value)
        txn.put(VERSION_KEY, resolution.version.to_bytes(VERSION_BYTES, "big"))

    def reclaim_readers(self) -> int:
        """Free the slots of processes that have died; returns how many there were."""
        return self._env.reader_check()

    def close(self) -> None:
        """Close the environment."""
        if self._data_fd >= 0:
            os.close(self._data_fd)
            self._data_fd = -1
        close_environment(self._env)


class LmdbSnapshot:
    """One LMDB read transaction with its version."""

    __slots__ = ("_closed", "_on_close", "_txn", "opened_s", "version")

    def __init__(self, env: lmdb.Environment, now_s: float, on_close: Callable[[LmdbSnapshot], None]) -> None:
        try:
            self._txn = env.begin()
        except lmdb.Error as error:
            raise Unavailable(f"no snapshot: {error}") from error
        self._on_close = on_close
        self._closed = False
        self.opened_s = now_s
        try:
            self.version = read_version(self._txn)
        except Unavailable:
            self._txn.abort()
            raise

    def get(self, key: bytes) -> bytes | None:
        if self._closed:
            raise TransactionTooOld("the snapshot was given back")
        return self._txn.get(key)

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        if self._closed:
            raise TransactionTooOld("the snapshot was given back")
        return scan(self._txn, begin, end, reverse=reverse)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._txn.abort()
            self._on_close(self)
