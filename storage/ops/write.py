"""WRITE: a client's update of one chunk, to the head of its chain (design 4.3, 4.5).

The payload is compared with its sums once, in the thread that received it, while it is hot in cache; a large
one's thread then does all the rest (``hop``).
"""

from __future__ import annotations

from fs3.errors import CapabilityExpired, InvalidRequest
from fs3.identity.capability import Rights
from fs3.ids import FIRST_CLIENT_SESSION
from fs3.rpc.service import Call, ThreadedCall
from fs3.wire.chunk import UpdateResult, WriterTag
from fs3.wire.storage import WriteRequest, WriteResponse

from ..effects import Done, WriteAsk
from ..held import LoopBytes
from ..hop import Hop
from ..node import StorageNode
from ..runner import TargetRunner
from ..sums import check_payload, problem_of_update

ANSWER_MARGIN_S = 0.05
"""A request is given up this long before its deadline, so that the answer says what is known of it."""
SEQUENCE_MAX = (1 << 64) - 1
_EMPTY = memoryview(b"")


def _validate(call: Call, request: WriteRequest) -> None:
    payload = call.payload if call.payload is not None else _EMPTY
    problem = problem_of_update(
        request.kind,
        request.offset_bytes,
        request.length_bytes,
        len(request.sums),
        request.chunk_size_bytes,
        len(payload),
    )
    if problem is not None:
        raise problem
    if request.session < FIRST_CLIENT_SESSION or not 0 <= request.sequence <= SEQUENCE_MAX:
        raise InvalidRequest(f"session {request.session}, sequence {request.sequence}")
    check_payload(payload, request.offset_bytes, request.sums)


async def write(node: StorageNode, call: Call, request: WriteRequest) -> WriteResponse:
    """Apply the update on the whole chain, exactly once, and answer with its identity.

    Raises StaleRouting, StaleFile, SessionLost, CapabilityExpired, Busy, MaybeApplied (the chain has not
    taken it in time: ask again under the same sequence), FsError ENOSPC, CorruptData, InvalidRequest.
    """
    runner, ask = _admitted(node, call, request)
    held = LoopBytes(call.payload) if call.payload is not None else None
    deadline_s = call.deadline_s - ANSWER_MARGIN_S
    started_s = node.clock.boot_s()
    done = await runner.ask(
        lambda ticket, now_s: runner.replica.on_write(ticket, ask, held, now_s, deadline_s), held
    )
    assert done is not None, ask
    return _response(node, done, started_s)


def write_in_thread(node: StorageNode, call: ThreadedCall, request: WriteRequest) -> WriteResponse:
    """The same in a thread of the bulk plane (``hop``)."""
    runner, ask = _admitted(node, call, request)
    hop = Hop(call.payload if call.payload is not None else _EMPTY)
    deadline_s = call.deadline_s - ANSWER_MARGIN_S
    started_s = node.clock.boot_s()
    done = runner.ask_here(
        lambda ticket, now_s: runner.replica.on_write(ticket, ask, hop, now_s, deadline_s),
        hop,
        call.peer_has_gone,
    )
    return _response(node, done, started_s)


def _admitted(node: StorageNode, call: Call, request: WriteRequest) -> tuple[TargetRunner, WriteAsk]:
    """Everything that can be said of a request without its chunk."""
    _validate(call, request)
    capability = node.access.check(
        call.peer, request.session, request.capability, request.chunk.inode, Rights.WRITE
    )
    if capability.epoch != request.epoch:
        raise CapabilityExpired(f"the capability is of epoch {capability.epoch}, not {request.epoch}")
    return node.runner(request.chain), WriteAsk(
        request.chunk,
        request.chain_version,
        request.kind,
        request.offset_bytes,
        request.length_bytes,
        request.sums,
        WriterTag(request.session, request.channel, request.sequence),
        request.epoch,
        request.chunk_size_bytes,
    )


def _response(node: StorageNode, done: Done, started_s: float) -> WriteResponse:
    node.counts.update_s.observe(node.clock.boot_s() - started_s)
    return WriteResponse(result=UpdateResult(identity=done.identity, length_bytes=done.length_bytes))
