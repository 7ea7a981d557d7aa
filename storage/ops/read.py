"""READ: ranges of chunks, 1 … 1024 in one request; the answer streams back in parts (design 4.4, 4.8).

In a thread of the bulk plane: choose, look up, ``sendfile``. As soon as one item has a pending version the
whole request goes to the event loop, which sends what is ready and asks for the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial

from fs3.errors import Fs3Error, MaybeApplied, StaleRouting, Unavailable
from fs3.ids import ChainId, ChainVersion, ChunkId
from fs3.rpc.service import Call, Reply
from fs3.wire.chunk import Identity
from fs3.wire.storage import QUERY_VERSION, QueryVersionRequest, ReadRequest, ReadResponse

from ..lanes import READS
from ..node import StorageNode
from ..read_batch import ReadBatch, WouldWait
from ..small_reads import read_small

QUERY_TIMEOUT_S = 1.0
"""Longest wait for the last serving member: the reader can ask it itself."""
ANSWER_MARGIN_S = 0.05


def read_in_thread(node: StorageNode, call: Call, request: ReadRequest) -> Reply[ReadResponse] | None:
    """The whole answer from a bulk thread; None: something is pending, let ``read`` do it."""
    started_s = node.clock.boot_s()
    batch = ReadBatch(node, call.peer, request)
    ready, waiting = batch.ready_ranges()
    if waiting:
        return None
    for part in ready[:-1]:
        call.send_part(batch.build(part, wait=True))
    last = batch.build(ready[-1], wait=True)
    node.counts.read_s.observe(node.clock.boot_s() - started_s)
    return last


def read(
    node: StorageNode, call: Call, request: ReadRequest
) -> Reply[ReadResponse] | Awaitable[Reply[ReadResponse]]:
    """Answer on the event loop: small reads that are usual at once, others with waits for the disk in a lane,
    and for the last serving member.

    Errors of single items are in their results: StaleRouting (another replica, or newer routing), Busy,
    CorruptData (another replica; this one is being repaired), CapabilityExpired, Unauthenticated.
    """
    started_s = node.clock.boot_s()
    reply = read_small(node, call.peer, request)
    if reply is None:
        return _read_timed(node, call, request, started_s)
    node.counts.read_s.observe(node.clock.boot_s() - started_s)
    return reply


async def _read_timed(
    node: StorageNode, call: Call, request: ReadRequest, started_s: float
) -> Reply[ReadResponse]:
    last = await _read(node, call, request)
    node.counts.read_s.observe(node.clock.boot_s() - started_s)
    return last


async def _read(node: StorageNode, call: Call, request: ReadRequest) -> Reply[ReadResponse]:
    batch = ReadBatch(node, call.peer, request)
    ready, waiting = batch.ready_ranges()
    last_ready = ready.pop() if not waiting else None
    for part in ready:
        call.send_part(await _build(node, batch, part))
    if last_ready is not None:
        return await _build(node, batch, last_ready)
    for (chain, version), chunks in batch.to_ask().items():
        try:
            committed = await _ask(node, call, chain, version, chunks)
        except Fs3Error as error:
            batch.failed(chain, version, _for_reader(error))
        else:
            batch.answered(chain, version, dict(zip(chunks, committed, strict=True)))
    for part in waiting[:-1]:
        call.send_part(await _build(node, batch, part))
    return await _build(node, batch, waiting[-1])


def _for_reader(error: Fs3Error) -> Fs3Error:
    """Whatever kept the last member from answering: the reader tries another replica, or newer routing."""
    return StaleRouting(str(error)) if isinstance(error, MaybeApplied | Unavailable) else error


async def _build(node: StorageNode, batch: ReadBatch, part: range) -> Reply[ReadResponse]:
    try:
        return batch.build(part, wait=False)
    except WouldWait:
        return await node.lanes.run(READS, partial(batch.build, part, wait=True))


async def _ask(
    node: StorageNode, call: Call, chain: ChainId, version: ChainVersion, chunks: list[ChunkId]
) -> tuple[Identity | None, ...]:
    """What is committed of these chunks, as the last serving member says (which may be this one)."""
    runner = node.runner(chain)
    standing = runner.replica.gate.standing
    if standing is None or standing.version != version or standing.last_serving is None:
        raise StaleRouting(f"chain {chain} has changed")
    deadline_s = call.deadline_s - ANSWER_MARGIN_S
    if standing.is_last_serving:
        await runner.ask(lambda ticket, now_s: runner.replica.on_settle(ticket, chunks, deadline_s))
        found = (runner.store.versions(chunk).committed for chunk in chunks)
        return tuple(committed.identity if committed is not None else None for committed in found)
    address = node.membership.routing.address_of(standing.last_serving.target)
    if address is None:
        raise StaleRouting(f"the node of target {standing.last_serving.target:x} is not in routing")
    node.counts.queries.value += 1
    answer = await node.caller.call(
        address,
        QUERY_VERSION,
        QueryVersionRequest(chain=chain, chain_version=version, chunks=tuple(chunks)),
        timeout_s=QUERY_TIMEOUT_S,
    )
    if len(answer.committed) != len(chunks):
        raise Unavailable(f"{len(answer.committed)} answers to {len(chunks)} questions")
    return answer.committed
