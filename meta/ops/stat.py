"""stat: the attributes of a path."""

from __future__ import annotations

from fs3.kv.transaction import Transaction
from fs3.wire.meta import STAT, StatRequest, StatResponse

from ..driver import Operation, reading
from ..inode import shown
from ..path import existing
from ..services import Op


async def stat(op: Op, txn: Transaction, request: StatRequest) -> StatResponse:
    """ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG, ESTALE."""
    reads = txn.snapshot
    _, record = await existing(reads, op.who, request.path, follow=request.follow)
    return StatResponse(attributes=await shown(reads, record))


OPERATION = Operation(STAT, stat, mutation=reading, only_reads=True)
