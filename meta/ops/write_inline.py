"""write_inline: replace the content of a small file that is open for writing."""

from __future__ import annotations

import errno

import msgspec

from fs3.errors import StaleFile, fs_error
from fs3.kv.transaction import Transaction
from fs3.wire.meta import WRITE_INLINE, CloseResponse, Storage, WriteInlineRequest

from ..acl import without_set_id
from ..driver import Operation
from ..files import file_record, replace_content
from ..inode import put_inode, shown
from ..services import Op
from ..session import open_count


async def write_inline(op: Op, txn: Transaction, request: WriteInlineRequest) -> CloseResponse:
    """EBADF; EFBIG (move it out with ``spill``); StaleFile: written meanwhile, or not inline any more."""
    if len(request.content) > op.services.inline_limit_bytes:
        raise fs_error(errno.EFBIG, f"inline content is at most {op.services.inline_limit_bytes} bytes")
    record = await file_record(txn, request.inode)
    if not await open_count(txn, request.inode, request.mutation.session):
        raise fs_error(errno.EBADF, f"file {request.inode:x} is not open for writing")
    if record.storage is not Storage.INLINE:
        raise StaleFile("the file is not in the metadata store any more")
    if record.content_version != request.content_version:
        raise StaleFile(f"content is at version {record.content_version}, not {request.content_version}")
    changed = msgspec.structs.replace(
        replace_content(txn, record, request.content),
        mtime_ns=max(0, request.mtime_ns) or op.now_ns,
        ctime_ns=op.now_ns,
        mode=record.mode if op.who.uid == 0 else without_set_id(record),
    )
    put_inode(txn, changed)
    return CloseResponse(attributes=await shown(txn.snapshot, changed))


OPERATION = Operation(WRITE_INLINE, write_inline)
