"""Rights to take names out of directories: of one entry, and of everything in a tree."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fs3.errors import fs_error
from fs3.ids import InodeId
from fs3.kv.run import run
from fs3.kv.transaction import Transaction
from fs3.wire.meta import InodeKind, Path

from .acl import READ, SEARCH, STICKY, WRITE, Who, allowed, may_unlink, require_unlink
from .dirent import Dirent, list_dirents
from .inode import Inode, get_inode, watch_inode
from .path import named
from .services import Op

T = TypeVar("T")
PAGE = 512
TREE_DEPTH_MAX = 1024


def require_entry_rights(who: Who, txn: Transaction, directory: Inode, node: Inode, text: bytes) -> None:
    """``require_unlink``; in a sticky directory the owners count, so a chown meanwhile is a conflict."""
    require_unlink(who, directory, node, text)
    if directory.mode & STICKY:
        watch_inode(txn, directory.inode)
        watch_inode(txn, node.inode)


async def check_tree(op: Op, path: Path) -> InodeId | None:
    """Check page by page that the caller may delete all that lies below ``path``; returns what it checked.

    None: there is nothing, or no directory. EACCES or EPERM name the first path that is in the way. Pages
    are not one snapshot: the workers check again when they delete.
    """

    async def find(txn: Transaction) -> Inode | None:
        return (await named(txn.snapshot, op.who, path))[2]

    top = await _read(op, find)
    if top is None or top.kind is not InodeKind.DIRECTORY:
        return None
    if op.who.uid == 0:
        return top.inode
    # Depth first with a stack of (directory, its path, last name seen): memory grows with depth only.
    stack: list[tuple[Inode, bytes, bytes]] = [(top, path.text.rstrip(b"/"), b"")]
    while stack:
        directory, text, after = stack.pop()
        page, below = await _page(op, directory, text, after)
        if page:
            stack.append((directory, text, page))
        if len(stack) + len(below) > PAGE * TREE_DEPTH_MAX:
            raise fs_error(errno.ENAMETOOLONG, "the tree is too deep", text)
        stack.extend(below)
    return top.inode


async def _page(
    op: Op, directory: Inode, text: bytes, after: bytes
) -> tuple[bytes, list[tuple[Inode, bytes, bytes]]]:
    """Check a page of a directory: (last name, or nothing if that was all; the directories in it)."""

    async def body(txn: Transaction) -> tuple[list[tuple[bytes, Dirent]], dict[InodeId, Inode]]:
        reads = txn.snapshot
        entries = await list_dirents(reads, directory.inode, after, PAGE)
        nodes: dict[InodeId, Inode] = {}
        for _, entry in entries:
            if entry.kind is InodeKind.DIRECTORY or directory.mode & STICKY:
                node = await get_inode(reads, entry.inode)
                if node is not None:
                    nodes[entry.inode] = node
        return entries, nodes

    entries, nodes = await _read(op, body)
    if entries and not allowed(op.who, directory, READ | WRITE | SEARCH):
        raise fs_error(errno.EACCES, "you may not delete what is in this directory", text)
    below: list[tuple[Inode, bytes, bytes]] = []
    for name, entry in entries:
        node = nodes.get(entry.inode)
        if node is None:
            continue
        where = text + b"/" + name
        if not may_unlink(op.who, directory, node):
            raise fs_error(errno.EPERM, "directory is sticky, and neither it nor the entry is yours", where)
        if node.kind is InodeKind.DIRECTORY:
            below.append((node, where, b""))
    return (entries[-1][0] if len(entries) == PAGE else b""), below


async def _read(op: Op, body: Callable[[Transaction], Awaitable[T]]) -> T:
    services = op.services
    return await run(services.kv, body, clock=services.clock, rng=services.rng, deadline_s=op.deadline_s)
