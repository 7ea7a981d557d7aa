"""Client sessions and what they hold open.

A session is one run of one client; its id is never given again. A record that is missing, or ``ending``,
refuses every mutation: whoever decides that a session is over writes the record that each mutation reads
with conflict, so none of them can be committed afterwards (design 3.3, 3.4).

Renewals are counted under a key of their own, so that they do not conflict with the session's work.
"""

from __future__ import annotations

import struct

import msgspec

from fs3.errors import SessionLost, Unauthenticated
from fs3.ids import ClientSessionId, InodeId
from fs3.kv.ranges import key_after
from fs3.kv.schema import key_u64, range_of, split_u64
from fs3.kv.transaction import AtomicOp, ReadTransaction, Transaction

from .inode import decoded, encode

RENEW_EVERY_S = 5.0
"""What clients are told."""
RENEWAL_WRITE_S = 20.0
"""A service writes a client's renewals at most this often (design 3.4)."""
LOST_AFTER_S = 60.0
SLOT_COUNT = 64
NONCE_BYTES_MAX = 64
TEXT_CHARS_MAX = 200
_U64BE = struct.Struct(">Q")
_ONE = struct.pack("<Q", 1)


class Session(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A client's session."""

    uid: int
    """Of the token it was opened with; only this user (and admins) may use it."""
    host: str
    description: str
    opened_ns: int
    """Wall clock, shown to people."""
    nonce: bytes = b""
    ending: bool = False
    """Closed or lost: refused from now on; its files are being settled."""


class OpenRecord(msgspec.Struct, frozen=True, array_like=True):
    """A session has a file open for writing."""

    count: int
    """Opens that were not closed."""


_SESSION = msgspec.msgpack.Decoder(Session)
_OPEN = msgspec.msgpack.Decoder(OpenRecord)


def session_key(session: ClientSessionId) -> bytes:
    """Key of the session's record."""
    return key_u64(b"SESS", session)


def renewal_key(session: ClientSessionId) -> bytes:
    """Key of the session's count of renewals."""
    return key_u64(b"SREN", session)


def open_key(inode: InodeId, session: ClientSessionId) -> bytes:
    """Key that says that ``session`` may write ``inode``."""
    return key_u64(b"OPEN", inode, session)


def holding_key(session: ClientSessionId, inode: InodeId) -> bytes:
    """The same, found by session; it outlives the other until the file is settled."""
    return key_u64(b"SOPN", session, inode)


def decode_session(data: bytes) -> Session:
    """The record in ``data``; CorruptData."""
    return decoded(_SESSION, data, "client session")


async def get_session(txn: ReadTransaction, session: ClientSessionId) -> Session | None:
    """The record, or None."""
    data = await txn.get(session_key(session))
    return None if data is None else decode_session(data)


async def require_session(
    txn: ReadTransaction, session: ClientSessionId, uid: int, *, is_admin: bool
) -> Session:
    """The live session of this user. SessionLost; Unauthenticated when it is somebody else's."""
    record = await get_session(txn, session)
    if record is None or record.ending:
        raise SessionLost(f"client session {session:x} is over")
    if record.uid != uid and not is_admin:
        raise Unauthenticated(f"client session {session:x} belongs to another user")
    return record


def put_session(txn: Transaction, session: ClientSessionId, record: Session) -> None:
    """Store the record."""
    txn.set(session_key(session), encode(record))


async def session_of_nonce(txn: ReadTransaction, uid: int, nonce: bytes) -> ClientSessionId | None:
    """The session that an earlier try of the same request opened."""
    data = await txn.get(key_u64(b"SNON", uid, tail=nonce))
    return None if data is None else ClientSessionId(_U64BE.unpack(data)[0])


def put_nonce(txn: Transaction, uid: int, nonce: bytes, session: ClientSessionId) -> None:
    """Remember what the nonce opened."""
    txn.set(key_u64(b"SNON", uid, tail=nonce), _U64BE.pack(session))


def count_renewal(txn: Transaction, session: ClientSessionId) -> None:
    """Show observers that the session lives."""
    txn.atomic(AtomicOp.ADD, renewal_key(session), _ONE)


def clear_session(txn: Transaction, session: ClientSessionId, record: Session) -> None:
    """Drop all that is kept of a session whose files are settled."""
    txn.clear(session_key(session))
    txn.clear(renewal_key(session))
    if record.nonce:
        txn.clear(key_u64(b"SNON", record.uid, tail=record.nonce))
    txn.clear_range(*range_of(key_u64(b"SLOT", session)))


async def open_count(txn: ReadTransaction, inode: InodeId, session: ClientSessionId) -> int:
    """How many times ``session`` has ``inode`` open for writing."""
    data = await txn.get(open_key(inode, session))
    return 0 if data is None else decoded(_OPEN, data, "open record").count


async def register_open(txn: Transaction, inode: InodeId, session: ClientSessionId) -> None:
    """One more open for writing."""
    count = await open_count(txn, inode, session)
    txn.set(open_key(inode, session), encode(OpenRecord(count + 1)))
    txn.set(holding_key(session, inode), b"")


async def unregister_open(txn: Transaction, inode: InodeId, session: ClientSessionId) -> bool:
    """One open less; False when there was none."""
    count = await open_count(txn, inode, session)
    if not count:
        return False
    if count > 1:
        txn.set(open_key(inode, session), encode(OpenRecord(count - 1)))
    else:
        drop_open(txn, inode, session)
    return True


def drop_open(txn: Transaction, inode: InodeId, session: ClientSessionId) -> None:
    """The session does not have the file open any more."""
    txn.clear(open_key(inode, session))
    txn.clear(holding_key(session, inode))


async def writers(txn: ReadTransaction, inode: InodeId, limit: int = 0) -> list[ClientSessionId]:
    """The sessions that have ``inode`` open for writing."""
    pairs = await txn.range(*range_of(key_u64(b"OPEN", inode)), limit=limit)
    return [ClientSessionId(split_u64(key, 2)[0][1]) for key, _ in pairs]


async def held_inodes(
    txn: ReadTransaction, session: ClientSessionId, limit: int, after: InodeId | None = None
) -> list[InodeId]:
    """Files that the session has open, or that are being settled for it, above ``after``."""
    begin, end = range_of(key_u64(b"SOPN", session))
    if after is not None:
        begin = key_after(holding_key(session, after))
    pairs = await txn.range(begin, end, limit=limit)
    return [InodeId(split_u64(key, 2)[0][1]) for key, _ in pairs]
