"""DROP_EXPIRED: forget records whose retention is over, the members behind first (design 4.9)."""

from __future__ import annotations

import asyncio

from fs3.errors import InvalidRequest, StaleRouting
from fs3.rpc.service import Call
from fs3.wire.storage import EXPIRED_MAX, DropExpiredRequest, DropExpiredResponse

from ..node import StorageNode

ANSWER_MARGIN_S = 0.05


async def drop_expired(node: StorageNode, call: Call, request: DropExpiredRequest) -> DropExpiredResponse:
    """Have them dropped behind, then here; answers with those that somebody still needs.

    Raises InvalidRequest, StaleRouting (also: the caller is not the predecessor), Unavailable (a member does
    not answer, or does not know the time), MaybeApplied.
    """
    call.peer.require_node()
    if len(request.records) > EXPIRED_MAX:
        raise InvalidRequest(f"{len(request.records)} records, at most {EXPIRED_MAX} at a time")
    runner = node.runner(request.chain)
    standing = runner.replica.gate.standing
    before = standing.predecessor if standing is not None else None
    if before is None or (call.peer.node, call.peer.generation) != (before.node, before.generation):
        # the head begins by itself: from anybody else it would go before, and without, those in between
        raise StaleRouting(f"node {call.peer.node} is not the predecessor of target {runner.target:x}")
    timeout_s = call.deadline_s - asyncio.get_running_loop().time() - ANSWER_MARGIN_S
    kept = await node.dropping.drop(runner, request.chain_version, request.records, max(timeout_s, 0.001))
    return DropExpiredResponse(kept=kept)
