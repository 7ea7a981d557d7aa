"""spill: a small file moves out of the KV store, never back (design 3.9).

Start: the inode says ``spilling``, the writer gets the content and writes it as chunk 0. Finish: the inode
says ``chunked``, the content is dropped; only if nobody wrote it meanwhile. Empty content has nothing to
move: start makes it ``chunked`` at once, and there is nothing to finish. A spill whose writer is gone is
rolled back by the workers (``Finisher.roll_back_spill``).
"""

from __future__ import annotations

import errno

import msgspec

from fs3.errors import Busy, StaleFile, fs_error
from fs3.kv.transaction import Transaction
from fs3.wire.meta import SPILL, SpillRequest, SpillResponse, Storage

from ..driver import Operation
from ..files import file_record
from ..inode import Inode, content_key, put_inode, shown
from ..intents import SPILLS, SpillIntent, clear_intent, get_spill, put_spill
from ..services import Op, Unfinished
from ..session import open_count


async def spill(op: Op, txn: Transaction, request: SpillRequest) -> SpillResponse:
    """EBADF; Busy: another session is at it; StaleFile: written meanwhile, moved out, or rolled back."""
    record = await file_record(txn, request.inode)
    if not await open_count(txn, request.inode, request.mutation.session):
        raise fs_error(errno.EBADF, f"file {request.inode:x} is not open for writing")
    if record.storage is Storage.CHUNKED:
        raise StaleFile("the file lies in chunks already")
    if record.content_version != request.content_version:
        raise StaleFile(f"content is at version {record.content_version}, not {request.content_version}")
    mine = SpillIntent(request.mutation.session, record.content_version)
    if request.finish:
        return await _finish(op, txn, record, mine)
    return await _start(txn, record, mine)


async def _start(txn: Transaction, record: Inode, mine: SpillIntent) -> SpillResponse:
    if record.cutting or record.settling:
        raise Unfinished(record.inode)
    content = await txn.get(content_key(record.inode)) or b""
    if record.storage is Storage.SPILLING:
        if await get_spill(txn, record.inode) != mine:
            raise Busy("another client is moving the file out of the metadata store")
    elif content:
        record = msgspec.structs.replace(record, storage=Storage.SPILLING)
        put_spill(txn, record.inode, mine)
        put_inode(txn, record)
    else:
        record = msgspec.structs.replace(record, storage=Storage.CHUNKED)
        put_inode(txn, record)
    return SpillResponse(attributes=await shown(txn.snapshot, record), content=content)


async def _finish(op: Op, txn: Transaction, record: Inode, mine: SpillIntent) -> SpillResponse:
    if record.storage is not Storage.SPILLING or await get_spill(txn, record.inode) != mine:
        raise StaleFile("this spill was not started, or was given up")
    record = msgspec.structs.replace(record, storage=Storage.CHUNKED, ctime_ns=op.now_ns)
    clear_intent(txn, SPILLS, record.inode)
    txn.clear(content_key(record.inode))
    put_inode(txn, record)
    return SpillResponse(attributes=await shown(txn.snapshot, record))


OPERATION = Operation(SPILL, spill)
