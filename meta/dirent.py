"""Directory entries: a name in a directory, in byte order of names."""

from __future__ import annotations

import msgspec

from fs3.ids import InodeId
from fs3.kv.ranges import key_after
from fs3.kv.schema import key_u64, range_of
from fs3.kv.transaction import ReadTransaction, Transaction
from fs3.wire.meta import InodeKind

from .inode import decoded, encode

NAME_OFFSET = 12
"""Of the name in an entry's key: four letters, then the directory."""


class Dirent(msgspec.Struct, frozen=True, array_like=True):
    """What a name stands for."""

    inode: InodeId
    kind: InodeKind


_DIRENT = msgspec.msgpack.Decoder(Dirent)


def dirent_key(directory: InodeId, name: bytes) -> bytes:
    """Key of one entry."""
    return key_u64(b"DENT", directory, tail=name)


def entries_range(directory: InodeId, after: bytes = b"") -> tuple[bytes, bytes]:
    """The keys of all entries of a directory whose names are greater than ``after``."""
    begin, end = range_of(key_u64(b"DENT", directory))
    return (key_after(dirent_key(directory, after)) if after else begin), end


def decode_dirent(data: bytes) -> Dirent:
    """The entry in ``data``; CorruptData."""
    return decoded(_DIRENT, data, "directory entry")


async def get_dirent(txn: ReadTransaction, directory: InodeId, name: bytes) -> Dirent | None:
    """What ``name`` stands for in ``directory``, or None."""
    data = await txn.get(dirent_key(directory, name))
    return None if data is None else decode_dirent(data)


def put_dirent(txn: Transaction, directory: InodeId, name: bytes, entry: Dirent) -> None:
    """Give ``entry`` the name; whoever asked for the same name meanwhile conflicts."""
    key = dirent_key(directory, name)
    txn.add_read_conflict_key(key)
    txn.set(key, encode(entry))


def clear_dirent(txn: Transaction, directory: InodeId, name: bytes) -> None:
    """Take the name away; whoever changed it meanwhile conflicts."""
    key = dirent_key(directory, name)
    txn.add_read_conflict_key(key)
    txn.clear(key)


async def list_dirents(
    txn: ReadTransaction, directory: InodeId, after: bytes, limit: int
) -> list[tuple[bytes, Dirent]]:
    """Up to ``limit`` entries with names greater than ``after``."""
    pairs = await txn.range(*entries_range(directory, after), limit=limit)
    return [(key[NAME_OFFSET:], decode_dirent(value)) for key, value in pairs]


async def is_empty(txn: ReadTransaction, directory: InodeId) -> bool:
    """No entry; read with conflict, so that a create meanwhile is noticed (design 3.2)."""
    return not await txn.range(*entries_range(directory), limit=1)
