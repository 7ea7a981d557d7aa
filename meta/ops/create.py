"""create: a new file, perhaps with its whole content, in one transaction.

A new file is inline and empty (or has the given content); one that outgrows that is moved out by its writer
(``spill``). Creates in one directory do not conflict: they read its attributes with conflict, so that they
meet rmdir and chmod, and write its times by atomic operations only (design 3.2).
"""

from __future__ import annotations

import errno

import msgspec

from fs3.errors import StaleFile, fs_error
from fs3.kv.transaction import Transaction
from fs3.layout import Layout
from fs3.wire.meta import CREATE, CreateRequest, InodeKind, OpenMode, OpenResponse, Storage

from ..acl import SEARCH, WRITE, new_group_and_mode, require
from ..dirent import Dirent, put_dirent
from ..driver import Operation
from ..files import calm_file, open_existing, opened, refreshed, replace_content, with_capability
from ..inode import Inode, content_key, count_inodes, put_inode, touch_directory, watch_inode
from ..path import Found, resolve
from ..services import Op
from ..session import register_open


async def create(op: Op, txn: Transaction, request: CreateRequest) -> OpenResponse:
    """EEXIST (exclusive), EISDIR, EACCES, EFBIG (content too long to be inline), EINVAL (layout);
    StaleFile: content for a file that exists in chunks (open it with truncate, and write)."""
    if request.content is not None and len(request.content) > op.services.inline_limit_bytes:
        raise fs_error(errno.EFBIG, f"content with create is at most {op.services.inline_limit_bytes} bytes")
    path = request.path
    if path.text.endswith((b"/", b"/.", b"/..")) or not path.text:
        raise fs_error(errno.EISDIR, "the path of a file ends in a name", path.text)
    found = await resolve(txn.snapshot, op.who, path, follow=not request.exclusive, watch=txn)
    if found.node is not None:
        if request.exclusive:
            raise fs_error(errno.EEXIST, "", path.text)
        record = await _existing(op, txn, found.node, request)
        return await opened(op, txn, record, request.mode, created=False)
    record = await _new_file(op, txn, found, request)
    return await opened(op, txn, record, request.mode, created=True)


async def _existing(op: Op, txn: Transaction, seen: Inode, request: CreateRequest) -> Inode:
    """Open what is there; with content, replace what is in it."""
    session = request.mutation.session
    if request.content is None:
        if not request.mode:
            if seen.kind is InodeKind.DIRECTORY:
                raise fs_error(errno.EISDIR, "", request.path.text)
            return seen
        return await open_existing(op, txn, session, seen, request.mode, truncate=request.truncate)
    if seen.kind is InodeKind.DIRECTORY:
        raise fs_error(errno.EISDIR, "", request.path.text)
    require(op.who, seen, WRITE, request.path.text)
    record = await calm_file(txn, seen.inode)
    if record.storage is not Storage.INLINE:
        raise StaleFile("the file exists and lies in chunks: open it with truncate, and write")
    record = msgspec.structs.replace(
        replace_content(txn, record, request.content),
        mtime_ns=max(0, request.mtime_ns) or op.now_ns,
        ctime_ns=op.now_ns,
    )
    put_inode(txn, record)
    if request.mode & OpenMode.WRITE:
        await register_open(txn, record.inode, session)
    return record


async def _new_file(op: Op, txn: Transaction, found: Found, request: CreateRequest) -> Inode:
    directory = found.parent
    assert directory is not None, "a path without an entry has a directory"
    require(op.who, directory, WRITE | SEARCH, request.path.text)
    if not directory.nlink:
        raise fs_error(errno.ENOENT, "the directory is being removed", request.path.text)
    watch_inode(txn, directory.inode)
    gid, mode = new_group_and_mode(op.who, directory, InodeKind.FILE, request.permissions)
    content = request.content or b""
    now_ns = op.now_ns
    record = Inode(
        inode=op.fresh_inode(),
        kind=InodeKind.FILE,
        mode=mode,
        uid=op.who.uid,
        gid=gid,
        nlink=1,
        length_bytes=len(content),
        atime_ns=now_ns,
        mtime_ns=max(0, request.mtime_ns) or now_ns,
        ctime_ns=now_ns,
        layout=op.services.placement.new_layout(request.layout or directory.layout or Layout()),
        storage=Storage.INLINE,
        content_version=1 if content else 0,
    )
    put_inode(txn, record)
    if content:
        txn.set(content_key(record.inode), content)
    put_dirent(txn, directory.inode, found.name, Dirent(record.inode, InodeKind.FILE))
    touch_directory(txn, directory.inode, now_ns)
    count_inodes(txn, record.inode, 1)
    if request.mode & OpenMode.WRITE:
        await register_open(txn, record.inode, request.mutation.session)
    return record


async def grant(op: Op, request: CreateRequest, response: OpenResponse) -> OpenResponse:
    """Cut what was truncated, then sign the capability."""
    if request.truncate and not response.created:
        response = await refreshed(op, response)
    return with_capability(op, response, request.mutation.session, request.mode)


OPERATION = Operation(CREATE, create, finish=grant, ids=lambda request: 1)
