"""close and sync: the exact length, and the end of the open record.

A length only grows at the epoch that the file has: what a writer says of an older epoch is dropped, for a
truncate or a settlement that came between has taken its bytes into account (design 3.5).
"""

from __future__ import annotations

import errno

import msgspec

from fs3.errors import InvalidRequest, StaleFile, fs_error
from fs3.kv.run import run
from fs3.kv.transaction import Transaction
from fs3.wire.meta import CLOSE, SYNC, CloseRequest, CloseResponse, Storage

from ..acl import without_set_id
from ..driver import Operation
from ..files import asked_end, check_length, file_record
from ..inode import Inode, get_inode, put_inode, shown
from ..services import REMOVAL_QUEUED, Event, Op
from ..session import open_count, unregister_open, writers

ASK_CHAINS = -1
"""``written_end_bytes``: the writer does not know; the chains are asked."""


async def prepare(op: Op, request: CloseRequest) -> None:
    """Ask the chains where the file ends, if the writer does not know it."""
    if request.written_end_bytes == ASK_CHAINS:
        services = op.services
        record = await run(
            services.kv,
            lambda txn: get_inode(txn, request.inode),
            clock=services.clock,
            rng=services.rng,
            deadline_s=op.deadline_s,
        )
        op.prepared = await asked_end(op, record)


async def close(op: Op, txn: Transaction, request: CloseRequest) -> CloseResponse:
    """EBADF: this session does not have it open; ESTALE; EFBIG; StaleFile: bytes were written to chunks of a
    file that is inline."""
    record = await file_record(txn, request.inode)
    session = request.mutation.session
    if request.keep_open:
        is_open = await open_count(txn, request.inode, session) > 0
    else:
        is_open = await unregister_open(txn, request.inode, session)
    if not is_open:
        raise fs_error(errno.EBADF, f"session {session:x} does not have file {request.inode:x} open")
    changed = _written(op, record, request)
    if changed != record:
        put_inode(txn, changed)
    if not record.nlink and not await writers(txn.snapshot, request.inode, limit=1):
        op.events.append(Event(REMOVAL_QUEUED, request.inode))
    return CloseResponse(attributes=await shown(txn.snapshot, changed))


def _written(op: Op, record: Inode, request: CloseRequest) -> Inode:
    end_bytes = request.written_end_bytes
    if end_bytes < ASK_CHAINS:
        raise InvalidRequest(f"written_end_bytes is {end_bytes}")
    if end_bytes == ASK_CHAINS:
        known = op.prepared
        end_bytes = known.end.length_bytes if known is not None and known.fits(record) else 0
    if end_bytes > 0:
        check_length(record, end_bytes)
        if record.storage is not Storage.CHUNKED:
            raise StaleFile("bytes were written to chunks, but the file is in the metadata store")
        mode = record.mode if op.who.uid == 0 else without_set_id(record)
        record = msgspec.structs.replace(record, mtime_ns=op.now_ns, ctime_ns=op.now_ns, mode=mode)
        if request.epoch == record.epoch and end_bytes > record.length_bytes:
            record = msgspec.structs.replace(record, length_bytes=end_bytes)
    if request.mtime_ns > 0:
        record = msgspec.structs.replace(record, mtime_ns=request.mtime_ns, ctime_ns=op.now_ns)
    return record


async def sync(op: Op, txn: Transaction, request: CloseRequest) -> CloseResponse:
    """The same; the file stays open."""
    return await close(op, txn, msgspec.structs.replace(request, keep_open=True))


CLOSE_OPERATION = Operation(CLOSE, close, prepare=prepare)
SYNC_OPERATION = Operation(SYNC, sync, prepare=prepare)
