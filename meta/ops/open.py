"""open: an existing file, for reading or writing.

Reading needs no record. Writing registers (session, inode) until close, and waits until an unfinished
truncate or settlement of the file is finished.
"""

from __future__ import annotations

import errno

from fs3.errors import fs_error
from fs3.kv.transaction import Transaction
from fs3.wire.meta import OPEN, Mutation, OpenMode, OpenRequest, OpenResponse

from ..driver import Operation
from ..files import open_existing, opened, refreshed, with_capability
from ..path import existing
from ..services import Op
from ..session import require_session


async def open_file(op: Op, txn: Transaction, request: OpenRequest) -> OpenResponse:
    """EISDIR, EACCES, EINVAL, ESTALE, and what the path may raise."""
    if not request.mode & (OpenMode.READ | OpenMode.WRITE):
        raise fs_error(errno.EINVAL, "open for reading or writing", request.path.text)
    session = request.mutation.session
    if not request.mode & OpenMode.WRITE:
        await require_session(txn.snapshot, session, op.peer.uid, is_admin=op.is_admin)
    watch = txn if needs_slot(request) else None
    _, seen = await existing(txn.snapshot, op.who, request.path, follow=True, watch=watch)
    record = await open_existing(op, txn, session, seen, request.mode, truncate=request.truncate)
    return await opened(op, txn, record, request.mode, created=False)


async def grant(op: Op, request: OpenRequest, response: OpenResponse) -> OpenResponse:
    """Cut what was truncated, then sign the capability."""
    if request.truncate:
        response = await refreshed(op, response)
    return with_capability(op, response, request.mutation.session, request.mode)


def needs_slot(request: OpenRequest) -> Mutation | None:
    """Opening for reading changes nothing."""
    return request.mutation if request.mode & OpenMode.WRITE or request.truncate else None


OPERATION = Operation(OPEN, open_file, mutation=needs_slot, finish=grant)
