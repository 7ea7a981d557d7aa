"""statfs: size and free space of the cluster, from the last survey of the storage nodes; number of inodes."""

from __future__ import annotations

from fs3.kv.transaction import Transaction
from fs3.wire.meta import STATFS, StatFsRequest, StatFsResponse

from ..driver import Operation, reading
from ..inode import inode_count
from ..services import Op


async def statfs(op: Op, txn: Transaction, request: StatFsRequest) -> StatFsResponse:
    """Space is a few seconds old; 0 until the first survey."""
    placement = op.services.placement
    return StatFsResponse(
        capacity_bytes=placement.capacity_bytes,
        free_bytes=placement.free_bytes,
        file_count=max(0, await inode_count(txn.snapshot)),
    )


OPERATION = Operation(STATFS, statfs, mutation=reading, only_reads=True)
