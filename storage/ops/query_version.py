"""QUERY_VERSION: what is committed of some chunks, asked of the last serving member (design 4.4)."""

from __future__ import annotations

from collections.abc import Awaitable

from fs3.errors import InvalidRequest, StaleRouting
from fs3.ids import ChunkId
from fs3.rpc.service import Call
from fs3.wire.chunk import Identity
from fs3.wire.storage import READ_ITEMS_MAX, QueryVersionRequest, QueryVersionResponse

from ..node import StorageNode
from ..runner import TargetRunner


def query_version(
    node: StorageNode, call: Call, request: QueryVersionRequest
) -> QueryVersionResponse | Awaitable[QueryVersionResponse]:
    """The identities that are committed here now; chunks that have to be settled first are.

    Raises StaleRouting (not the last serving member at this version, or no lease), DeadlineExceeded.
    """
    call.peer.require_node()
    if not 1 <= len(request.chunks) <= READ_ITEMS_MAX:
        raise InvalidRequest(f"a query of {len(request.chunks)} chunks")
    runner = node.runner(request.chain)
    waiting = [chunk for chunk in request.chunks if runner.replica.must_settle(chunk)]
    if waiting:
        return _settled(runner, call, request, waiting)
    return _answer(runner, request)


async def _settled(
    runner: TargetRunner, call: Call, request: QueryVersionRequest, waiting: list[ChunkId]
) -> QueryVersionResponse:
    problem = runner.replica.gate.read_problem(request.chain_version)
    if problem is not None:
        raise problem
    await runner.ask(lambda ticket, now_s: runner.replica.on_settle(ticket, waiting, call.deadline_s - 0.05))
    return _answer(runner, request)


def _answer(runner: TargetRunner, request: QueryVersionRequest) -> QueryVersionResponse:
    committed: list[Identity | None] = []
    for chunk in request.chunks:
        version = runner.store.versions(chunk).committed
        committed.append(version.identity if version is not None else None)
    gate = runner.replica.gate
    problem = gate.read_problem(request.chain_version)  # where the versions were read (design 2.2)
    if problem is not None:
        raise problem
    if gate.standing is None or not gate.standing.is_last_serving:
        raise StaleRouting(f"target {runner.target:x} is not the last serving one")
    return QueryVersionResponse(committed=tuple(committed))
