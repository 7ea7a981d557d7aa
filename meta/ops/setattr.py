"""setattr: mode, owner, times (``NOW``: set by whoever may write the file), a directory's default layout."""

from __future__ import annotations

import errno

import msgspec

from fs3.errors import InvalidRequest, fs_error
from fs3.kv.transaction import Transaction
from fs3.wire.meta import SETATTR, InodeKind, SetAttrRequest, StatResponse

from ..acl import WRITE, allowed, changed_mode, require_chown, require_owner, without_set_id
from ..bounds import NOW
from ..driver import Operation
from ..inode import Inode, decode_inode, forget_entry_time, inode_key, put_inode, shown
from ..path import existing
from ..services import Op


async def setattr_inode(op: Op, txn: Transaction, request: SetAttrRequest) -> StatResponse:
    """EPERM, EACCES, ENOTDIR (a layout for a file), EINVAL, and what the path may raise."""
    _check(request)
    text = request.path.text
    _, seen = await existing(txn.snapshot, op.who, request.path, follow=request.follow, watch=txn)
    data = await txn.get(inode_key(seen.inode))
    assert data is not None, f"inode {seen.inode:x} was there in the same snapshot"
    record = decode_inode(seen.inode, data)
    changed = _with_owner(op, record, request, text)
    if request.mode is not None:
        require_owner(op.who, record, text)
        changed = msgspec.structs.replace(changed, mode=changed_mode(op.who, changed, request.mode))
    changed = _with_times(op, changed, record, request, text)
    if request.layout is not None:
        require_owner(op.who, record, text)
        if record.kind is not InodeKind.DIRECTORY:
            raise fs_error(errno.ENOTDIR, "a file's layout is fixed when it is created", text)
        op.services.placement.check_default(request.layout)
        layout = msgspec.structs.replace(request.layout, table_version=0)
        changed = msgspec.structs.replace(changed, layout=layout)
    if request.mtime_ns is not None and record.is_directory:
        forget_entry_time(txn, record.inode)
    if changed != record:
        changed = msgspec.structs.replace(changed, ctime_ns=op.now_ns)
        put_inode(txn, changed)
    return StatResponse(attributes=await shown(txn.snapshot, changed))


def _check(request: SetAttrRequest) -> None:
    if request.mode is not None and request.mode & ~0o7777:
        raise InvalidRequest(f"mode {request.mode:o} has more than permission bits")


def _with_owner(op: Op, record: Inode, request: SetAttrRequest, text: bytes) -> Inode:
    if request.uid is None and request.gid is None:
        return record
    uid = record.uid if request.uid is None else request.uid
    gid = record.gid if request.gid is None else request.gid
    require_chown(op.who, record, uid, gid, text)
    mode = record.mode
    if op.who.uid != 0 and record.is_file:
        mode = without_set_id(record)
    return msgspec.structs.replace(record, uid=uid, gid=gid, mode=mode)


def _with_times(op: Op, changed: Inode, record: Inode, request: SetAttrRequest, text: bytes) -> Inode:
    given = [t for t in (request.atime_ns, request.mtime_ns) if t is not None]
    if not given:
        return changed
    if any(t != NOW for t in given):
        require_owner(op.who, record, text)
    elif op.who.uid != record.uid and not allowed(op.who, record, WRITE):
        raise fs_error(errno.EACCES, "", text)
    atime_ns = changed.atime_ns if request.atime_ns is None else request.atime_ns
    mtime_ns = changed.mtime_ns if request.mtime_ns is None else request.mtime_ns
    return msgspec.structs.replace(
        changed,
        atime_ns=op.now_ns if atime_ns == NOW else atime_ns,
        mtime_ns=op.now_ns if mtime_ns == NOW else mtime_ns,
    )


OPERATION = Operation(SETATTR, setattr_inode)
