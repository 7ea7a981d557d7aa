"""QUERY_LENGTH: where the written bytes of a file end on one chain (design 3.5)."""

from __future__ import annotations

from fs3.ids import ChunkId
from fs3.rpc.service import Call
from fs3.wire.storage import QueryLengthRequest, QueryLengthResponse

from ..node import StorageNode
from ..runner import TargetRunner

PAGE_CHUNKS = 1024


async def query_length(node: StorageNode, call: Call, request: QueryLengthRequest) -> QueryLengthResponse:
    """The last chunk with content, and totals, after what was pending at the head has been resolved.

    Raises StaleRouting (not the head, or no lease), DeadlineExceeded.
    """
    call.peer.require_node()
    runner = node.runner(request.chain)
    gate = runner.replica.gate
    if (problem := gate.write_problem(request.chain_version)) is not None:
        raise problem
    pending = runner.pendings_of(request.inode)
    deadline_s = call.deadline_s - 0.05
    await runner.ask(lambda ticket, now_s: runner.replica.on_settle(ticket, pending, deadline_s))
    answer = _totals(runner, request)
    if (problem := gate.write_problem(request.chain_version)) is not None:
        raise problem
    return answer


def _totals(runner: TargetRunner, request: QueryLengthRequest) -> QueryLengthResponse:
    index, length_bytes, count, used_bytes = -1, 0, 0, 0
    after: ChunkId | None = None
    while page := runner.store.list_chunks(after, PAGE_CHUNKS, inode=request.inode):
        after = page[-1][0]
        for chunk, state in page:
            version = state.committed
            if version is None or version.removed:
                continue
            count += 1
            used_bytes += version.length_bytes
            if version.length_bytes:
                index, length_bytes = chunk.chunk_index, version.length_bytes
    return QueryLengthResponse(
        chunk_index=index, length_bytes=length_bytes, chunk_count=count, used_bytes=used_bytes
    )
