"""UPDATE: a numbered update from the predecessor in the chain (design 4.3)."""

from __future__ import annotations

from fs3.errors import InvalidRequest, StaleRouting
from fs3.ids import Generation, TargetId, node_of_target
from fs3.rpc.service import Call, ThreadedCall
from fs3.wire.chunk import Update
from fs3.wire.storage import UpdateRequest, UpdateResponse

from ..effects import Done, UpdateAsk
from ..held import LoopBytes
from ..hop import Hop
from ..node import StorageNode
from ..runner import TargetRunner
from ..sums import check_payload, problem_of_update

ANSWER_MARGIN_S = 0.05
_EMPTY = memoryview(b"")


def check_update(call: Call, update: Update) -> None:
    """InvalidRequest, CorruptData: the update, or its payload, is not what it should be."""
    payload = call.payload if call.payload is not None else _EMPTY
    problem = problem_of_update(
        update.kind,
        update.offset_bytes,
        update.length_bytes,
        len(update.sums),
        update.chunk_size_bytes,
        len(payload),
    )
    if problem is not None:
        raise problem
    if update.identity.update_version < 1:
        raise InvalidRequest(f"update version {update.identity.update_version}")
    check_payload(payload, update.offset_bytes, update.sums)


async def update(node: StorageNode, call: Call, request: UpdateRequest) -> UpdateResponse:
    """Stage it, have it staged behind, commit it; answered when it is committed here.

    Raises StaleRouting, Busy, MaybeApplied, Unavailable (versions in between are missing, target offline),
    CorruptData, InvalidRequest.
    """
    runner, ask = _admitted(node, call, request)
    held = LoopBytes(call.payload) if call.payload is not None else None
    deadline_s = call.deadline_s - ANSWER_MARGIN_S
    started_s = node.clock.boot_s()
    done = await runner.ask(
        lambda ticket, now_s: runner.replica.on_update(ticket, ask, held, now_s, deadline_s), held
    )
    assert done is not None, ask
    return _response(node, done, started_s)


def update_in_thread(node: StorageNode, call: ThreadedCall, request: UpdateRequest) -> UpdateResponse:
    """The same in a thread of the bulk plane (``hop``)."""
    runner, ask = _admitted(node, call, request)
    hop = Hop(call.payload if call.payload is not None else _EMPTY)
    deadline_s = call.deadline_s - ANSWER_MARGIN_S
    started_s = node.clock.boot_s()
    done = runner.ask_here(
        lambda ticket, now_s: runner.replica.on_update(ticket, ask, hop, now_s, deadline_s),
        hop,
        call.peer_has_gone,
    )
    return _response(node, done, started_s)


def _admitted(node: StorageNode, call: Call, request: UpdateRequest) -> tuple[TargetRunner, UpdateAsk]:
    """Everything that can be said of a request without its chunk."""
    call.peer.require_node()
    check_update(call, request.update)
    runner = node.runner(request.chain)
    check_sender(call, request.sender, runner.sender_generation(request.sender))
    return runner, UpdateAsk(request.update, request.chain_version, request.sender)


def _response(node: StorageNode, done: Done, started_s: float) -> UpdateResponse:
    node.counts.update_s.observe(node.clock.boot_s() - started_s)
    return UpdateResponse(
        identity=done.identity, length_bytes=done.length_bytes, content_sum=done.content_sum
    )


def check_sender(call: Call, sender: TargetId, generation: Generation | None) -> None:
    """The connection is of the very node, in the generation that the record names (design 2.7)."""
    if call.peer.node != node_of_target(sender) or call.peer.generation != generation:
        raise StaleRouting(
            f"node {call.peer.node} of generation {call.peer.generation} does not send for "
            f"target {sender:x} of generation {generation}"
        )
