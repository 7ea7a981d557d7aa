"""Inodes: what is stored of a file, directory or symlink, and under which keys.

An inode's record begins with the very fields of ``fs3.wire.meta.Attributes``, in the same order, so that a
list or stat can pass a stored record on without decoding it; what is private is appended behind them and
dropped by whoever reads the answer as ``Attributes``.

A directory is spread over keys that are written by different operations, so that they do not conflict
(design 3.2)::

    INOD  attributes    read with conflict by create; written by rmdir, chmod, chown
    DTIM  change time   atomic maximum, by everything that changes its entries
    DSUB  subdirectories  atomic add; nlink = 2 + this
    DPAR  parent        written by rename; read with conflict by renames of directories (loops)

Every stored value begins with a version byte.
"""

from __future__ import annotations

import struct
from typing import TypeVar

import msgspec

from fs3.errors import CorruptData
from fs3.ids import InodeId
from fs3.kv.schema import key_u64
from fs3.kv.transaction import AtomicOp, ReadTransaction, Transaction
from fs3.wire.meta import Attributes, InodeKind, Storage

RECORD_VERSION = b"\x01"
NO_DIRECTORY = InodeId(2)
"""Parent of a tree that was detached and waits for its removal; never an inode."""
FILE_COUNT_SHARDS = 16
_COUNT = struct.Struct("<q")
_TIME = struct.Struct("<Q")
_PARENT = struct.Struct(">Q")
_ENCODER = msgspec.msgpack.Encoder()
S = TypeVar("S", bound=msgspec.Struct)


class Inode(Attributes, frozen=True, array_like=True, kw_only=True):
    """The stored record; ``nlink`` 0: it has no name any more and waits for its removal."""

    cutting: bool = False
    """A truncate is not finished: chunks beyond the length may be there (design 3.6)."""

    @property
    def is_directory(self) -> bool:
        return self.kind is InodeKind.DIRECTORY

    @property
    def is_file(self) -> bool:
        return self.kind is InodeKind.FILE

    @property
    def has_chunks(self) -> bool:
        """Chunks may exist: it is a file, and not one that was always inline."""
        return self.is_file and self.storage is not Storage.INLINE


_INODE = msgspec.msgpack.Decoder(Inode)


def encode(record: msgspec.Struct) -> bytes:
    """The stored form of a record."""
    return RECORD_VERSION + _ENCODER.encode(record)


def decoded(decoder: msgspec.msgpack.Decoder[S], data: bytes, what: str) -> S:
    """The record in ``data``; CorruptData when it is none of a version that we know."""
    if data[:1] != RECORD_VERSION:
        raise CorruptData(f"{what}: version {data[:1].hex() or 'none'} of its record is not known")
    try:
        return decoder.decode(memoryview(data)[1:])
    except msgspec.DecodeError as error:
        raise CorruptData(f"{what}: its record cannot be read: {error}") from error


def inode_key(inode: InodeId) -> bytes:
    """Key of the attributes."""
    return key_u64(b"INOD", inode)


def content_key(inode: InodeId) -> bytes:
    """Key of a small file's content."""
    return key_u64(b"INLN", inode)


def parent_key(inode: InodeId) -> bytes:
    """Key of a directory's parent."""
    return key_u64(b"DPAR", inode)


def decode_inode(inode: InodeId, data: bytes) -> Inode:
    """The record of ``inode``; CorruptData."""
    return decoded(_INODE, data, f"inode {inode:x}")


async def get_inode(txn: ReadTransaction, inode: InodeId) -> Inode | None:
    """The attributes as stored (a directory's times and nlink: see ``shown``)."""
    data = await txn.get(inode_key(inode))
    return None if data is None else decode_inode(inode, data)


def put_inode(txn: Transaction, record: Inode) -> None:
    """Store the attributes."""
    txn.set(inode_key(record.inode), encode(record))


def watch_inode(txn: Transaction, inode: InodeId) -> None:
    """Conflict with whoever changes the attributes after this transaction's read version."""
    txn.add_read_conflict_key(inode_key(inode))


def watch_shown(txn: Transaction, record: Inode) -> None:
    """Conflict with whoever changes what an answer shows of it (a directory's times apart)."""
    watch_inode(txn, record.inode)
    if record.kind is InodeKind.DIRECTORY:
        txn.add_read_conflict_key(key_u64(b"DSUB", record.inode))


async def get_parent(txn: ReadTransaction, directory: InodeId) -> InodeId | None:
    """The directory that ``directory`` lies in; None: it does not exist."""
    data = await txn.get(parent_key(directory))
    return None if data is None else InodeId(_PARENT.unpack(data)[0])


def put_parent(txn: Transaction, directory: InodeId, parent: InodeId) -> None:
    """Say that ``directory`` now lies in ``parent``."""
    txn.set(parent_key(directory), _PARENT.pack(parent))


def touch_directory(txn: Transaction, directory: InodeId, now_ns: int, subdirectories: int = 0) -> None:
    """The entries of ``directory`` changed; ``subdirectories``: how many more. Conflicts with nobody."""
    txn.atomic(AtomicOp.MAX, key_u64(b"DTIM", directory), _TIME.pack(now_ns))
    if subdirectories:
        txn.atomic(AtomicOp.ADD, key_u64(b"DSUB", directory), _COUNT.pack(subdirectories))


def forget_entry_time(txn: Transaction, directory: InodeId) -> None:
    """The time set by hand counts from now on, even if it is an earlier one."""
    txn.clear(key_u64(b"DTIM", directory))


async def shown(txn: ReadTransaction, record: Inode) -> Attributes:
    """The attributes as clients see them: a directory's spread parts put together, private fields dropped."""
    nlink, mtime_ns, ctime_ns = record.nlink, record.mtime_ns, record.ctime_ns
    if record.kind is InodeKind.DIRECTORY:
        changed = await txn.get(key_u64(b"DTIM", record.inode))
        if changed is not None:
            mtime_ns = _TIME.unpack(changed)[0]
            ctime_ns = max(ctime_ns, mtime_ns)
        if nlink:
            nlink = 2 + await subdirectory_count(txn, record.inode)
    return Attributes(
        inode=record.inode,
        kind=record.kind,
        mode=record.mode,
        uid=record.uid,
        gid=record.gid,
        nlink=nlink,
        length_bytes=record.length_bytes,
        atime_ns=record.atime_ns,
        mtime_ns=mtime_ns,
        ctime_ns=ctime_ns,
        epoch=record.epoch,
        layout=record.layout,
        storage=record.storage,
        content_version=record.content_version,
        symlink_target=record.symlink_target,
        settling=record.settling,
    )


async def subdirectory_count(txn: ReadTransaction, directory: InodeId) -> int:
    """How many directories lie in ``directory``."""
    data = await txn.get(key_u64(b"DSUB", directory))
    return 0 if data is None else int(_COUNT.unpack(data)[0])


def clear_inode(txn: Transaction, record: Inode) -> None:
    """Drop every key of an inode: nothing refers to it any more."""
    inode = record.inode
    txn.clear(inode_key(inode))
    if record.is_directory:
        for prefix in (b"DTIM", b"DSUB", b"DPAR"):
            txn.clear(key_u64(prefix, inode))
    elif record.is_file:
        txn.clear(content_key(inode))
    count_inodes(txn, inode, -1)


def count_inodes(txn: Transaction, inode: InodeId, by: int) -> None:
    """Keep the number of inodes, in shards so that no key becomes hot."""
    txn.atomic(AtomicOp.ADD, key_u64(b"FCNT", inode % FILE_COUNT_SHARDS), _COUNT.pack(by))


async def inode_count(txn: ReadTransaction) -> int:
    """The number of inodes, the root included."""
    pairs = await txn.range(key_u64(b"FCNT", 0), key_u64(b"FCNT", FILE_COUNT_SHARDS))
    return sum(int(_COUNT.unpack(value)[0]) for _, value in pairs)
