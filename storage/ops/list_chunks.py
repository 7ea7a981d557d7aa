"""LIST_CHUNKS: a page of what one replica has, for whoever compares replicas and files (``fs3 fsck``).

Answered only by a member that serves, under a lease and the asker's chain version, checked before and after
the page was read: so members that answer for one version have all that is committed in it, but for what is
just being written.
"""

from __future__ import annotations

from functools import partial

from fs3.errors import InvalidRequest, StaleRouting
from fs3.ids import ChunkId
from fs3.rpc.service import Call
from fs3.wire.storage import LIST_CHUNKS_MAX, ListChunksRequest, ListChunksResponse, ListedChunk

from ..engine.store import ChunkStore
from ..engine.versions import ChunkState
from ..lanes import READS
from ..node import StorageNode
from ..runner import TargetRunner
from ..sums import content_sum

VERIFIED_BYTES_MAX = 64 * 1024 * 1024
"""Read for one page, so that its answer comes in time and others get the disk."""


async def list_chunks(node: StorageNode, call: Call, request: ListChunksRequest) -> ListChunksResponse:
    """Records in order behind ``behind``; with ``verify`` perhaps fewer than asked for.

    Raises StaleRouting (another chain version, not that target, not serving, no lease), InvalidRequest.
    """
    call.peer.require_node()
    if not 1 <= request.limit <= LIST_CHUNKS_MAX:
        raise InvalidRequest(f"a page of {request.limit} chunks")
    runner = node.runner(request.chain)
    _check(runner, request)
    look = partial(_page, runner.store, request.behind, request.limit, request.verify)
    answer = await node.lanes.run(READS, look)
    _check(runner, request)
    if request.mend:
        for record in answer.records:
            if record.bad_block_count:
                runner.report_corrupt(record.chunk, record.bad_block_count)
    return answer


def _check(runner: TargetRunner, request: ListChunksRequest) -> None:
    if runner.target != request.target:
        raise StaleRouting(f"this node's target of chain {request.chain} is {runner.target:x}")
    if (problem := runner.replica.gate.read_problem(request.chain_version)) is not None:
        raise problem


def _page(store: ChunkStore, behind: ChunkId | None, limit: int, verify: bool) -> ListChunksResponse:
    """In a lane: it may read the disk."""
    page = store.list_chunks(behind, limit)
    records: list[ListedChunk] = []
    read_bytes = 0
    for chunk, state in page:
        if read_bytes >= VERIFIED_BYTES_MAX:
            break
        bad_block_count = len(store.verify_chunk(chunk)) if verify else 0
        records.append(_listed(chunk, state, bad_block_count))
        if verify and state.committed is not None:
            read_bytes += state.committed.length_bytes
    return ListChunksResponse(records=tuple(records), more=len(page) == limit or len(records) < len(page))


def _listed(chunk: ChunkId, state: ChunkState, bad_block_count: int) -> ListedChunk:
    pending = state.pending.version.identity if state.pending is not None else None
    committed = state.committed
    if committed is None:
        return ListedChunk(chunk=chunk, pending=pending, bad_block_count=bad_block_count)
    return ListedChunk(
        chunk=chunk,
        identity=committed.identity,
        length_bytes=committed.length_bytes,
        content_sum=content_sum(committed.sums),
        removed=committed.removed,
        pending=pending,
        bad_block_count=bad_block_count,
    )
