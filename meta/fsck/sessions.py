"""Judges records of client sessions against the sessions that there are, at one read version. PURE."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fs3.ids import ClientSessionId, InodeId
from fs3.kv.schema import PREFIX_BYTES, split_u64

from .findings import Finding, Kind

PREFIXES = (b"SREN", b"SNON", b"SLOT", b"OPEN", b"SOPN")


class Held(NamedTuple):
    """A record, and whose it is."""

    key: bytes
    session: ClientSessionId
    inode: InodeId
    """0: of no file."""


def held(key: bytes, value: bytes) -> Held | None:
    """Whose record this is; None: it cannot be read."""
    try:
        match key[:PREFIX_BYTES]:
            case b"SREN":
                return Held(key, ClientSessionId(split_u64(key, 1)[0][0]), InodeId(0))
            case b"SNON":
                return Held(key, ClientSessionId(struct.unpack(">Q", value)[0]), InodeId(0))
            case b"SLOT":
                return Held(key, ClientSessionId(split_u64(key, 2)[0][0]), InodeId(0))
            case b"OPEN":
                inode, session = split_u64(key, 2)[0]
            case _:
                session, inode = split_u64(key, 2)[0]
        return Held(key, ClientSessionId(session), InodeId(inode))
    except struct.error:
        return None


def judge(
    records: Iterable[tuple[bytes, bytes]],
    sessions: dict[ClientSessionId, None],
    inodes: dict[InodeId, None],
    opens: dict[bytes, None],
) -> Iterator[Finding]:
    """``sessions``, ``inodes``: those named by the records that exist; ``opens``: keys SOPN that exist."""
    for key, value in records:
        prefix = key[:PREFIX_BYTES].decode()
        one = held(key, value)
        if one is None:
            yield Finding(kind=Kind.UNDECODABLE, where=f"record {key!r}", detail="cannot be read", key=key)
            continue
        where = f"record {prefix} of session {one.session:x}" + (
            f", inode {one.inode:x}" if one.inode else ""
        )
        if one.session not in sessions:
            yield Finding(
                kind=Kind.NO_SESSION,
                where=where,
                detail="there is no such session",
                key=key,
                session=one.session,
                inode=one.inode,
            )
        elif prefix == "OPEN" and one.inode not in inodes:
            yield _stray(where, "opened for writing, and no such inode", one)
        elif prefix == "OPEN" and sopn_key(one) not in opens:
            yield _stray(where, "the session does not know that it has it open", one)


def sopn_key(one: Held) -> bytes:
    """The key by which the session finds the same."""
    return b"SOPN" + struct.pack(">QQ", one.session, one.inode)


def _stray(where: str, detail: str, one: Held) -> Finding:
    return Finding(
        kind=Kind.STRAY_RECORD, where=where, detail=detail, key=one.key, session=one.session, inode=one.inode
    )
