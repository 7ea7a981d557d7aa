"""RAISE_EPOCH and END_SESSION: from a meta service to the head, then hop by hop (design 4.5, 4.9)."""

from __future__ import annotations

from fs3.errors import InvalidRequest, StaleRouting
from fs3.ids import FIRST_CLIENT_SESSION, ChainVersion
from fs3.rpc.service import Call
from fs3.wire.storage import (
    EndSessionRequest,
    EndSessionResponse,
    RaiseEpochRequest,
    RaiseEpochResponse,
)

from ..effects import Decree, EpochRaise, SessionEnd
from ..node import StorageNode
from ..runner import TargetRunner

ANSWER_MARGIN_S = 0.05
EPOCH_MAX = (1 << 32) - 1
_ENDED = EndSessionResponse()


async def raise_epoch(node: StorageNode, call: Call, request: RaiseEpochRequest) -> RaiseEpochResponse:
    """Put an epoch in force on all members of the chain, from here on; answers with the one in force.

    Raises StaleRouting, Busy, DeadlineExceeded (ask again), Unavailable.
    """
    if not 0 < request.epoch <= EPOCH_MAX:
        raise InvalidRequest(f"epoch {request.epoch}")
    runner = node.runner(request.chain)
    await _keep(runner, call, request.chain_version, EpochRaise(request.inode, request.epoch))
    return RaiseEpochResponse(runner.store.epoch(request.inode))


async def end_session(node: StorageNode, call: Call, request: EndSessionRequest) -> EndSessionResponse:
    """Refuse every later update of a client session, on all members from here on. Raises as above."""
    if request.session < FIRST_CLIENT_SESSION:
        raise InvalidRequest(f"session {request.session} is reserved")
    await _keep(node.runner(request.chain), call, request.chain_version, SessionEnd(request.session))
    return _ENDED


async def _keep(runner: TargetRunner, call: Call, version: ChainVersion, decree: Decree) -> None:
    call.peer.require_node()
    standing = runner.replica.gate.standing
    before = standing.predecessor if standing is not None else None
    if before is not None and (call.peer.node, call.peer.generation) != (before.node, before.generation):
        # whoever is not the head takes decrees from its predecessor only: none may overtake the head's
        raise StaleRouting(f"target {runner.target:x} is not the head, node {call.peer.node} not before it")
    deadline_s = call.deadline_s - ANSWER_MARGIN_S
    await runner.ask(
        lambda ticket, now_s: runner.replica.on_decree(ticket, decree, version, now_s, deadline_s)
    )
