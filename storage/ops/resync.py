"""The receiver's part of a resync: RESYNC_BEGIN, _RECORDS, _PAGE, _PUT, _DONE (design 4.6).

All come from the predecessor while this target is SYNCING, under the chain version of both.
"""

from __future__ import annotations

from functools import partial

from fs3.errors import InvalidRequest, StaleRouting
from fs3.ids import ChainVersion
from fs3.rpc.service import Call
from fs3.wire.chunk import UpdateKind
from fs3.wire.storage import (
    RESYNC_RECORDS_MAX,
    ResyncBeginRequest,
    ResyncBeginResponse,
    ResyncDoneRequest,
    ResyncDoneResponse,
    ResyncFrom,
    ResyncPageRequest,
    ResyncPageResponse,
    ResyncPutRequest,
    ResyncPutResponse,
    ResyncRecordsRequest,
    ResyncRecordsResponse,
)

from ..arrival import WHOLE
from ..effects import Resynced, UpdateAsk
from ..engine.store import ChunkStore
from ..engine.versions import DedupRecord, EpochRecord
from ..held import LoopBytes
from ..lanes import READS
from ..node import StorageNode
from ..resync.pages import receiver_page
from ..resync.plan import record_of
from ..runner import TargetRunner
from .update import check_sender, check_update

ANSWER_MARGIN_S = 0.05
_TAKEN = ResyncRecordsResponse()
_STATED = ResyncDoneResponse()


def _admitted(node: StorageNode, call: Call, source: ResyncFrom) -> TargetRunner:
    """StaleRouting, Unavailable, Busy (what was pending is being dropped), Unauthenticated."""
    call.peer.require_node()
    runner = node.runner(source.chain)
    check_sender(call, source.sender, runner.sender_generation(source.sender))
    _check_turn(runner, source)
    return runner


def _check_turn(runner: TargetRunner, source: ResyncFrom) -> None:
    """Also after each wait: the chain may have changed."""
    gate = runner.replica.gate
    if (error := gate.update_problem(source.chain_version, source.sender)) is not None:
        raise error
    if not gate.is_syncing:
        raise StaleRouting(f"target {runner.target:x} is not SYNCING")
    if source.since and source.since != gate.syncing_since:
        raise StaleRouting(f"target {runner.target:x} is SYNCING since {gate.syncing_since}: begin again")


async def resync_begin(node: StorageNode, call: Call, request: ResyncBeginRequest) -> ResyncBeginResponse:
    """Say who this is and since when it lacks what. Raises as ``_admitted``."""
    runner = _admitted(node, call, request.source)
    store = runner.store
    if store.number_floor < request.number_floor:
        await runner.committer.wait(partial(store.raise_floor, request.number_floor))
        _check_turn(runner, request.source)
    note = await node.lanes.run(READS, store.newest_note)
    return ResyncBeginResponse(
        since=runner.replica.gate.syncing_since,
        store_id=store.store_id,
        complete_version=note[0] if note is not None else ChainVersion(0),
    )


async def resync_records(
    node: StorageNode, call: Call, request: ResyncRecordsRequest
) -> ResyncRecordsResponse:
    """Merge epochs, ended sessions and channels by maximum, durably. Raises as ``_admitted``."""
    runner = _admitted(node, call, request.source)
    count = len(request.epochs) + len(request.sessions) + len(request.channels)
    if count > RESYNC_RECORDS_MAX:
        raise InvalidRequest(f"{count} records, at most {RESYNC_RECORDS_MAX} at a time")
    await runner.committer.wait(partial(_merge, runner.store, request))
    _check_turn(runner, request.source)
    return _TAKEN


def _merge(store: ChunkStore, request: ResyncRecordsRequest) -> None:
    """In the committer's lane: no end of a session comes between."""
    if request.epochs:
        store.set_epochs([EpochRecord(e.inode, e.epoch, e.raised_ms) for e in request.epochs])
    if request.sessions:
        store.merge_sessions([(s.session, s.ended_ms) for s in request.sessions])
    if request.channels:
        store.merge_dedup(
            [DedupRecord(c.session, c.channel, c.sequence, c.chunk, c.result) for c in request.channels]
        )


async def resync_page(node: StorageNode, call: Call, request: ResyncPageRequest) -> ResyncPageResponse:
    """What is committed here of chunks. Raises as ``_admitted``, and InvalidRequest."""
    runner = _admitted(node, call, request.source)
    if len(request.chunks) > RESYNC_RECORDS_MAX:
        raise InvalidRequest(f"{len(request.chunks)} chunks, at most {RESYNC_RECORDS_MAX} at a time")
    base = runner.store.chain_version_note(request.changed_after) if request.changed_after else 0
    if base is None:
        raise StaleRouting(f"target {runner.target:x} has no note of version {request.changed_after}")
    work = partial(receiver_page, runner.store, request.chunks, request.after, request.through, base)
    records, through = await node.lanes.run(READS, work)
    _check_turn(runner, request.source)
    return ResyncPageResponse(records=records, through=through)


async def resync_put(node: StorageNode, call: Call, request: ResyncPutRequest) -> ResyncPutResponse:
    """Take a version that is committed at the source, and commit it; or say what is here instead.

    Raises as ``_admitted``; Busy, InvalidRequest, CorruptData, DeadlineExceeded, FsError ENOSPC.
    """
    runner = _admitted(node, call, request.source)
    update, forgets = request.update, request.forgets
    check_update(call, update)
    if update.kind not in WHOLE or (
        forgets and (request.replaces is None or update.kind is not UpdateKind.REMOVE)
    ):
        raise InvalidRequest(f"{update.kind.name} cannot be resynced")
    source = request.source
    resync = Resynced(request.replaces, forgets)
    ask = UpdateAsk(update, source.chain_version, source.sender, resync)
    held = LoopBytes(call.payload) if call.payload is not None else None
    deadline_s = call.deadline_s - ANSWER_MARGIN_S
    try:
        await runner.ask(
            lambda ticket, now_s: runner.replica.on_update(ticket, ask, held, now_s, deadline_s), held
        )
    except StaleRouting:
        _check_turn(runner, source)
        is_applied = False
    else:
        is_applied = True
        node.resync.received.value += update.length_bytes
        if forgets:
            gone = [(update.chunk, update.identity)]
            await runner.committer.wait(partial(runner.store.drop_tombstones, gone))
    _check_turn(runner, source)
    state = runner.store.versions(update.chunk)
    return ResyncPutResponse(applied=is_applied, present=record_of(update.chunk, state))


async def resync_done(node: StorageNode, call: Call, request: ResyncDoneRequest) -> ResyncDoneResponse:
    """Make what came durable and report UPTODATE at this chain version (2.6). Raises as ``_admitted``."""
    runner = _admitted(node, call, request.source)
    await runner.committer.wait(runner.store.flush)
    _check_turn(runner, request.source)
    runner.replica.gate.synced_version = request.source.chain_version
    node.targets.report()
    return _STATED
