"""rename: atomically, as POSIX and renameat2 say: replacing, NOREPLACE, EXCHANGE.

Conflicts: both names and what the answer shows of the source; the destination's directory (so that it meets
rmdir, as create does); for a directory that changes its place, the parents of the destination up to the
root, which every other rename of a directory writes: so two renames can never make a loop together
(design 3.8).
"""

from __future__ import annotations

import errno

from fs3.errors import InvalidRequest, fs_error
from fs3.ids import ROOT_INODE, InodeId
from fs3.kv.transaction import Transaction
from fs3.wire.meta import PATH_DEPTH_MAX, RENAME, InodeKind, RenameFlags, RenameRequest, StatResponse

from ..acl import SEARCH, WRITE, require
from ..dirent import Dirent, clear_dirent, is_empty, put_dirent
from ..driver import Operation
from ..files import unlink_file
from ..inode import (
    NO_DIRECTORY,
    Inode,
    clear_inode,
    get_parent,
    put_parent,
    shown,
    touch_directory,
    watch_inode,
    watch_shown,
)
from ..path import named
from ..rights import require_entry_rights
from ..services import Op

_KNOWN_FLAGS = RenameFlags.NOREPLACE | RenameFlags.EXCHANGE


async def rename(op: Op, txn: Transaction, request: RenameRequest) -> StatResponse:
    """ENOENT, EEXIST (NOREPLACE), ENOTEMPTY, EISDIR, ENOTDIR, EINVAL (into itself), EACCES, EPERM, EBUSY."""
    flags = request.flags
    if int(flags) & ~int(_KNOWN_FLAGS) or flags == _KNOWN_FLAGS:
        raise InvalidRequest(f"rename flags {int(flags)} are not possible")
    exchange = bool(flags & RenameFlags.EXCHANGE)
    source_dir, source_name, source = await named(txn.snapshot, op.who, request.source, watch=txn)
    if source is None:
        raise fs_error(errno.ENOENT, "", request.source.text)
    target_dir, target_name, target = await named(txn.snapshot, op.who, request.destination, watch=txn)
    text = request.destination.text
    if exchange and target is None:
        raise fs_error(errno.ENOENT, "", text)
    if flags & RenameFlags.NOREPLACE and target is not None:
        raise fs_error(errno.EEXIST, "", text)
    if text.endswith(b"/") and source.kind is not InodeKind.DIRECTORY:
        raise fs_error(errno.ENOTDIR, "", text)
    watch_shown(txn, source)
    if target is None or target.inode != source.inode:
        _check_rights(op, txn, request, (source_dir, source), (target_dir, target))
        await _check_places(txn, source_dir, source, target_dir, target, text, exchange=exchange)
        if exchange:
            assert target is not None, "checked above"
            _exchange(op, txn, (source_dir, source_name, source), (target_dir, target_name, target))
        else:
            if target is not None:
                await _replace(op, txn, source, target, text)
            _move(op, txn, (source_dir, source_name, source), (target_dir, target_name, target))
    return StatResponse(attributes=await shown(txn.snapshot, source))


def _check_rights(
    op: Op,
    txn: Transaction,
    request: RenameRequest,
    source: tuple[Inode, Inode],
    target: tuple[Inode, Inode | None],
) -> None:
    """Names may be taken out of and put into both directories; a moved directory's ``..`` may be changed."""
    source_text, target_text = request.source.text, request.destination.text
    (source_dir, source_node), (target_dir, target_node) = source, target
    require_entry_rights(op.who, txn, source_dir, source_node, source_text)
    require(op.who, target_dir, WRITE | SEARCH, target_text)
    if target_node is not None:
        require_entry_rights(op.who, txn, target_dir, target_node, target_text)
    if source_dir.inode == target_dir.inode:
        return
    if source_node.is_directory:
        require(op.who, source_node, WRITE, source_text)
    if request.flags & RenameFlags.EXCHANGE and target_node is not None and target_node.is_directory:
        require(op.who, target_node, WRITE, target_text)


async def _check_places(
    txn: Transaction,
    source_dir: Inode,
    source: Inode,
    target_dir: Inode,
    target: Inode | None,
    text: bytes,
    *,
    exchange: bool,
) -> None:
    """Both directories exist when this commits, and nothing becomes its own ancestor."""
    receiving = (source_dir, target_dir) if exchange else (target_dir,)
    for directory in receiving:
        if not directory.nlink:
            raise fs_error(errno.ENOENT, "the directory is being removed", text)
        watch_inode(txn, directory.inode)
    if source_dir.inode == target_dir.inode:
        return
    if source.is_directory:
        await _refuse_loop(txn, source.inode, target_dir.inode, text)
    if exchange and target is not None and target.is_directory:
        await _refuse_loop(txn, target.inode, source_dir.inode, text)


async def _refuse_loop(txn: Transaction, moved: InodeId, into: InodeId, text: bytes) -> None:
    """EINVAL if ``into`` is ``moved`` or lies below it; reads the way up to the root with conflict."""
    at = into
    for _ in range(PATH_DEPTH_MAX):
        if at == moved:
            raise fs_error(errno.EINVAL, "a directory cannot be moved into itself", text)
        if at == ROOT_INODE:
            return
        parent = await get_parent(txn, at)
        if parent is None or parent == NO_DIRECTORY:
            raise fs_error(errno.ENOENT, "the directory is being removed", text)
        at = parent
    raise fs_error(errno.ENAMETOOLONG, f"more than {PATH_DEPTH_MAX} directories above", text)


async def _replace(op: Op, txn: Transaction, source: Inode, target: Inode, text: bytes) -> None:
    """What is at the destination goes, if it may be replaced by such a thing."""
    if target.is_directory:
        if not source.is_directory:
            raise fs_error(errno.EISDIR, "", text)
        if not await is_empty(txn, target.inode):
            raise fs_error(errno.ENOTEMPTY, "", text)
        watch_inode(txn, target.inode)
        clear_inode(txn, target)
        return
    if source.is_directory:
        raise fs_error(errno.ENOTDIR, "", text)
    op.events += await unlink_file(txn, target, op.now_ns)


_Place = tuple[Inode, bytes, Inode | None]


def _move(op: Op, txn: Transaction, source: tuple[Inode, bytes, Inode], target: _Place) -> None:
    source_dir, source_name, node = source
    target_dir, target_name, replaced = target
    clear_dirent(txn, source_dir.inode, source_name)
    put_dirent(txn, target_dir.inode, target_name, Dirent(node.inode, node.kind))
    moved = int(node.is_directory)
    gone = int(replaced is not None and replaced.is_directory)
    if source_dir.inode == target_dir.inode:
        touch_directory(txn, source_dir.inode, op.now_ns, subdirectories=-gone)
        return
    touch_directory(txn, source_dir.inode, op.now_ns, subdirectories=-moved)
    touch_directory(txn, target_dir.inode, op.now_ns, subdirectories=moved - gone)
    if moved:
        put_parent(txn, node.inode, target_dir.inode)


def _exchange(
    op: Op, txn: Transaction, source: tuple[Inode, bytes, Inode], target: tuple[Inode, bytes, Inode]
) -> None:
    source_dir, source_name, node = source
    target_dir, target_name, other = target
    put_dirent(txn, source_dir.inode, source_name, Dirent(other.inode, other.kind))
    put_dirent(txn, target_dir.inode, target_name, Dirent(node.inode, node.kind))
    more = int(node.is_directory) - int(other.is_directory)
    if source_dir.inode == target_dir.inode:
        more = 0
    touch_directory(txn, source_dir.inode, op.now_ns, subdirectories=-more)
    touch_directory(txn, target_dir.inode, op.now_ns, subdirectories=more)
    if source_dir.inode != target_dir.inode:
        if node.is_directory:
            put_parent(txn, node.inode, target_dir.inode)
        if other.is_directory:
            put_parent(txn, other.inode, source_dir.inode)


OPERATION = Operation(RENAME, rename)
