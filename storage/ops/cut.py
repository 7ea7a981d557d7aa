"""CUT: remove a file's chunks from some index on, and shorten the one before (design 3.6, 4.9).

Each is an update of its own, made by the head, that goes down the chain like a client's. Doing it again
does nothing: a chunk that is gone, or short enough, is left alone.
"""

from __future__ import annotations

from fs3.errors import InvalidRequest, StaleFile
from fs3.ids import HEAD_SESSION, ChunkId
from fs3.rpc.service import Call
from fs3.wire.chunk import CHUNK_BYTES_MAX, UpdateKind, WriterTag
from fs3.wire.storage import CutRequest, CutResponse

from ..effects import WriteAsk
from ..node import StorageNode
from ..runner import TargetRunner

ANSWER_MARGIN_S = 0.05
COUNT_MAX = 1024
AT_ONCE = 32
"""Removals under way at a time: as many as one sync takes well."""
_HEAD = WriterTag(HEAD_SESSION, 0, 0)


async def cut(node: StorageNode, call: Call, request: CutRequest) -> CutResponse:
    """Cut the file on this chain; ``more``: ask again.

    Raises StaleFile (a higher epoch is in force), InvalidRequest (the epoch is not in force yet),
    StaleRouting, MaybeApplied, Busy.
    """
    call.peer.require_node()
    if not 1 <= request.max_count <= COUNT_MAX or request.first_removed < 0:
        raise InvalidRequest(f"cut from {request.first_removed}, at most {request.max_count}")
    if not -1 <= request.boundary_length_bytes <= request.chunk_size_bytes <= CHUNK_BYTES_MAX:
        raise InvalidRequest(f"cut to {request.boundary_length_bytes} of {request.chunk_size_bytes}")
    runner = node.runner(request.chain)
    problem = runner.replica.gate.write_problem(request.chain_version)
    if problem is not None:
        raise problem
    in_force = runner.store.epoch(request.inode)
    if in_force > request.epoch:
        raise StaleFile(f"epoch {in_force} is in force, the cut is of {request.epoch}")
    if in_force < request.epoch:
        raise InvalidRequest(f"epoch {request.epoch} is not in force, {in_force} is")
    if request.boundary_length_bytes >= 0 and request.first_removed > 0:
        await _shorten(runner, call, request)
    return await _remove(runner, call, request)


async def _shorten(runner: TargetRunner, call: Call, request: CutRequest) -> None:
    chunk = ChunkId(request.inode, request.first_removed - 1)
    await _settle(runner, call, [chunk])
    version = runner.store.versions(chunk).committed
    if version is None or version.removed or version.length_bytes <= request.boundary_length_bytes:
        return
    await _apply(runner, call, request, chunk, UpdateKind.TRUNCATE, request.boundary_length_bytes)


async def _remove(runner: TargetRunner, call: Call, request: CutRequest) -> CutResponse:
    """Remove up to ``max_count`` chunks that have bytes, in groups."""

    async def remove(chunk: ChunkId) -> None:
        await _apply(runner, call, request, chunk, UpdateKind.REMOVE, 0)

    await _settle(runner, call, runner.pendings_of(request.inode))
    after = ChunkId(request.inode, request.first_removed - 1) if request.first_removed else None
    removed_count = 0
    while True:
        page = runner.store.list_chunks(after, limit=1024, inode=request.inode)
        if not page:
            return CutResponse(removed_count=removed_count, more=False)
        after = page[-1][0]
        present = [c for c, state in page if state.committed is not None and not state.committed.removed]
        for start in range(0, len(present), AT_ONCE):
            group = present[start : start + min(AT_ONCE, request.max_count - removed_count)]
            await runner.each(remove, group, AT_ONCE)
            removed_count += len(group)
            if removed_count >= request.max_count:
                return CutResponse(removed_count=removed_count, more=True)


async def _settle(runner: TargetRunner, call: Call, chunks: list[ChunkId]) -> None:
    deadline_s = call.deadline_s - ANSWER_MARGIN_S
    await runner.ask(lambda ticket, now_s: runner.replica.on_settle(ticket, chunks, deadline_s))


async def _apply(
    runner: TargetRunner,
    call: Call,
    request: CutRequest,
    chunk: ChunkId,
    kind: UpdateKind,
    length_bytes: int,
) -> None:
    version = request.chain_version
    size_bytes = request.chunk_size_bytes
    ask = WriteAsk(chunk, version, kind, 0, length_bytes, (), _HEAD, request.epoch, size_bytes)
    deadline_s = call.deadline_s - ANSWER_MARGIN_S
    await runner.ask(lambda ticket, now_s: runner.replica.on_write(ticket, ask, None, now_s, deadline_s))
