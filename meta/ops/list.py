"""list: a page of a directory, in byte order of names, perhaps with attributes.

Stored records of files are passed on as they are, not decoded and encoded again (design 3.1): a record begins
with the fields of ``Attributes``; the private ones behind them are dropped by whoever decodes the answer.
"""

from __future__ import annotations

import errno
from typing import Any

import msgspec

from fs3.errors import CorruptData, InvalidRequest, fs_error
from fs3.kv.transaction import ReadTransaction, Transaction
from fs3.wire.meta import (
    LIST,
    LIST_LIMIT_MAX,
    NAME_BYTES_MAX,
    Entry,
    InodeKind,
    ListRequest,
    ListResponse,
)

from ..acl import READ, SEARCH, allowed, require
from ..dirent import Dirent, list_dirents
from ..driver import Operation, reading
from ..inode import RECORD_VERSION, decode_inode, inode_key, shown
from ..path import existing
from ..services import Op


async def list_directory(op: Op, txn: Transaction, request: ListRequest) -> ListResponse:
    """ENOTDIR, EACCES, and what the path may raise. Attributes need the search right; else they are None."""
    if not 1 <= request.limit <= LIST_LIMIT_MAX:
        raise InvalidRequest(f"a page of {request.limit} entries; 1 … {LIST_LIMIT_MAX} are possible")
    if len(request.after) > NAME_BYTES_MAX:
        raise fs_error(errno.ENAMETOOLONG, "the name to go on after is too long")
    reads = txn.snapshot
    _, directory = await existing(reads, op.who, request.path, follow=True)
    if directory.kind is not InodeKind.DIRECTORY:
        raise fs_error(errno.ENOTDIR, "", request.path.text)
    require(op.who, directory, READ, request.path.text)
    found = await list_dirents(reads, directory.inode, request.after, request.limit + 1)
    more = len(found) > request.limit
    del found[request.limit :]
    if not (request.with_attributes and allowed(op.who, directory, SEARCH)):
        plain = tuple(Entry(name=name, inode=entry.inode, kind=entry.kind) for name, entry in found)
        return ListResponse(directory=directory.inode, entries=plain, more=more)
    full = tuple([await _with_attributes(reads, name, entry) for name, entry in found])
    return ListResponse(directory=directory.inode, entries=full, more=more)


async def _with_attributes(reads: ReadTransaction, name: bytes, entry: Dirent) -> Entry:
    data = await reads.get(inode_key(entry.inode))
    if data is None or not data.startswith(RECORD_VERSION):
        raise CorruptData(f"entry {name!r} names inode {entry.inode:x}, which has no readable record")
    attributes: Any = msgspec.Raw(memoryview(data)[1:])  # encodes to what it is
    if entry.kind is InodeKind.DIRECTORY:  # its parts lie under several keys
        attributes = await shown(reads, decode_inode(entry.inode, data))
    return Entry(name=name, inode=entry.inode, kind=entry.kind, attributes=attributes)


OPERATION = Operation(LIST, list_directory, mutation=reading, only_reads=True)
