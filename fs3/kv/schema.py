"""Every key of the system on one screen, and how keys are packed.

A key is a four-letter prefix, then fixed-width big-endian integers, then (last, if at all) a byte string:
so the order of the keys is the order of their parts, and what belongs together is one range. Nothing but
this module names a prefix.

To add a kind of record: append a row (letters never used before, never given again), use its constant.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .ranges import KeyRange, prefix_end


class Row(NamedTuple):
    """One kind of record."""

    prefix: bytes
    owner: str
    """The component that writes it."""
    key: str
    """What follows the prefix."""
    value: str


PREFIX_BYTES = 4

# Rows: (prefix, owner, key after the prefix, value). Keep them grouped by owner.
TABLE: tuple[Row, ...] = (
    Row(b"TEST", "tests", "anything", "anything; no component reads it"),
    # meta: the tree
    Row(b"INOD", "meta", "u64 inode", "Inode: attributes of a file, directory or symlink"),
    Row(b"DENT", "meta", "u64 directory, name", "Dirent: inode and kind"),
    Row(b"DTIM", "meta", "u64 directory", "u64 LE: time of the last change of its entries (atomic maximum)"),
    Row(b"DSUB", "meta", "u64 directory", "i64 LE: number of subdirectories (atomic add)"),
    Row(b"DPAR", "meta", "u64 directory", "u64 BE: the directory that it lies in"),
    Row(b"INLN", "meta", "u64 inode", "content of a small file, as it is"),
    Row(b"FCNT", "meta", "u64 shard", "i64 LE: number of inodes (atomic add)"),
    # meta: sessions and exactly once
    Row(b"SESS", "meta", "u64 session", "Session: whose it is, alive or ending"),
    Row(b"SREN", "meta", "u64 session", "u64 LE: renewals written (atomic add)"),
    Row(b"SNON", "meta", "u64 uid, nonce", "u64 BE: the session that was opened with the nonce"),
    Row(b"SLOT", "meta", "u64 session, u64 slot", "SlotRecord: last sequence and its answer"),
    Row(b"OPEN", "meta", "u64 inode, u64 session", "OpenRecord: opened for writing"),
    Row(b"SOPN", "meta", "u64 session, u64 inode", "empty: the same, by session"),
    # meta: work that is going on, and who does it
    Row(b"CUTQ", "meta", "u64 inode", "CutIntent: a truncate that is not finished"),
    Row(b"SPLQ", "meta", "u64 inode", "SpillIntent: a file that is moving out of the store"),
    Row(b"STLQ", "meta", "u64 inode", "SettleIntent: files of lost writers"),
    Row(b"RMVQ", "meta", "u64 inode", "Removal: inodes without a name whose content is to go"),
    Row(b"WLSE", "meta", "work name", "WorkLease: which service does this work"),
    Row(b"ICNT", "meta", "name of the counter", "u64 LE: ids handed out in blocks"),
    Row(b"MGEN", "meta", "u64 node", "u64 BE: generation of a meta service"),
    # mgmtd
    Row(b"MLSE", "mgmtd", "nothing", "LeaseRecord: who is primary"),
    Row(b"MMGN", "mgmtd", "u64 node", "u64 BE: generation of a mgmtd"),
    Row(b"MCTM", "mgmtd", "nothing", "u64 BE: bound of cluster time, ms"),
    Row(b"MVER", "mgmtd", "nothing", "u64 BE: routing version"),
    Row(b"MNOD", "mgmtd", "u32 node", "NodeInfo: a registered node"),
    Row(b"MTGT", "mgmtd", "u64 target", "TargetRecord: a registered target and its store"),
    Row(b"MCHN", "mgmtd", "u32 chain", "ChainInfo: a chain's present record"),
    Row(b"MTAB", "mgmtd", "u32 table, u32 version", "ChainTable: one version of a table"),
    Row(b"MKEY", "mgmtd", "u32 uid", "u64 BE: least valid key generation of a user"),
)


def _check_table(table: tuple[Row, ...]) -> None:
    seen: dict[bytes, str] = {}
    for row in table:
        assert len(row.prefix) == PREFIX_BYTES and row.prefix.isalnum() and row.prefix.isupper(), row
        assert row.prefix not in seen, (row, seen[row.prefix])
        seen[row.prefix] = row.owner


_check_table(TABLE)

_U32 = struct.Struct(">I")
_U64 = tuple(struct.Struct(f">4s{count}Q") for count in range(5))


def key_u64(prefix: bytes, *numbers: int, tail: bytes = b"") -> bytes:
    """``prefix``, up to four u64, then ``tail``; struct.error when a number does not fit."""
    return _U64[len(numbers)].pack(prefix, *numbers) + tail


def key_u32(prefix: bytes, *numbers: int, tail: bytes = b"") -> bytes:
    """``prefix``, u32 numbers, then ``tail``; struct.error when a number does not fit."""
    return prefix + b"".join(_U32.pack(number) for number in numbers) + tail


def split_u64(key: bytes, count: int) -> tuple[tuple[int, ...], bytes]:
    """The ``count`` u64 after the prefix, and the tail; struct.error when the key is shorter."""
    packer = _U64[count]
    parts = packer.unpack_from(key)
    return parts[1:], key[packer.size :]


def split_u32(key: bytes, count: int) -> tuple[tuple[int, ...], bytes]:
    """The ``count`` u32 after the prefix, and the tail; struct.error when the key is shorter."""
    end = PREFIX_BYTES + 4 * count
    return struct.unpack(f">{count}I", key[PREFIX_BYTES:end]), key[end:]


def range_of(start: bytes) -> KeyRange:
    """The range of all keys that begin with ``start`` (a prefix, or a prefix with leading parts)."""
    return start, prefix_end(start)
