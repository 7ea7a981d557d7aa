"""Names: from a path to the directory and entry that it means.

All reads are snapshot reads; attributes on the way are read without conflict (design 3.2: creates must not
meet every chmod above). An operation that changes something hands in its transaction as ``watch``: then the
names on its way are read with conflict, so that a rename or removal of one of them that is committed
meanwhile makes it look again. Without that, the answers of the two would fit no order of them.

Symlinks are followed on the server, at most ``SYMLINKS_MAX``; absolute ones start at the root of the file
system, ``..`` of the root is the root: no path leads out of the tree.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from fs3.errors import fs_error
from fs3.ids import ROOT_INODE, InodeId
from fs3.kv.transaction import ReadTransaction, Transaction
from fs3.wire.meta import NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX, InodeKind, Path

from .acl import SEARCH, Who, require
from .dirent import dirent_key, get_dirent
from .inode import Inode, get_inode, get_parent, parent_key

SYMLINKS_MAX = 40
_HERE = (b".", b"..")


@dataclass(frozen=True, slots=True)
class Found:
    """Where a path leads."""

    parent: Inode | None
    """The directory of the last name; None: the path is an inode itself (empty, ``.``, ``..``, ``/``)."""
    name: bytes
    """Last name; empty when ``parent`` is None."""
    node: Inode | None
    """What is there; None: no entry of that name."""
    must_be_directory: bool = False
    """The text ended with a slash."""


def split(text: bytes) -> list[bytes]:
    """The names of a path's text. ENAMETOOLONG, EINVAL (a zero byte)."""
    if len(text) > PATH_BYTES_MAX:
        raise fs_error(errno.ENAMETOOLONG, f"path is longer than {PATH_BYTES_MAX} bytes", text[:80])
    if b"\0" in text:
        raise fs_error(errno.EINVAL, "path contains a zero byte", text)
    names = [name for name in text.split(b"/") if name and name != b"."]
    if len(names) > PATH_DEPTH_MAX:
        raise fs_error(errno.ENAMETOOLONG, f"path has more than {PATH_DEPTH_MAX} names", text[:80])
    for name in names:
        if len(name) > NAME_BYTES_MAX:
            raise fs_error(errno.ENAMETOOLONG, f"name is longer than {NAME_BYTES_MAX} bytes", text)
    return names


async def resolve(
    txn: ReadTransaction, who: Who, path: Path, *, follow: bool, watch: Transaction | None = None
) -> Found:
    """Follow ``path``; ``follow``: also through a symlink at its end; ``watch``: see the module's text.

    Raises ENOENT, ENOTDIR, EACCES (no search right on a directory), ELOOP, ENAMETOOLONG, EINVAL; ESTALE when
    the base inode is gone.
    """
    text = path.text
    names = split(text)
    names.reverse()
    node: Inode | None = await _base(txn, path.base, text)
    must_be_directory = text.endswith((b"/", b"/."))
    symlinks = 0
    found = Found(None, b"", node, must_be_directory)
    while names:
        name = names.pop()
        if node is None:
            raise fs_error(errno.ENOENT, "", text)
        if node.kind is not InodeKind.DIRECTORY:
            raise fs_error(errno.ENOTDIR, "", text)
        require(who, node, SEARCH, text)
        if name == b"..":
            node = await _above(txn, node, text, watch)
            found = Found(None, b"", node, must_be_directory)
            continue
        directory = node
        if watch is not None:
            watch.add_read_conflict_key(dirent_key(directory.inode, name))
        entry = await get_dirent(txn, directory.inode, name)
        node = None if entry is None else await get_inode(txn, entry.inode)
        assert entry is None or node is not None, f"entry {name!r} of {directory.inode:x} names no inode"
        if node is not None and node.kind is InodeKind.SYMLINK and (names or follow or must_be_directory):
            symlinks += 1
            if symlinks > SYMLINKS_MAX:
                raise fs_error(errno.ELOOP, "", text)
            target = node.symlink_target
            names.extend(reversed(split(target)))
            node = await _base(txn, ROOT_INODE, text) if target.startswith(b"/") else directory
            found = Found(None, b"", node, must_be_directory)
            continue
        found = Found(directory, name, node, must_be_directory)
    if must_be_directory and found.node is not None and found.node.kind is not InodeKind.DIRECTORY:
        raise fs_error(errno.ENOTDIR, "", text)
    return found


async def existing(
    txn: ReadTransaction, who: Who, path: Path, *, follow: bool, watch: Transaction | None = None
) -> tuple[Found, Inode]:
    """``resolve``; ENOENT when there is nothing."""
    found = await resolve(txn, who, path, follow=follow, watch=watch)
    if found.node is None:
        raise fs_error(errno.ENOENT, "", path.text)
    return found, found.node


async def named(
    txn: ReadTransaction, who: Who, path: Path, *, watch: Transaction | None = None
) -> tuple[Inode, bytes, Inode | None]:
    """(directory, last name, what is there) of a path that must end in a name; symlinks there stay.

    EINVAL for ``.`` and ``..``; EBUSY for the root; ENOENT when the directory is being removed.
    """
    tail = path.text.rstrip(b"/").rsplit(b"/", 1)[-1]
    if tail in _HERE:
        raise fs_error(errno.EINVAL, "the last name is . or ..", path.text)
    # A slash behind the last name asks for a directory; it must not make us follow a symlink there.
    bare = Path(path.text.rstrip(b"/"), path.base)
    found = await resolve(txn, who, bare, follow=False, watch=watch)
    if found.parent is None:
        if found.node is not None and found.node.inode == ROOT_INODE:
            raise fs_error(errno.EBUSY, "this is the root directory", path.text)
        raise fs_error(errno.EINVAL, "a name is needed", path.text)
    slash = path.text.endswith(b"/")
    if slash and found.node is not None and found.node.kind is not InodeKind.DIRECTORY:
        raise fs_error(errno.ENOTDIR, "", path.text)
    return found.parent, found.name, found.node


async def _base(txn: ReadTransaction, base: InodeId, text: bytes) -> Inode:
    node = await get_inode(txn, base)
    if node is None:
        raise fs_error(errno.ESTALE, f"inode {base:x} is gone", text or None)
    return node


async def _above(txn: ReadTransaction, node: Inode, text: bytes, watch: Transaction | None) -> Inode:
    if node.inode == ROOT_INODE:
        return node
    if watch is not None:
        watch.add_read_conflict_key(parent_key(node.inode))
    parent = await get_parent(txn, node.inode)
    above = None if parent is None else await get_inode(txn, parent)
    if above is None:
        raise fs_error(errno.ENOENT, "the directory is being removed", text)
    return above
