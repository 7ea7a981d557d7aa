"""remove: unlink, rmdir, or a whole tree in one request.

The name leaves in one transaction. Chunks go later, by the removal workers; an inline file that nobody
writes is gone at once. A tree (design 3.7): rights are checked page by page before, then its top is detached
into a hidden place (``NO_DIRECTORY``), and the workers delete it as this caller; what has become
undeletable meanwhile is put back.
"""

from __future__ import annotations

import errno

import msgspec

from fs3.errors import fs_error
from fs3.kv.transaction import Transaction
from fs3.wire.meta import REMOVE, InodeKind, RemoveKind, RemoveRequest, RemoveResponse

from ..dirent import clear_dirent, is_empty
from ..driver import Operation
from ..files import unlink_file
from ..inode import NO_DIRECTORY, Inode, clear_inode, put_inode, put_parent, touch_directory, watch_inode
from ..intents import Removal, put_removal
from ..path import named
from ..rights import check_tree, require_entry_rights
from ..services import REMOVAL_QUEUED, Event, Op, PrepareAgain


async def prepare(op: Op, request: RemoveRequest) -> None:
    """Recursive: may the caller delete everything in the tree? EACCES with the first path if not."""
    op.prepared = await check_tree(op, request.path) if request.recursive else None


async def remove(op: Op, txn: Transaction, request: RemoveRequest) -> RemoveResponse:
    """ENOENT (unless ``missing_ok``), EISDIR, ENOTDIR, ENOTEMPTY, EACCES, EPERM (sticky), EBUSY (root)."""
    text = request.path.text
    parent, name, node = await named(txn.snapshot, op.who, request.path, watch=txn)
    if node is None:
        if request.missing_ok:
            return RemoveResponse(removed=False)
        raise fs_error(errno.ENOENT, "", text)
    is_directory = node.kind is InodeKind.DIRECTORY
    if request.kind is RemoveKind.FILE and is_directory:
        raise fs_error(errno.EISDIR, "", text)
    if request.kind is RemoveKind.DIRECTORY and not is_directory:
        raise fs_error(errno.ENOTDIR, "", text)
    require_entry_rights(op.who, txn, parent, node, text)
    clear_dirent(txn, parent.inode, name)
    touch_directory(txn, parent.inode, op.now_ns, subdirectories=-1 if is_directory else 0)
    if not is_directory:
        op.events += await unlink_file(txn, node, op.now_ns)
    elif await is_empty(txn, node.inode):
        watch_inode(txn, node.inode)
        clear_inode(txn, node)
    elif not request.recursive:
        raise fs_error(errno.ENOTEMPTY, "", text)
    elif op.prepared != node.inode:
        raise PrepareAgain
    else:
        _detach(op, txn, parent, name, node)
    return RemoveResponse(removed=True)


def _detach(op: Op, txn: Transaction, parent: Inode, name: bytes, node: Inode) -> None:
    watch_inode(txn, node.inode)
    put_inode(txn, msgspec.structs.replace(node, nlink=0, ctime_ns=op.now_ns))
    put_parent(txn, node.inode, NO_DIRECTORY)
    who = op.who
    removal = Removal(
        is_tree=True, uid=who.uid, gid=who.gid, groups=who.groups, parent=parent.inode, name=name
    )
    put_removal(txn, node.inode, removal)
    op.events.append(Event(REMOVAL_QUEUED, node.inode))


OPERATION = Operation(REMOVE, remove, prepare=prepare)
