"""truncate: set a file's length; answers when the chunks beyond it are cut (design 3.6).

The transaction leaves an intent and makes the new epoch and length visible; the cut follows before the
answer (``finisher``). A file that grows, and beyond whose new length nobody has written, needs no cut.
"""

from __future__ import annotations

import errno

from fs3.errors import fs_error
from fs3.kv.run import run
from fs3.kv.transaction import Transaction
from fs3.wire.meta import TRUNCATE, InodeKind, StatResponse, TruncateRequest

from ..acl import WRITE, require
from ..driver import Operation
from ..files import AskedEnd, asked_end, calm_or_unlinked, finished_attributes, set_length
from ..inode import Inode, shown
from ..path import existing
from ..services import Op
from ..session import open_count, writers


async def prepare(op: Op, request: TruncateRequest) -> None:
    """If the file may grow and somebody has it open: ask the chains whether there is more than its length."""
    services = op.services

    async def find(txn: Transaction) -> Inode | None:
        reads = txn.snapshot
        _, record = await existing(reads, op.who, request.path, follow=True)
        grows = record.is_file and record.length_bytes <= request.length_bytes
        return record if grows and await writers(reads, record.inode, limit=1) else None

    growing = await run(services.kv, find, clock=services.clock, rng=services.rng, deadline_s=op.deadline_s)
    op.prepared = None
    if growing is not None and not growing.cutting and not growing.settling:
        op.prepared = await asked_end(op, growing)


async def truncate(op: Op, txn: Transaction, request: TruncateRequest) -> StatResponse:
    """EINVAL (negative, or not a file), EFBIG, EISDIR, EACCES; StaleFile, Busy: see ``set_length``."""
    text = request.path.text
    _, seen = await existing(txn.snapshot, op.who, request.path, follow=True, watch=txn)
    if seen.kind is InodeKind.DIRECTORY:
        raise fs_error(errno.EISDIR, "", text)
    if not await open_count(txn.snapshot, seen.inode, request.mutation.session):
        require(op.who, seen, WRITE, text)  # whoever has it open was asked then
    record = await calm_or_unlinked(txn, seen.inode)
    known: AskedEnd | None = op.prepared
    end = known.end if known is not None and known.fits(record) else None
    changed = await set_length(op, txn, record, request.length_bytes, end)
    return StatResponse(attributes=await shown(txn.snapshot, changed))


async def finish(op: Op, request: TruncateRequest, response: StatResponse) -> StatResponse:
    """Cut, if that is needed; the answer names the epoch that is valid afterwards."""
    return StatResponse(attributes=await finished_attributes(op, response.attributes))


OPERATION = Operation(TRUNCATE, truncate, prepare=prepare, finish=finish)
