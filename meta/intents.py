"""Work that was begun in a transaction and needs the storage nodes to be finished.

An intent is written with the change that makes it necessary, under a key that workers can list; whoever
finds it (a worker, or an operation that needs the file calm) goes on with it. Every step may be done twice,
by two services at once: each step is fenced by the epoch that the intent names (see ``finisher``).
"""

from __future__ import annotations

import msgspec

from fs3.ids import ClientSessionId, Epoch, InodeId
from fs3.kv.ranges import key_after
from fs3.kv.schema import key_u64, range_of, split_u64
from fs3.kv.transaction import ReadTransaction, Transaction

from .acl import Who
from .inode import decoded, encode


class CutIntent(msgspec.Struct, frozen=True, array_like=True):
    """Chunks beyond a length are to go (design 3.6)."""

    epoch: Epoch
    """Under which they are cut; the file's epoch afterwards is one more."""
    length_bytes: int


class SpillIntent(msgspec.Struct, frozen=True, array_like=True):
    """A session moves a file out of the KV store (design 3.9)."""

    session: ClientSessionId
    content_version: int


class SettleIntent(msgspec.Struct, frozen=True, array_like=True):
    """Writers of a file were lost; its length is to be found out (design 3.5)."""

    epoch: Epoch
    sessions: tuple[ClientSessionId, ...]


class Removal(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """An inode without a name: a file whose chunks are to go, or the top of a detached tree (design 3.7)."""

    is_tree: bool = False
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    parent: InodeId = InodeId(0)
    """Trees: where it lay, for what cannot be deleted."""
    name: bytes = b""

    @property
    def who(self) -> Who:
        """On whose behalf a tree is deleted."""
        return Who(self.uid, self.gid, self.groups)


_CUT = msgspec.msgpack.Decoder(CutIntent)
_SPILL = msgspec.msgpack.Decoder(SpillIntent)
_SETTLE = msgspec.msgpack.Decoder(SettleIntent)
_REMOVAL = msgspec.msgpack.Decoder(Removal)

CUTS = b"CUTQ"
SPILLS = b"SPLQ"
SETTLEMENTS = b"STLQ"
REMOVALS = b"RMVQ"


async def get_cut(txn: ReadTransaction, inode: InodeId) -> CutIntent | None:
    """The unfinished truncate of a file."""
    data = await txn.get(key_u64(CUTS, inode))
    return None if data is None else decoded(_CUT, data, f"cut intent of {inode:x}")


async def get_spill(txn: ReadTransaction, inode: InodeId) -> SpillIntent | None:
    """The unfinished spill of a file."""
    data = await txn.get(key_u64(SPILLS, inode))
    return None if data is None else decoded(_SPILL, data, f"spill intent of {inode:x}")


async def get_settlement(txn: ReadTransaction, inode: InodeId) -> SettleIntent | None:
    """The unfinished settlement of a file."""
    data = await txn.get(key_u64(SETTLEMENTS, inode))
    return None if data is None else decoded(_SETTLE, data, f"settlement of {inode:x}")


async def get_removal(txn: ReadTransaction, inode: InodeId) -> Removal | None:
    """The unfinished removal of an inode."""
    data = await txn.get(key_u64(REMOVALS, inode))
    return None if data is None else decoded(_REMOVAL, data, f"removal of {inode:x}")


def put_cut(txn: Transaction, inode: InodeId, intent: CutIntent) -> None:
    """Begin (or redefine) a cut."""
    txn.set(key_u64(CUTS, inode), encode(intent))


def put_spill(txn: Transaction, inode: InodeId, intent: SpillIntent) -> None:
    """Begin a spill."""
    txn.set(key_u64(SPILLS, inode), encode(intent))


def put_settlement(txn: Transaction, inode: InodeId, intent: SettleIntent) -> None:
    """Begin (or widen) a settlement."""
    txn.set(key_u64(SETTLEMENTS, inode), encode(intent))


def put_removal(txn: Transaction, inode: InodeId, removal: Removal) -> None:
    """Hand an inode to the removal workers."""
    txn.set(key_u64(REMOVALS, inode), encode(removal))


def clear_intent(txn: Transaction, kind: bytes, inode: InodeId) -> None:
    """It is done."""
    txn.clear(key_u64(kind, inode))


async def list_intents(
    txn: ReadTransaction, kind: bytes, after: InodeId | None, limit: int, below: int = 1 << 64
) -> list[tuple[InodeId, bytes]]:
    """Up to ``limit`` (inode, stored intent) of a kind, in order of inodes greater than ``after``."""
    begin, end = range_of(kind)
    if after is not None:
        begin = key_after(key_u64(kind, after))
    if below < 1 << 64:
        end = min(end, key_u64(kind, below))
    pairs = await txn.range(begin, end, limit=limit)
    return [(InodeId(split_u64(key, 1)[0][0]), value) for key, value in pairs]


def decode_removal(data: bytes) -> Removal:
    """The removal in ``data``; CorruptData."""
    return decoded(_REMOVAL, data, "removal")
