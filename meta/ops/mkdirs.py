"""mkdirs: a directory, perhaps with those above it."""

from __future__ import annotations

import errno

import msgspec

from fs3.errors import fs_error
from fs3.kv.transaction import Transaction
from fs3.layout import Layout
from fs3.wire.meta import MKDIRS, InodeKind, MkdirsRequest, Path, StatResponse

from ..acl import SEARCH, WRITE, new_group_and_mode, require
from ..dirent import Dirent, put_dirent
from ..driver import Operation
from ..inode import Inode, count_inodes, put_inode, put_parent, shown, touch_directory, watch_inode
from ..path import resolve, split
from ..services import Op


async def mkdirs(op: Op, txn: Transaction, request: MkdirsRequest) -> StatResponse:
    """EEXIST, ENOTDIR, ENOENT (without ``parents``), EACCES, EINVAL (a layout that cannot be)."""
    text = request.path.text
    names = split(text)
    if not names:
        raise fs_error(errno.EEXIST, "", text)
    if request.layout is not None:
        op.services.placement.check_default(request.layout)
    base = request.path.base
    if not request.parents:
        parent = b"/".join(names[:-1])
        if parent:
            found = await resolve(txn.snapshot, op.who, Path(parent, base), follow=True, watch=txn)
            if found.node is None:
                raise fs_error(errno.ENOENT, "", text)
            base = found.node.inode
        names = names[-1:]
    made: Inode | None = None
    node: Inode | None = None
    for number, name in enumerate(names):
        found = await resolve(txn.snapshot, op.who, Path(name, base), follow=True, watch=txn)
        node = found.node
        is_last = number == len(names) - 1
        if node is None:
            assert found.parent is not None, "a path without an entry has a directory"
            node = made = await _new_directory(op, txn, found.parent, found.name, request, is_last=is_last)
        elif node.kind is not InodeKind.DIRECTORY:
            raise fs_error(errno.EEXIST if is_last else errno.ENOTDIR, "", text)
        base = node.inode
    assert node is not None, "a path has at least one name"
    if (made is None or made.inode != node.inode) and not request.exist_ok:
        raise fs_error(errno.EEXIST, "", text)
    return StatResponse(attributes=await shown(txn.snapshot, node))


async def _new_directory(
    op: Op, txn: Transaction, parent: Inode, name: bytes, request: MkdirsRequest, *, is_last: bool
) -> Inode:
    text = request.path.text
    require(op.who, parent, WRITE | SEARCH, text)
    if not parent.nlink:
        raise fs_error(errno.ENOENT, "the directory is being removed", text)
    watch_inode(txn, parent.inode)
    # Directories on the way must let their maker go on, whatever the last one's permissions are.
    permissions = request.permissions if is_last else request.permissions | 0o300
    gid, mode = new_group_and_mode(op.who, parent, InodeKind.DIRECTORY, permissions)
    layout: Layout | None = parent.layout
    if is_last and request.layout is not None:
        layout = msgspec.structs.replace(request.layout, table_version=0)
    record = Inode(
        inode=op.fresh_inode(),
        kind=InodeKind.DIRECTORY,
        mode=mode,
        uid=op.who.uid,
        gid=gid,
        nlink=2,
        length_bytes=0,
        atime_ns=op.now_ns,
        mtime_ns=op.now_ns,
        ctime_ns=op.now_ns,
        layout=layout,
    )
    put_inode(txn, record)
    put_parent(txn, record.inode, parent.inode)
    put_dirent(txn, parent.inode, name, Dirent(record.inode, InodeKind.DIRECTORY))
    touch_directory(txn, parent.inode, op.now_ns, subdirectories=1)
    count_inodes(txn, record.inode, 1)
    return record


def ids_needed(request: MkdirsRequest) -> int:
    """One for each directory that may be made."""
    return max(1, len(split(request.path.text))) if request.parents else 1


OPERATION = Operation(MKDIRS, mkdirs, ids=ids_needed)
